#include "tensor/signature.h"

#include <charconv>

namespace pyserve {
namespace {

constexpr std::size_t kShapeTextDims = 32;

// By name, or by position after `prefix`.
std::optional<std::size_t> index_of(const std::vector<TensorSpec>& specs, std::string_view name,
                                    std::string_view prefix) {
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].name == name) {
      return i;
    }
  }
  if (!name.starts_with(prefix)) {
    return std::nullopt;
  }
  name.remove_prefix(prefix.size());
  std::size_t index = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  const bool whole = error == std::errc{} && end == name.data() + name.size();
  return whole && index < specs.size() ? std::optional(index) : std::nullopt;
}

std::string quoted(std::string_view kind, std::string_view name) {
  std::string text(kind);
  text += " \"";
  text += name;
  text += '"';
  return text;
}

std::string expected_shape(const Signature& signature, const TensorSpec& spec) {
  std::vector<std::int64_t> shape = *spec.shape;
  if (signature.batched) {
    shape.insert(shape.begin(), -1);
  }
  return shape_text(shape);
}

// One string per row: [rows] and [rows, 1] are the same list.
bool strings_fit(const Signature& signature, const TensorSpec& spec, const Value& value) {
  if (!spec.shape.has_value() || signature.batched) {
    return true;
  }
  std::int64_t count = 1;
  for (const std::int64_t dim : *spec.shape) {
    if (dim < 0) {
      return true;
    }
    count *= dim;
  }
  return value.rows() == count;
}

Status check_value(const Signature& signature, const TensorSpec& spec, const Value& value,
                   std::string_view kind) {
  const std::optional<Dtype> got =
      value.is_strings() ? std::optional(Dtype::kBytes) : dtype_of(value.tensor.scalar_type());
  if (!got.has_value()) {
    return invalid_input(quoted(kind, spec.name) + " has a dtype that cannot be served: " +
                         c10::toString(value.tensor.scalar_type()));
  }
  if (spec.dtype.has_value() && *got != *spec.dtype) {
    return invalid_input(quoted(kind, spec.name) + " has dtype " + std::string(dtype_name(*got)) +
                         ", expected " + std::string(dtype_name(*spec.dtype)));
  }
  if (value.is_strings()) {
    return strings_fit(signature, spec, value)
               ? Status{}
               : invalid_input(quoted(kind, spec.name) + " has " + std::to_string(value.rows()) +
                               " strings, expected shape " + expected_shape(signature, spec));
  }
  Status status = check_shape(signature, spec, value.tensor.sizes());
  if (!status.ok()) {
    status.message = std::string(kind) + status.message.substr(status.message.find(' '));
  }
  return status;
}

}  // namespace

std::optional<std::size_t> Signature::input_index(std::string_view name) const {
  return index_of(inputs, name, "INPUT__");
}

std::optional<std::size_t> Signature::output_index(std::string_view name) const {
  return index_of(outputs, name, "OUTPUT__");
}

std::string names_text(std::span<const TensorSpec> specs) {
  std::string text;
  for (const TensorSpec& spec : specs) {
    text += (text.empty() ? "\"" : ", \"") + spec.name + "\"";
  }
  return text;
}

at::ScalarType scalar_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBool:
      return at::kBool;
    case Dtype::kUint8:
      return at::kByte;
    case Dtype::kUint16:
      return at::kUInt16;
    case Dtype::kUint32:
      return at::kUInt32;
    case Dtype::kUint64:
      return at::kUInt64;
    case Dtype::kInt8:
      return at::kChar;
    case Dtype::kInt16:
      return at::kShort;
    case Dtype::kInt32:
      return at::kInt;
    case Dtype::kInt64:
      return at::kLong;
    case Dtype::kFp16:
      return at::kHalf;
    case Dtype::kBf16:
      return at::kBFloat16;
    case Dtype::kFp32:
      return at::kFloat;
    case Dtype::kFp64:
      return at::kDouble;
    case Dtype::kBytes:
      break;
  }
  return at::ScalarType::Undefined;
}

