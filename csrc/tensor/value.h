// value.h - one input or output of a model: a tensor, or a list of strings.
//
// TorchScript has no string tensor: BYTES travels as List[str], one string per
// element.  A Value that holds neither is an optional input left out.
//
// Thread safety: a plain value; share it only when nobody writes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace pyserve {

using Strings = std::vector<std::string>;

struct Value {
  at::Tensor tensor;
  std::shared_ptr<const Strings> strings;

  Value() = default;
  explicit Value(at::Tensor t) : tensor(std::move(t)) {}
  explicit Value(Strings s) : strings(std::make_shared<const Strings>(std::move(s))) {}

  bool absent() const noexcept { return !tensor.defined() && strings == nullptr; }
  bool is_strings() const noexcept { return strings != nullptr; }

  // Items along the first dimension; a scalar has none and counts as one row.
  std::int64_t rows() const {
    if (strings != nullptr) {
      return static_cast<std::int64_t>(strings->size());
    }
    return tensor.defined() && tensor.dim() > 0 ? tensor.size(0) : 1;
  }
};

using Values = std::vector<Value>;

}  // namespace pyserve
