// invariance.h - which sizes of a batch compute a row to the same bits, wherever it stands in the
// batch and whatever rows it stands beside.
//
// A kernel chooses its blocking, and with it the order of its sums, by the shapes that it gets and
// by how they fall on its tiles; so a row's last bits may change with the number of rows, and with
// its place among them.  At one size every run has the same shapes.  Nothing promises that the
// places agree, or that two sizes do: here it is tried, bit by bit, with sample rows.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/device.h"
#include "runtime/executable.h"
#include "tensor/padding.h"
#include "tensor/signature.h"
#include "tensor/value.h"

namespace pyserve {

// An input whose sizes vary along a dimension that is not padded, so that not all of its shapes can
// be tried; null where there is none.
const TensorSpec* varying_input(const Signature& signature);

// Of the `candidates` (ascending) those that give every row the same bits as each other at every
// place, at the lengths of every bucket: the largest such set, of equally large ones that with the
// largest batch.  Empty where no candidate agrees with itself.  `rows`: each one request of a row.
std::vector<std::int64_t> invariant_sizes(const Executable& executable, const Padding& padding,
                                          const std::vector<std::int64_t>& candidates,
                                          const std::vector<Values>& rows, DeviceStream& stream);

}  // namespace pyserve
