#include "python/convert.h"

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <utility>

namespace pyserve::python {
namespace {

// Small outputs are copied into bytes, which is cheaper than an object that owns a tensor.
constexpr std::size_t kBytesLimit = 16 * 1024;

struct Types {
  py::object output_tensor;
  py::object timing;
  py::object completed;
  py::object from_code;
};

const Types& types() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<Types> storage;
  return storage
      .call_once_and_store_result([] {
        const py::module_ messages = py::module_::import("pyserve.messages");
        return Types{.output_tensor = messages.attr("OutputTensor"),
                     .timing = messages.attr("Timing"),
                     .completed = messages.attr("Completed"),
                     .from_code = py::module_::import("pyserve.errors").attr("from_code")};
      })
      .get_stored();
}

// A NamedTuple from its items, past its Python-level __new__.
template <class... Items>
py::object named_tuple(const py::object& type, Items&&... items) {
  const py::tuple plain = py::make_tuple(std::forward<Items>(items)...);
  auto* const cls = reinterpret_cast<PyTypeObject*>(type.ptr());
  const py::tuple args = py::make_tuple(plain);
  PyObject* const made = PyTuple_Type.tp_new(cls, args.ptr(), nullptr);
  if (made == nullptr) {
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::object>(made);
}

std::string_view text_view(PyObject* text, const char* what) {
  Py_ssize_t size = 0;
  const char* const data =
      PyUnicode_Check(text) != 0 ? PyUnicode_AsUTF8AndSize(text, &size) : nullptr;
  if (data == nullptr) {
    PyErr_Clear();  // a lone surrogate has no UTF-8
    raise(invalid_input(std::string(what) + " must be a Unicode string"));
  }
  return {data, static_cast<std::size_t>(size)};
}

std::vector<std::int64_t> shape_of(PyObject* shape, std::string_view name) {
  const auto items = py::reinterpret_steal<py::object>(
      PySequence_Fast(shape, "shape must be a sequence of integers"));
  if (!items) {
    throw py::error_already_set();
  }
  std::vector<std::int64_t> dims(static_cast<std::size_t>(PySequence_Fast_GET_SIZE(items.ptr())));
  for (std::size_t i = 0; i < dims.size(); ++i) {
    int overflow = 0;
    dims[i] = PyLong_AsLongLongAndOverflow(
        PySequence_Fast_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(i)), &overflow);
    if (overflow != 0) {
      raise(invalid_input("input \"" + std::string(name) +
                          "\" has a dimension that 64 bits cannot hold"));
    }
    if (dims[i] == -1 && PyErr_Occurred() != nullptr) {
      throw py::error_already_set();
    }
  }
  return dims;
}

Value python_value(const TensorSpec& spec, const py::handle& object) {
  if (THPVariable_Check(object.ptr())) {
    return Value(THPVariable_Unpack(object.ptr()));
  }
  if (spec.dtype == Dtype::kBytes || PyUnicode_Check(object.ptr()) != 0) {
    if (PyUnicode_Check(object.ptr()) != 0) {
      return Value(Strings{object.cast<std::string>()});
    }
    try {
      return Value(object.cast<py::list>().cast<Strings>());
    } catch (const py::cast_error&) {
      raise(invalid_input("input \"" + spec.name + "\" must be a list of strings"));
    }
  }
  const py::object tensor = py::module_::import("torch").attr("as_tensor")(object);
  return Value(THPVariable_Unpack(tensor.ptr()));
}

// A memoryview over a tensor's memory, which it keeps alive.
py::object tensor_memory(const at::Tensor& tensor) {
  const py::object owner = py::cast(TensorMemory{tensor});
  return py::reinterpret_steal<py::object>(PyMemoryView_FromObject(owner.ptr()));
}

py::object bytes_of(const Value& value) {
  if (value.is_strings()) {
    const std::vector<std::byte> encoded = encode_strings(*value.strings);
    return py::bytes(reinterpret_cast<const char*>(encoded.data()), encoded.size());
  }
  const std::size_t size = value.tensor.nbytes();
  const auto* data = static_cast<const char*>(value.tensor.const_data_ptr());
  if (size <= kBytesLimit) {
    return py::bytes(data, size);
  }
  return tensor_memory(value.tensor);
}

py::object shape_tuple(const Value& value) {
  if (value.is_strings()) {
    return py::make_tuple(value.rows());
  }
  const auto sizes = value.tensor.sizes();
  py::tuple shape(sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    shape[i] = sizes[i];
  }
  return shape;
}

std::string_view datatype_of(const Value& value) {
  return dtype_name(value.is_strings() ? Dtype::kBytes
                                       : dtype_of(value.tensor.scalar_type()).value());
}

py::object python_output(const Value& value) {
  if (value.is_strings()) {
    return py::cast(*value.strings);
  }
  return py::reinterpret_steal<py::object>(THPVariable_Wrap(value.tensor));
}

py::object output_tensor(const py::object& name, const Value& value) {
  return named_tuple(types().output_tensor, name, py::str(datatype_of(value)), shape_tuple(value),
                     bytes_of(value));
}

const Value& output_called(const Signature& signature, const Request& request,
                           std::string_view name) {
  Signature named;
  if (signature.outputs.empty()) {
    for (const std::string& one : request.names) {
      named.outputs.push_back({.name = one});
    }
  }
  const auto index = (signature.outputs.empty() ? named : signature).output_index(name);
  if (!index.has_value() || *index >= request.outputs.size()) {
    throw NoAnswer("output \"" + std::string(name) + "\" is unknown, expected " +
                   names_text(named.outputs));
  }
  return request.outputs[*index];
}

py::object completed(const Signature& signature, const Request& request, const py::object& wanted) {
  py::list outputs;
  if (wanted.is_none()) {
    for (std::size_t i = 0; i < request.outputs.size(); ++i) {
      outputs.append(
          output_tensor(py::str(output_name(signature, request, i)), request.outputs[i]));
    }
  } else {
    // In the order and by the names of the request: a client that says OUTPUT__0 looks for that.
    for (const py::handle& name : wanted) {
      const Value& value = output_called(signature, request, name.cast<std::string_view>());
      outputs.append(output_tensor(py::reinterpret_borrow<py::object>(name), value));
    }
  }
  const Timing& timing = request.timing;
  return named_tuple(types().completed, outputs,
                     named_tuple(types().timing, timing.queue, timing.batch_size, timing.copy_in,
                                 timing.compute, timing.copy_out, 0, 0));
}

py::object python_outputs(const Signature& signature, OutputForm form, const Request& request) {
  if (form == OutputForm::kSingle && request.outputs.size() == 1) {
    return python_output(request.outputs.front());
  }
  if (form == OutputForm::kDict) {
    py::dict dict;
    for (std::size_t i = 0; i < request.outputs.size(); ++i) {
      dict[py::str(output_name(signature, request, i))] = python_output(request.outputs[i]);
    }
    return dict;
  }
  py::tuple tuple(request.outputs.size());
  for (std::size_t i = 0; i < request.outputs.size(); ++i) {
    tuple[i] = python_output(request.outputs[i]);
  }
  return tuple;
}

py::dict histogram_dict(const Histogram::Snapshot& snapshot) {
  py::dict dict;
  dict["counts"] = py::tuple(py::cast(snapshot.counts));
  dict["sum"] = snapshot.sum;
  return dict;
}

}  // namespace

