#include "tensor/collate.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace pyserve {
namespace {

// The finaliser of Murmur3 after each part: adjacent sizes land far apart.
void mix(std::size_t& key, std::size_t part) {
  key = (key ^ part) + 0x9E3779B97F4A7C15U;
  key = (key ^ (key >> 33)) * 0xFF51AFD7ED558CCDU;
  key = (key ^ (key >> 33)) * 0xC4CEB9FE1A85EC53U;
  key ^= key >> 33;
}

bool stackable(const Value& a, const Value& b) {
  if (!a.tensor.defined() || !b.tensor.defined()) {
    return a.tensor.defined() == b.tensor.defined() && a.is_strings() == b.is_strings();
  }
  const auto one = a.tensor.sizes();
  const auto other = b.tensor.sizes();
  return a.tensor.scalar_type() == b.tensor.scalar_type() && !one.empty() && !other.empty() &&
         one.slice(1) == other.slice(1);
}

Value collate_strings(std::span<const Values* const> requests, std::size_t input) {
  Strings all;
  for (const Values* request : requests) {
    const Strings& part = *(*request)[input].strings;
    all.insert(all.end(), part.begin(), part.end());
  }
  return Value(std::move(all));
}

at::Tensor gather_rows(std::span<const Values* const> requests, std::size_t input,
                       Staging* staging) {
  const at::Tensor& first = (*requests.front())[input].tensor;
  std::int64_t rows = 0;
  for (const Values* request : requests) {
    rows += (*request)[input].tensor.size(0);
  }
  std::vector<std::int64_t> shape = first.sizes().vec();
  shape[0] = rows;
  at::Tensor batch = staging != nullptr
                         ? staging->input(input, shape, first.scalar_type())
                         : at::empty(shape, at::TensorOptions().dtype(first.scalar_type()));
  auto* out = static_cast<std::byte*>(batch.mutable_data_ptr());
  std::int64_t row = 0;
  for (const Values* request : requests) {
    const at::Tensor& part = (*request)[input].tensor;
    if (part.is_contiguous() && part.is_cpu()) {
      const std::size_t bytes = part.nbytes();
      if (bytes != 0) {
        std::memcpy(out, part.const_data_ptr(), bytes);
      }
      out += bytes;
    } else {
      batch.narrow(0, row, part.size(0)).copy_(part);
      out += static_cast<std::size_t>(part.numel()) * part.element_size();
    }
    row += part.size(0);
  }
  return batch;
}

}  // namespace

bool stackable(const Values& a, const Values& b) {
  return std::ranges::equal(
      a, b, [](const Value& one, const Value& other) { return stackable(one, other); });
}

std::size_t batch_key(const Values& inputs) {
  std::size_t key = inputs.size();
  for (const Value& value : inputs) {
    if (!value.tensor.defined()) {
      mix(key, value.is_strings() ? 1 : 2);
      continue;
    }
    mix(key, static_cast<std::size_t>(value.tensor.scalar_type()) + 3);
    const auto sizes = value.tensor.sizes();
    for (std::size_t i = 1; i < sizes.size(); ++i) {
      mix(key, static_cast<std::size_t>(sizes[i]));
    }
  }
  return key;
}

Values collate(std::span<const Values* const> requests, const c10::Device& device,
               Staging* staging) {
  Values batch = *requests.front();
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (batch[i].absent()) {
      continue;
    }
    if (requests.size() > 1) {
      batch[i] = batch[i].is_strings() ? collate_strings(requests, i)
                                       : Value(gather_rows(requests, i, staging));
    }
    at::Tensor& tensor = batch[i].tensor;
    if (tensor.defined() && tensor.device() != device) {
      if (requests.size() == 1 && staging != nullptr) {
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
