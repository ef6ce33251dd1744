// batcher.h - the queue of one model version, and the turn to form its next batch.
//
// Nobody dispatches.  An idle instance that sees work takes the batch turn, pulls what waits,
// asks the policy, and leaves with a batch; one instance at a time forms a batch.  The most urgent
// requests come first (urgency.h).
//
// A deadline is kept, or refused as early as can be told.  The batcher learns how long runs take
// (run_times.h).  Who would be answered too late, behind all that is due before, is refused at
// submit; and a batch is made no larger than its nearest deadline allows, unless so many others
// wait that the one is given up for them.
//
// Thread safety: submit(), cancel(), expire(), stop() from any thread; next_batch() and finish()
// from the instances.
//
// Invariants:
//   (1) only the holder of `turn_` touches `pending_` and pops the ring.
//   (2) a request that was admitted is in the ring, in `pending_`, or in one instance's Batch,
//       and finish() is called for it exactly once.
//   (3) with elastic threads, the runs together have no more CPUs than `policy.cpus`: only the
//       holder of the turn takes any, and forms no batch while none is free.
//
// Happens-before:
//   turn_     release in pass_turn() -> acquire in try_take_turn()   `pending_` and the ring's head
//   ring slot release -> acquire                                 the request is whole
//   cpus_taken_  seq_cst: whoever gives CPUs back looks for work afterwards, so a batch that waited
//             for them is not left
//   The Waiters' seq_cst epochs order the rest: a pusher notifies after its push,
//   a holder that passes the turn looks once more and notifies, so no request is left asleep.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/ring.h"
#include "base/waiter.h"
#include "batching/admission.h"
#include "batching/pending.h"
#include "batching/policy.h"
#include "batching/request.h"
#include "batching/row_limit.h"
#include "batching/run_times.h"
#include "tensor/padding.h"

namespace pyserve {

// What one instance runs next.  It owns this and reuses its memory.
struct Batch {
  std::vector<RequestPtr> requests;
  std::vector<RequestPtr> dropped;  // found cancelled or expired: to be finished, never run
  std::int64_t rows = 0;
  Nanos formed = 0;
  int cpus = 0;                         // threads to run it on; 0: as always
  Nanos last_wait = kNever;             // how long the instance waited for the batch before
  Nanos run_time = 0;                   // from forming the batch before to coming for this one
  std::optional<std::size_t> instance;  // the owner's number, which the batcher gives it

  void clear() {
    requests.clear();
    dropped.clear();
    rows = 0;
  }
};

class Batcher {
 public:
  // `idle_spin_ns`: how long an idle instance spins before it sleeps.
  // `padding`: which requests may share a batch.
  Batcher(BatchPolicy policy, std::int64_t queue_capacity, Nanos idle_spin_ns, const Clock& clock,
          Padding padding = {});

  // Admits and queues, or says why not; on refusal the request stays the caller's.
  Status submit(const RequestPtr& request);

  // Admits a request that its submitter runs itself, now: it counts as in flight until leave().
  Status admit(Request& request);
  // The same for a batch of them, which may have no deadlines.
  bool enter(std::int64_t count) noexcept { return admission_.enter(count); }
  void leave(std::int64_t count = 1) noexcept { admission_.leave(count); }

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

  // A run of `rows` took so long in the warm-up.  Before the first next_batch() forms a batch.
  void learn(const RunTime& run, bool elastic) noexcept;

  // What the device's memory has room for; holds with and without a queue delay.
  RowLimit& row_limit() noexcept { return row_limit_; }

  const Admission& admission() const noexcept { return admission_; }
  RequestQueue& orphans() noexcept { return orphans_; }
  std::int64_t max_rows() const noexcept { return policy_.max_rows; }

 private:
  // With more instances than this, the first so many stand for all in forecasts.
  static constexpr std::size_t kForecastInstances = 32;
  // Of company_wanted_: nobody waits for company.
  static constexpr std::int64_t kNobody = std::numeric_limits<std::int64_t>::max();

