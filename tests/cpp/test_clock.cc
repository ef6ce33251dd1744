#include <gtest/gtest.h>

#include <ctime>

#include "base/clock.h"
#include "fakes.h"

namespace pyserve {
namespace {

// What Python's time.monotonic_ns() reads.
Nanos monotonic_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<Nanos>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

TEST(Clock, SteadyClockReadsTheMonotonicClockInNanoseconds) {
  const Nanos before = monotonic_ns();
  const Nanos now = steady_clock().now();
  const Nanos after = monotonic_ns();
  EXPECT_LE(before, now);
  EXPECT_LE(now, after);
}

TEST(Clock, SteadyClockIsOneForTheProcess) { EXPECT_EQ(&steady_clock(), &steady_clock()); }

TEST(Clock, NeverIsLaterThanEveryInstant) { EXPECT_GT(kNever, steady_clock().now()); }

TEST(FakeClock, MovesOnlyByHand) {
  FakeClock clock(5);
  EXPECT_EQ(clock.now(), 5);
  EXPECT_EQ(clock.now(), 5);
  clock.advance(3);
  EXPECT_EQ(clock.now(), 8);
  clock.set(2);
  EXPECT_EQ(clock.now(), 2);
}

}  // namespace
}  // namespace pyserve
