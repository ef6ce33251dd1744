#include "tensor/padding.h"

#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "tensor/signature.h"

namespace pyserve {
namespace {

// The finaliser of Murmur3 after each part: adjacent sizes land far apart.
void mix(std::size_t& key, std::size_t part) {
  key = (key ^ part) + 0x9E3779B97F4A7C15U;
  key = (key ^ (key >> 33)) * 0xFF51AFD7ED558CCDU;
  key = (key ^ (key >> 33)) * 0xC4CEB9FE1A85EC53U;
  key ^= key >> 33;
}

std::string quoted(const std::string& name) { return "\"" + name + "\""; }

std::string size_text(std::int64_t size, const Padding::Length& length) {
  return quoted(length.name) + " has length " + std::to_string(size) + " along dimension " +
         std::to_string(length.dim);
}

std::size_t index_of(const std::vector<TensorSpec>& specs, const std::string& name,
                     const std::string& key, std::string_view kind) {
  if (specs.empty()) {
    throw std::invalid_argument(key + ": the model's " + std::string(kind) + "s are not declared");
  }
  const auto found = std::ranges::find(specs, name, &TensorSpec::name);
  if (found == specs.end()) {
    throw std::invalid_argument(key + ": the model has no " + std::string(kind) + " " +
                                quoted(name) + ", expected one of " + names_text(specs));
  }
  if (!found->shape.has_value() || !found->dtype.has_value()) {
    throw std::invalid_argument(key + ": the shape of " + quoted(name) + " is not known");
  }
  return static_cast<std::size_t>(found - specs.begin());
}

Padding::Length length_of(const std::vector<TensorSpec>& specs,
                          const PaddingOptions::Length& option, std::string_view kind) {
  const std::string key = "lengths." + std::string(kind) + "s." + option.name;
  const std::size_t index = index_of(specs, option.name, key, kind);
  const std::vector<std::int64_t>& shape = *specs[index].shape;
  if (option.dim < 0 || option.dim >= std::ssize(shape) ||
      shape[static_cast<std::size_t>(option.dim)] >= 0 || *specs[index].dtype == Dtype::kBytes) {
    throw std::invalid_argument(key + ": dim is " + std::to_string(option.dim) +
                                ", expected a dimension of -1 in the shape " + shape_text(shape) +
                                " (without the batch)");
  }
  return {.index = index, .dim = static_cast<std::size_t>(option.dim) + 1, .name = option.name};
}

// `value` as an element of `dtype`; nothing where it would become another value.
std::optional<Element> element_of(Dtype dtype, double value) {
  const at::ScalarType type = scalar_type(dtype);
  const at::Tensor one = at::full({1}, value, at::kDouble).to(type);
  const double back = one.to(at::kDouble).item<double>();
  if (c10::isFloatingType(type) ? std::isfinite(back) != std::isfinite(value) : back != value) {
    return std::nullopt;
  }
  Element element{};
  std::memcpy(element.data(), one.const_data_ptr(), one.element_size());
  return element;
}

Padding::Mask mask_of(const std::vector<TensorSpec>& specs, const std::string& name) {
  const std::size_t index = index_of(specs, name, "lengths.mask", "input");
  const std::vector<std::int64_t>& shape = *specs[index].shape;
  const auto varies = [](std::int64_t dim) { return dim < 0; };
  const auto dim = std::ranges::find_if(shape, varies);
  if (std::ranges::count_if(shape, varies) != 1 || *specs[index].dtype == Dtype::kBytes) {
    throw std::invalid_argument("lengths.mask: the shape of " + quoted(name) + " is " +
                                shape_text(shape) +
                                ", expected numbers and exactly one dimension of -1");
  }
  return {.length = {.index = index,
                     .dim = static_cast<std::size_t>(dim - shape.begin()) + 1,
                     .name = name},
          .shape = shape,
          .type = scalar_type(*specs[index].dtype),
          .one = element_of(*specs[index].dtype, 1).value()};
}

}  // namespace

Padding::Padding(const PaddingOptions& options, const std::vector<TensorSpec>& inputs,
                 const std::vector<TensorSpec>& outputs)
    : batch_sizes_(options.batch_sizes), buckets_(options.buckets) {
  for (const PaddingOptions::Length& one : options.inputs) {
    Length length = length_of(inputs, one, "input");
    const Dtype dtype = inputs[length.index].dtype.value();
    const std::optional<Element> pad = element_of(dtype, one.pad);
    if (!pad.has_value()) {
      throw std::invalid_argument("lengths.inputs." + one.name + ": pad is no " +
                                  std::string(dtype_name(dtype)));
    }
    length.pad = *pad;
    inputs_.push_back(std::move(length));
  }
  for (const PaddingOptions::Length& one : options.outputs) {
    outputs_.push_back(length_of(outputs, one, "output"));
  }
  if (!options.mask.empty()) {
    mask_ = mask_of(inputs, options.mask);
    if (input(mask_->length.index) != nullptr) {
      throw std::invalid_argument("lengths.mask: " + quoted(options.mask) +
                                  " is padded with 0, it cannot be one of lengths.inputs too");
    }
    inputs_.push_back(mask_->length);
  }
}

void Padding::run_invariantly(std::vector<std::int64_t> sizes) {
  batch_sizes_ = std::move(sizes);
  copies_ = true;
}

const Padding::Length* Padding::input(std::size_t index) const noexcept {
  const auto found = std::ranges::find(inputs_, index, &Length::index);
  return found == inputs_.end() ? nullptr : &*found;
}

std::int64_t Padding::bucket(std::int64_t length) const noexcept {
  const auto found = std::ranges::lower_bound(buckets_, length);
  return found == buckets_.end() ? length : *found;
}

Status Padding::check(const Values& inputs) const {
  const Length* first = nullptr;
  std::int64_t agreed = 0;
  for (const Length& one : inputs_) {
    if (inputs[one.index].absent()) {
      continue;
    }
    const std::int64_t size = inputs[one.index].tensor.size(static_cast<std::int64_t>(one.dim));
    if (first == nullptr) {
      first = &one;
      agreed = size;
      if (size < 1 || size > buckets_.back()) {
        return invalid_input("input " + size_text(size, one) + ", expected 1 to " +
                             std::to_string(buckets_.back()));
      }
    } else if (size != agreed) {
      return invalid_input("input " + size_text(size, one) + ", but " + size_text(agreed, *first) +
                           ": they share one length");
    }
  }
  if (has_lengths() && first == nullptr) {
    return invalid_input("input \"" + inputs_.front().name + "\" is missing: it tells the length");
  }
  return {};
}

std::int64_t Padding::length(const Values& inputs) const {
  for (const Length& one : inputs_) {
    if (!inputs[one.index].absent()) {
      return inputs[one.index].tensor.size(static_cast<std::int64_t>(one.dim));
    }
  }
  return 0;
}

bool Padding::stackable(std::size_t index, const Value& a, const Value& b) const {
  if (makes_mask(index)) {
    return true;  // of one dtype and shape, and as long as the other inputs
  }
  if (!a.tensor.defined() || !b.tensor.defined()) {
    return a.tensor.defined() == b.tensor.defined() && a.is_strings() == b.is_strings();
  }
  const auto one = a.tensor.sizes();
  const auto other = b.tensor.sizes();
  if (a.tensor.scalar_type() != b.tensor.scalar_type() || one.empty() ||
      one.size() != other.size()) {
    return false;
  }
  const Length* const padded = input(index);
  for (std::size_t dim = 1; dim < one.size(); ++dim) {
    const bool same = padded != nullptr && padded->dim == dim
                          ? bucket(one[dim]) == bucket(other[dim])
                          : one[dim] == other[dim];
    if (!same) {
      return false;
    }
  }
  return true;
}

bool Padding::stackable(const Values& a, const Values& b) const {
  bool all = a.size() == b.size();
  for (std::size_t i = 0; all && i < a.size(); ++i) {
    all = stackable(i, a[i], b[i]);
  }
  return all;
}

std::size_t Padding::key(const Values& inputs) const {
  std::size_t key = inputs.size();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Value& value = inputs[i];
    if (makes_mask(i)) {
      continue;
    }
    if (!value.tensor.defined()) {
      mix(key, value.is_strings() ? 1 : 2);
      continue;
    }
    mix(key, static_cast<std::size_t>(value.tensor.scalar_type()) + 3);
    const auto sizes = value.tensor.sizes();
    const Length* const padded = input(i);
    for (std::size_t dim = 1; dim < sizes.size(); ++dim) {
      const bool length = padded != nullptr && padded->dim == dim;
      mix(key, static_cast<std::size_t>(length ? bucket(sizes[dim]) : sizes[dim]));
    }
  }
  return key;
}

