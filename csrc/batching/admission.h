// admission.h - room in the queue, deadline ahead, not draining: refuses, never waits.
//
// Thread safety: every member from any thread.
//
// Happens-before: admit() counts itself in `in_flight_` (seq_cst) before it looks at
// `accepting_` (seq_cst); drain clears `accepting_` (seq_cst) before it looks at `in_flight_`
// (seq_cst).  In the single order of those four one side sees the other: no request slips in
// behind a drain that saw none in flight.  The counters publish no data of their own.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "base/waiter.h"
#include "batching/request.h"

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
    if (queued_.fetch_add(1, std::memory_order_relaxed) >= capacity_) {
      queued_.fetch_sub(1, std::memory_order_relaxed);
      leave(1);
      return {Code::kQueueFull, "the queue is full: " + std::to_string(capacity_) +
                                    " requests wait, try again later"};
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
      queued_.fetch_sub(1, std::memory_order_relaxed);
    }
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
  std::int64_t queued() const noexcept { return queued_.load(std::memory_order_relaxed); }
  std::int64_t in_flight() const noexcept { return in_flight_.load(std::memory_order_seq_cst); }

 private:
  static Status draining() { return unavailable("the model version is draining"); }

  const std::int64_t capacity_;
  std::atomic<bool> accepting_{true};
  std::atomic<std::int64_t> queued_{0};
  std::atomic<std::int64_t> in_flight_{0};
  Waiter idle_;
};

}  // namespace pyserve
