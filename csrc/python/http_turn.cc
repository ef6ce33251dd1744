// The part of the lane that runs models on the event loop's thread, in batches of what arrived in
// one turn of the loop.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <optional>
#include <utility>

#include "engine/gathered.h"
#include "python/http_lane.h"

namespace pyserve::python {
namespace {

// Rows that take longer, in a batch, are worth a thread of their own.
constexpr Nanos kGatheredRow = 4'000;
// What models may take of one turn of the loop.
constexpr Nanos kTurnTime = 200'000;

// The rows of several requests, one after the other.
Values gather_rows(std::span<const HttpRequest> requests, std::int64_t rows) {
  Values batch;
  const std::vector<PlannedInput>& first = requests.front().plan->inputs;
  for (std::size_t i = 0; i < first.size(); ++i) {
    std::vector<std::int64_t> shape = first[i].shape;
    shape.front() = rows;
    at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(first[i].type));
    auto* out = static_cast<std::byte*>(tensor.mutable_data_ptr());
    for (const HttpRequest& http : requests) {
      const std::size_t bytes = http.plan->inputs[i].bytes;
      if (bytes != 0) {
        std::memcpy(out, http.data(i), bytes);
      }
      out += bytes;
    }
    batch.emplace_back(std::move(tensor));
  }
  return batch;
}

}  // namespace

// Whether requests come one by one: the loop's last turn that saw any saw one.  Then nobody waits
// behind a model that runs at once.
bool HttpLane::arrived_alone() {
  if (++arrivals_ == 1) {
    static PyMethodDef method = {"end_turn",
                                 [](PyObject* self, PyObject*) -> PyObject* {
                                   try {
                                     py::handle(self).cast<HttpLane&>().end_turn();
                                   } catch (py::error_already_set& error) {
                                     error.restore();
                                     return nullptr;
                                   } catch (const std::exception& error) {
                                     PyErr_SetString(PyExc_RuntimeError, error.what());
                                     return nullptr;
                                   }
                                   Py_RETURN_NONE;
                                 },
                                 METH_NOARGS, nullptr};
    const py::object self = py::cast(this);
    call_soon_(py::reinterpret_steal<py::object>(PyCFunction_New(&method, self.ptr())));
    return last_arrivals_ <= 1;
  }
  return false;
}

void HttpLane::end_turn() {
  last_arrivals_ = std::exchange(arrivals_, 0);
  turn_time_ = 0;
  const std::vector<std::shared_ptr<HttpTarget>> waiting = std::exchange(waiting_, {});
  for (const std::shared_ptr<HttpTarget>& target : waiting) {
    run_gathered(target);
  }
}

bool HttpLane::gathers(const HttpRequest& http) {
  const HttpTarget& target = *http.target;
  if (target.row_time > kGatheredRow || http.plan->inputs.empty()) {
    return false;
  }
  const Nanos more = http.plan->rows * target.row_time;
  if (turn_time_ + more > kTurnTime) {
    return false;
  }
  turn_time_ += more;
  return target.gathered.empty() || stackable(*target.gathered.front().plan, *http.plan);
}

void HttpLane::gather(HttpRequest http) {
  const std::shared_ptr<HttpTarget> target = http.target;
  const std::int64_t most = std::max<std::int64_t>(target->version->signature().max_batch_size, 1);
  if (target->rows + http.plan->rows > most) {
    run_gathered(target);
  }
  if (target->gathered.empty()) {
    waiting_.push_back(target);
  }
  target->rows += http.plan->rows;
  target->gathered.push_back(std::move(http));
}

void HttpLane::run_gathered(const std::shared_ptr<HttpTarget>& target) {
  target->rows = 0;
  std::vector<HttpRequest> requests = std::exchange(target->gathered, {});
  std::erase(waiting_, target);
  const Nanos now = steady_clock().now();
  std::erase_if(requests, [&](const HttpRequest& http) { return is_over(http, now); });
  if (!requests.empty()) {
    run_together(requests);
  }
  if (target->gathered.capacity() == 0) {
    requests.clear();
    target->gathered = std::move(requests);  // its memory is reused
  }
}

// Whether a gathered request must not be run any more; it is counted, and answered if anyone waits.
bool HttpLane::is_over(const HttpRequest& http, Nanos now) {
  ModelVersion& version = *http.target->version;
  if (http.client().owner == nullptr) {
    version.count_refused(Code::kCancelled);
    return true;
  }
  if (now < http.deadline) {
    return false;
  }
  const Status status = overdue();
  version.count_refused(status.code);
  send_failure(http.client(), *http.target, status, http.plan->id);
  return true;
}

void HttpLane::run_together(std::span<HttpRequest> requests) {
  const std::shared_ptr<HttpTarget> target = requests.front().target;
  ModelVersion& version = *target->version;
  const Clock& clock = version.clock();
  Gathered gathered{.formed = clock.now()};
  std::vector<GatheredRequest> rows;
  rows.reserve(requests.size());
  std::int64_t all = 0;
  for (const HttpRequest& http : requests) {
    rows.push_back({.rows = http.plan->rows, .arrival = http.started + http.parse_ns});
    all += http.plan->rows;
  }
  const bool alone = requests.size() == 1;
  std::optional<Status> status;
  try {
    const Values inputs = alone ? requests.front().values() : gather_rows(requests, all);
    status = version.run_gathered(inputs, rows, gathered, rehearsal_);
  } catch (const std::exception& error) {  // no memory for the batch
    status = model_failed(error.what());
  }
  if (!status.has_value()) {
    for (HttpRequest& http : requests) {
      queue_instead(http);
    }
    return;
  }
  if (status->ok() || alone) {
    counts_of_all_.run += static_cast<std::int64_t>(requests.size());
  }
  if (status->ok()) {
    BatchPart part{.whole = alone};
    for (std::size_t i = 0; i < requests.size(); ++i) {
      part.rows = rows[i].rows;
      answer(requests[i], gathered.outputs, part,
             requests[i].told(gathered.timing, gathered.formed - rows[i].arrival));
      part.begin += part.rows;
    }
  } else if (alone) {
    send_failure(requests.front().client(), *target, *status, requests.front().plan->id);
  } else {
    // Alone, so that only the poisoned request fails.
    for (std::size_t i = 0; i < requests.size(); ++i) {
      run_together(requests.subspan(i, 1));
    }
  }
}

}  // namespace pyserve::python
