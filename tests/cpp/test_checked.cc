#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "base/checked.h"
#include "seed.h"

namespace pyserve {
namespace {

constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
constexpr std::int64_t kMaxDim = std::numeric_limits<std::int64_t>::max();

std::optional<std::size_t> elements(std::initializer_list<std::int64_t> dims) {
  return checked_elements(std::span(dims.begin(), dims.size()));
}

TEST(Checked, MultipliesUpToTheLargestSizeAndNoFurther) {
  EXPECT_EQ(checked_mul(6, 7), 42U);
  EXPECT_EQ(checked_mul(0, kMax), 0U);
  EXPECT_EQ(checked_mul(kMax, 1), kMax);
  EXPECT_EQ(checked_mul(kMax / 2 + 1, 2), std::nullopt);
  EXPECT_EQ(checked_mul(kMax, kMax), std::nullopt);
}

TEST(Checked, AddsUpToTheLargestSizeAndNoFurther) {
  EXPECT_EQ(checked_add(40, 2), 42U);
  EXPECT_EQ(checked_add(kMax, 0), kMax);
  EXPECT_EQ(checked_add(kMax, 1), std::nullopt);
}

TEST(Checked, ATensorOfRankZeroHasOneElement) { EXPECT_EQ(elements({}), 1U); }

TEST(Checked, ElementsAreTheProductOfTheDimensions) {
  EXPECT_EQ(elements({3}), 3U);
  EXPECT_EQ(elements({2, 3, 4}), 24U);
  EXPECT_EQ(elements({kMaxDim, 1}), static_cast<std::size_t>(kMaxDim));
  EXPECT_EQ(elements({2, 0, 4}), 0U);
}

TEST(Checked, ANegativeDimensionIsRefusedEvenBesideAnEmptyOne) {
  EXPECT_EQ(elements({-1}), std::nullopt);
  EXPECT_EQ(elements({0, -1}), std::nullopt);
  EXPECT_EQ(elements({2, std::numeric_limits<std::int64_t>::min()}), std::nullopt);
}

TEST(Checked, AProductBeyondInt64IsRefusedEvenBesideAnEmptyDimension) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  EXPECT_EQ(elements({kHuge, 2}), std::nullopt);
  EXPECT_EQ(elements({kHuge, kHuge}), std::nullopt);
  EXPECT_EQ(elements({0, kHuge, kHuge}), std::nullopt);
  EXPECT_EQ(elements({kHuge, kHuge, 0}), std::nullopt);
  EXPECT_EQ(elements({std::int64_t{1} << 32, std::int64_t{1} << 32}), std::nullopt);
}

TEST(Checked, AgreesWithArithmeticThatCannotOverflow) {
  auto random = seeded_random();
  for (int round = 0; round < 10'000; ++round) {
    std::vector<std::int64_t> dims(random() % 5);
    long double exact = 1;
    for (std::int64_t& dim : dims) {
      dim = static_cast<std::int64_t>(random() >> (1 + random() % 63));
      exact *= dim == 0 ? 1 : static_cast<long double>(dim);
    }
    // The nearest products that are not overflows are far from 2^63 in a long double.
    EXPECT_EQ(checked_elements(dims).has_value(), exact <= static_cast<long double>(kMaxDim));
  }
}

}  // namespace
}  // namespace pyserve
