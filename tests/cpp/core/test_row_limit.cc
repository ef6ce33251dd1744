#include <gtest/gtest.h>

#include <cstdint>

#include "batching/row_limit.h"

namespace pyserve {
namespace {

void fit(RowLimit& limit, std::int64_t rows, std::int64_t times) {
  for (std::int64_t i = 0; i < times; ++i) {
    limit.fitted(rows);
  }
}

TEST(RowLimit, ThereIsNoneUntilABatchDoesNotFit) {
  RowLimit limit;
  fit(limit, 32, 10'000);
  EXPECT_EQ(limit.rows(), RowLimit::kNone);
}

TEST(RowLimit, IsHalfOfWhatDidNotFit) {
  RowLimit limit;
  EXPECT_TRUE(limit.too_many(32));
  EXPECT_EQ(limit.rows(), 16);
  EXPECT_TRUE(limit.too_many(13));
  EXPECT_EQ(limit.rows(), 6);
  EXPECT_TRUE(limit.too_many(2));
  EXPECT_FALSE(limit.too_many(1));
  EXPECT_EQ(limit.rows(), 1);
}

TEST(RowLimit, ALargerBatchFormedEarlierRaisesItNotAgain) {
  RowLimit limit;
  limit.too_many(8);
  EXPECT_FALSE(limit.too_many(32));
  EXPECT_EQ(limit.rows(), 4);
}

TEST(RowLimit, AfterManyFullBatchesTwiceAsManyAreTried) {
  RowLimit limit;
  limit.too_many(32);
  fit(limit, 16, RowLimit::kFirstPatience - 1);
  EXPECT_EQ(limit.rows(), 16);
  limit.fitted(16);
  EXPECT_EQ(limit.rows(), 32);
}

TEST(RowLimit, BatchesBelowTheLimitAreNoReasonToRaiseIt) {
  RowLimit limit;
  limit.too_many(32);
  fit(limit, 15, 10 * RowLimit::kFirstPatience);
  EXPECT_EQ(limit.rows(), 16);
}

TEST(RowLimit, ATryThatFailsDoublesThePatienceAndIsNoNews) {
  RowLimit limit;
  limit.too_many(32);
  fit(limit, 16, RowLimit::kFirstPatience);
  EXPECT_FALSE(limit.too_many(32));
  EXPECT_EQ(limit.rows(), 16);
  fit(limit, 16, 2 * RowLimit::kFirstPatience - 1);
  EXPECT_EQ(limit.rows(), 16);
  limit.fitted(16);
  EXPECT_EQ(limit.rows(), 32);
}

TEST(RowLimit, WhatOneOverlargeRowHasTaughtIsForgotten) {
  RowLimit limit;
  limit.too_many(32);
  limit.forget();
  EXPECT_EQ(limit.rows(), RowLimit::kNone);
  EXPECT_FALSE(limit.too_many(32));
  EXPECT_EQ(limit.rows(), 16);
}

}  // namespace
}  // namespace pyserve
