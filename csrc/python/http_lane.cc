#include "python/http_lane.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/dtype.h"
#include "base/json_numbers.h"
#include "python/http_bytes.h"
#include "python/lane.h"
#include "python/native_call.h"
#include "wire/http_head.h"

namespace pyserve::python {
namespace {

// From here on the GIL is let go of while numbers are read.
constexpr std::size_t kLongText = 32 * 1024;

// An answer that may be as long as this is compressed for who asks for it, which the plain lane
// does (MIN_BYTES in pyserve/http/compression.py).
constexpr std::size_t kCompressedBytes = 1024;

// Ends connections with their next answer, once the server drains.
using Closing = std::shared_ptr<const bool>;

class HttpAttachment final : public LaneAttachment {
 public:
  using LaneAttachment::LaneAttachment;

  // Head and body.
  py::object answer(const Request& request) const override;

  py::object body;
  std::vector<std::unique_ptr<std::byte[]>> numbers;  // what was JSON
  Closing closing;
};

py::object HttpAttachment::answer(const Request& request) const {
  const LaneAnswer answer(*this, request, *closing);
  static std::string out;  // guarded by the GIL
  out.clear();
  if (const Status status = write_oip_answer(answer.view(), out); !status.ok()) {
    throw NoAnswer(status.message);
  }
  return py::bytes(out);
}

// Whether the answer's body may have kCompressedBytes or more.
bool may_be_long(const Signature& signature, const std::vector<WantedOutput>& outputs,
                 std::int64_t rows, std::size_t names) {
  constexpr std::size_t kJsonBytes = 150;   // of an output, or of the whole, beside names and data
  constexpr std::size_t kDigitsBytes = 26;  // of a number as text, with its comma
  constexpr std::size_t kDimensionBytes = 21;
  std::size_t bound = kJsonBytes + names;
  for (const WantedOutput& output : outputs) {
    const TensorSpec& spec = signature.outputs[output.index];
    if (!spec.shape.has_value() || *spec.dtype == Dtype::kBytes) {
      return true;
    }
    const std::optional<std::size_t> elements = checked_elements(*spec.shape);
    if (!elements.has_value() || *elements >= kCompressedBytes || rows >= 1024) {
      return true;
    }
    const std::size_t all = *elements * static_cast<std::size_t>(signature.batched ? rows : 1);
    bound += kJsonBytes + output.name.size() + (spec.shape->size() + 1) * kDimensionBytes +
             all * (output.binary ? dtype_size(*spec.dtype) : kDigitsBytes);
  }
  return bound >= kCompressedBytes;
}

// The numbers of one input that came as JSON; false where they are not plainly right.
bool read_numbers(const OipInput& input, HttpAttachment& attachment, WireTensor& tensor) {
  const std::optional<Dtype> dtype = parse_dtype(input.datatype);
  const std::optional<std::size_t> count = checked_elements(input.shape);
  // An element and its comma take two characters: a lying shape cannot make us allocate.
  if (!dtype.has_value() || *dtype == Dtype::kBytes || !count.has_value() ||
      *count > input.data.size() / 2) {
    return false;
  }
  const std::size_t bytes = *count * dtype_size(*dtype);
  attachment.numbers.push_back(std::make_unique_for_overwrite<std::byte[]>(bytes));
  std::byte* const out = attachment.numbers.back().get();
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
bool read_inputs(const OipRequest& asked, std::string_view binary, HttpAttachment& attachment,
                 std::vector<WireTensor>& tensors) {
  for (const OipInput& input : asked.inputs) {
    WireTensor tensor{.name = input.name, .datatype = input.datatype, .shape = input.shape};
    if (!input.binary_size.has_value()) {
      if (!read_numbers(input, attachment, tensor)) {
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

// What all connections of one server share.
class HttpLane {
 public:
  // A rehearsal answers what can be answered at once, and counts nothing.
  explicit HttpLane(bool rehearsal) : rehearsal_(rehearsal) {}

  void close_connections() { *closing_ = true; }

  // The answer's bytes, where the model is light and idle; a Request that completes through the
  // queue with such bytes; or None: the plain lane's.  Raises what admission refuses.
  py::object submit(const VersionPtr& version, const PyCompletionQueue& queue, RequestHead& head,
                    const RequestBody* body, const py::object& body_object, py::object token,
                    bool here) {
    refuse_after_fork();
    const Clock& clock = version->clock();
    const Nanos started = clock.now();
    const Signature& signature = version->signature();
    const std::string_view content =
        body != nullptr ? body->view()
                        : head.view().substr(head.head.head_bytes, head.head.body_bytes);
    auto attachment = std::make_unique<HttpAttachment>(version, std::move(token));
    std::vector<WireTensor> tensors;
    if (!lane_serves(signature) || !read(signature, head.head, content, *attachment, tensors)) {
      return py::none();
    }
    RequestPtr request = lane_request(signature, tensors);
    if (request == nullptr ||
        (head.head.accepts_compression &&
         may_be_long(signature, attachment->outputs, request->rows,
                     version->name().size() + version->number().size() + attachment->id.size()))) {
      return py::none();
    }
    head.id = attachment->id;
    attachment->text = head.text;
    attachment->body = body_object;
    attachment->closing = closing_;
    attachment->parse_ns = clock.now() - started;
    return run_lane(version, queue, std::move(request), std::move(attachment),
                    {.started = started,
                     .timeout_us = asked_.timeout_us,
                     .priority = asked_.priority,
                     .here = here,
                     .rehearsal = rehearsal_});
  }

 private:
  bool read(const Signature& signature, const HttpHead& head, std::string_view content,
            HttpAttachment& attachment, std::vector<WireTensor>& tensors) {
    if (head.header_length == 0) {
      asked_ = {.binary_default = true};
      return read_raw(signature, content, tensors) &&
             choose_outputs(signature, asked_.outputs, asked_.binary_default, attachment.outputs);
    }
    const std::size_t json = head.header_length.value_or(content.size());
    if (json > content.size() || !parse_oip_request(content.substr(0, json), asked_)) {
      return false;
    }
    const auto follows = [](const OipInput& input) { return input.binary_size.has_value(); };
    if (!head.header_length.has_value() && std::ranges::any_of(asked_.inputs, follows)) {
      return false;
    }
    attachment.id = asked_.id;
    return read_inputs(asked_, content.substr(json), attachment, tensors) &&
           choose_outputs(signature, asked_.outputs, asked_.binary_default, attachment.outputs);
  }

  const bool rehearsal_;
  const std::shared_ptr<bool> closing_ = std::make_shared<bool>(false);
  OipRequest asked_;  // its memory is reused
};

}  // namespace

void define_http_lane(py::module_& m) {
  py::class_<HttpLane>(m, "HttpLane")
      .def(py::init<bool>(), py::kw_only(), py::arg("rehearsal") = false)
      .def("close_connections", &HttpLane::close_connections)
      .def(
          "submit",
          [](HttpLane& lane, const VersionPtr& version, const PyCompletionQueue& queue,
             RequestHead& head, const py::object& body, py::object token, bool here) {
            return lane.submit(version, queue, head,
                               body.is_none() ? nullptr : body.cast<const RequestBody*>(), body,
                               std::move(token), here);
          },
          py::arg("version"), py::arg("queue"), py::arg("head"), py::arg("body"), py::arg("token"),
          py::arg("here"), py::call_guard<NativeCall>());
}

}  // namespace pyserve::python
