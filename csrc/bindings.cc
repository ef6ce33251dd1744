// bindings.cc - pyserve._C: the engine as Python sees it.
//
// The GIL is let go of around everything that may take long (load, drain, close, a synchronous
// wait); a submit and a drain of completions keep it.  No thread of the core ever takes it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/json_numbers.h"
#include "base/notices.h"
#include "engine/model_version.h"
#include "python/convert.h"
#include "python/grpc_lane.h"
#include "python/http_bytes.h"
#include "python/http_lane.h"
#include "python/native_call.h"
#include "python/requests.h"
#include "runtime/device.h"
#include "tensor/collate.h"

namespace pyserve::python {
namespace {

// How long a synchronous caller spins before it sleeps, when nobody else is being served.
constexpr Nanos kCallerSpin = 50'000;
// A sleeping caller looks for Ctrl-C this often.
constexpr Nanos kSignalCheck = 50'000'000;

Dtype dtype_named(std::string_view name) {
  const std::optional<Dtype> dtype = parse_dtype(name);
  if (!dtype.has_value()) {
    throw py::value_error("unknown datatype \"" + std::string(name) + "\"");
  }
  return *dtype;
}

std::size_t bytes_in(const py::buffer_info& info) {
  return static_cast<std::size_t>(info.size * info.itemsize);
}

py::bytearray parse_numbers(const py::buffer& json, std::string_view datatype, std::size_t count) {
  const Dtype dtype = dtype_named(datatype);
  const py::buffer_info info = json.request();
  const std::string_view text{static_cast<const char*>(info.ptr), bytes_in(info)};
  const std::optional<std::size_t> size = checked_mul(count, dtype_size(dtype));
  // A number takes a character and a separator: a lying count cannot make us allocate.
  if (!size.has_value() || count > text.size()) {
    throw py::value_error("expected " + std::to_string(count) + " numbers, the text is too short");
  }
  auto out = py::reinterpret_steal<py::bytearray>(
      PyByteArray_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(*size)));
  if (!out) {
    throw py::error_already_set();
  }
  auto* const numbers = reinterpret_cast<std::byte*>(PyByteArray_AS_STRING(out.ptr()));
  Status status;
  {
    const WithoutGil released;  // both buffers are held
    status = parse_json_numbers(text, dtype, numbers, count);
  }
  if (!status.ok()) {
    throw py::value_error(status.message);
  }
  return out;
}

py::bytes format_numbers(std::string_view datatype, const py::buffer& data) {
  const Dtype dtype = dtype_named(datatype);
  const py::buffer_info info = data.request();
  const std::size_t item = std::max<std::size_t>(dtype_size(dtype), 1);
  std::string out;
  Status status;
  {
    const WithoutGil released;
    status = format_json_numbers(dtype, static_cast<const std::byte*>(info.ptr),
                                 bytes_in(info) / item, out);
  }
  if (!status.ok()) {
    throw py::value_error(status.message);
  }
  return out;
}

// Completed, where `here` allows it and the model is light and idle; else a Request that completes
// through the queue.
py::object submit_wire(const VersionPtr& version, const PyCompletionQueue& queue,
                       const py::sequence& inputs, Nanos deadline_ns, py::object wanted,
                       py::object token, bool here, std::uint8_t priority) {
  refuse_after_fork();
  if (const Status status = check_wanted(version->signature(), wanted); !status.ok()) {
    refuse(*version, status);
  }
  auto request = std::make_shared<Request>();
  auto attachment = std::make_unique<PyAttachment>(version, std::move(token));
  attachment->wire = true;
  attachment->wanted = std::move(wanted);
  const std::vector<WireTensor> tensors = wire_tensors(inputs, *attachment);
  if (const Status status =
          borrow_inputs(version->signature(), tensors, request->inputs, request->rows);
      !status.ok()) {
    request->inputs.clear();
    refuse(*version, status);
  }
  request->borrows = true;
  request->keeps_outputs = false;
  request->attachment = std::move(attachment);
  request->queue = queue.queue();
  schedule(*request, *version, deadline_ns, priority);
  if (here && version->run_here(request)) {
    return take_answer(*request);
  }
  submit_checked(*version, request);
  return py::cast(PyRequest{std::move(request), version});
}

RequestPtr tensor_request(const VersionPtr& version, const py::tuple& args, const py::dict& kwargs,
                          py::object token) {
  refuse_after_fork();
  auto request = std::make_shared<Request>();
  request->inputs = python_inputs(version->signature(), args, kwargs);
  request->attachment = std::make_unique<PyAttachment>(version, std::move(token));
  if (const Status status = check_inputs(version->signature(), request->inputs, request->rows);
      !status.ok()) {
    refuse(*version, status);
  }
  return request;
}

PyRequest submit_tensors(const VersionPtr& version, const PyCompletionQueue& queue,
                         const py::tuple& args, const py::dict& kwargs, Nanos deadline_ns,
                         py::object token, std::uint8_t priority) {
  RequestPtr request = tensor_request(version, args, kwargs, std::move(token));
  request->queue = queue.queue();
  schedule(*request, *version, deadline_ns, priority);
  submit_checked(*version, request);
  return {std::move(request), version};
}

// The caller leaves before its request came back; whoever is last takes it to the orphans.
void abandon(const RequestPtr& request) {
  if (!request->abandon()) {
    release_inputs(*request);
  }
}

// Waits with the GIL let go of.
void wait_delivered(ModelVersion& version, const RequestPtr& request) {
  const Clock& clock = version.clock();
  const Nanos spin = version.in_flight() <= 1 ? kCallerSpin : 0;
  for (Nanos spin_now = spin;; spin_now = 0) {
    const Nanos until = std::min(request->deadline, clock.now() + kSignalCheck);
    bool delivered = false;
    {
      const WithoutGil released;
      delivered = request->wait(until, spin_now, clock);
    }
    if (delivered) {
      return;
    }
    if (clock.now() >= request->deadline && version.expire(*request)) {
      abandon(request);
      raise(deadline_exceeded("the deadline passed before the request was answered"));
    }
    if (PyErr_CheckSignals() != 0) {
      static_cast<void>(version.cancel(*request));
      abandon(request);
      throw py::error_already_set();
    }
  }
}

py::object call(const VersionPtr& version, const py::tuple& args, const py::dict& kwargs,
                Nanos deadline_ns, std::uint8_t priority) {
  RequestPtr request = tensor_request(version, args, kwargs, py::none());
  version->orphans().drain([](const RequestPtr& orphan) { release_inputs(*orphan); });
  schedule(*request, *version, deadline_ns, priority);
  submit_checked(*version, request);
  wait_delivered(*version, request);
  return take_answer(*request);
}

TensorSpec spec_from(const py::handle& item) {
  const auto [name, dtype, shape] =
      item.cast<std::tuple<std::string, std::string, std::vector<std::int64_t>>>();
  return {.name = name, .dtype = dtype_named(dtype), .shape = shape};
}

std::optional<std::vector<TensorSpec>> specs_from(const py::object& items) {
  if (items.is_none()) {
    return std::nullopt;
  }
  std::vector<TensorSpec> specs;
  for (const py::handle& item : items) {
    specs.push_back(spec_from(item));
  }
  return specs;
}

// [(name, dtype or "", shape or None), ...]
py::list specs_list(const std::vector<TensorSpec>& specs) {
  py::list list;
  for (const TensorSpec& spec : specs) {
    list.append(py::make_tuple(
        spec.name, spec.dtype ? dtype_name(*spec.dtype) : "",
        spec.shape ? py::object(py::tuple(py::cast(*spec.shape))) : py::object(py::none())));
  }
  return list;
}

std::optional<Nanos> microseconds(std::optional<std::int64_t> count) {
  return count.has_value() ? std::optional<Nanos>(*count * 1000) : std::nullopt;
}

VersionPtr load(const std::string& name, const std::string& version, const std::string& path,
                const std::string& platform, const std::string& device, const py::object& inputs,
                const py::object& outputs, std::int64_t max_batch_size, bool insist_on_batching,
                std::vector<std::int64_t> allowed_batch_sizes,
                std::vector<std::int64_t> length_buckets,
                const std::vector<std::tuple<std::string, std::int64_t, double>>& length_inputs,
                const std::vector<std::tuple<std::string, std::int64_t>>& length_outputs,
                const std::string& length_mask, bool batch_invariant,
                std::optional<std::int64_t> max_queue_delay_us, std::int64_t queue_capacity,
                int instances, bool plan_instances, int threads, bool elastic, bool warmup,
                bool cuda_graphs, std::int64_t idle_spin_us, const py::sequence& examples,
                std::int64_t default_timeout_ns, std::uint8_t default_priority) {
  LoadOptions options{.name = name,
                      .version = version,
                      .path = path,
                      .platform = platform,
                      .device = device,
                      .inputs = specs_from(inputs),
                      .outputs = specs_from(outputs),
                      .batched = max_batch_size > 0,
                      .max_batch_size = max_batch_size,
                      .insist_on_batching = insist_on_batching,
                      .batch_invariant = batch_invariant,
                      .padding = {.batch_sizes = std::move(allowed_batch_sizes),
                                  .buckets = std::move(length_buckets),
                                  .mask = length_mask},
                      .max_queue_delay = microseconds(max_queue_delay_us),
                      .queue_capacity = queue_capacity,
                      .default_timeout = default_timeout_ns,
                      .default_priority = default_priority,
                      .instances = instances,
                      .plan_instances = plan_instances,
                      .threads = threads,
                      .elastic = elastic,
                      .warmup = warmup,
                      .cuda_graphs = cuda_graphs,
                      .idle_spin = idle_spin_us * 1000};
  for (const auto& [input, dim, pad] : length_inputs) {
    options.padding.inputs.push_back({.name = input, .dim = dim, .pad = pad});
  }
  for (const auto& [output, dim] : length_outputs) {
    options.padding.outputs.push_back({.name = output, .dim = dim});
  }
  if (options.inputs.has_value()) {
    const Signature declared{
        .inputs = *options.inputs, .batched = options.batched, .max_batch_size = max_batch_size};
    for (const py::handle& example : examples) {
      options.examples.push_back(owned_inputs(declared, example.cast<py::sequence>()));
    }
  }
  const WithoutGil released;
  return own_version(std::make_unique<ModelVersion>(options));
}

void define_module(py::module_& m) {
  m.doc() = "The engine of pyserve.  Private: use the pyserve package.";
  m.def("code_names", [] {
    py::list names;
    for (const Code code : kAllCodes) {
      names.append(code_name(code));
    }
    return names;
  });
  m.attr("DURATION_BOUNDS_NS") = py::tuple(py::cast(kDurationBoundsNs));
  m.attr("ROW_BOUNDS") = py::tuple(py::cast(kRowBounds));
  m.def("available_cpus", &available_cpus);
  m.def(
      "resolve_device", [](std::string_view text) { return parse_device(text).str(); },
      py::arg("device"));
  m.def("notices_fileno", [] { return process_notices().fileno(); });
  m.def("take_notices", [] {
    py::list notices;
    for (const Notice& notice : process_notices().take()) {
      notices.append(py::make_tuple(notice_name(notice.kind), notice.text));
    }
    return notices;
  });
  m.def("mark_forked", [] {
    mark_forked();
    forget_native_calls();
  });
  m.def("begin_exit", &begin_exit);
  m.def("await_native_calls", &await_native_calls);
  m.def("parse_json_numbers", &parse_numbers, py::arg("json"), py::arg("datatype"),
        py::arg("count"), py::call_guard<NativeCall>());
  m.def("format_json_numbers", &format_numbers, py::arg("datatype"), py::arg("data"),
        py::call_guard<NativeCall>());

  py::class_<TensorMemory>(m, "TensorMemory", py::buffer_protocol())
      .def_buffer([](TensorMemory& memory) {
        return py::buffer_info(const_cast<void*>(memory.tensor.const_data_ptr()), 1,
                               py::format_descriptor<std::uint8_t>::format(),
                               static_cast<py::ssize_t>(memory.tensor.nbytes()), /*readonly=*/true);
      });
  py::class_<PyCompletionQueue>(m, "CompletionQueue")
      .def(py::init<>())
      .def("fileno", &PyCompletionQueue::fileno)
      .def("drain", &PyCompletionQueue::drain);
  py::class_<PyRequest>(m, "Request")
      .def("cancel", &PyRequest::cancel)
      .def("expire", &PyRequest::expire)
      .def_property_readonly("deadline_ns", &PyRequest::deadline_ns)
      .def_property_readonly("priority", &PyRequest::priority);
  define_http_bytes(m);
  define_http_lane(m);
  define_grpc_lane(m);
  py::class_<ModelVersion, VersionPtr>(m, "ModelVersion")
      .def(py::init(&load), py::kw_only(), py::arg("name"), py::arg("version"), py::arg("path"),
           py::arg("platform"), py::arg("device"), py::arg("inputs"), py::arg("outputs"),
           py::arg("max_batch_size"), py::arg("insist_on_batching"), py::arg("allowed_batch_sizes"),
           py::arg("length_buckets"), py::arg("length_inputs"), py::arg("length_outputs"),
           py::arg("length_mask"), py::arg("batch_invariant"), py::arg("max_queue_delay_us"),
           py::arg("queue_capacity"), py::arg("instances"), py::arg("plan_instances"),
           py::arg("threads"), py::arg("elastic"), py::arg("warmup"), py::arg("cuda_graphs"),
           py::arg("idle_spin_us"), py::arg("examples"), py::arg("default_timeout_ns"),
           py::arg("default_priority"), py::call_guard<NativeCall>())
      .def_property_readonly("device", &ModelVersion::device)
      .def_property_readonly("inputs",
                             [](const ModelVersion& v) { return specs_list(v.signature().inputs); })
      .def_property_readonly(
          "outputs", [](const ModelVersion& v) { return specs_list(v.signature().outputs); })
      .def_property_readonly("max_batch_size",
                             [](const ModelVersion& v) { return v.signature().max_batch_size; })
      .def_property_readonly(
          "allowed_batch_sizes",
          [](const ModelVersion& v) { return v.signature().padding.batch_sizes(); })
      .def_property_readonly("length_buckets",
                             [](const ModelVersion& v) { return v.signature().padding.buckets(); })
      .def_property_readonly("batch_invariant", &ModelVersion::batch_invariant)
      .def_property_readonly("combines", &ModelVersion::combines)
      .def_property_readonly("batching_note", &ModelVersion::batching_note)
      .def_property_readonly("notes", &ModelVersion::notes)
      .def_property_readonly("instances", &ModelVersion::instances)
      .def_property_readonly("elastic", &ModelVersion::elastic)
      .def_property_readonly("runs_here", &ModelVersion::runs_here)
      .def_property_readonly("accepting", &ModelVersion::accepting)
      .def_property_readonly("failure",
                             [](const ModelVersion& v) {
                               return v.failure() != nullptr ? *v.failure() : std::string();
                             })
      .def_property_readonly("row_limit", &ModelVersion::row_limit)
      .def("call", &call, py::arg("args"), py::arg("kwargs"), py::arg("deadline_ns"),
           py::arg("priority"), py::call_guard<NativeCall>())
      .def("submit_wire", &submit_wire, py::arg("queue"), py::arg("inputs"), py::arg("deadline_ns"),
           py::arg("wanted"), py::arg("token"), py::arg("here"), py::arg("priority"),
           py::call_guard<NativeCall>())
      .def("submit_tensors", &submit_tensors, py::arg("queue"), py::arg("args"), py::arg("kwargs"),
           py::arg("deadline_ns"), py::arg("token"), py::arg("priority"),
           py::call_guard<NativeCall>())
      .def("stats", [](const ModelVersion& v) { return stats_dict(v.stats()); })
      .def("drain", &ModelVersion::drain, py::arg("until_ns"),
           py::call_guard<NativeCall, WithoutGil>())
      .def("close", &close_version);
}

}  // namespace
}  // namespace pyserve::python

PYBIND11_MODULE(_C, m) { pyserve::python::define_module(m); }
