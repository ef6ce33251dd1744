// How the holder of the turn forms a batch: see batcher.h and policy.h.
#include <algorithm>
#include <utility>

#include "batching/batcher.h"
#include "batching/forecast.h"

namespace pyserve {
namespace {

Nanos arrival_of(const Pending::Entry& entry) { return entry.request->arrival; }

Nanos deadline_of(const Pending::Entry& entry) { return entry.request->deadline; }

}  // namespace

void Batcher::form(Batch& batch) {
  const std::int64_t crowd = std::max(crowd_, in_flight_of_late());
  Waiting waiting{
      .since = clock_.now(), .share = share_of(crowd, policy_.shares), .run_time = batch.run_time};
  if (policy_.cpus > 0) {
    // Others only give back while we hold the turn: no fewer will be free when the batch ships.
    const int cpus =
        cpus_for(policy_, crowd, policy_.cpus - cpus_taken_.load(std::memory_order_seq_cst));
    elastic_.store(runs_elastic(cpus), std::memory_order_relaxed);
  }
  for (;;) {
    pull(batch);
    const Nanos now = clock_.now();
    choose(batch, waiting.share, now);
    if (chosen_.empty()) {
      return;
    }
    waiting.no_more = no_more_ || !admission_.accepting();
    waiting.rows = rows_;
    waiting.requests = static_cast<std::int64_t>(chosen_.size());
    waiting.oldest = arrival_of(*std::ranges::min_element(chosen_, {}, arrival_of));
    const Decision decision = decide(policy_, waiting, now);
    if (decision.ship) {
      ship(batch, crowd, now);
      return;
    }
    put_back_chosen();
    wait_for_company(decision.wait_until, waiting.share);
  }
}

// Now, or when the last batch ended: its callers are about to ask again.
std::int64_t Batcher::in_flight_of_late() const noexcept {
  return std::max(admission_.in_flight(), before_finish_.load(std::memory_order_relaxed));
}

// Ring -> pending_.  What is cancelled while it waits there is dropped when its turn comes, or when
// there is no more room: nobody may fill the memory with requests that are taken back.
void Batcher::pull(Batch& batch) {
  const std::size_t room = ring_.capacity();
  if (pending_.size() >= room) {
    const Nanos now = clock_.now();
    pending_.remove_if([&](RequestPtr& request) {
      const bool gone = settled(*request, now);
      if (gone) {
        batch.dropped.push_back(std::move(request));
      }
      return gone;
    });
  }
  RequestPtr next;
  while (pending_.size() < room && ring_.try_pop(next)) {
    pending_.push(std::move(next));
  }
}

// The most urgent request and those behind it that may share its batch, `share` at most.
void Batcher::choose(Batch& batch, std::int64_t share, Nanos now) {
  rows_ = 0;
  no_more_ = false;
  while (rows_ < most_rows() && take_next(batch, share, now) && policy_.combine) {
  }
  keep_deadlines(batch, share, now);
  no_more_ |= rows_ >= most_rows();
  for (Pending::Entry& entry : passed_over_) {
    pending_.put_back(std::move(entry));
  }
  passed_over_.clear();
}

// Moves the most urgent request that may join from pending_ to chosen_; false: there is none.
bool Batcher::take_next(Batch& batch, std::int64_t share, Nanos now) {
  const bool regroups = !policy_.max_delay.has_value();
  while (!pending_.empty()) {
    Pending::Entry next = pending_.pop();
    const Request& request = *next.request;
    if (settled(*next.request, now)) {
      batch.dropped.push_back(std::move(next.request));
      continue;
    }
    if (!chosen_.empty()) {
      const Request& first = *chosen_.front().request;
      const bool other =
          request.key != first.key || !padding_.stackable(first.inputs, request.inputs);
      if (other || rows_ + request.rows > most_rows()) {
        no_more_ |= regroups || !other;  // it waits for the next batch: no time to lose
        passed_over_.push_back(std::move(next));
        if (passed_over_.size() < window_) {
          continue;
        }
        no_more_ = true;
        return false;
      }
      if (regroups && std::ssize(chosen_) >= share) {
        no_more_ = true;
        passed_over_.push_back(std::move(next));
        return false;
      }
    }
    rows_ += request.rows;
    chosen_.push_back(std::move(next));
    return true;
  }
  return false;
}

// Sees to it that the batch ends before the nearest deadline in it.  Where that would make it
// smaller although another waits who has a deadline too, and is no less important, the one whose
// deadline it is gives way: as many are answered in time, and the next batch is not late as well.
void Batcher::keep_deadlines(Batch& batch, std::int64_t share, Nanos now) {
  const bool elastic = elastic_.load(std::memory_order_relaxed);
  while (!chosen_.empty()) {
    const auto nearest = std::ranges::min_element(chosen_, {}, deadline_of);
    const Request& request = *nearest->request;
    const Nanos takes = time_of(rows_, elastic);
    if (request.deadline == kNever || request.trial || now + takes <= request.deadline) {
      return;
    }
    const Nanos alone = time_of(request.rows, elastic);
    const auto place = nearest - chosen_.begin();
    Pending::Entry entry = std::move(*nearest);
    chosen_.erase(nearest);
    rows_ -= entry.request->rows;
    if (now + alone > entry.request->deadline || take_instead(batch, *entry.request, share, now)) {
      give_up(batch, entry.request, takes, now);
    } else {
      const Nanos deadline = entry.request->deadline;
      rows_ += entry.request->rows;
      chosen_.insert(chosen_.begin() + place, std::move(entry));
      shrink(deadline, now);
    }
  }
}

// Takes another that `request` gives way to; false: there is none.
bool Batcher::take_instead(Batch& batch, const Request& request, std::int64_t share, Nanos now) {
  if (!take_next(batch, share, now)) {
    return false;
  }
  const Request& other = *chosen_.back().request;
  if (other.deadline != kNever && other.priority <= request.priority) {
    return true;
  }
  rows_ -= other.rows;
  pending_.put_back(std::move(chosen_.back()));
  chosen_.pop_back();
  return false;
}

// Puts the least urgent of the batch back until it ends before `deadline`, which is the nearest in
// it and can be met by its request alone.
void Batcher::shrink(Nanos deadline, Nanos now) {
  const bool elastic = elastic_.load(std::memory_order_relaxed);
  while (chosen_.size() > 1 && now + time_of(rows_, elastic) > deadline) {
    if (deadline_of(chosen_.back()) == deadline) {
      std::swap(chosen_.back(), chosen_[chosen_.size() - 2]);
    }
    rows_ -= chosen_.back().request->rows;
    pending_.put_back(std::move(chosen_.back()));
    chosen_.pop_back();
    no_more_ = true;
  }
}

void Batcher::give_up(Batch& batch, const RequestPtr& request, Nanos takes, Nanos now) {
  request->status = too_late(takes, request->deadline - now);
  expire(*request);
  batch.dropped.push_back(request);
}

void Batcher::put_back_chosen() {
  for (Pending::Entry& entry : chosen_) {
    pending_.put_back(std::move(entry));
  }
  chosen_.clear();
}

void Batcher::ship(Batch& batch, std::int64_t crowd, Nanos now) {
  batch.formed = now;
  batch.rows = rows_;
  crowd_ = next_crowd(policy_, crowd_, in_flight_of_late());
  before_finish_.store(0, std::memory_order_relaxed);
  for (Pending::Entry& entry : chosen_) {
    admission_.dequeue(*entry.request);
    batch.requests.push_back(std::move(entry.request));
  }
  chosen_.clear();
  if (policy_.cpus > 0) {
    const int free = policy_.cpus - cpus_taken_.load(std::memory_order_seq_cst);
    batch.cpus = cpus_for(policy_, crowd, free);
    cpus_taken_.fetch_add(batch.cpus, std::memory_order_seq_cst);
    elastic_.store(runs_elastic(batch.cpus), std::memory_order_relaxed);
  }
  usual_rows_.store(next_usual(usual_rows_.load(std::memory_order_relaxed), rows_),
                    std::memory_order_relaxed);
  if (*batch.instance < kForecastInstances) {
    const Nanos takes = time_of(rows_, runs_elastic(batch.cpus));
    busy_until_[*batch.instance].store(now + takes, std::memory_order_relaxed);
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
  company_wanted_.store(kNobody, std::memory_order_seq_cst);
}

}  // namespace pyserve
