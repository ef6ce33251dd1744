#include "batching/request.h"

#include <utility>

namespace pyserve {

bool Request::wait(Nanos until, Nanos spin_ns, const Clock& clock) {
  return delivered_.wait_until(
      [this] { return phase_.load(std::memory_order_acquire) == Phase::kDelivered; }, until,
      spin_ns, clock);
}

bool Request::abandon() noexcept {
  return phase_.exchange(Phase::kAbandoned, std::memory_order_acq_rel) == Phase::kWaiting;
}

void Request::deliver(std::span<RequestPtr> requests, RequestQueue& orphans) noexcept {
  while (!requests.empty()) {
    // The queue outlives this burst: the last request of it may be freed while we push.
    const std::shared_ptr<RequestQueue> queue = requests.front()->queue;
    std::size_t run = 1;
    if (queue == nullptr) {
      deliver_to_caller(std::move(requests.front()), orphans);
    } else {
      while (run < requests.size() && requests[run]->queue == queue) {
        ++run;
      }
      queue->push_all(requests.first(run));
    }
    requests = requests.subspan(run);
  }
}

void Request::deliver_to_caller(RequestPtr request, RequestQueue& orphans) noexcept {
  if (request->phase_.exchange(Phase::kDelivered, std::memory_order_acq_rel) == Phase::kAbandoned) {
    orphans.push(std::move(request));
    return;
  }
  // The caller may let go as soon as it sees the phase; our reference keeps the waiter alive.
  request->delivered_.notify_one();
}

}  // namespace pyserve
