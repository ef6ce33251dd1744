// run_times.h - how long a run of so many rows takes, learnt from the runs themselves.
//
// One bucket for each power of two of rows.  A bucket knows its last few runs and stands for the
// second longest of them: one outlier changes nothing, and a model whose time jumps is followed
// after two runs upwards and a window downwards.  Between the buckets' points it is interpolated.
// Fewer rows never take longer than more: where an observation says so, the older point gives way,
// so that buckets which are not used any more keep up with those that are.
//
// Thread safety: observe() by one thread at a time (the holder of the batch turn); estimate() from
// any thread.  The points are relaxed atomics: a reader may see the rows of one observation with
// the time of another, of the same bucket, which an estimate can stand.  No allocation.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace pyserve {

class RunTimes {
 public:
  // A run of `rows` took so long; both are positive.
  void observe(std::int64_t rows, Nanos took) noexcept {
    const std::size_t bucket = bucket_of(rows);
    Window& window = windows_[bucket];
    window.add(rows, took);
    const Nanos typical = window.second_longest();
    set(bucket, window.mean_rows(), typical);
    for (std::size_t other = 0; other < kBuckets; ++other) {
      const Nanos known = points_[other].took.load(std::memory_order_relaxed);
      if (known != 0 && (other < bucket ? known > typical : other > bucket && known < typical)) {
        points_[other].took.store(typical, std::memory_order_relaxed);
        windows_[other] = {};
      }
    }
  }

  // What a run of `rows` is expected to take; 0: nothing is known yet.
  [[nodiscard]] Nanos estimate(std::int64_t rows) const noexcept {
    std::int64_t rows_below = 0;
    Nanos below = 0;
    for (const Point& point : points_) {
      const Nanos took = point.took.load(std::memory_order_relaxed);
      if (took == 0) {
        continue;
      }
      const std::int64_t here = point.rows.load(std::memory_order_relaxed);
      if (here >= rows) {
        return below == 0 || here == rows_below
                   ? took
                   : below + (took - below) * (rows - rows_below) / (here - rows_below);
      }
      rows_below = here;
      below = took;
    }
    // More than ever ran: in proportion, which is the worst that more rows usually do.
    return rows_below == 0
               ? 0
               : static_cast<Nanos>(static_cast<double>(below) * static_cast<double>(rows) /
                                    static_cast<double>(rows_below));
  }

 private:
  static constexpr std::size_t kBuckets = 21;  // the last one has all above 2^19 rows
  static constexpr std::size_t kWindow = 8;

  struct Point {
    std::atomic<std::int64_t> rows{0};
    std::atomic<Nanos> took{0};  // 0: none yet
  };

  struct Run {
    std::int64_t rows = 0;
    Nanos took = 0;
  };

  // The last runs of one bucket.
  struct Window {
    std::array<Run, kWindow> runs{};
    std::size_t count = 0;
    std::size_t next = 0;

    void add(std::int64_t rows, Nanos took) noexcept {
      runs[next] = {.rows = rows, .took = std::max<Nanos>(took, 1)};
      next = (next + 1) % kWindow;
      count = std::min(count + 1, kWindow);
    }
    [[nodiscard]] Nanos second_longest() const noexcept {
      Nanos longest = 0;
      Nanos second = 0;
      for (std::size_t i = 0; i < count; ++i) {
        second = std::max(second, std::min(longest, runs[i].took));
        longest = std::max(longest, runs[i].took);
      }
      return count == 1 ? longest : second;
    }
    [[nodiscard]] std::int64_t mean_rows() const noexcept {
      std::int64_t sum = 0;
      for (std::size_t i = 0; i < count; ++i) {
        sum += runs[i].rows;
      }
      return sum / static_cast<std::int64_t>(count);
    }
  };

  // Ascending, so that the means of two buckets never change places.
  static std::size_t bucket_of(std::int64_t rows) noexcept {
    const auto ceiling = std::bit_width(static_cast<std::uint64_t>(rows - 1));
    return std::min(static_cast<std::size_t>(ceiling), kBuckets - 1);
  }

  void set(std::size_t bucket, std::int64_t rows, Nanos took) noexcept {
    points_[bucket].rows.store(rows, std::memory_order_relaxed);
    points_[bucket].took.store(took, std::memory_order_relaxed);
  }

  std::array<Point, kBuckets> points_;    // relaxed
  std::array<Window, kBuckets> windows_;  // the observer's
};

}  // namespace pyserve
