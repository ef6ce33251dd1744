// stats.h - what one instance counts, and the sum over all instances of a version.
//
// Thread safety: one InstanceStats per instance, its only writer (relaxed load and store);
// snapshots from any thread.  Nothing is published through these counters.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/clock.h"
#include "base/histogram.h"
#include "base/status.h"

namespace pyserve {

// A counter with one writer.
class Tally {
 public:
  void add(std::int64_t by) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
  void set(std::int64_t value) noexcept { value_.store(value, std::memory_order_relaxed); }
  std::int64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> value_{0};
};

using CodeCounts = std::array<std::int64_t, kAllCodes.size()>;

struct InstanceStats {
  std::array<Tally, kAllCodes.size()> outcomes;  // requests by how they ended
  Tally success_ns;                              // admission to completion, summed
  Tally failure_ns;
  Tally rows;
  Tally batches;  // model calls
  Tally last_inference_ms;
  Histogram request{kDurationBoundsNs};
  Histogram queue{kDurationBoundsNs};
  Histogram copy_in{kDurationBoundsNs};
  Histogram compute{kDurationBoundsNs};
  Histogram copy_out{kDurationBoundsNs};
  Histogram batch_size{kRowBounds};
};

struct VersionStats {
  CodeCounts outcomes{};
  std::int64_t success_ns = 0;
  std::int64_t failure_ns = 0;
  std::int64_t rows = 0;
  std::int64_t batches = 0;
  std::int64_t last_inference_ms = 0;
  std::int64_t queued = 0;
  std::int64_t in_flight = 0;
  std::int64_t row_limit = 0;  // rows of a batch that memory has room for; 0: all that it may have
  Histogram::Snapshot request;
  Histogram::Snapshot queue;
  Histogram::Snapshot copy_in;
  Histogram::Snapshot compute;
  Histogram::Snapshot copy_out;
  Histogram::Snapshot batch_size;
};

}  // namespace pyserve
