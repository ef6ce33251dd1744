// samples.h - rows to try a model with before it serves: examples, or made-up ones.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/signature.h"
#include "tensor/value.h"

namespace pyserve {

// `count` requests of one row each that differ from each other.  They come from the examples
// (later rows are the first one with its elements rotated, so that token ids stay in their
// vocabulary); without examples, from a fixed seed and the signature, with `free_size` for every
// dimension of -1.  Empty when the signature does not say enough.
std::vector<Values> sample_rows(const Signature& signature, const std::vector<Values>& examples,
                                std::int64_t count, std::int64_t free_size = 8);

// `row` with inputs of `length`, cut or begun again from the front, where they have lengths; its
// mask is left for the padding to make.
Values with_length(const Padding& padding, const Values& row, std::int64_t length);

// The sizes of the batches that an instance will form: those allowed, or powers of two.
std::vector<std::int64_t> warmup_sizes(const Padding& padding, std::int64_t max_rows);

// Batches of `sizes` rows, made of `samples`; the longest bucket's come first.
std::vector<std::vector<Values>> warmup_batches(const std::vector<Values>& samples,
                                                const Padding& padding,
                                                const std::vector<std::int64_t>& sizes);

}  // namespace pyserve