PyAttachment::PyAttachment(std::shared_ptr<ModelVersion> of, py::object waiter)
    : version(std::move(of)), token(std::move(waiter)) {}

PyAttachment::~PyAttachment() {
  for (Py_buffer& buffer : buffers) {
    PyBuffer_Release(&buffer);
  }
}

void raise(const Status& status) {
  const py::object error =
      types().from_code(py::str(code_name(status.code)), py::str(status.message));
  PyErr_SetObject(py::type::of(error).ptr(), error.ptr());
  throw py::error_already_set();
}

std::vector<WireTensor> wire_tensors(const py::sequence& inputs, PyAttachment& attachment) {
  const auto items = py::reinterpret_steal<py::object>(
      PySequence_Fast(inputs.ptr(), "inputs must be a sequence of InputTensor"));
  if (!items) {
    throw py::error_already_set();
  }
  const auto count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(items.ptr()));
  std::vector<WireTensor> tensors(count);
  attachment.buffers.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    PyObject* const item = PySequence_Fast_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(i));
    if (PyTuple_Check(item) == 0 || PyTuple_GET_SIZE(item) != 4) {
      throw py::type_error("an input must be an InputTensor (name, datatype, shape, data)");
    }
    WireTensor& tensor = tensors[i];
    tensor.name = text_view(PyTuple_GET_ITEM(item, 0), "an input's name");
    tensor.datatype = text_view(PyTuple_GET_ITEM(item, 1), "an input's datatype");
    tensor.shape = shape_of(PyTuple_GET_ITEM(item, 2), tensor.name);
    Py_buffer buffer;
    if (PyObject_GetBuffer(PyTuple_GET_ITEM(item, 3), &buffer, PyBUF_SIMPLE) != 0) {
      throw py::error_already_set();
    }
    attachment.buffers.push_back(buffer);
    tensor.data = {static_cast<const std::byte*>(buffer.buf), static_cast<std::size_t>(buffer.len)};
  }
  return tensors;
}

