// native_call.h - threads that are inside the extension when the interpreter ends.
//
// Only daemon threads can be.  Before Python 3.14 one that takes the GIL back once the interpreter
// has begun to end is unwound by force, and the first destructor on its way that needs the GIL, or
// may not throw, ends the process; the destructor of a torch tensor is one such.  So do here what
// Python 3.14 does: a thread that comes back to an interpreter that ends is parked for the little
// time that the process still has.
//
// Every function that lets go of the GIL counts itself as a NativeCall and lets go of it by a
// WithoutGil.  At exit, with the GIL: begin_exit(), then close the models, so that whoever waits
// for an answer gets it, and then await_native_calls().
//
// Happens-before: none is needed but the order of the two atomics, which is seq_cst.  A call
// counts itself before it looks at `ending`, and the exit sets `ending` before it looks at the
// count.
#pragma once

#include <Python.h>

namespace pyserve::python {

class NativeCall {
 public:
  NativeCall();  // needs the GIL; throws RuntimeError once the exit has begun
  ~NativeCall();
  NativeCall(const NativeCall&) = delete;
  NativeCall& operator=(const NativeCall&) = delete;
};

// Within a NativeCall: lets go of the GIL for a scope.
class WithoutGil {
 public:
  WithoutGil();
  ~WithoutGil();  // does not return once the exit has begun
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* const state_;
};

// From now on no call is let in, and none that is without the GIL comes back.
void begin_exit();

// Waits, without the GIL, until every call has returned or is parked.  Whatever they wait for must
// have ended by itself.
void await_native_calls();

// In a forked child: the threads that were inside have stayed behind.
void forget_native_calls();

}  // namespace pyserve::python
