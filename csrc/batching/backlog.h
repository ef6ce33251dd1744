// backlog.h - how many rows wait that are due before a given deadline.
//
// Those that have a deadline are counted in slots of time, in a ring of slots that covers about a
// second; what is due later when it comes is counted in one sum, and comes after all that the ring
// holds.  Good to one slot, and on the careful side there: rows of the same slot count as due
// before.
//
// Thread safety: every member from any thread.  Relaxed: the counts publish nothing, and an answer
// that misses an addition of this moment is as good as one of the moment before.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"

namespace pyserve {

class Backlog {
 public:
  // Where rows were counted, to be given back to remove().
  using Place = std::uint8_t;

  [[nodiscard]] Place add(Nanos deadline, Nanos now, std::int64_t rows) noexcept {
    const Place place = deadline - now < kSpan ? static_cast<Place>(slot_of(deadline)) : kLater;
    rows_[place].fetch_add(rows, std::memory_order_relaxed);
    return place;
  }

  void remove(Place place, std::int64_t rows) noexcept {
    rows_[place].fetch_sub(rows, std::memory_order_relaxed);
  }

  // Rows due no later than `deadline`, which is ahead of `now`.
  [[nodiscard]] std::int64_t due_before(Nanos deadline, Nanos now) const noexcept {
    const std::size_t last = slot_of(std::min(deadline, now + kSpan - 1));
    std::int64_t sum = 0;
    for (std::size_t slot = slot_of(now);; slot = (slot + 1) % kSlots) {
      sum += rows_[slot].load(std::memory_order_relaxed);
      if (slot == last) {
        break;
      }
    }
    return deadline - now < kSpan ? sum : sum + rows_[kLater].load(std::memory_order_relaxed);
  }

 private:
  static constexpr std::size_t kSlots = 128;
  static constexpr int kSlotShift = 23;  // 8.4 ms
  static constexpr Place kLater = kSlots;
  // One slot less than the ring, so that the first and the last are never the same.
  static constexpr Nanos kSpan = Nanos{kSlots - 1} << kSlotShift;

  static std::size_t slot_of(Nanos instant) noexcept {
    return static_cast<std::size_t>(instant >> kSlotShift) % kSlots;
  }

  std::array<std::atomic<std::int64_t>, kSlots + 1> rows_{};
};

}  // namespace pyserve
