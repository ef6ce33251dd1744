// policy.h - ship the batch that waits, or wait for more: a pure function of what is there.
//
// With a queue delay that the user set, the oldest row waits at most that long for a full batch.
// Without one the policy regroups: callers that wait for their answers before they ask again come
// back a moment after their batch ends, one by one.  Who took the first of them at once would run
// it alone, while the rest of the crowd waits for that run to end.  So a batch waits until its
// share of the crowd (the requests that were in flight of late) is there, but only for a small part
// of the time that a run takes; and a lone caller never waits.  There is a share for each instance,
// so that none idles while another is full.  Where that part of a run is too short to be worth a
// sleep, nobody waits, but a batch still takes no more than its share: the callers of one come back
// while another runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>

#include "base/clock.h"

namespace pyserve {

struct BatchPolicy {
  std::int64_t max_rows = 1;
  std::optional<Nanos> max_delay;  // how long the oldest row may wait for company; unset: regroup
  bool combine = true;             // several requests may share a batch
  std::int64_t shares = 1;         // batches that a crowd is split into (regrouping); instances
  // Elastic threads: the CPUs that the instances have together, which each run gets its part of.
  // 0: an instance runs everything on the same number of threads.
  int cpus = 0;
};

// The part of a run's time that regrouping may take, and what is too short to sleep for.
inline constexpr Nanos kRunsPerRegrouping = 8;
inline constexpr Nanos kShortestRegrouping = 200'000;

// What waits for its batch, and what is known of those that may join it.
struct Waiting {
  std::int64_t rows = 0;
  std::int64_t requests = 0;
  Nanos oldest = 0;        // arrival of the oldest of them
  Nanos since = 0;         // when an instance was free to run them
  std::int64_t share = 1;  // requests that this batch should have
  Nanos run_time = 0;      // of the instance's last batch
  bool no_more = false;    // nothing else can join: the next does not fit, or the version drains
};

struct Decision {
  bool ship = true;
  Nanos wait_until = 0;  // when not shipped: decide again then, or on an arrival
};

inline Decision decide(const BatchPolicy& policy, const Waiting& waiting, Nanos now) {
  if (waiting.no_more || !policy.combine || waiting.rows >= policy.max_rows) {
    return {.ship = true};
  }
  Nanos until = waiting.oldest + policy.max_delay.value_or(0);
  if (!policy.max_delay.has_value()) {
    const Nanos patience = waiting.run_time / kRunsPerRegrouping;
    if (waiting.requests >= waiting.share || patience < kShortestRegrouping) {
      return {.ship = true};
    }
    until = waiting.since + patience;
  }
  return now >= until ? Decision{.ship = true} : Decision{.ship = false, .wait_until = until};
}

// The crowd after a batch was formed while so many requests were in flight: it grows at once, and
// shrinks a little slower, since some who have just been answered may be about to ask again.  More
// than fill all shares is no news, and would take its time to be forgotten.
inline std::int64_t next_crowd(const BatchPolicy& policy, std::int64_t crowd,
                               std::int64_t in_flight) {
  constexpr std::int64_t kSlowness = 4;
  const std::int64_t next =
      in_flight >= crowd ? in_flight
                         : crowd - std::max<std::int64_t>(1, (crowd - in_flight) / kSlowness);
  return std::min(next, policy.shares * policy.max_rows);
}

// The size of a batch to come, by the last ones: it grows at once and shrinks a little slower.
inline std::int64_t next_usual(std::int64_t usual, std::int64_t rows) {
  return rows >= usual ? rows : usual - std::max<std::int64_t>(1, (usual - rows) / 4);
}

// Requests that each batch should take of a crowd.
inline std::int64_t share_of(std::int64_t crowd, std::int64_t shares) {
  return std::max<std::int64_t>(1, (crowd + shares - 1) / shares);
}

// CPUs for the next run where `free` of them are idle, at least one: a lone caller's run gets all,
// and those of a crowd share them, as many as there are instances for.
inline int cpus_for(const BatchPolicy& policy, std::int64_t crowd, int free) {
  const auto runs = std::clamp<std::int64_t>(crowd, 1, policy.shares);
  return std::clamp(static_cast<int>(policy.cpus / runs), 1, free);
}

// What a run of so many rows took, at best.
struct RunTime {
  std::int64_t rows = 0;
  Nanos shortest = kNever;
};

// A batch that comes this near to the best rows per second is large enough: smaller batches answer
// sooner, and leave others to be formed while they run.
inline constexpr double kNearlyBest = 0.9;

// The smallest of the tried sizes that pays, `otherwise` if that is the largest tried, or nothing
// was tried.  `tried` is in ascending order of rows.
inline std::int64_t paying_rows(std::span<const RunTime> tried, std::int64_t otherwise) {
  const auto rate = [](const RunTime& one) {
    return static_cast<double>(one.rows) / static_cast<double>(std::max<Nanos>(one.shortest, 1));
  };
  double best = 0;
  for (const RunTime& one : tried) {
    best = std::max(best, rate(one));
  }
  const auto found = std::ranges::find_if(
      tried, [&](const RunTime& one) { return rate(one) >= kNearlyBest * best; });
  return found == tried.end() || found + 1 == tried.end() ? otherwise : found->rows;
}

}  // namespace pyserve
