// batcher.h - the queue of one model version, and the turn to form its next batch.
//
// Nobody dispatches.  An idle instance that sees work takes the batch turn, pulls what waits,
// asks the policy, and leaves with a batch; one instance at a time forms a batch.
//
// Thread safety: submit(), cancel(), expire(), stop() from any thread; next_batch() and finish()
// from the instances.
//
// Invariants:
//   (1) only the holder of `turn_` touches `pending_` and pops the ring.
//   (2) a request that was admitted is in the ring, in `pending_`, or in one instance's Batch,
//       and finish() is called for it exactly once.
//
// Happens-before:
//   turn_     release in pass_turn() -> acquire in try_take_turn()   `pending_` and the ring's head
//   ring slot release -> acquire                                 the request is whole
//   The Waiters' seq_cst epochs order the rest: a pusher notifies after its push,
//   a holder that passes the turn looks once more and notifies, so no request is left asleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/ring.h"
#include "base/waiter.h"
#include "batching/admission.h"
#include "batching/policy.h"
#include "batching/request.h"

namespace pyserve {

// What one instance runs next.  It owns this and reuses its memory.
struct Batch {
  std::vector<RequestPtr> requests;
  std::vector<RequestPtr> dropped;  // found cancelled or expired: to be finished, never run
  std::int64_t rows = 0;
  Nanos formed = 0;
  Nanos last_wait = kNever;  // how long the instance waited for the batch before
  Nanos run_time = 0;        // from forming the batch before to coming for this one

  void clear() {
    requests.clear();
    dropped.clear();
    rows = 0;
  }
};

class Batcher {
 public:
  // `idle_spin_ns`: how long an idle instance spins before it sleeps.
  Batcher(BatchPolicy policy, std::int64_t queue_capacity, Nanos idle_spin_ns, const Clock& clock);

  // Admits and queues, or says why not; on refusal the request stays the caller's.
  Status submit(const RequestPtr& request);

  // Admits a request that its submitter runs itself, now: it counts as in flight until leave().
  Status admit(Request& request);
  void leave() noexcept { admission_.leave(1); }
  // The same for a batch of them, which may have no deadlines.
  bool enter(std::int64_t count) noexcept { return admission_.enter(count); }
  void leave(std::int64_t count) noexcept { admission_.leave(count); }

  // True: this call won the claim, and the outcome is settled for the submitter.  The request
  // itself still comes back by delivery, when an instance meets it.
  bool cancel(Request& request) noexcept;
  bool expire(Request& request) noexcept;

  // Blocks until there is something to run or to finish.  False: stopped and nothing is left.
  bool next_batch(Batch& batch);

  // Delivers requests that an instance is done with, in one burst; leaves null pointers behind.
  void finish(std::span<RequestPtr> requests) noexcept;

  void stop_accepting() noexcept;
  // Stops accepting, and cancels what still waits instead of running it.
  void abort() noexcept;
  bool aborted() const noexcept { return aborted_.load(std::memory_order_relaxed); }
  bool wait_idle(Nanos until) { return admission_.wait_idle(until, clock_); }
  // Instances return from next_batch() once the queue is empty.  Precondition: wait_idle().
  void stop() noexcept;

  // Batches of more rows are no faster by the row: where the policy regroups, none is formed.
  void set_paying_rows(std::int64_t rows) noexcept {
    paying_rows_.store(rows, std::memory_order_relaxed);
  }

  const Admission& admission() const noexcept { return admission_; }
  RequestQueue& orphans() noexcept { return orphans_; }
  std::int64_t max_rows() const noexcept { return policy_.max_rows; }

 private:
  bool has_work() const noexcept;
  bool try_take_turn() noexcept;
  void pass_turn() noexcept;
  void pull(Batch& batch);
  void form(Batch& batch);
  void wait_for_company(Nanos until, std::int64_t share);
  bool select(Batch& batch, std::int64_t share);
  void take(Batch& batch);
  bool settled(Request& request, Nanos now) noexcept;

  const BatchPolicy policy_;
  const Nanos idle_spin_ns_;
  const std::size_t window_;  // requests that may wait in `pending_`
  const Clock& clock_;        // outlives the batcher

  Admission admission_;
  Ring<RequestPtr> ring_;
  RequestQueue orphans_;
  std::atomic<bool> turn_{false};
  std::atomic<bool> stopped_{false};
  std::atomic<bool> aborted_{false};  // relaxed: a request that misses it is merely run
  std::atomic<std::int64_t> pending_count_{0};
  // Who submits when so many wait wakes the holder of the turn.  seq_cst against the count in
  // admission; a wake-up missed for that count's relaxed order costs no more than the regrouping.
  std::atomic<std::int64_t> company_wanted_;
  std::atomic<std::int64_t> paying_rows_;  // relaxed: a hint
  Waiter idle_;                            // instances without work
  Waiter forming_;                         // the holder of the turn, waiting for company

  // Owned by the holder of the turn.
  std::vector<RequestPtr> pending_;
  std::vector<std::size_t> chosen_;
  std::int64_t crowd_ = 1;
};

}  // namespace pyserve
