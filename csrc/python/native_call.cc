#include "python/native_call.h"

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <atomic>

#include "base/clock.h"
#include "base/waiter.h"

namespace pyserve::python {
namespace {

namespace py = pybind11;

std::atomic<int> inside{0};
std::atomic<bool> ending{false};
Waiter all_out;

void leave() noexcept {
  inside.fetch_sub(1, std::memory_order_seq_cst);
  if (ending.load(std::memory_order_seq_cst)) {
    all_out.notify_all();
  }
}

[[noreturn]] void park() noexcept {
  leave();
  for (;;) {
    pause();
  }
}

}  // namespace

NativeCall::NativeCall() {
  inside.fetch_add(1, std::memory_order_seq_cst);
  if (ending.load(std::memory_order_seq_cst)) {
    leave();
    // No exception of pyserve.errors: making one runs Python code, which may let go of the GIL.
    PyErr_SetString(PyExc_RuntimeError, "pyserve: the interpreter is shutting down");
    throw py::error_already_set();
  }
}

NativeCall::~NativeCall() { leave(); }

WithoutGil::WithoutGil() : state_(PyEval_SaveThread()) {}

WithoutGil::~WithoutGil() {
  if (ending.load(std::memory_order_seq_cst)) {
    park();
  }
  // If the exit begins just now, it waits for this call, and the interpreter is still whole.
  PyEval_RestoreThread(state_);
}

void begin_exit() { ending.store(true, std::memory_order_seq_cst); }

void await_native_calls() {
  const py::gil_scoped_release release;
  all_out.wait_until([] { return inside.load(std::memory_order_seq_cst) == 0; }, kNever,
                     /*spin_ns=*/0, steady_clock());
}

void forget_native_calls() { inside.store(0, std::memory_order_seq_cst); }

}  // namespace pyserve::python
