// fakes.h - stand-ins for what a test wants to hold in its own hands.

#pragma once

#include <atomic>

#include "base/clock.h"

namespace pyserve {

// A clock moved by hand, from any thread.  A waiter looks at it again when notified.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(Nanos start = 0) noexcept : now_(start) {}

  [[nodiscard]] Nanos now() const noexcept override { return now_.load(std::memory_order_acquire); }

  void set(Nanos now) noexcept { now_.store(now, std::memory_order_release); }
  void advance(Nanos by) noexcept { now_.fetch_add(by, std::memory_order_acq_rel); }

 private:
  std::atomic<Nanos> now_;
};

}  // namespace pyserve
