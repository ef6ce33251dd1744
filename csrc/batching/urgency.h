// urgency.h - which of the waiting requests comes first: a pure function of one request.
//
// The smaller, the sooner.  Within a priority the nearest deadline comes first; who has none counts
// as due after a while, in the order of arrival.  A lower priority is put off by a fixed span.  The
// value of a request never changes while that of newcomers grows with time, so that nobody starves:
// whatever keeps coming, a request waits behind newcomers for no longer than kPriorities steps.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace pyserve {

using Priority = std::uint8_t;
inline constexpr Priority kHighPriority = 1;
inline constexpr Priority kNormalPriority = 2;
inline constexpr Priority kLowPriority = 3;
inline constexpr std::size_t kPriorities = 3;

// By how much a priority is put off behind the next higher one, and when a request without a
// deadline counts as due.  Deadlines further away than that are no hurry either.
inline constexpr Nanos kPriorityStep = 5'000'000'000;

constexpr Nanos urgency(Priority priority, Nanos arrival, Nanos deadline) {
  return (priority - kHighPriority) * kPriorityStep + std::min(deadline, arrival + kPriorityStep);
}

}  // namespace pyserve
