// requests.h - requests between Python and the core: submitted, completed, taken back.
//
// Everything here needs the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "base/status.h"
#include "batching/request.h"
#include "engine/model_version.h"

namespace pyserve::python {

namespace py = pybind11;

using VersionPtr = std::shared_ptr<ModelVersion>;

// A forked child has none of the instance threads: from then on everything is refused.
void mark_forked();
void refuse_after_fork();
bool was_forked();

// Lets go of what came from Python.
void release_inputs(Request& request);

// The answer of a request that has come back, or its failure as an exception.
py::object take_answer(Request& request);

// Ends a version without holding the GIL; the last reference must go where it is held.
void close_version(ModelVersion& version);
VersionPtr own_version(std::unique_ptr<ModelVersion> version);

// Admits and queues `request`, whose inputs, attachment and deadline are set; raises if refused.
void submit_checked(ModelVersion& version, const RequestPtr& request);

// Raises `status` and counts it as this version's refusal.
[[noreturn]] void refuse(ModelVersion& version, const Status& status);

// Sets by when `request` is to be answered, and before whom; 0 leaves either to the model.
void schedule(Request& request, const ModelVersion& version, Nanos deadline_ns,
              std::uint8_t priority);

// Completions on their way to one event loop.
class PyCompletionQueue {
 public:
  PyCompletionQueue() = default;
  ~PyCompletionQueue();
  PyCompletionQueue(const PyCompletionQueue&) = delete;
  PyCompletionQueue& operator=(const PyCompletionQueue&) = delete;

  int fileno() const { return queue_->event_fd(); }
  const std::shared_ptr<RequestQueue>& queue() const { return queue_; }

  // [(token, None, answer) or (token, code name, message), ...], oldest first.
  py::list drain() const;

 private:
  std::shared_ptr<RequestQueue> queue_ = std::make_shared<RequestQueue>();
};

// A submitted request, to be cancelled or expired.
struct PyRequest {
  RequestPtr request;
  VersionPtr version;

  // 0: none.
  Nanos deadline_ns() const { return request->deadline == kNever ? 0 : request->deadline; }

  std::uint8_t priority() const { return request->priority; }

  // True: it ends here.  Its token, which may wait for another request by then, hears no more of
  // it.
  bool cancel() const;
  bool expire() const;
};

}  // namespace pyserve::python
