// grpc_lane.h - the express lane of gRPC's ModelInfer and ModelStreamInfer: see lane.h.
#pragma once

#include <pybind11/pybind11.h>

namespace pyserve::python {

// GrpcLane.
void define_grpc_lane(pybind11::module_& m);

}  // namespace pyserve::python
