#include "engine/samples.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <utility>

#include "tensor/padding.h"

namespace pyserve {
namespace {

constexpr std::uint64_t kSeed = 20240229;

// Rotates the elements of a row and, for floats, scales it: another row of the same kind.  Zeros
// stay zeros that way, which no output could tell apart: they are shifted.
at::Tensor variation(const at::Tensor& row, std::int64_t index) {
  if (index == 0) {
    return row.clone();
  }
  at::Tensor rotated = row.flatten().roll(index).reshape(row.sizes());
  if (!row.is_floating_point()) {
    return rotated;
  }
  const double by = 0.125 * static_cast<double>(index);
  const at::Tensor scaled = rotated * (1.0 + by);
  return at::equal(scaled, row) ? scaled + by : scaled;
}

Value variation(const Value& row, std::int64_t index) {
  if (!row.is_strings()) {
    return row.absent() ? Value() : Value(variation(row.tensor, index));
  }
  Strings strings = *row.strings;
  for (std::string& text : strings) {
    text.append(static_cast<std::size_t>(index), 'a');
  }
  return Value(std::move(strings));
}

std::vector<Values> from_examples(const Signature& signature, const std::vector<Values>& examples,
                                  std::int64_t count) {
  std::vector<Values> rows;
  for (const Values& example : examples) {
    const auto given = std::ranges::find_if_not(example, &Value::absent);
    const std::int64_t here = signature.batched && given != example.end() ? given->rows() : 1;
    for (std::int64_t row = 0; row < here && std::ssize(rows) < count; ++row) {
      Values one = example;
      for (Value& value : one) {
        if (signature.batched && value.is_strings()) {
          value = Value(Strings{value.strings->at(static_cast<std::size_t>(row))});
        } else if (signature.batched && value.tensor.defined()) {
          value.tensor = value.tensor.narrow(0, row, 1).clone();
        }
      }
      rows.push_back(std::move(one));
    }
  }
  if (rows.empty()) {
    return rows;
  }
  // Rows of one batch must agree in their free dimensions: keep to the first one's.
  if (signature.batched) {
    const Values first = rows.front();
    std::erase_if(rows, [&](const Values& row) { return !Padding().stackable(first, row); });
  }
  const auto given = std::ssize(rows);
  for (std::int64_t i = given; i < count; ++i) {
    Values one;
    for (const Value& value : rows[static_cast<std::size_t>(i % given)]) {
      one.push_back(variation(value, i / given));
    }
    rows.push_back(std::move(one));
  }
  return rows;
}

Value made_up(const TensorSpec& spec, bool batched, std::int64_t free_size, std::int64_t index,
              at::Generator& generator) {
  std::vector<std::int64_t> shape = *spec.shape;
  std::ranges::replace_if(shape, [](std::int64_t dim) { return dim < 0; }, free_size);
  if (*spec.dtype == Dtype::kBytes) {
    std::int64_t count = 1;
    for (const std::int64_t dim : shape) {
      count *= dim;
    }
    return Value(Strings(static_cast<std::size_t>(batched ? 1 : count), std::to_string(index)));
  }
  if (batched) {
    shape.insert(shape.begin(), 1);
  }
  const at::ScalarType type = scalar_type(*spec.dtype);
  if (c10::isFloatingType(type)) {
    return Value(at::randn(shape, generator, at::TensorOptions().dtype(at::kFloat)).to(type));
  }
  // 0 and 1 are in every vocabulary.
  return Value(at::randint(2, shape, generator, at::TensorOptions().dtype(at::kLong)).to(type));
}

}  // namespace

std::vector<Values> sample_rows(const Signature& signature, const std::vector<Values>& examples,
                                std::int64_t count, std::int64_t free_size) {
  if (!examples.empty() && !examples.front().empty()) {
    return from_examples(signature, examples, count);
  }
  at::Generator generator = at::detail::createCPUGenerator(kSeed);
  std::vector<Values> rows;
  for (std::int64_t i = 0; i < count; ++i) {
    Values row;
    for (const TensorSpec& spec : signature.inputs) {
      if (!spec.dtype.has_value() || !spec.shape.has_value()) {
        if (spec.optional) {
          row.emplace_back();
          continue;
        }
        return {};
      }
      row.push_back(made_up(spec, signature.batched, free_size, i, generator));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

Values with_length(const Padding& padding, const Values& row, std::int64_t length) {
  Values sized = row;
  for (std::size_t i = 0; i < sized.size(); ++i) {
    const Padding::Length* const padded = padding.input(i);
    if (padding.makes_mask(i)) {
      sized[i] = Value();
    } else if (padded != nullptr && !sized[i].absent()) {
      const auto dim = static_cast<std::int64_t>(padded->dim);
      const std::int64_t size = std::max<std::int64_t>(1, sized[i].tensor.size(dim));
      std::vector<std::int64_t> times(static_cast<std::size_t>(sized[i].tensor.dim()), 1);
      times[padded->dim] = (length + size - 1) / size;
      sized[i].tensor = sized[i].tensor.repeat(times).narrow(dim, 0, length).contiguous();
    }
  }
  return sized;
}

std::vector<std::int64_t> warmup_sizes(const Padding& padding, std::int64_t max_rows) {
  if (!padding.batch_sizes().empty()) {
    return padding.batch_sizes();
  }
  std::vector<std::int64_t> sizes;
  for (std::int64_t rows = 1; rows < max_rows; rows *= 2) {
    sizes.push_back(rows);
  }
  sizes.push_back(max_rows);
  return sizes;
}

std::vector<std::vector<Values>> warmup_batches(const std::vector<Values>& samples,
                                                const Padding& padding,
                                                const std::vector<std::int64_t>& sizes) {
  std::vector<std::vector<Values>> batches;
  if (samples.empty()) {
    return batches;
  }
  std::vector<std::int64_t> lengths = padding.buckets();
  std::ranges::reverse(lengths);
  if (lengths.empty()) {
    lengths.push_back(0);
  }
  for (const std::int64_t length : lengths) {
    for (const std::int64_t rows : sizes) {
      batches.emplace_back();
      for (std::int64_t i = 0; i < rows; ++i) {
        const Values& sample = samples[static_cast<std::size_t>(i) % samples.size()];
        batches.back().push_back(with_length(padding, sample, length));
      }
    }
  }
  return batches;
}

}  // namespace pyserve
