#include <gtest/gtest.h>

#include <cstdint>

#include "batching/policy.h"
#include "seed.h"

namespace pyserve {
namespace {

constexpr BatchPolicy kPolicy{.max_rows = 8, .max_delay = 100};

TEST(Policy, ShipsWhatIsThereWithoutADelay) {
  EXPECT_TRUE(decide({.max_rows = 8}, 1, 50, 50, false).ship);
}

TEST(Policy, WaitsForCompanyUntilTheOldestRowHasWaitedEnough) {
  const Decision decision = decide(kPolicy, 1, /*oldest=*/50, /*now=*/60, false);
  EXPECT_FALSE(decision.ship);
  EXPECT_EQ(decision.wait_until, 150);
  EXPECT_FALSE(decide(kPolicy, 7, 50, 149, false).ship);
  EXPECT_TRUE(decide(kPolicy, 1, 50, 150, false).ship);
  EXPECT_TRUE(decide(kPolicy, 1, 50, 1000, false).ship);
}

TEST(Policy, ShipsAFullBatchAtOnce) {
  EXPECT_TRUE(decide(kPolicy, 8, 50, 50, false).ship);
  EXPECT_TRUE(decide(kPolicy, 9, 50, 50, false).ship);
}

TEST(Policy, ShipsWhenNothingElseCanJoin) {
  EXPECT_TRUE(decide(kPolicy, 1, 50, 50, /*no_more=*/true).ship);
  BatchPolicy alone = kPolicy;
  alone.combine = false;
  EXPECT_TRUE(decide(alone, 1, 50, 50, false).ship);
}

TEST(Policy, NeverWaitsLongerForMoreRowsOrLaterTime) {
  auto random = seeded_random();
  for (int i = 0; i < 10'000; ++i) {
    const BatchPolicy policy{.max_rows = 1 + static_cast<std::int64_t>(random() % 10),
                             .max_delay = static_cast<Nanos>(random() % 100)};
    const auto rows = static_cast<std::int64_t>(1 + random() % 10);
    const auto oldest = static_cast<Nanos>(random() % 100);
    const Nanos now = oldest + static_cast<Nanos>(random() % 200);
    const Decision decision = decide(policy, rows, oldest, now, false);
    if (!decision.ship) {
      ASSERT_GT(decision.wait_until, now);
      ASSERT_TRUE(decide(policy, rows, oldest, decision.wait_until, false).ship);
      ASSERT_FALSE(decide(policy, rows, oldest, decision.wait_until - 1, false).ship);
    } else {
      ASSERT_TRUE(decide(policy, rows + 1, oldest, now, false).ship);
      ASSERT_TRUE(decide(policy, rows, oldest, now + 1, false).ship);
    }
  }
}

}  // namespace
}  // namespace pyserve
