#include "tensor/collate.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/checked.h"

namespace pyserve {
namespace {

Value collate_strings(std::span<const Values* const> requests, std::size_t input,
                      std::int64_t rows) {
  Strings all;
  all.reserve(static_cast<std::size_t>(rows));
  for (const Values* request : requests) {
    const Strings& part = *(*request)[input].strings;
    all.insert(all.end(), part.begin(), part.end());
  }
  all.resize(static_cast<std::size_t>(rows), all.back());
  return Value(std::move(all));
}

template <std::size_t size>
void repeat(std::byte* out, std::size_t count, const Element& element) {
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(out + (i * size), element.data(), size);
  }
}

void fill(std::byte* out, std::size_t bytes, std::size_t item, const Element& element) {
  if (element == Element{}) {
    std::memset(out, 0, bytes);
    return;
  }
  switch (item) {
    case 1:
      return repeat<1>(out, bytes, element);
    case 2:
      return repeat<2>(out, bytes / 2, element);
    case 4:
      return repeat<4>(out, bytes / 4, element);
    default:
      return repeat<8>(out, bytes / 8, element);
  }
}

std::size_t elements(std::span<const std::int64_t> sizes) {
  const std::optional<std::size_t> count = checked_elements(sizes);
  if (!count.has_value()) {
    throw std::length_error("the batch has more elements than 64 bits count");
  }
  return *count;
}

std::int64_t rows_of(const Values& request) {
  return std::ranges::find_if_not(request, &Value::absent)->rows();
}

// Gathers one input of many requests.
class Gathering {
 public:
  Gathering(std::span<const Values* const> requests, std::size_t input, const Padding& padding,
            const BatchShape& shape)
      : requests_(requests),
        input_(input),
        padding_(padding),
        mask_(padding.makes_mask(input) ? &*padding.mask() : nullptr),
        padded_(padding.input(input)),
        shape_(shape) {}

  // In memory of `staging` where it is given.
  at::Tensor gather(Staging* staging) {
    const at::ScalarType type = mask_ != nullptr ? mask_->type : front().scalar_type();
    const std::vector<std::int64_t> sizes = batch_sizes();
    item_ = c10::elementSize(type);
    const std::size_t bytes = elements(sizes) * item_;
    batch_ = staging != nullptr ? staging->input(input_, sizes, type)
                                : at::empty(sizes, at::TensorOptions().dtype(type));
    row_bytes_ = bytes / static_cast<std::size_t>(shape_.rows);
    out_ = static_cast<std::byte*>(batch_.mutable_data_ptr());
    for (const Values* const request : requests_) {
      append(*request);
    }
    while (row_ < shape_.rows) {
      repeat_last_row();
    }
    return std::move(batch_);
  }

 private:
  const at::Tensor& front() const { return (*requests_.front())[input_].tensor; }

  std::vector<std::int64_t> batch_sizes() const {
    std::vector<std::int64_t> sizes;
    if (mask_ != nullptr) {  // none of the requests need have brought it
      sizes = mask_->shape;
      sizes.insert(sizes.begin(), shape_.rows);
    } else {
      sizes = front().sizes().vec();
      sizes.front() = shape_.rows;
    }
    if (padded_ != nullptr) {
      sizes[padded_->dim] = shape_.length;
    }
    return sizes;
  }

  void append(const Values& request) {
    const at::Tensor& part = request[input_].tensor;
    const std::int64_t rows = part.defined() ? part.size(0) : rows_of(request);
    const auto bytes = static_cast<std::size_t>(rows) * row_bytes_;
    if (row_bytes_ == 0) {
      // Nothing to copy.
    } else if (!part.defined()) {
      append_lengths(rows, padding_.length(request), nullptr);
    } else if (!part.is_cpu() || !part.is_contiguous()) {
      append_by_torch(part);
    } else if (padded_ == nullptr || length(part) == shape_.length) {
      std::memcpy(out_, part.const_data_ptr(), bytes);
    } else {
      append_lengths(rows, length(part), static_cast<const std::byte*>(part.const_data_ptr()));
    }
    row_ += rows;
    out_ += bytes;
  }

  std::int64_t length(const at::Tensor& part) const {
    return part.size(static_cast<std::int64_t>(padded_->dim));
  }

  // Each of the blocks behind the length's dimension: the part that is there, then the filling.
  // Without `in` the part that is there is ones: it is the mask.
  void append_lengths(std::int64_t rows, std::int64_t length, const std::byte* in) const {
    const std::size_t whole = block_bytes();
    const std::size_t used =
        whole / static_cast<std::size_t>(shape_.length) * static_cast<std::size_t>(length);
    const std::size_t blocks = static_cast<std::size_t>(rows) * row_bytes_ / whole;
    for (std::size_t block = 0; block < blocks; ++block) {
      std::byte* const out = out_ + (block * whole);
      if (in == nullptr) {
        fill(out, used, item_, mask_->one);
      } else {
        std::memcpy(out, in + (block * used), used);
      }
      fill(out + used, whole - used, item_, padded_->pad);
    }
  }

