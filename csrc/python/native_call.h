// native_call.h - threads that are inside the extension when the interpreter ends.
//
// Before Python 3.14 a thread that takes the GIL back once the interpreter has begun to end is
// unwound by force, and the first destructor on its way that needs the GIL, or may not throw, ends
// the process.  So every function that lets go of the GIL counts itself as a NativeCall, and
// end_native_calls(), which atexit calls, waits until nobody is inside and lets nobody in again.
//
// Happens-before: none is needed but the order of the two atomics, which is seq_cst.  A call
// counts itself before it looks at `ended`, and end sets `ended` before it looks at the count.
#pragma once

namespace pyserve::python {

class NativeCall {
 public:
  NativeCall();  // needs the GIL; throws RuntimeError once the calls have been ended
  ~NativeCall();
  NativeCall(const NativeCall&) = delete;
  NativeCall& operator=(const NativeCall&) = delete;
};

// Waits, without the GIL, until every call has returned.  Whatever they wait for must end by
// itself: close the models first.
void end_native_calls();

// In a forked child: the threads that were inside have stayed behind.
void forget_native_calls();

}  // namespace pyserve::python
