#include "runtime/fault.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <new>

namespace pyserve {

bool says_out_of_memory(std::string_view text) {
  // Of the caching allocator and of CUDA itself; of torch's allocator for the CPU, in two forms;
  // of libraries that allocate by themselves.
  constexpr std::array<std::string_view, 6> kTexts{
      "CUDA out of memory",           "CUDA error: out of memory",  "can't allocate memory",
      "not enough memory: you tried", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"};
  return std::ranges::any_of(
      kTexts, [&](std::string_view one) { return text.find(one) != std::string_view::npos; });
}

Fault fault_of(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
      dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) {
    return Fault::kOutOfMemory;
  }
  const auto* const torch_error = dynamic_cast<const c10::Error*>(&error);
  return torch_error != nullptr && says_out_of_memory(torch_error->what_without_backtrace())
             ? Fault::kOutOfMemory
             : Fault::kModel;
}

}  // namespace pyserve