  void append_by_torch(const at::Tensor& part) {
    at::Tensor rows = batch_.narrow(0, row_, part.size(0));
    if (padded_ != nullptr) {
      fill(out_, static_cast<std::size_t>(part.size(0)) * row_bytes_, item_, padded_->pad);
      rows = rows.narrow(static_cast<std::int64_t>(padded_->dim), 0, length(part));
    }
    rows.copy_(part);
  }

  // From the length on, in one row.
  std::size_t block_bytes() const {
    std::size_t bytes = item_;
    for (auto dim = static_cast<std::int64_t>(padded_->dim); dim < batch_.dim(); ++dim) {
      bytes *= static_cast<std::size_t>(batch_.size(dim));
    }
    return bytes;
  }

  void repeat_last_row() {
    if (row_bytes_ != 0) {
      std::memcpy(out_, out_ - row_bytes_, row_bytes_);
    }
    out_ += row_bytes_;
    ++row_;
  }

  std::span<const Values* const> requests_;
  const std::size_t input_;
  const Padding& padding_;
  const Padding::Mask* const mask_;      // null: another input
  const Padding::Length* const padded_;  // null: of one size
  const BatchShape& shape_;
  at::Tensor batch_;
  std::size_t item_ = 0;
  std::size_t row_bytes_ = 0;
  std::int64_t row_ = 0;      // that comes next
  std::byte* out_ = nullptr;  // its first byte
};

// Whether the only request's value serves as it is.
bool whole(const Value& value, std::size_t input, const Padding& padding, const BatchShape& shape) {
  const Padding::Length* const padded = padding.input(input);
  return !padding.fills() ||
         (!padding.copies() && !value.absent() && value.rows() == shape.rows &&
          (padded == nullptr ||
           value.tensor.size(static_cast<std::int64_t>(padded->dim)) == shape.length));
}

}  // namespace

Values collate(std::span<const Values* const> requests, const Padding& padding,
               const BatchShape& shape, const c10::Device& device, Staging* staging) {
  Values batch = *requests.front();
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (batch[i].absent() && !padding.makes_mask(i)) {
      continue;
    }
    const bool as_it_is = requests.size() == 1 && whole(batch[i], i, padding, shape);
    if (!as_it_is) {
      batch[i] = batch[i].is_strings()
                     ? collate_strings(requests, i, shape.rows)
                     : Value(Gathering(requests, i, padding, shape).gather(staging));
    }
    at::Tensor& tensor = batch[i].tensor;
    if (tensor.defined() && tensor.device() != device) {
      if (as_it_is && staging != nullptr) {
        tensor = staging->input(i, tensor.sizes(), tensor.scalar_type()).copy_(tensor);
      }
      tensor = tensor.to(device, /*non_blocking=*/true);
    }
  }
  return batch;
}

Values split(const Values& outputs, std::int64_t begin, std::int64_t rows) {
  Values part;
  part.reserve(outputs.size());
  for (const Value& value : outputs) {
    if (value.is_strings()) {
      const auto from = value.strings->begin() + begin;
      part.emplace_back(Strings(from, from + rows));
    } else {
      part.emplace_back(value.tensor.narrow(0, begin, rows));
    }
  }
  return part;
}

Values to_host(Values outputs, Staging* staging) {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    Value& value = outputs[i];
    if (!value.tensor.defined()) {
      continue;
    }
    if (!value.tensor.is_cpu()) {
      at::Tensor host = staging->output(i, value.tensor.sizes(), value.tensor.scalar_type());
      host.copy_(value.tensor, /*non_blocking=*/true);
      value.tensor = std::move(host);
    } else if (!value.tensor.is_contiguous()) {
      value.tensor = value.tensor.contiguous();
    }
  }
  return outputs;
}

void detach_from(const Values& borrowed, Values& outputs) {
  for (Value& value : outputs) {
    if (!value.tensor.defined() || !value.tensor.has_storage()) {
      continue;
    }
    const bool shared = std::ranges::any_of(borrowed, [&](const Value& input) {
      return input.tensor.defined() && input.tensor.has_storage() &&
             input.tensor.storage().is_alias_of(value.tensor.storage());
    });
    if (shared) {
      value.tensor = value.tensor.clone();
    }
  }
}

void own_memory(Values& outputs) {
  for (Value& value : outputs) {
    if (value.tensor.defined()) {
      value.tensor = value.tensor.clone();
    }
  }
}

}  // namespace pyserve
