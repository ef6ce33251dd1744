// express.h - the express lane: a plain, whole inference request goes from the bytes that arrived
// to the core, and from its outputs to the bytes of the answer, without a Python object in between.
//
// It takes what csrc/wire reads and the model's signature accepts; whatever is unusual or wrong is
// None here and goes through aiohttp, which knows what to say.  Everything here needs the GIL.
#pragma once

#include <pybind11/pybind11.h>

namespace pyserve::python {

// RequestHead, RequestBody, parse_head and HttpLane.
void define_express(pybind11::module_& m);

}  // namespace pyserve::python
