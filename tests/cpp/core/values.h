// values.h - tensors and requests in few words, for the tests of what needs torch.

#pragma once

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "batching/request.h"
#include "tensor/collate.h"
#include "tensor/signature.h"
#include "tensor/value.h"
#include "threads.h"

namespace pyserve {

using Shape = std::vector<std::int64_t>;

template <class T>
Value tensor_of(const Shape& shape, at::ScalarType type, const std::vector<T>& data) {
  at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(type));
  std::ranges::copy(data, tensor.mutable_data_ptr<T>());
  return Value(std::move(tensor));
}

inline Value floats(const Shape& shape, const std::vector<float>& data) {
  return tensor_of(shape, at::kFloat, data);
}

inline Value longs(const Shape& shape, const std::vector<std::int64_t>& data) {
  return tensor_of(shape, at::kLong, data);
}

inline Value filled(const Shape& shape, float value) {
  return Value(at::empty(shape, at::TensorOptions().dtype(at::kFloat)).fill_(value));
}

inline std::vector<float> floats_of(const Value& value) {
  const at::Tensor whole = value.tensor.contiguous();
  const auto* const data = whole.const_data_ptr<float>();
  return {data, data + whole.numel()};
}

inline TensorSpec spec(std::string name, Dtype dtype, Shape shape) {
  return {.name = std::move(name), .dtype = dtype, .shape = std::move(shape)};
}

// Rows of any length in "x", the same in "y".
inline Signature rows_signature(std::int64_t max_rows) {
  return {.inputs = {spec("x", Dtype::kFp32, {-1})},
          .outputs = {spec("y", Dtype::kFp32, {-1})},
          .outputs_known = true,
          .batched = true,
          .max_batch_size = max_rows};
}

// As a binding makes it; without a queue a caller waits in wait().
inline RequestPtr request_for(Values inputs, std::shared_ptr<RequestQueue> queue = nullptr) {
  auto request = std::make_shared<Request>();
  request->inputs = std::move(inputs);
  request->rows = request->inputs.front().rows();
  request->key = Padding().key(request->inputs);
  request->queue = std::move(queue);
  return request;
}

// `rows` rows of two floats, all `value`.
inline RequestPtr rows_of(float value, std::int64_t rows = 1) {
  return request_for({filled({rows, 2}, value)});
}

// Waits for a request without a queue; false if it did not come in a minute.
[[nodiscard]] inline bool delivered(Request& request) {
  const Nanos patience = std::chrono::nanoseconds(test_patience()).count();
  return request.wait(steady_clock().now() + patience, /*spin_ns=*/0, steady_clock());
}

}  // namespace pyserve
