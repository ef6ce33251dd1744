// row_limit.h - how many rows of a batch the device's memory has room for, as far as is known.
//
// Nothing is known until a batch does not fit.  Then the limit is half of it, and half of that if
// this does not fit either.  What took the memory may go away (another process, another model): so
// after a number of batches of just the limit's size it is doubled, which either holds or costs
// that one batch a second run, and twice the patience before the next try.
//
// Thread safety: every member from any thread.
//
// Orders: all relaxed.  Each is a hint that guards no other data; two instances that update it at
// once leave one of the two values, and the next batch corrects it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>

namespace pyserve {

class RowLimit {
 public:
  static constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
  static constexpr std::int64_t kFirstPatience = 1024;
  static constexpr std::int64_t kMostPatience = std::int64_t{1} << 20;

  std::int64_t rows() const noexcept { return rows_.load(std::memory_order_relaxed); }

  // A batch of so many rows did not fit.  True: the limit is news, lower than it ever was.
  bool too_many(std::int64_t rows) noexcept {
    const std::int64_t before = this->rows();
    const std::int64_t half = std::max<std::int64_t>(1, rows / 2);
    if (half >= before) {
      return false;  // it was formed before another one failed
    }
    rows_.store(half, std::memory_order_relaxed);
    full_runs_.store(0, std::memory_order_relaxed);
    const std::int64_t patience = patience_.load(std::memory_order_relaxed);
    patience_.store(std::min(patience * 2, kMostPatience), std::memory_order_relaxed);
    if (half >= lowest_.load(std::memory_order_relaxed)) {
      return false;
    }
    lowest_.store(half, std::memory_order_relaxed);
    return true;
  }

  // One row alone did not fit: what was found with it says nothing of how many others do.
  void forget() noexcept { rows_.store(kNone, std::memory_order_relaxed); }

  // A batch of so many rows did fit.
  void fitted(std::int64_t rows) noexcept {
    const std::int64_t limit = this->rows();
    if (rows != limit) {
      return;
    }
    const std::int64_t runs = full_runs_.fetch_add(1, std::memory_order_relaxed) + 1;
    if (runs >= patience_.load(std::memory_order_relaxed)) {
      full_runs_.store(0, std::memory_order_relaxed);
      rows_.store(limit * 2, std::memory_order_relaxed);
    }
  }

 private:
  std::atomic<std::int64_t> rows_{kNone};
  std::atomic<std::int64_t> lowest_{kNone};
  std::atomic<std::int64_t> full_runs_{0};
  std::atomic<std::int64_t> patience_{kFirstPatience / 2};  // doubled by the first that fails
};

}  // namespace pyserve
