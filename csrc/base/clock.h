// clock.h - the one way to read time.
//
// Code that waits or expires takes a `const Clock&`, so that a test moves time by
// hand.  Instants are nanoseconds of CLOCK_MONOTONIC: the same numbers as Python's
// time.monotonic_ns() on the same machine, so a deadline crosses the language
// border unchanged.

#pragma once

#include <cstdint>
#include <ctime>
#include <limits>

namespace pyserve {

using Nanos = std::int64_t;

// The deadline of what has none.
inline constexpr Nanos kNever = std::numeric_limits<Nanos>::max();

class Clock {
 public:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  Clock(Clock&&) = delete;
  Clock& operator=(Clock&&) = delete;
  virtual ~Clock() = default;

  // Callable from any thread; never goes back.
  [[nodiscard]] virtual Nanos now() const noexcept = 0;
};

class SteadyClock final : public Clock {
 public:
  [[nodiscard]] Nanos now() const noexcept override {
    // The vDSO answers without a system call; with a valid clock id it cannot fail.
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<Nanos>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
  }
};

// The process's real clock; lives until exit and beyond static destructors.
[[nodiscard]] const Clock& steady_clock() noexcept;

}  // namespace pyserve
