// forecast.h - when a run could start, by what runs and what waits before it; and what is said to a
// request whose deadline that does not meet.  Pure functions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.h"
#include "base/status.h"

namespace pyserve {

// The start of a run that has `batches` others before it, each of which takes `each`, where
// instances are free at the instants `free_at` (those in the past: now).  Whoever is free first
// takes the next one.  `free_at` is not empty; its order is lost.
inline Nanos start_after(std::span<Nanos> free_at, std::int64_t batches, Nanos each, Nanos now) {
  for (Nanos& free : free_at) {
    free = std::max(free, now);
  }
  const auto instances = std::ssize(free_at);
  const auto turn = free_at.begin() + static_cast<std::ptrdiff_t>(batches % instances);
  std::ranges::nth_element(free_at, turn);
  return *turn + batches / instances * each;
}

// A run `takes` longer than is `left`: nothing can be done about that.
Status too_late(Nanos takes, Nanos left);

// The answer would be there after `ends_in`, with what waits; it is worth trying again later.
Status too_much_waits(Nanos ends_in, Nanos left);

}  // namespace pyserve