  // What one run took, told by its instance when it comes for the next.
  struct Lesson {
    std::int64_t rows = 0;
    Nanos took = 0;
    bool elastic = false;
  };

  bool has_work() const noexcept;
  bool try_take_turn() noexcept;
  void pass_turn() noexcept;
  Lesson give_back(Batch& batch) noexcept;

  Status foresee(Request& request, Nanos now);
  bool allows_trial(Nanos now) noexcept;
  // A run takes what all its rows take, those that it is filled up with too.
  Nanos time_of(std::int64_t rows, bool elastic) const noexcept {
    return run_times_[elastic ? 1 : 0].estimate(padding_.rows_for(rows));
  }
  void observe(std::int64_t rows, Nanos took, bool elastic) noexcept {
    run_times_[elastic ? 1 : 0].observe(padding_.rows_for(rows), took);
    last_lesson_.store(clock_.now(), std::memory_order_relaxed);
  }
  // More than an instance's share of the CPUs.
  bool runs_elastic(int cpus) const noexcept { return cpus * policy_.shares > policy_.cpus; }
  std::int64_t most_rows() const noexcept;
  std::int64_t in_flight_of_late() const noexcept;

  void pull(Batch& batch);
  void form(Batch& batch);
  void choose(Batch& batch, std::int64_t share, Nanos now);
  bool take_next(Batch& batch, std::int64_t share, Nanos now);
  bool take_instead(Batch& batch, const Request& request, std::int64_t share, Nanos now);
  void keep_deadlines(Batch& batch, std::int64_t share, Nanos now);
  void shrink(Nanos deadline, Nanos now);
  void give_up(Batch& batch, const RequestPtr& request, Nanos takes, Nanos now);
  void put_back_chosen();
  void ship(Batch& batch, std::int64_t crowd, Nanos now);
  void wait_for_company(Nanos until, std::int64_t share);
  bool settled(Request& request, Nanos now) noexcept;

  const BatchPolicy policy_;
  const Padding padding_;
  const Nanos idle_spin_ns_;
  const std::size_t window_;  // requests that may be passed over for one batch
  const Clock& clock_;        // outlives the batcher

  Admission admission_;
  Ring<RequestPtr> ring_;
  RequestQueue orphans_;
  std::atomic<bool> turn_{false};
  std::atomic<bool> stopped_{false};
  std::atomic<bool> aborted_{false};  // relaxed: a request that misses it is merely run
  std::atomic<std::int64_t> pending_count_{0};
  std::atomic<int> cpus_taken_{0};
  // Who submits when so many wait wakes the holder of the turn.  seq_cst against the count in
  // admission; a wake-up missed for that count's relaxed order costs no more than the regrouping.
  std::atomic<std::int64_t> company_wanted_;
  std::atomic<std::int64_t> paying_rows_;  // relaxed: a hint
  RowLimit row_limit_;
  Waiter idle_;     // instances without work
  Waiter forming_;  // the holder of the turn, waiting for company

  // What forecasts are made from: relaxed hints, none of which publishes anything.
  std::array<RunTimes, 2> run_times_;  // on the threads of a crowd's share; on more than those
  std::array<std::atomic<Nanos>, kForecastInstances> busy_until_{};  // 0: free
  std::atomic<std::size_t> instances_{0};                            // numbers given out
  std::atomic<std::int64_t> usual_rows_{1};                          // of the last batches
  std::atomic<bool> elastic_{false};                                 // the last batch ran on more
  std::atomic<std::int64_t> before_finish_{0};  // in flight when a batch ended, its own included
  std::atomic<Nanos> last_lesson_{0};

  // Owned by the holder of the turn.
  Pending pending_;
  std::vector<Pending::Entry> passed_over_;  // may not join this batch
  std::vector<Pending::Entry> chosen_;       // the batch that is being formed,
  std::int64_t rows_ = 0;                    // its rows,
  bool no_more_ = false;                     // and whether nothing else could join it
  std::int64_t crowd_ = 1;
};

}  // namespace pyserve
