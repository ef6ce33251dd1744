// cuda_graph.h - a model whose kernels are launched all at once, for the batch sizes that it was
// warmed on.
//
// Needs CUDA's headers to compile, so cuda_graph.cc is built only where setup.py finds them beside
// a CUDA build of torch, and defines PYSERVE_CUDA_GRAPHS; everything else is the same source either
// way.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <string>

#include "runtime/executable.h"

namespace pyserve {

// `plain`, recording a graph for each batch that it is asked to prepare() for.  A run of shapes
// that were recorded replays the graph; with `rows_are_independent` also one of fewer rows, filled
// up to the next recorded size.  Whatever else runs as before.  Where there are no graphs to be had
// it is `plain` itself, and `note` says why.
std::unique_ptr<Executable> with_cuda_graphs(std::unique_ptr<Executable> plain,
                                             const c10::Device& device, bool rows_are_independent,
                                             std::string& note);

#ifndef PYSERVE_CUDA_GRAPHS
inline std::unique_ptr<Executable> with_cuda_graphs(std::unique_ptr<Executable> plain,
                                                    const c10::Device& device,
                                                    bool /*rows_are_independent*/,
                                                    std::string& note) {
  note = device.is_cpu() ? "cuda_graphs is on, and the model runs on the CPU: there are none"
                         : "cuda_graphs is on, and this build of pyserve knows none: it was made "
                           "without CUDA's headers";
  return plain;
}
#endif

}  // namespace pyserve
