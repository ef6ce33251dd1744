// http_lane.h - the express lane of HTTP: see lane.h.
#pragma once

#include <pybind11/pybind11.h>

namespace pyserve::python {

// HttpLane, behind define_http_bytes.
void define_http_lane(pybind11::module_& m);

}  // namespace pyserve::python
