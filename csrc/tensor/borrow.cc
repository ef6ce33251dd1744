#include "tensor/borrow.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "base/text.h"

namespace pyserve {
namespace {

constexpr std::size_t kLengthBytes = 4;
constexpr std::size_t kMaxRank = 64;

std::string input_text(std::string_view name) { return "input \"" + utf8_text(name, 128) + "\""; }

Status decode_strings(std::string_view name, std::span<const std::byte> data, std::size_t count,
                      Value& out) {
  // The prefixes alone take 4 bytes an element: a lying shape cannot make us allocate.
  if (data.size() / kLengthBytes < count) {
    return invalid_input(input_text(name) + " has " + std::to_string(data.size()) +
                         " bytes, too few for " + std::to_string(count) + " BYTES elements");
  }
  Strings strings;
  strings.reserve(count);
  while (strings.size() < count) {
    std::uint32_t length = 0;
    if (data.size() < kLengthBytes) {
      return invalid_input(input_text(name) + " ends in the middle of BYTES element " +
                           std::to_string(strings.size()));
    }
    std::memcpy(&length, data.data(), kLengthBytes);
    data = data.subspan(kLengthBytes);
    if (length > data.size()) {
      return invalid_input(input_text(name) + ": BYTES element " + std::to_string(strings.size()) +
                           " claims " + std::to_string(length) + " bytes, " +
                           std::to_string(data.size()) + " are left");
    }
    strings.emplace_back(reinterpret_cast<const char*>(data.data()), length);
    data = data.subspan(length);
  }
  if (!data.empty()) {
    return invalid_input(input_text(name) + " has " + std::to_string(data.size()) +
                         " bytes after its last BYTES element");
  }
  out = Value(std::move(strings));
  return {};
}

Status decode_tensor(const WireTensor& wire, Dtype dtype, std::size_t elements, Value& out) {
  const std::size_t item = dtype_size(dtype);
  const std::optional<std::size_t> bytes = checked_mul(elements, item);
  if (!bytes.has_value() || *bytes != wire.data.size()) {
    return invalid_input(input_text(wire.name) + " has " + std::to_string(wire.data.size()) +
                         " bytes, expected " + (bytes ? std::to_string(*bytes) : "too many") +
                         " for shape " + shape_text(wire.shape) + " of " +
                         std::string(dtype_name(dtype)));
  }
  if (dtype == Dtype::kBool &&
      std::ranges::any_of(wire.data, [](std::byte b) { return std::to_integer<int>(b) > 1; })) {
    return invalid_input(input_text(wire.name) + " is BOOL and holds a byte other than 0 and 1");
  }
  const auto options = at::TensorOptions().dtype(scalar_type(dtype));
  if (*bytes == 0 || reinterpret_cast<std::uintptr_t>(wire.data.data()) % item != 0) {
    out = Value(at::empty(wire.shape, options));
    if (*bytes != 0) {
      std::memcpy(out.tensor.mutable_data_ptr(), wire.data.data(), *bytes);
    }
    return {};
  }
  // for_blob wants a mutable pointer; a request's body is private to it.
  out = Value(at::for_blob(const_cast<std::byte*>(wire.data.data()), wire.shape)
                  .options(options)
                  .target_device(c10::Device(c10::DeviceType::CPU))
                  .make_tensor());
  return {};
}

// The list that a BYTES input becomes has one dimension, so a batch has as many strings as rows.
bool one_string_a_row(std::span<const std::int64_t> shape, std::size_t elements) {
  return static_cast<std::size_t>(shape.front()) == elements;
}

Status borrow_one(const Signature& signature, const TensorSpec& spec, const WireTensor& wire,
                  Value& out) {
  const std::optional<Dtype> dtype = parse_dtype(wire.datatype);
  if (!dtype.has_value()) {
    return invalid_input(input_text(wire.name) + " has the unknown datatype \"" +
                         utf8_text(wire.datatype, 32) + "\"");
  }
  if (spec.dtype.has_value() && *dtype != *spec.dtype) {
    return invalid_input(input_text(wire.name) + " has datatype " +
                         std::string(dtype_name(*dtype)) + ", expected " +
                         std::string(dtype_name(*spec.dtype)));
  }
  if (wire.shape.size() > kMaxRank) {
    return invalid_input(input_text(wire.name) + " has rank " + std::to_string(wire.shape.size()) +
                         ", expected at most " + std::to_string(kMaxRank));
  }
  const std::optional<std::size_t> elements = checked_elements(wire.shape);
  if (!elements.has_value()) {
    return invalid_input(input_text(wire.name) + " has shape " + shape_text(wire.shape) +
                         ", which has a negative dimension or more elements than 64 bits count");
  }
  // The shape first: its message helps more than one about bytes.
  if (*dtype == Dtype::kBytes) {
    if (signature.batched && (wire.shape.empty() || !one_string_a_row(wire.shape, *elements))) {
      return invalid_input(input_text(wire.name) + " has shape " + shape_text(wire.shape) +
                           ", expected [-1] or [-1, 1]: one string a row");
    }
    return decode_strings(wire.name, wire.data, *elements, out);
  }
  if (Status status = check_shape(signature, spec, wire.shape); !status.ok()) {
    return status;
  }
  return decode_tensor(wire, *dtype, *elements, out);
}

}  // namespace

Status borrow_inputs(const Signature& signature, std::span<const WireTensor> tensors,
                     Values& inputs, std::int64_t& rows) {
  inputs.assign(signature.inputs.size(), Value());
  for (const WireTensor& wire : tensors) {
    const std::optional<std::size_t> index = signature.input_index(wire.name);
    if (!index.has_value()) {
      return invalid_input(input_text(wire.name) + " is unknown, expected " +
                           names_text(signature.inputs));
    }
    if (!inputs[*index].absent()) {
      return invalid_input(input_text(wire.name) + " is given twice");
    }
    if (Status status = borrow_one(signature, signature.inputs[*index], wire, inputs[*index]);
        !status.ok()) {
      return status;
    }
  }
  return check_inputs(signature, inputs, rows);
}

std::vector<std::byte> encode_strings(const Strings& strings) {
  std::size_t total = 0;
  for (const std::string& text : strings) {
    total += kLengthBytes + text.size();
  }
  std::vector<std::byte> out(total);
  std::byte* cursor = out.data();
  for (const std::string& text : strings) {
    const auto length = static_cast<std::uint32_t>(text.size());
    std::memcpy(cursor, &length, kLengthBytes);
    std::memcpy(cursor + kLengthBytes, text.data(), text.size());
    cursor += kLengthBytes + text.size();
  }
  return out;
}

}  // namespace pyserve
