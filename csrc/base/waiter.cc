#include "base/waiter.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <ctime>
#include <limits>

#include "base/clock.h"

namespace pyserve {
namespace {

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

constexpr Nanos kNanosPerSecond = 1'000'000'000;

void futex_wake(std::atomic<std::uint32_t>& word, int count) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

}  // namespace

void Waiter::sleep(std::uint32_t epoch, Nanos timeout) noexcept {
  timespec relative{};
  relative.tv_sec = static_cast<time_t>(timeout / kNanosPerSecond);
  relative.tv_nsec = static_cast<decltype(relative.tv_nsec)>(timeout % kNanosPerSecond);
  // Every result means the same to the caller: look again.
  syscall(SYS_futex, &epoch_, FUTEX_WAIT_PRIVATE, epoch, timeout == kNever ? nullptr : &relative,
          nullptr, 0);
}

void Waiter::wake_one() noexcept { futex_wake(epoch_, 1); }

void Waiter::wake_all() noexcept { futex_wake(epoch_, std::numeric_limits<int>::max()); }

}  // namespace pyserve
