// padding.h - the shapes that a model is run with, where it is not run with any: how many rows, and
// which lengths along a dimension that varies from request to request.
//
// A batch is filled up to the next of the allowed sizes with copies of its last row: zeros may be
// what the model cannot take (a row without a single token, a division by a sum), and a row that is
// there already costs and fails like that row.  A length is filled up to its bucket with the value
// that the configuration names, and the mask says which part is real.
//
// Thread safety: constant after load.
#pragma once

#include <c10/core/ScalarType.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/value.h"

namespace pyserve {

struct TensorSpec;

// What a model's configuration says.  Dimensions are counted without the batch.
struct PaddingOptions {
  struct Length {
    std::string name;
    std::int64_t dim = 0;
    double pad = 0;  // of inputs
  };
  std::vector<std::int64_t> batch_sizes;  // rows of a run; empty: any
  std::vector<std::int64_t> buckets;      // lengths of a run; empty: any
  std::vector<Length> inputs;
  std::vector<Length> outputs;
  std::string mask;  // the input that tells real from padding; "": there is none
};

// What a batch is filled up to.
struct BatchShape {
  std::int64_t rows = 1;
  std::int64_t length = 0;  // 0: every input has the sizes that it came with
};

// An element in memory.
using Element = std::array<std::byte, 8>;

class Padding {
 public:
  // A tensor whose dimension `dim`, the batch counted, is the length.
  struct Length {
    std::size_t index = 0;  // among the inputs or the outputs
    std::size_t dim = 1;
    std::string name;
    Element pad{};
  };
  struct Mask {
    Length length;
    std::vector<std::int64_t> shape;  // of one row
    at::ScalarType type = at::kLong;
    Element one{};
  };

  // Runs everything as it comes.
  Padding() = default;
  // Throws std::invalid_argument, with one line, for what the specs have no place for.
  Padding(const PaddingOptions& options, const std::vector<TensorSpec>& inputs,
          const std::vector<TensorSpec>& outputs);

  // From here on only `sizes` are allowed, and every batch is copied: kernels choose by the address
  // that they get too, and a batch in memory of our own has the same one to them.
  void run_invariantly(std::vector<std::int64_t> sizes);
  bool copies() const noexcept { return copies_; }

  bool fills() const noexcept { return !batch_sizes_.empty() || has_lengths(); }
  bool has_lengths() const noexcept { return !buckets_.empty(); }
  const std::vector<std::int64_t>& batch_sizes() const noexcept { return batch_sizes_; }
  const std::vector<std::int64_t>& buckets() const noexcept { return buckets_; }

  // Whether inputs have lengths that agree and fit a bucket.
  Status check(const Values& inputs) const;
  // Of inputs that passed it; 0 without buckets.
  std::int64_t length(const Values& inputs) const;

  // Whether two requests may share a batch: same dtypes, same bucket, same other dimensions behind
  // the batch dimension, same optional inputs present.
  bool stackable(const Values& a, const Values& b) const;
  // Equal for stackable requests, and seldom for others: a quick no.
  std::size_t key(const Values& inputs) const;

  // The smallest allowed size that has room; `rows` itself where any is allowed, or none has.
  std::int64_t rows_for(std::int64_t rows) const noexcept;
  // The most rows that a run may have.
  std::int64_t most_rows() const noexcept;
  // What requests that are stackable, of so many rows together, are filled up to.
  BatchShape fit(const Values& one_of_them, std::int64_t rows) const;

  // Of input `index`; null where it is not padded.
  const Length* input(std::size_t index) const noexcept;
  const std::optional<Mask>& mask() const noexcept { return mask_; }
  bool makes_mask(std::size_t index) const noexcept {
    return mask_.has_value() && mask_->length.index == index;
  }

  // Whether the outputs of a run have the length that they are to be cut at.
  Status check_outputs(const Values& outputs, std::int64_t length) const;
  // Cuts one request's outputs to its own length; what is then not contiguous is copied.
  void cut(Values& outputs, std::int64_t length) const;

 private:
  std::int64_t bucket(std::int64_t length) const noexcept;
  bool stackable(std::size_t index, const Value& a, const Value& b) const;

  std::vector<std::int64_t> batch_sizes_;
  std::vector<std::int64_t> buckets_;
  std::vector<Length> inputs_;  // the mask among them
  std::vector<Length> outputs_;
  std::optional<Mask> mask_;
  bool copies_ = false;
};

}  // namespace pyserve
