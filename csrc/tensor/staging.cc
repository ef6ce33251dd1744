#include "tensor/staging.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

namespace pyserve {
namespace {

constexpr std::size_t kSmallest = 4096;

}  // namespace

at::Tensor Staging::take(Slots& slots, std::size_t slot, c10::IntArrayRef shape,
                         at::ScalarType type) {
  if (slots.size() <= slot) {
    slots.resize(slot + 1);
  }
  at::Tensor& memory = slots[slot];
  const std::size_t wanted =
      static_cast<std::size_t>(c10::multiply_integers(shape)) * c10::elementSize(type);
  if (!memory.defined() || memory.nbytes() < wanted) {
    memory = at::Tensor();  // before there are two
    const std::size_t bytes = std::bit_ceil(std::max(wanted, kSmallest));
    memory = at::empty({static_cast<std::int64_t>(bytes)},
                       at::TensorOptions().dtype(at::kByte).pinned_memory(pinned_));
  }
  return at::from_blob(memory.mutable_data_ptr(), shape, at::TensorOptions().dtype(type));
}

void Staging::abandon() noexcept {
  // Their owners are never run: that is the point.
  for (Slots* const slots : {&inputs_, &outputs_}) {
    for (at::Tensor& memory : *slots) {
      static_cast<void>(memory.unsafeReleaseTensorImpl());
    }
    slots->clear();
  }
}

}  // namespace pyserve
