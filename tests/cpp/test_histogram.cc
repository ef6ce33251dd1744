#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "base/histogram.h"
#include "seed.h"
#include "threads.h"

namespace pyserve {
namespace {

using Counts = std::vector<std::uint64_t>;

constexpr std::array<std::int64_t, 3> kBounds{10, 20, 40};

TEST(Histogram, StartsAtZero) {
  const Histogram histogram(kBounds);
  const Histogram::Snapshot snapshot = histogram.snapshot();
  EXPECT_EQ(snapshot.counts, Counts(4));
  EXPECT_EQ(snapshot.sum, 0);
  EXPECT_EQ(snapshot.count, 0U);
}

TEST(Histogram, CountsAValueInTheFirstBucketWhoseBoundIsNotBelowIt) {
  Histogram histogram(kBounds);
  for (const std::int64_t value : {-5, 0, 10, 11, 20, 21, 40, 41, 1000}) {
    histogram.record(value);
  }
  const Histogram::Snapshot snapshot = histogram.snapshot();
  EXPECT_EQ(snapshot.counts, (Counts{3, 2, 2, 2}));
  EXPECT_EQ(snapshot.count, 9U);
  EXPECT_EQ(snapshot.sum, -5 + 0 + 10 + 11 + 20 + 21 + 40 + 41 + 1000);
}

TEST(Histogram, WithoutBoundsCountsEverythingInOneBucket) {
  Histogram histogram({});
  histogram.record(std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(histogram.snapshot().counts, Counts{1});
}

TEST(Histogram, AgreesWithALinearSearch) {
  auto random = seeded_random();
  Histogram histogram(kDurationBoundsNs);
  Counts expected(kDurationBoundsNs.size() + 1);
  for (int i = 0; i < 20'000; ++i) {
    const auto value = static_cast<std::int64_t>(random() >> (random() % 32 + 20));
    histogram.record(value);
    std::size_t bucket = 0;
    while (bucket < kDurationBoundsNs.size() && value > kDurationBoundsNs[bucket]) {
      ++bucket;
    }
    ++expected[bucket];
  }
  EXPECT_EQ(histogram.snapshot().counts, expected);
}

TEST(Histogram, MergingAddsShardsUp) {
  Histogram first(kBounds);
  Histogram second(kBounds);
  first.record(5);
  first.record(15);
  second.record(15);
  second.record(99);
  Histogram::Snapshot total;
  Histogram::merge(first.snapshot(), total);
  Histogram::merge(second.snapshot(), total);
  EXPECT_EQ(total.counts, (Counts{1, 2, 0, 1}));
  EXPECT_EQ(total.count, 4U);
  EXPECT_EQ(total.sum, 5 + 15 + 15 + 99);
}

TEST(Histogram, ASnapshotBesideItsWriterNeverGoesBackAndAddsUp) {
  constexpr std::uint64_t kRecords = 100'000;
  Histogram histogram(kBounds);
  std::atomic<bool> done{false};
  run_together(2, [&](std::size_t self) {
    if (self == 0) {
      for (std::uint64_t i = 0; i < kRecords; ++i) {
        histogram.record(static_cast<std::int64_t>(i % 50));
      }
      done.store(true, std::memory_order_release);
      return;
    }
    Counts before(kBounds.size() + 1);
    for (bool last = false; !last;) {
      last = done.load(std::memory_order_acquire);
      const Histogram::Snapshot now = histogram.snapshot();
      EXPECT_EQ(now.count, std::accumulate(now.counts.begin(), now.counts.end(), std::uint64_t{0}));
      EXPECT_TRUE(std::ranges::equal(now.counts, before, std::greater_equal()));
      before = now.counts;
    }
  });
  EXPECT_EQ(histogram.snapshot().count, kRecords);
  EXPECT_EQ(histogram.snapshot().sum, static_cast<std::int64_t>(kRecords / 50 * (49 * 50 / 2)));
}

TEST(Histogram, DurationBoundsAscendFromTenMicrosecondsToAMinute) {
  EXPECT_EQ(kDurationBoundsNs.front(), 10'000);
  EXPECT_EQ(kDurationBoundsNs.back(), 60'000'000'000);
  for (std::size_t i = 1; i < kDurationBoundsNs.size(); ++i) {
    EXPECT_LT(kDurationBoundsNs[i - 1], kDurationBoundsNs[i]);
  }
}

TEST(Histogram, RowBoundsAreThePowersOfTwoTo1024) {
  for (std::size_t i = 0; i < kRowBounds.size(); ++i) {
    EXPECT_EQ(kRowBounds[i], std::int64_t{1} << i);
  }
  EXPECT_EQ(kRowBounds.back(), 1024);
}

}  // namespace
}  // namespace pyserve
