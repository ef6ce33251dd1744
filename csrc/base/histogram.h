// histogram.h - fixed buckets, relaxed counters, one histogram per writing thread.
//
// A value belongs to the first bucket whose upper bound is not below it (Prometheus'
// "le"), or to the last, open one.  Shards with the same bounds are added up when read.
//
// Thread safety: record() from one thread at a time (whoever owns the shard);
// snapshot() from any thread, at any time.
//
// Happens-before: none.  counts_ and sum_ are relaxed and publish nothing: a snapshot
// taken while the writer records may miss its latest values, and its sum may be a
// value ahead or behind its counts, but no value is lost or counted twice.

#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace pyserve {

// Durations, nanoseconds: 10 us to 60 s.
inline constexpr std::array<std::int64_t, 21> kDurationBoundsNs{
    10'000,         25'000,         50'000,         100'000,       250'000,       500'000,
    1'000'000,      2'500'000,      5'000'000,      10'000'000,    25'000'000,    50'000'000,
    100'000'000,    250'000'000,    500'000'000,    1'000'000'000, 2'500'000'000, 5'000'000'000,
    10'000'000'000, 25'000'000'000, 60'000'000'000,
};

// Rows of a batch.
inline constexpr std::array<std::int64_t, 11> kRowBounds{1,  2,   4,   8,   16,  32,
                                                         64, 128, 256, 512, 1024};

class Histogram {
 public:
  struct Snapshot {
    std::vector<std::uint64_t> counts;  // one per bound, and one for what lies above
    std::int64_t sum = 0;
    std::uint64_t count = 0;  // always the sum of `counts`
  };

  // Bounds ascend strictly; they are copied.
  explicit Histogram(std::span<const std::int64_t> upper_bounds)
      : bounds_(upper_bounds.begin(), upper_bounds.end()),
        counts_(std::make_unique<std::atomic<std::uint64_t>[]>(upper_bounds.size() + 1)) {}

  // Plain load and store rather than a locked add: there is one writer.
  void record(std::int64_t value) noexcept {
    const auto bucket =
        static_cast<std::size_t>(std::ranges::lower_bound(bounds_, value) - bounds_.begin());
    bump(counts_[bucket], std::uint64_t{1});
    bump(sum_, value);
  }

  [[nodiscard]] std::span<const std::int64_t> bounds() const noexcept { return bounds_; }

  [[nodiscard]] Snapshot snapshot() const {
    Snapshot snapshot;
    snapshot.counts.reserve(bounds_.size() + 1);
    for (std::size_t i = 0; i <= bounds_.size(); ++i) {
      snapshot.counts.push_back(counts_[i].load(std::memory_order_relaxed));
      snapshot.count += snapshot.counts.back();
    }
    snapshot.sum = sum_.load(std::memory_order_relaxed);
    return snapshot;
  }

  // Adds `from` to `into`; both have the same bounds, or `into` is empty.
  static void merge(const Snapshot& from, Snapshot& into) {
    into.counts.resize(std::max(into.counts.size(), from.counts.size()));
    for (std::size_t i = 0; i < from.counts.size(); ++i) {
      into.counts[i] += from.counts[i];
    }
    into.sum += from.sum;
    into.count += from.count;
  }

 private:
  template <class T>
  static void bump(std::atomic<T>& counter, T by) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  // Constant after construction.
  const std::vector<std::int64_t> bounds_;

  // Written by the owner of the shard, read by anyone.
  const std::unique_ptr<std::atomic<std::uint64_t>[]> counts_;
  std::atomic<std::int64_t> sum_{0};
};

}  // namespace pyserve
