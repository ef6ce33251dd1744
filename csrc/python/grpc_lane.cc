#include "python/grpc_lane.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "python/lane.h"
#include "python/native_call.h"
#include "wire/oip_proto.h"

namespace pyserve::python {
namespace {

class GrpcAttachment final : public LaneAttachment {
 public:
  using LaneAttachment::LaneAttachment;

  // A tuple of the ModelInferResponse and of where the time went.
  py::object answer(const Request& request) const override;
};

py::object GrpcAttachment::answer(const Request& request) const {
  const LaneAnswer answer(*this, request, false);
  const std::size_t size = infer_response_bytes(answer.view());
  // Written where it is to be: an answer may be large.
  auto message = py::reinterpret_steal<py::bytes>(
      PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
  if (!message) {
    throw py::error_already_set();
  }
  write_infer_response(answer.view(), PyBytes_AS_STRING(message.ptr()));
  static std::string timing;  // guarded by the GIL
  timing.clear();
  append_server_timing(answer.view().timing, timing);
  return py::make_tuple(std::move(message), py::bytes(timing));
}

// What all calls of one server share.
class GrpcLane {
 public:
  // The model's name and version (None: it names none), for a lease; or None: the plain lane's.
  // What was read is kept for the submit that follows.
  py::object read(const py::bytes& message) {
    const Nanos started = steady_clock().now();
    asked_text_ = py::none();
    if (!parse_infer_request(message, asked_)) {
      return py::none();
    }
    asked_text_ = message;
    if (asked_.model != model_ || asked_.version != version_ || !target_) {
      model_ = asked_.model;
      version_ = asked_.version;
      target_ = py::make_tuple(
          model_, version_.empty() ? py::object(py::none()) : py::object(py::str(version_)));
    }
    read_ns_ = steady_clock().now() - started;
    return target_;
  }

  // What the attachment answers, where the model is light and idle; a Request that completes
  // through the queue with such an answer; or None: the plain lane's.  Raises what admission
  // refuses.
  py::object submit(const VersionPtr& version, const PyCompletionQueue& queue,
                    const py::bytes& message, Nanos deadline_ns, py::object token) {
    refuse_after_fork();
    if (!asked_text_.is(message) && read(message).is_none()) {
      return py::none();
    }
    asked_text_ = py::none();  // the views are good for one submit
    const Nanos started = steady_clock().now();
    const Signature& signature = version->signature();
    auto attachment = std::make_unique<GrpcAttachment>(version, std::move(token));
    if (!lane_serves(signature) ||
        !choose_outputs(signature, asked_.outputs, true, attachment->outputs)) {
      return py::none();
    }
    tensors_.resize(asked_.inputs.size());
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const ProtoInput& input = asked_.inputs[i];
      tensors_[i].name = input.name;
      tensors_[i].datatype = input.datatype;
      tensors_[i].shape = input.shape;
      tensors_[i].data = std::as_bytes(std::span(input.data));
    }
    RequestPtr request = lane_request(signature, tensors_);
    if (request == nullptr) {
      return py::none();
    }
    attachment->text = message;
    attachment->id = asked_.id;
    attachment->parse_ns = read_ns_ + (steady_clock().now() - started);
    return run_lane(version, queue, std::move(request), std::move(attachment),
                    {.started = started,
                     .timeout_us = asked_.timeout_us,
                     .deadline_ns = deadline_ns,
                     .priority = asked_.priority});
  }

 private:
  py::object asked_text_ = py::none();  // what `asked_` has views of, once they were read
  ProtoRequest asked_;                  // its memory is reused
  Nanos read_ns_ = 0;
  std::vector<WireTensor> tensors_;  // its memory is reused
  // What was asked for last.
  std::string model_, version_;
  py::object target_;
};

}  // namespace

void define_grpc_lane(py::module_& m) {
  py::class_<GrpcLane>(m, "GrpcLane")
      .def(py::init<>())
      .def("read", &GrpcLane::read, py::arg("message"))
      .def("submit", &GrpcLane::submit, py::arg("version"), py::arg("queue"), py::arg("message"),
           py::arg("deadline_ns"), py::arg("token"), py::call_guard<NativeCall>());
}

}  // namespace pyserve::python