std::optional<Dtype> dtype_of(at::ScalarType type) noexcept {
  for (std::uint8_t i = 0; i < static_cast<std::uint8_t>(Dtype::kBytes); ++i) {
    const auto dtype = static_cast<Dtype>(i);
    if (scalar_type(dtype) == type) {
      return dtype;
    }
  }
  return std::nullopt;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i == kShapeTextDims) {
      text += ", ...";
      break;
    }
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

Status check_shape(const Signature& signature, const TensorSpec& spec,
                   std::span<const std::int64_t> shape) {
  if (!spec.shape.has_value()) {
    return {};
  }
  const std::vector<std::int64_t>& want = *spec.shape;
  const std::size_t batch_dims = signature.batched ? 1 : 0;
  bool same = shape.size() == want.size() + batch_dims;
  for (std::size_t i = 0; same && i < want.size(); ++i) {
    same = want[i] < 0 || want[i] == shape[i + batch_dims];
  }
  if (same) {
    return {};
  }
  return invalid_input(quoted("input", spec.name) + " has shape " + shape_text(shape) +
                       ", expected " + expected_shape(signature, spec));
}

Status check_inputs(const Signature& signature, const Values& inputs, std::int64_t& rows) {
  rows = 1;
  const TensorSpec* first = nullptr;
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    const TensorSpec& spec = signature.inputs[i];
    if (inputs[i].absent()) {
      if (spec.optional) {
        continue;
      }
      return invalid_input(quoted("input", spec.name) + " is missing");
    }
    if (Status status = check_value(signature, spec, inputs[i], "input"); !status.ok()) {
      return status;
    }
    if (!signature.batched) {
      continue;
    }
    if (inputs[i].tensor.defined() && inputs[i].tensor.dim() == 0) {  // its shape is not declared
      return invalid_input(quoted("input", spec.name) +
                           " has shape [], expected a batch dimension");
    }
    const std::int64_t got = inputs[i].rows();
    if (first == nullptr) {
      first = &spec;
      rows = got;
    } else if (got != rows) {
      return invalid_input(quoted("input", spec.name) + " has " + std::to_string(got) +
                           " rows, but " + quoted("input", first->name) + " has " +
                           std::to_string(rows) + ": all inputs share the batch dimension");
    }
  }
  if (signature.batched && rows < 1) {
    return invalid_input("the request has 0 rows, expected at least 1");
  }
  if (signature.batched && rows > signature.max_batch_size) {
    return invalid_input("the request has " + std::to_string(rows) +
                         " rows, expected at most max_batch_size " +
                         std::to_string(signature.max_batch_size));
  }
  return signature.padding.check(inputs);
}

Status check_outputs(const Signature& signature, const Values& outputs, std::int64_t rows) {
  const auto failed = [](std::string message) {
    return Status{Code::kModelFailed, std::move(message)};
  };
  if (signature.outputs_known && outputs.size() != signature.outputs.size()) {
    return failed("the model returned " + std::to_string(outputs.size()) +
                  " outputs, its signature declares " + std::to_string(signature.outputs.size()));
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const TensorSpec anonymous{.name = "output_" + std::to_string(i)};
    const TensorSpec& spec = signature.outputs_known ? signature.outputs[i] : anonymous;
    if (outputs[i].absent()) {
      return failed("the model did not return " + quoted("output", spec.name));
    }
    if (Status status = check_value(signature, spec, outputs[i], "output"); !status.ok()) {
      return failed(std::move(status.message));
    }
    if (signature.batched && rows != kAnyRows && outputs[i].rows() != rows) {
      return failed(quoted("output", spec.name) + " has " + std::to_string(outputs[i].rows()) +
                    " rows for a batch of " + std::to_string(rows));
    }
  }
  return {};
}

}  // namespace pyserve
