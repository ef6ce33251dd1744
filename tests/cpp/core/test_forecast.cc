#include <gtest/gtest.h>

#include <array>
#include <span>

#include "batching/forecast.h"
#include "batching/urgency.h"

namespace pyserve {
namespace {

Nanos start(std::array<Nanos, 3> free_at, std::int64_t batches, Nanos now = 0) {
  return start_after(std::span(free_at), batches, /*each=*/100, now);
}

TEST(StartAfter, AFreeInstanceStartsNow) {
  EXPECT_EQ(start({0, 900, 900}, 0, /*now=*/50), 50);
  EXPECT_EQ(start({900, 20, 900}, 0, /*now=*/50), 50);
}

TEST(StartAfter, WhoIsFreeFirstTakesTheNext) {
  EXPECT_EQ(start({30, 10, 20}, 0), 10);
  EXPECT_EQ(start({30, 10, 20}, 1), 20);
  EXPECT_EQ(start({30, 10, 20}, 2), 30);
}

TEST(StartAfter, EachTakesItsTurnAgain) {
  EXPECT_EQ(start({30, 10, 20}, 3), 110);
  EXPECT_EQ(start({30, 10, 20}, 7), 220);
}

TEST(Messages, SayWhatItTakesAndWhatIsLeft) {
  EXPECT_EQ(too_late(12'300'000, 5'010'000).message,
            "the deadline cannot be met: a run takes about 12.3 ms, 5.1 ms are left");
  EXPECT_EQ(too_late(1, 1).code, Code::kDeadlineExceeded);
  EXPECT_EQ(too_much_waits(70'000'000, 50'000'000).code, Code::kQueueFull);
}

TEST(Urgency, TheNearestDeadlineComesFirst) {
  EXPECT_LT(urgency(kNormalPriority, 1000, 5000), urgency(kNormalPriority, 0, 6000));
}

TEST(Urgency, WhoHasNoDeadlineKeepsTheOrderOfArrival) {
  EXPECT_LT(urgency(kNormalPriority, 0, kNever), urgency(kNormalPriority, 1, kNever));
  EXPECT_LT(urgency(kNormalPriority, 1000, 1'000'000), urgency(kNormalPriority, 0, kNever));
}

TEST(Urgency, AHigherPriorityComesFirstWhateverTheDeadline) {
  EXPECT_LE(urgency(kHighPriority, 1000, kNever), urgency(kNormalPriority, 1000, 1001));
  EXPECT_LE(urgency(kNormalPriority, 1000, kNever), urgency(kLowPriority, 1000, 1001));
}

TEST(Urgency, NobodyWaitsBehindNewcomersForEver) {
  const Nanos oldest = urgency(kLowPriority, 0, kNever);
  EXPECT_LT(oldest, urgency(kHighPriority, 3 * kPriorityStep, 3 * kPriorityStep + 1));
}

}  // namespace
}  // namespace pyserve
