#include "python/requests.h"

#include <atomic>
#include <utility>

#include "python/convert.h"

namespace pyserve::python {
namespace {

// Relaxed: a forked child is born with one thread, which sets it.
std::atomic<bool> forked{false};

void dispose(ModelVersion* version) {
  const std::unique_ptr<ModelVersion> owned(forked.load(std::memory_order_relaxed) ? nullptr
                                                                                   : version);
  if (owned != nullptr) {
    close_version(*owned);
  }
}

const PyAttachment& attachment_of(const Request& request) {
  return static_cast<const PyAttachment&>(*request.attachment);
}

// For who has won the claim: the request is still to be delivered, and that needs the GIL.
bool forget_token(const Request& request) {
  static_cast<PyAttachment&>(*request.attachment).token = py::none();
  return true;
}

py::tuple failure(const Request& request, Code code, const std::string& message) {
  return py::make_tuple(attachment_of(request).token, code_name(code), message);
}

py::tuple settle(const Request& request) {
  if (!request.status.ok()) {
    return failure(request, request.status.code, request.status.message);
  }
  try {
    const PyAttachment& attachment = attachment_of(request);
    return py::make_tuple(attachment.token, py::none(), attachment.answer(request));
  } catch (const NoAnswer& error) {
    return failure(request, Code::kInvalidInput, error.what());
  } catch (const std::exception& error) {
    // Nothing may be lost: the waiter gets what went wrong instead.
    return failure(request, Code::kModelFailed, error.what());
  }
}

}  // namespace

void mark_forked() { forked.store(true, std::memory_order_relaxed); }

bool was_forked() { return forked.load(std::memory_order_relaxed); }

void refuse_after_fork() {
  if (was_forked()) {
    raise(
        unavailable("this process was forked after the model was loaded: load it again here, or "
                    "start processes with the spawn method"));
  }
}

void release_inputs(Request& request) {
  request.inputs.clear();
  request.attachment.reset();
}

py::object take_answer(Request& request) {
  if (request.status.ok()) {
    try {
      py::object answer = attachment_of(request).answer(request);
      release_inputs(request);
      return answer;
    } catch (const NoAnswer& error) {
      request.status = invalid_input(error.what());
    }
  }
  const Status status = request.status;
  release_inputs(request);
  raise(status);
}

void close_version(ModelVersion& version) {
  if (forked.load(std::memory_order_relaxed)) {
    return;  // its threads are the parent's
  }
  {
    const py::gil_scoped_release release;
    version.close();
  }
  version.orphans().drain([](const RequestPtr& request) { release_inputs(*request); });
}

VersionPtr own_version(std::unique_ptr<ModelVersion> version) {
  return {version.release(), &dispose};
}

void submit_checked(ModelVersion& version, const RequestPtr& request) {
  request->key = version.signature().padding.key(request->inputs);
  if (const Status status = version.submit(request); !status.ok()) {
    raise(status);
  }
}

void refuse(ModelVersion& version, const Status& status) {
  version.count_refused(status.code);
  raise(status);
}

void schedule(Request& request, const ModelVersion& version, Nanos deadline_ns,
              std::uint8_t priority) {
  if (deadline_ns > 0) {
    request.deadline = deadline_ns;
  } else if (version.default_timeout() != 0) {
    request.deadline = version.clock().now() + version.default_timeout();
  }
  request.priority = priority != 0 ? priority : version.default_priority();
}

PyCompletionQueue::~PyCompletionQueue() {
  queue_->drain([](const RequestPtr& request) { release_inputs(*request); });
}

py::list PyCompletionQueue::drain() const {
  py::list finished;
  queue_->drain([&](const RequestPtr& request) {
    const PyAttachment& attachment = attachment_of(*request);
    if (!attachment.deliver(*request) && !attachment.token.is_none()) {
      finished.append(settle(*request));
    }
    release_inputs(*request);
  });
  return finished;
}

bool PyRequest::cancel() const { return version->cancel(*request) && forget_token(*request); }

bool PyRequest::expire() const { return version->expire(*request) && forget_token(*request); }

}  // namespace pyserve::python
