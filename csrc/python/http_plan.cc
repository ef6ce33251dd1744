#include "python/http_plan.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "base/checked.h"
#include "base/dtype.h"
#include "base/json_numbers.h"
#include "python/native_call.h"

namespace pyserve::python {
namespace {

// From here on the GIL is let go of while numbers are read.
constexpr std::size_t kLongText = 32 * 1024;

// An answer that may be as long as this is compressed for who asks for it, which the plain lane
// does (MIN_BYTES in pyserve/http/compression.py).
constexpr std::size_t kCompressedBytes = 1024;

// Whether the answer's body may have kCompressedBytes or more.
bool may_be_long(const Signature& signature, const HttpPlan& plan, std::size_t names) {
  constexpr std::size_t kJsonBytes = 150;   // of an output, or of the whole, beside names and data
  constexpr std::size_t kDigitsBytes = 26;  // of a number as text, with its comma
  constexpr std::size_t kDimensionBytes = 21;
  std::size_t bound = kJsonBytes + names;
  for (const WantedOutput& output : plan.outputs) {
    const TensorSpec& spec = signature.outputs[output.index];
    if (!spec.shape.has_value() || *spec.dtype == Dtype::kBytes) {
      return true;
    }
    const std::optional<std::size_t> elements = checked_elements(*spec.shape);
    if (!elements.has_value() || *elements >= kCompressedBytes || plan.rows >= 1024) {
      return true;
    }
    const std::size_t all = *elements * static_cast<std::size_t>(signature.batched ? plan.rows : 1);
    bound += kJsonBytes + output.name.size() + (spec.shape->size() + 1) * kDimensionBytes +
             all * (output.binary ? dtype_size(*spec.dtype) : kDigitsBytes);
  }
  return bound >= kCompressedBytes;
}

// The numbers of one input that came as JSON; false where they are not plainly right.
bool read_numbers(const OipInput& input, HttpInputs& inputs, WireTensor& tensor) {
  const std::optional<Dtype> dtype = parse_dtype(input.datatype);
  const std::optional<std::size_t> count = checked_elements(input.shape);
  // An element and its comma take two characters: a lying shape cannot make us allocate.
  if (!dtype.has_value() || *dtype == Dtype::kBytes || !count.has_value() ||
      *count > input.data.size() / 2) {
    return false;
  }
  const std::size_t bytes = *count * dtype_size(*dtype);
  inputs.numbers.push_back(std::make_unique_for_overwrite<std::byte[]>(bytes));
  std::byte* const out = inputs.numbers.back().get();
  const auto read = [&] { return parse_json_numbers(input.data, *dtype, out, *count).ok(); };
  bool right = false;
  if (input.data.size() < kLongText) {
    right = read();
  } else {
    const WithoutGil released;
    right = read();
  }
  tensor.data = {out, bytes};
  return right;
}

// The inputs of a request whose JSON is `asked`, with `binary` behind it.
bool read_inputs(const OipRequest& asked, std::string_view binary, HttpInputs& inputs,
                 std::vector<WireTensor>& tensors) {
  for (const OipInput& input : asked.inputs) {
    WireTensor tensor{.name = input.name, .datatype = input.datatype, .shape = input.shape};
    if (!input.binary_size.has_value()) {
      if (!read_numbers(input, inputs, tensor)) {
        return false;
      }
    } else {
      if (*input.binary_size > binary.size()) {
        return false;
      }
      tensor.data = std::as_bytes(std::span(binary.data(), *input.binary_size));
      binary.remove_prefix(*input.binary_size);
    }
    tensors.push_back(std::move(tensor));
  }
  return binary.empty();
}

// The only input, whose bytes are the whole body: fixed sizes, any number of rows.
bool read_raw(const Signature& signature, std::string_view body, std::vector<WireTensor>& tensors) {
  const TensorSpec& spec = signature.inputs.front();
  if (signature.inputs.size() != 1 || !spec.dtype.has_value() || *spec.dtype == Dtype::kBytes ||
      !spec.shape.has_value()) {
    return false;
  }
  const std::optional<std::size_t> elements = checked_elements(*spec.shape);
  const std::optional<std::size_t> bytes =
      elements.has_value() ? checked_mul(*elements, dtype_size(*spec.dtype)) : std::nullopt;
  if (!bytes.has_value() || *bytes == 0 || body.empty() || body.size() % *bytes != 0) {
    return false;
  }
  std::vector<std::int64_t> shape = *spec.shape;
  if (signature.batched) {
    shape.insert(shape.begin(), static_cast<std::int64_t>(body.size() / *bytes));
  } else if (body.size() != *bytes) {
    return false;
  }
  tensors.push_back({.name = spec.name,
                     .datatype = dtype_name(*spec.dtype),
                     .shape = std::move(shape),
                     .data = std::as_bytes(std::span(body.data(), body.size()))});
  return true;
}

void plan_inputs(const Values& values, std::vector<PlannedInput>& inputs) {
  for (const Value& value : values) {
    if (!value.tensor.defined()) {
      inputs.clear();
      return;
    }
    inputs.push_back({.type = value.tensor.scalar_type(),
                      .shape = value.tensor.sizes().vec(),
                      .bytes = value.tensor.nbytes()});
  }
}

}  // namespace

std::shared_ptr<HttpPlan> HttpReader::read(const ModelVersion& version, const HttpHead& head,
                                           std::string_view body, HttpInputs& inputs) {
  const Signature& signature = version.signature();
  auto plan = std::make_shared<HttpPlan>();
  if (!lane_serves(signature) || !read_body(signature, head, body, *plan, inputs) ||
      !borrow_inputs(signature, tensors_, inputs.values, plan->rows).ok() ||
      (head.accepts_compression &&
       may_be_long(signature, *plan,
                   version.name().size() + version.number().size() + plan->id.size()))) {
    return nullptr;
  }
  plan_inputs(inputs.values, plan->inputs);
  return plan;
}

bool HttpReader::read_body(const Signature& signature, const HttpHead& head, std::string_view body,
                           HttpPlan& plan, HttpInputs& inputs) {
  tensors_.clear();
  if (head.header_length == 0) {
    asked_ = {.binary_default = true};
    return read_raw(signature, body, tensors_) &&
           choose_outputs(signature, asked_.outputs, asked_.binary_default, plan.outputs);
  }
  const std::size_t json = head.header_length.value_or(body.size());
  if (json > body.size() || !parse_oip_request(body.substr(0, json), asked_)) {
    return false;
  }
  const auto follows = [](const OipInput& input) { return input.binary_size.has_value(); };
  if (!head.header_length.has_value() && std::ranges::any_of(asked_.inputs, follows)) {
    return false;
  }
  plan.id = asked_.id;
  plan.timeout_us = asked_.timeout_us;
  plan.priority = asked_.priority;
  return read_inputs(asked_, body.substr(json), inputs, tensors_) &&
         choose_outputs(signature, asked_.outputs, asked_.binary_default, plan.outputs);
}

void HttpReader::keep(const Signature& signature, const HttpHead& head, std::string_view text,
                      const HttpInputs& inputs, HttpPlan& plan) const {
  constexpr std::size_t kMaxPrefixBytes = 2048;
  const auto looked_into = [](const PlannedInput& input) { return input.type == at::kBool; };
  if (!head.header_length.has_value() || plan.inputs.empty() ||
      plan.inputs.size() != tensors_.size() || !inputs.numbers.empty() ||
      std::ranges::any_of(plan.inputs, looked_into)) {
    return;
  }
  const std::size_t prefix = head.head_bytes + *head.header_length;
  if (prefix > kMaxPrefixBytes) {
    return;
  }
  const char* const body = text.data() + head.head_bytes;
  for (const WireTensor& tensor : tensors_) {
    plan.inputs[signature.input_index(tensor.name).value()].offset =
        static_cast<std::size_t>(reinterpret_cast<const char*>(tensor.data.data()) - body);
  }
  plan.prefix = text.substr(0, prefix);
  plan.head_bytes = head.head_bytes;
  plan.total_bytes = head.head_bytes + head.body_bytes;
}

Values planned_inputs(const HttpPlan& plan, const std::byte* body) {
  Values values;
  values.reserve(plan.inputs.size());
  for (const PlannedInput& input : plan.inputs) {
    const std::byte* const data = body + input.offset;
    const auto options = at::TensorOptions().dtype(input.type);
    if (input.bytes != 0 &&
        reinterpret_cast<std::uintptr_t>(data) % c10::elementSize(input.type) == 0) {
      // for_blob wants a mutable pointer; a request's body is private to it.
      values.emplace_back(at::for_blob(const_cast<std::byte*>(data), input.shape)
                              .options(options)
                              .target_device(c10::Device(c10::DeviceType::CPU))
                              .make_tensor());
    } else {
      values.emplace_back(at::empty(input.shape, options));
      if (input.bytes != 0) {
        std::memcpy(values.back().tensor.mutable_data_ptr(), data, input.bytes);
      }
    }
  }
  return values;
}

bool stackable(const HttpPlan& a, const HttpPlan& b) {
  return &a == &b ||
         std::ranges::equal(a.inputs, b.inputs, [](const PlannedInput& x, const PlannedInput& y) {
           return x.type == y.type && !x.shape.empty() && x.shape.size() == y.shape.size() &&
                  std::equal(x.shape.begin() + 1, x.shape.end(), y.shape.begin() + 1);
         });
}

}  // namespace pyserve::python