std::int64_t Padding::rows_for(std::int64_t rows) const noexcept {
  const auto found = std::ranges::lower_bound(batch_sizes_, rows);
  return found == batch_sizes_.end() ? rows : *found;
}

std::int64_t Padding::most_rows() const noexcept {
  return batch_sizes_.empty() ? std::numeric_limits<std::int64_t>::max() : batch_sizes_.back();
}

BatchShape Padding::fit(const Values& one_of_them, std::int64_t rows) const {
  return {.rows = rows_for(rows), .length = bucket(length(one_of_them))};
}

Status Padding::check_outputs(const Values& outputs, std::int64_t length) const {
  for (const Length& one : outputs_) {
    const auto dim = static_cast<std::int64_t>(one.dim);
    const at::Tensor tensor = one.index < outputs.size() ? outputs[one.index].tensor : at::Tensor();
    const std::int64_t size = tensor.defined() && tensor.dim() > dim ? tensor.size(dim) : 0;
    if (size != length) {
      return {Code::kModelFailed,
              "output " + size_text(size, one) + " for inputs of length " + std::to_string(length)};
    }
  }
  return {};
}

void Padding::cut(Values& outputs, std::int64_t length) const {
  for (const Length& one : outputs_) {
    at::Tensor& tensor = outputs[one.index].tensor;
    tensor = tensor.narrow(static_cast<std::int64_t>(one.dim), 0, length).contiguous();
  }
}

}  // namespace pyserve
