#include <gtest/gtest.h>

#include <cstdint>
#include <thread>

#include "batching/run_times.h"
#include "seed.h"

namespace pyserve {
namespace {

constexpr Nanos kMs = 1'000'000;

void observe(RunTimes& times, std::int64_t rows, Nanos took, int count) {
  for (int i = 0; i < count; ++i) {
    times.observe(rows, took);
  }
}

TEST(RunTimes, NothingIsKnownAtFirst) {
  const RunTimes times;
  EXPECT_EQ(times.estimate(1), 0);
  EXPECT_EQ(times.estimate(1000), 0);
}

TEST(RunTimes, OneRunIsBelieved) {
  RunTimes times;
  times.observe(4, 8 * kMs);
  EXPECT_EQ(times.estimate(4), 8 * kMs);
}

TEST(RunTimes, FewerRowsThanEverRanTakeNoLonger) {
  RunTimes times;
  times.observe(8, 8 * kMs);
  EXPECT_EQ(times.estimate(1), 8 * kMs);
}

TEST(RunTimes, MoreRowsThanEverRanTakeInProportion) {
  RunTimes times;
  times.observe(8, 8 * kMs);
  EXPECT_EQ(times.estimate(32), 32 * kMs);
}

TEST(RunTimes, BetweenTwoSizesItIsInterpolated) {
  RunTimes times;
  times.observe(8, 10 * kMs);
  times.observe(16, 18 * kMs);
  EXPECT_EQ(times.estimate(12), 14 * kMs);
}

TEST(RunTimes, AnOutlierChangesNothing) {
  RunTimes times;
  observe(times, 8, 10 * kMs, 8);
  times.observe(8, 1000 * kMs);
  EXPECT_EQ(times.estimate(8), 10 * kMs);
}

TEST(RunTimes, AJumpIsFollowedWithinTwentyRuns) {
  for (const Nanos then : {100 * kMs, kMs}) {
    RunTimes times;
    observe(times, 8, 10 * kMs, 100);
    observe(times, 8, then, 20);
    EXPECT_EQ(times.estimate(8), then);
  }
}

TEST(RunTimes, AJumpUpwardsIsFollowedAfterTwoRuns) {
  RunTimes times;
  observe(times, 8, 10 * kMs, 100);
  observe(times, 8, 100 * kMs, 2);
  EXPECT_EQ(times.estimate(8), 100 * kMs);
}

TEST(RunTimes, SizesThatAreNotRunAnyMoreKeepUp) {
  RunTimes times;
  times.observe(1, kMs);
  times.observe(32, 20 * kMs);
  observe(times, 8, 100 * kMs, 2);  // all became slower
  EXPECT_GE(times.estimate(32), 100 * kMs);
  observe(times, 8, kMs / 2, 20);  // and faster
  EXPECT_LE(times.estimate(1), kMs / 2);
}

TEST(RunTimes, AnyRowsAreTaken) {
  RunTimes times;
  const std::int64_t rows = std::int64_t{1} << 40;
  times.observe(rows, kMs);
  EXPECT_EQ(times.estimate(rows), kMs);
  EXPECT_GT(times.estimate(rows * 4), 0);
  EXPECT_EQ(times.estimate(0), kMs);
}

// Whatever was observed, more rows never take less.
TEST(RunTimes, EstimatesNeverFallWithRows) {
  auto random = seeded_random();
  for (int round = 0; round < 200; ++round) {
    RunTimes times;
    for (int i = 0; i < 50; ++i) {
      times.observe(static_cast<std::int64_t>(1 + random() % 100),
                    static_cast<Nanos>(1 + random() % 1'000'000));
      Nanos before = 0;
      for (std::int64_t rows = 1; rows <= 130; ++rows) {
        const Nanos now = times.estimate(rows);
        ASSERT_GE(now, before) << rows << " rows, round " << round << ", step " << i;
        before = now;
      }
    }
  }
}

TEST(RunTimes, IsReadWhileItLearns) {
  RunTimes times;
  std::jthread learner([&] {
    for (int i = 0; i < 20'000; ++i) {
      times.observe(1 + i % 32, kMs);
    }
  });
  for (int i = 0; i < 20'000; ++i) {
    const Nanos estimate = times.estimate(1 + i % 32);
    ASSERT_TRUE(estimate == 0 || (estimate >= kMs && estimate <= 64 * kMs));
  }
}

}  // namespace
}  // namespace pyserve
