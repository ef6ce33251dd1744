#include "batching/batcher.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "tensor/collate.h"

namespace pyserve {
namespace {

constexpr std::size_t kMinWindow = 64;
constexpr std::size_t kWindowBatches = 4;

// Of company_wanted_: nobody waits for company; who waits by a queue delay hears of each arrival.
constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kAny = 0;

// Cancelled requests keep their slot until an instance meets them, though they no longer count
// as waiting: twice the room, so that they cannot fill the queue.
std::size_t ring_capacity(std::int64_t queue_capacity) {
  return static_cast<std::size_t>(queue_capacity) * 2;
}

}  // namespace

Batcher::Batcher(BatchPolicy policy, std::int64_t queue_capacity, Nanos idle_spin_ns,
                 const Clock& clock)
    : policy_(policy),
      idle_spin_ns_(idle_spin_ns),
      window_(std::max(kMinWindow, kWindowBatches * static_cast<std::size_t>(policy.max_rows))),
      clock_(clock),
      admission_(queue_capacity),
      ring_(ring_capacity(queue_capacity)),
      company_wanted_(policy.max_delay.has_value() && *policy.max_delay > 0 ? kAny : kNone),
      paying_rows_(policy.max_rows) {
  pending_.reserve(window_);
  chosen_.reserve(window_);
}

Status Batcher::submit(const RequestPtr& request) {
  request->arrival = clock_.now();
  if (Status status = admission_.admit(*request, request->arrival); !status.ok()) {
    return status;
  }
  RequestPtr item = request;
  if (!ring_.try_push(item)) {
    admission_.dequeue(*request);
    admission_.leave(1);
    return {Code::kQueueFull, "the queue is full of cancelled requests, try again later"};
  }
  if (admission_.queued() >= company_wanted_.load(std::memory_order_seq_cst)) {
    forming_.notify_one();
  }
  idle_.notify_one();
  return {};
}

Status Batcher::admit(Request& request) {
  request.arrival = clock_.now();
  Status status = admission_.admit(request, request.arrival);
  if (status.ok()) {
    admission_.dequeue(request);
  }
  return status;
}

bool Batcher::cancel(Request& request) noexcept {
  if (!request.claim.try_cancel()) {
    return false;
  }
  admission_.dequeue(request);
  return true;
}

bool Batcher::expire(Request& request) noexcept {
  if (!request.claim.try_expire()) {
    return false;
  }
  admission_.dequeue(request);
  return true;
}

// Only the holder of the turn knows for sure; for others a hint that is good once `turn_` was
// read free: that load sees the ring's head as the last holder left it.
bool Batcher::has_work() const noexcept {
  return !ring_.empty() || pending_count_.load(std::memory_order_seq_cst) > 0;
}

bool Batcher::try_take_turn() noexcept {
  return !turn_.load(std::memory_order_seq_cst) && has_work() &&
         !turn_.exchange(true, std::memory_order_seq_cst);
}

void Batcher::pass_turn() noexcept {
  pending_count_.store(static_cast<std::int64_t>(pending_.size()), std::memory_order_seq_cst);
  turn_.store(false, std::memory_order_seq_cst);
  // Whoever found the turn taken may have gone to sleep over what is left.
  idle_.notify_one_if([this] { return has_work(); });
}

bool Batcher::settled(Request& request, Nanos now) noexcept {
  if (aborted_.load(std::memory_order_relaxed)) {
    cancel(request);
  } else if (now >= request.deadline) {
    expire(request);
  }
  return request.claim.outcome() != Outcome::kOpen;
}

// Ring -> pending_, settled ones -> dropped.
void Batcher::pull(Batch& batch) {
  const Nanos now = clock_.now();
  const auto settled_ones = std::stable_partition(
      pending_.begin(), pending_.end(), [&](const RequestPtr& r) { return !settled(*r, now); });
  std::move(settled_ones, pending_.end(), std::back_inserter(batch.dropped));
  pending_.erase(settled_ones, pending_.end());
  RequestPtr next;
  while (pending_.size() < window_ && ring_.try_pop(next)) {
    (settled(*next, now) ? batch.dropped : pending_).push_back(std::move(next));
  }
}

// The oldest request and those behind it that may share its batch, `share` at most.  True: nothing
// more could join, because one is left over or the window is full.
bool Batcher::select(Batch& batch, std::int64_t share) {
  chosen_.clear();
  batch.rows = 0;
  bool left_over = false;
  const Request& oldest = *pending_.front();
  const bool regroups = !policy_.max_delay.has_value();
  const std::int64_t max_rows =
      regroups ? std::min(policy_.max_rows, paying_rows_.load(std::memory_order_relaxed))
               : policy_.max_rows;
  for (std::size_t i = 0; i < pending_.size() && batch.rows < max_rows; ++i) {
    const Request& request = *pending_[i];
    if (i > 0 && (request.key != oldest.key || !stackable(oldest.inputs, request.inputs))) {
      left_over |= regroups;  // it waits for the next batch: no time to lose
      continue;
    }
    if (regroups && static_cast<std::int64_t>(chosen_.size()) >= share) {
      left_over = true;
      break;
    }
    if (batch.rows + request.rows > max_rows && !chosen_.empty()) {
      left_over = true;
      continue;
    }
    chosen_.push_back(i);
    batch.rows += request.rows;
    if (!policy_.combine) {
      break;
    }
  }
  return left_over || batch.rows >= max_rows || pending_.size() == window_;
}

void Batcher::take(Batch& batch) {
  for (const std::size_t i : chosen_) {
    admission_.dequeue(*pending_[i]);
    batch.requests.push_back(std::move(pending_[i]));
  }
  std::erase_if(pending_, [](const RequestPtr& request) { return request == nullptr; });
}

bool Batcher::next_batch(Batch& batch) {
  if (!batch.requests.empty()) {
    batch.run_time = clock_.now() - batch.formed;
  }
  batch.clear();
  for (;;) {
    bool have_turn = false;
    // Spinning pays where the next request comes soon, and steals the CPU where it does not: the
    // last wait tells.
    const Nanos spin_ns = batch.last_wait < idle_spin_ns_ ? idle_spin_ns_ : 0;
    const Nanos from = clock_.now();
    idle_.wait_until(
        [&] {
          have_turn = try_take_turn();
          return have_turn || stopped_.load(std::memory_order_seq_cst);
        },
        kNever, spin_ns, clock_);
    batch.last_wait = clock_.now() - from;
    if (!have_turn) {
      return false;  // work that another instance has the turn for is that instance's to finish
    }
    form(batch);
    pass_turn();
    if (!batch.requests.empty() || !batch.dropped.empty()) {
      return true;
    }
  }
}

void Batcher::form(Batch& batch) {
  const std::int64_t crowd = std::max(crowd_, admission_.in_flight());
  Waiting waiting{
      .since = clock_.now(), .share = share_of(crowd, policy_.shares), .run_time = batch.run_time};
  for (;;) {
    pull(batch);
    if (pending_.empty()) {
      return;
    }
    waiting.no_more = select(batch, waiting.share) || !admission_.accepting();
    waiting.rows = batch.rows;
    waiting.requests = static_cast<std::int64_t>(chosen_.size());
    waiting.oldest = pending_.front()->arrival;
    const Nanos now = clock_.now();
    const Decision decision = decide(policy_, waiting, now);
    if (decision.ship) {
      batch.formed = now;
      crowd_ = next_crowd(policy_, crowd_, admission_.in_flight());
      take(batch);
      return;
    }
    wait_for_company(decision.wait_until, waiting.share);
  }
}

void Batcher::wait_for_company(Nanos until, std::int64_t share) {
  if (policy_.max_delay.has_value()) {
    forming_.wait_until([this] { return !ring_.empty() || !admission_.accepting(); }, until,
                        /*spin_ns=*/0, clock_);
    return;
  }
  company_wanted_.store(share, std::memory_order_seq_cst);
  forming_.wait_until(
      [this, share] { return admission_.queued() >= share || !admission_.accepting(); }, until,
      /*spin_ns=*/0, clock_);
  company_wanted_.store(kNone, std::memory_order_seq_cst);
}

void Batcher::finish(std::span<RequestPtr> requests) noexcept {
  const std::size_t count = requests.size();
  Request::deliver(requests, orphans_);
  admission_.leave(static_cast<std::int64_t>(count));
}

void Batcher::stop_accepting() noexcept {
  admission_.stop_accepting();
  forming_.notify_all();
}

void Batcher::abort() noexcept {
  aborted_.store(true, std::memory_order_relaxed);
  stop_accepting();
}

void Batcher::stop() noexcept {
  stopped_.store(true, std::memory_order_seq_cst);
  idle_.notify_all();
}

}  // namespace pyserve
