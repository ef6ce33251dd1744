#include "batching/batcher.h"

#include <algorithm>
#include <utility>

#include "batching/forecast.h"

namespace pyserve {
namespace {

constexpr std::size_t kMinWindow = 64;
constexpr std::size_t kWindowBatches = 4;

// Of company_wanted_: who waits by a queue delay hears of each arrival.
constexpr std::int64_t kAny = 0;

// When nothing has been learnt for so long, a request whose deadline seems too near is run after
// all: what was learnt may be wrong by now, and nothing else would tell.
constexpr Nanos kTrialPeriod = 2'000'000'000;

// All that admission lets wait (its capacity for each priority), and as many again that are
// cancelled: they keep their slot until an instance meets them, though they no longer count.
std::size_t ring_capacity(std::int64_t queue_capacity) {
  return static_cast<std::size_t>(queue_capacity) * (kPriorities + 1);
}

}  // namespace

Batcher::Batcher(BatchPolicy policy, std::int64_t queue_capacity, Nanos idle_spin_ns,
                 const Clock& clock, Padding padding)
    : policy_(policy),
      padding_(std::move(padding)),
      idle_spin_ns_(idle_spin_ns),
      window_(std::max(kMinWindow, kWindowBatches * static_cast<std::size_t>(policy.max_rows))),
      clock_(clock),
      admission_(queue_capacity),
      ring_(ring_capacity(queue_capacity)),
      company_wanted_(policy.max_delay.has_value() && *policy.max_delay > 0 ? kAny : kNobody),
      paying_rows_(policy.max_rows) {
  pending_.reserve(ring_.capacity());
  chosen_.reserve(window_);
  passed_over_.reserve(window_);
}

Status Batcher::submit(const RequestPtr& request) {
  const Nanos now = clock_.now();
  request->arrival = now;
  request->urgency = urgency(request->priority, now, request->deadline);
  if (request->deadline != kNever && now < request->deadline && admission_.accepting()) {
    if (Status status = foresee(*request, now); !status.ok()) {
      return status;
    }
  }
  if (Status status = admission_.admit(*request, now); !status.ok()) {
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

// Whether the request can be answered by its deadline, by all that is known.
Status Batcher::foresee(Request& request, Nanos now) {
  const bool elastic = elastic_.load(std::memory_order_relaxed);
  const Nanos left = request.deadline - now;
  const Nanos alone = time_of(request.rows, elastic);
  if (alone > left) {
    request.trial = allows_trial(now);
    return request.trial ? Status{} : too_late(alone, left);
  }
  std::array<Nanos, kForecastInstances> free_at{};
  const auto instances = std::min(
      kForecastInstances, static_cast<std::size_t>(std::max<std::int64_t>(policy_.shares, 1)));
  for (std::size_t i = 0; i < instances; ++i) {
    free_at[i] = busy_until_[i].load(std::memory_order_relaxed);
  }
  const std::int64_t most = most_rows();
  const std::int64_t before = admission_.rows_before(request, now);
  const Nanos start =
      start_after(std::span(free_at).first(instances), before / most, time_of(most, elastic), now);
  // While others run, a batch gathers; it will be as large as the last ones were.
  std::int64_t rows = before % most + request.rows;
  if (start > now) {
    rows = std::max(rows, usual_rows_.load(std::memory_order_relaxed));
  }
  const Nanos end = start + time_of(std::max(request.rows, std::min(rows, most)), elastic);
  if (end > request.deadline) {
    return too_much_waits(end - now, left);
  }
  return {};
}

bool Batcher::allows_trial(Nanos now) noexcept {
  Nanos last = last_lesson_.load(std::memory_order_relaxed);
  return now - last >= kTrialPeriod &&
         last_lesson_.compare_exchange_strong(last, now, std::memory_order_relaxed);
}

std::int64_t Batcher::most_rows() const noexcept {
  const std::int64_t most = std::min(policy_.max_rows, row_limit_.rows());
  return policy_.max_delay.has_value()
             ? most
             : std::min(most, paying_rows_.load(std::memory_order_relaxed));
}

void Batcher::learn(const RunTime& run, bool elastic) noexcept {
  if (run.rows > 0 && run.shortest != kNever) {
    observe(run.rows, run.shortest, elastic);
  }
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
  return (!ring_.empty() || pending_count_.load(std::memory_order_seq_cst) > 0) &&
         (policy_.cpus == 0 || cpus_taken_.load(std::memory_order_seq_cst) < policy_.cpus);
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

bool Batcher::next_batch(Batch& batch) {
  Lesson lesson = give_back(batch);
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
    if (policy_.cpus > 0 && cpus_taken_.load(std::memory_order_seq_cst) >= policy_.cpus) {
      pass_turn();  // another took the last ones just before us; it will look for work itself
      continue;
    }
    if (lesson.rows > 0) {
      observe(lesson.rows, lesson.took, lesson.elastic);
      lesson = {};
    }
    form(batch);
    pass_turn();
    if (!batch.requests.empty() || !batch.dropped.empty()) {
      return true;
    }
  }
}

// What the instance had for its last batch; what that took is told once it has the turn.
Batcher::Lesson Batcher::give_back(Batch& batch) noexcept {
  Lesson lesson;
  if (!batch.instance.has_value()) {
    batch.instance = instances_.fetch_add(1, std::memory_order_relaxed);
  }
  if (!batch.requests.empty()) {
    batch.run_time = clock_.now() - batch.formed;
    lesson = {.rows = batch.rows, .took = batch.run_time, .elastic = runs_elastic(batch.cpus)};
  }
  if (*batch.instance < kForecastInstances) {
    busy_until_[*batch.instance].store(0, std::memory_order_relaxed);
  }
  if (batch.cpus > 0) {
    cpus_taken_.fetch_sub(batch.cpus, std::memory_order_seq_cst);
    batch.cpus = 0;
  }
  return lesson;
}

void Batcher::finish(std::span<RequestPtr> requests) noexcept {
  const std::size_t count = requests.size();
  if (count == 0) {
    return;
  }
  // Looked at before: whoever is answered may be back at once, and must not count twice.
  before_finish_.store(admission_.in_flight(), std::memory_order_relaxed);
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