Values python_inputs(const Signature& signature, const py::tuple& args, const py::dict& kwargs) {
  Values inputs(signature.inputs.size());
  if (args.size() > inputs.size()) {
    raise(invalid_input("the model takes " + std::to_string(inputs.size()) + " inputs, got " +
                        std::to_string(args.size())));
  }
  for (std::size_t i = 0; i < args.size(); ++i) {
    inputs[i] = python_value(signature.inputs[i], args[i]);
  }
  for (const auto& [key, object] : kwargs) {
    const auto name = key.cast<std::string>();
    const std::optional<std::size_t> index = signature.input_index(name);
    if (!index.has_value()) {
      raise(invalid_input("input \"" + name + "\" is unknown"));
    }
    if (!inputs[*index].absent()) {
      raise(invalid_input("input \"" + name + "\" is given twice"));
    }
    inputs[*index] = python_value(signature.inputs[*index], object);
  }
  return inputs;
}

Values owned_inputs(const Signature& signature, const py::sequence& tensors) {
  PyAttachment attachment(nullptr, py::none());
  Values inputs;
  std::int64_t rows = 0;
  const Status status = borrow_inputs(signature, wire_tensors(tensors, attachment), inputs, rows);
  if (!status.ok()) {
    raise(status);
  }
  for (Value& value : inputs) {
    if (value.tensor.defined()) {
      value.tensor = value.tensor.clone();
    }
  }
  return inputs;
}

Status check_wanted(const Signature& signature, const py::object& wanted) {
  if (wanted.is_none() || signature.outputs.empty()) {
    return {};
  }
  for (const py::handle& item : wanted) {
    const std::string_view name = text_view(item.ptr(), "an output's name");
    if (!signature.output_index(name).has_value()) {
      return invalid_input("output \"" + std::string(name) + "\" is unknown, expected " +
                           names_text(signature.outputs));
    }
  }
  return {};
}

py::object PyAttachment::answer(const Request& request) const {
  return wire ? completed(version->signature(), request, wanted)
              : python_outputs(version->signature(), version->output_form(), request);
}

bool PyAttachment::deliver(const Request&) const { return false; }

std::string_view output_name(const Signature& signature, const Request& request,
                             std::size_t index) {
  return signature.outputs_known ? signature.outputs[index].name : request.names[index];
}

py::dict stats_dict(const VersionStats& stats) {
  py::dict failures;
  for (const Code code : kAllCodes) {
    if (code != Code::kOk) {
      failures[py::str(code_name(code))] = stats.outcomes[static_cast<std::size_t>(code)];
    }
  }
  py::dict dict;
  dict["success_count"] = stats.outcomes[static_cast<std::size_t>(Code::kOk)];
  dict["failure_counts"] = failures;
  dict["inference_count"] = stats.rows;
  dict["execution_count"] = stats.batches;
  dict["last_inference_ms"] = stats.last_inference_ms;
  dict["success_ns"] = stats.success_ns;
  dict["failure_ns"] = stats.failure_ns;
  dict["queued"] = stats.queued;
  dict["in_flight"] = stats.in_flight;
  dict["row_limit"] = stats.row_limit;
  dict["request"] = histogram_dict(stats.request);
  dict["queue"] = histogram_dict(stats.queue);
  dict["copy_in"] = histogram_dict(stats.copy_in);
  dict["compute"] = histogram_dict(stats.compute);
  dict["copy_out"] = histogram_dict(stats.copy_out);
  dict["batch_size"] = histogram_dict(stats.batch_size);
  return dict;
}

}  // namespace pyserve::python
