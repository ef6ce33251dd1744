// staging.h - host memory between requests and a GPU: pinned, so that copies need not wait for the
// CPU, and reused, so that a batch allocates and frees none of it.
//
// Each input and each output of a model has a slot, which grows to what it was asked for and never
// shrinks.  Memory of a slot is good until the slot is asked for again: the owner asks only once
// the copies of the batch before have ended, failed batches too (DeviceStream sees to that).
//
// Why not torch's pool of pinned memory: it records an event for every block that a copy has used
// when the block is freed, and where the device is lost that throws from within a destructor.  And
// a caller who keeps an answer would keep pinned memory.
//
// Thread safety: one owner at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

namespace pyserve {

class Staging {
 public:
  // Not pinned where there is no GPU to pin it for, which is only of use to a test.
  explicit Staging(bool pinned) : pinned_(pinned) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging() = default;

  at::Tensor input(std::size_t slot, c10::IntArrayRef shape, at::ScalarType type) {
    return take(inputs_, slot, shape, type);
  }
  at::Tensor output(std::size_t slot, c10::IntArrayRef shape, at::ScalarType type) {
    return take(outputs_, slot, shape, type);
  }

  // Leaves the memory to the end of the process: its device is lost, and freeing would ask it.
  void abandon() noexcept;

 private:
  using Slots = std::vector<at::Tensor>;  // of bytes; undefined until first asked for

  at::Tensor take(Slots& slots, std::size_t slot, c10::IntArrayRef shape, at::ScalarType type);

  const bool pinned_;
  Slots inputs_;
  Slots outputs_;
};

}  // namespace pyserve
