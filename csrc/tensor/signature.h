// signature.h - the named inputs and outputs of a model, and the checks on both.
//
// A spec's shape leaves the batch dimension out; -1 stands for any size.  A model
// without a declared signature has specs that know only a name: their dtype and
// shape are unset and go unchecked.
//
// Thread safety: constant after load.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"
#include "tensor/padding.h"
#include "tensor/value.h"

namespace pyserve {

struct TensorSpec {
  std::string name;
  std::optional<Dtype> dtype;
  std::optional<std::vector<std::int64_t>> shape;
  bool optional = false;  // an input that the caller may leave out
};

struct Signature {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  bool outputs_known = false;       // false: whatever the model returns is served, unchecked
  bool batched = false;             // dimension 0 of every input and output is the batch
  std::int64_t max_batch_size = 0;  // rows; 0 when not batched
  Padding padding;                  // the shapes that it is run with

  // The position of the input called `name`; INPUT__<n> (Triton's names) is the n-th.
  std::optional<std::size_t> input_index(std::string_view name) const;
  // The same for outputs and OUTPUT__<n>.
  std::optional<std::size_t> output_index(std::string_view name) const;
};

at::ScalarType scalar_type(Dtype dtype);                      // precondition: not kBytes
std::optional<Dtype> dtype_of(at::ScalarType type) noexcept;  // nullopt: not served

// "a", "b": what was expected, for messages.
std::string names_text(std::span<const TensorSpec> specs);

// [2, -1, 8], cut after a few dozen dimensions: messages travel in headers.
std::string shape_text(std::span<const std::int64_t> shape);

// Checks one shape (batch dimension included when batched) against a spec.
Status check_shape(const Signature& signature, const TensorSpec& spec,
                   std::span<const std::int64_t> shape);

// Checks that `inputs` (in the signature's order) are complete and agree on the number of
// rows, and sets `rows` (1 when the model is not batched).
Status check_inputs(const Signature& signature, const Values& inputs, std::int64_t& rows);

// Stands for "whatever the model returned" in check_outputs().
inline constexpr std::int64_t kAnyRows = -1;

// Checks what a model returned for a batch of `rows`.
Status check_outputs(const Signature& signature, const Values& outputs, std::int64_t rows);

}  // namespace pyserve
