// hardware.h - what the lock-free files assume about the processor.

#pragma once

#include <cstddef>

namespace pyserve {

// What two threads write must lie this far apart, or they slow each other down.
// (std::hardware_destructive_interference_size may differ between translation
// units compiled with different -mtune, which would break the layout.)
inline constexpr std::size_t kCacheLineBytes = 64;

// One beat of a spin loop: yields the core's resources to its other hardware thread
// and keeps the loop's exit from being mispredicted.  Roughly 5 to 50 ns.
inline void spin_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // `yield` is a no-op on most cores
#endif
}

}  // namespace pyserve
