// admission.h - room in the queue, deadline ahead, not draining: refuses, never waits.
//
// Thread safety: every member from any thread.
//
// Happens-before: admit() counts itself in `in_flight_` (seq_cst) before it looks at
// `accepting_` (seq_cst); drain clears `accepting_` (seq_cst) before it looks at `in_flight_`
// (seq_cst).  In the single order of those four one side sees the other: no request slips in
// behind a drain that saw none in flight.  The counters publish no data of their own.
//
// Room is counted by priority: a request finds the queue full when as many wait that are no less
// urgent.  So the low ones cannot fill it for the high ones, and it never holds more than
// kPriorities times its capacity.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "base/waiter.h"
#include "batching/backlog.h"
#include "batching/request.h"
#include "batching/urgency.h"

namespace pyserve {

class Admission {
 public:
  explicit Admission(std::int64_t capacity) : capacity_(capacity) {}

  Status admit(Request& request, Nanos now) {
    // Once more before counting, so that a crowd of the refused cannot keep a drain waiting.
    if (!accepting()) {
      return draining();
    }
    in_flight_.fetch_add(1, std::memory_order_seq_cst);
    if (!accepting_.load(std::memory_order_seq_cst)) {
      leave(1);
      return draining();
    }
    if (now >= request.deadline) {
      leave(1);
      return {Code::kDeadlineExceeded, "the deadline passed before the request was admitted"};
    }
    // Relaxed: a count of room, it orders nothing; the ring publishes the request.
    const std::size_t level = level_of(request);
    if (queued_[level].fetch_add(1, std::memory_order_relaxed) + queued_above(level) >= capacity_) {
      queued_[level].fetch_sub(1, std::memory_order_relaxed);
      leave(1);
      return {Code::kQueueFull, "the queue is full: " + std::to_string(capacity_) +
                                    " requests wait, try again later"};
    }
    if (request.deadline != kNever) {
      request.backlog_place = backlogs_[level].add(request.deadline, now, request.rows);
    }
    request.queued.store(true, std::memory_order_relaxed);
    return {};
  }

  // Counts `count` requests that their submitter runs himself as in flight until leave(); false,
  // and nothing is counted, once the version drains.
  bool enter(std::int64_t count) noexcept {
    if (!accepting()) {
      return false;
    }
    in_flight_.fetch_add(count, std::memory_order_seq_cst);
    if (!accepting_.load(std::memory_order_seq_cst)) {
      leave(count);
      return false;
    }
    return true;
  }

  // The request no longer waits: its batch was formed, or it was cancelled or expired.
  void dequeue(Request& request) noexcept {
    if (request.queued.exchange(false, std::memory_order_relaxed)) {
      const std::size_t level = level_of(request);
      queued_[level].fetch_sub(1, std::memory_order_relaxed);
      if (request.deadline != kNever) {
        backlogs_[level].remove(request.backlog_place, request.rows);
      }
    }
  }

  // Rows that wait and come before `request`, about: of its own priority those due before it, and
  // all requests of higher ones, a row each.
  [[nodiscard]] std::int64_t rows_before(const Request& request, Nanos now) const noexcept {
    const std::size_t level = level_of(request);
    return backlogs_[level].due_before(request.deadline, now) + queued_above(level);
  }

  // `count` requests were delivered (or refused).
  void leave(std::int64_t count) noexcept {
    if (in_flight_.fetch_sub(count, std::memory_order_seq_cst) == count &&
        !accepting_.load(std::memory_order_seq_cst)) {
      idle_.notify_all();
    }
  }

  void stop_accepting() noexcept { accepting_.store(false, std::memory_order_seq_cst); }

  // True once nothing is in flight; false when `until` came first.
  bool wait_idle(Nanos until, const Clock& clock) {
    return idle_.wait_until([this] { return in_flight() == 0; }, until, /*spin_ns=*/0, clock);
  }

  bool accepting() const noexcept { return accepting_.load(std::memory_order_seq_cst); }
  std::int64_t queued() const noexcept { return queued_above(kPriorities); }
  std::int64_t in_flight() const noexcept { return in_flight_.load(std::memory_order_seq_cst); }

 private:
  static std::size_t level_of(const Request& request) noexcept {
    return request.priority - kHighPriority;
  }

  // Requests of higher priority than that of `level` that wait.
  std::int64_t queued_above(std::size_t level) const noexcept {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < level; ++i) {
      sum += queued_[i].load(std::memory_order_relaxed);
    }
    return sum;
  }

  static Status draining() { return unavailable("the model version is draining"); }

  const std::int64_t capacity_;
  std::atomic<bool> accepting_{true};
  std::array<std::atomic<std::int64_t>, kPriorities> queued_{};
  std::array<Backlog, kPriorities> backlogs_{};
  std::atomic<std::int64_t> in_flight_{0};
  Waiter idle_;
};

}  // namespace pyserve
