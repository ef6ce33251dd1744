// convert.h - values of the core <-> Python objects.  Everything here needs the GIL.
#pragma once

#include <Python.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <stdexcept>
#include <vector>

#include "base/status.h"
#include "batching/request.h"
#include "engine/model_version.h"
#include "runtime/executable.h"
#include "tensor/borrow.h"
#include "tensor/signature.h"

namespace pyserve::python {

namespace py = pybind11;

// What a Python submitter gets back with its request: the buffers that inputs point into, the
// object it waits on, the outputs it asked for and their form.  Dies under the GIL.
class PyAttachment : public Attachment {
 public:
  PyAttachment(std::shared_ptr<ModelVersion> of, py::object waiter);
  ~PyAttachment() override;

  // A finished request's outputs: messages.Completed for the wire, else what model(x) returns, a
  // tensor, a tuple or a dict of tensors.  Throws NoAnswer.
  virtual py::object answer(const Request& request) const;
  // Whether it sees to a finished request itself: nobody else is to be told.
  virtual bool deliver(const Request& request) const;

  std::vector<Py_buffer> buffers;
  std::shared_ptr<ModelVersion> version;
  py::object token;
  py::object wanted = py::none();  // a tuple of output names, or None
  bool wire = false;
};

// An answer that cannot be given as it was asked for: an output that the model turned out not to
// have, or a number that JSON does not know.
class NoAnswer : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// What a memoryview of a large output keeps alive.
struct TensorMemory {
  at::Tensor tensor;
};

// Raises the exception of pyserve.errors that `status` stands for.
[[noreturn]] void raise(const Status& status);

// Sequence[InputTensor] -> tensors that point into the buffers, which `attachment` holds from
// then on.  Views of names live as long as `inputs`.
std::vector<WireTensor> wire_tensors(const py::sequence& inputs, PyAttachment& attachment);

// model(*args, **kwargs) -> inputs in the signature's order.
Values python_inputs(const Signature& signature, const py::tuple& args, const py::dict& kwargs);

// The example requests of LoadOptions: each a dict of name -> InputTensor, copied.
Values owned_inputs(const Signature& signature, const py::sequence& tensors);

// Fails with InvalidInput when a wanted output (a name; None stands for all) is not among those
// that the signature knows.  Where it knows none, the answer finds out.
Status check_wanted(const Signature& signature, const py::object& wanted);

// The name of output `index`: the signature's, or the model's where that has none.
std::string_view output_name(const Signature& signature, const Request& request, std::size_t index);

py::dict stats_dict(const VersionStats& stats);

}  // namespace pyserve::python
