#include "python/express.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
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
#include "python/convert.h"
#include "python/native_call.h"
#include "python/requests.h"
#include "tensor/borrow.h"
#include "wire/http_head.h"
#include "wire/oip_answer.h"
#include "wire/oip_request.h"

namespace pyserve::python {
namespace {

// From here on the GIL is let go of while numbers are read.
constexpr std::size_t kLongText = 32 * 1024;

// An answer that may be as long as this is compressed for who asks for it, which the plain lane
// does (MIN_BYTES in pyserve/http/compression.py).
constexpr std::size_t kCompressedBytes = 1024;

// The head of a request; keeps the bytes that it is a view of.
struct RequestHead {
  py::bytes text;
  std::size_t begin;  // of the request, in `text`
  HttpHead head;
  std::string id;  // of the request, once it was submitted

  std::string_view view() const { return static_cast<std::string_view>(text).substr(begin); }
};

py::object parse_head(const py::bytes& text, std::size_t offset) {
  const std::string_view view = text;
  if (offset > view.size()) {
    return py::none();
  }
  const std::optional<HttpHead> head = parse_http_head(view.substr(offset));
  return head.has_value() ? py::cast(RequestHead{.text = text, .begin = offset, .head = *head})
                          : py::none();
}

// A body that arrives in pieces: memory of the length that its head declares, which is not touched,
// and so costs nothing, before the bytes come.
class RequestBody {
 public:
  explicit RequestBody(std::size_t size)
      : size_(size), bytes_(std::make_unique_for_overwrite<std::byte[]>(size)) {}

  // Takes what belongs to this body of `text` from `offset` on; returns how much that was.
  std::size_t append(const py::bytes& text, std::size_t offset) {
    const std::string_view view = text;
    const std::string_view rest = view.substr(std::min(offset, view.size()));
    const std::size_t taken = std::min(rest.size(), size_ - filled_);
    std::memcpy(bytes_.get() + filled_, rest.data(), taken);
    filled_ += taken;
    return taken;
  }

  // Where the rest goes, for who writes it himself and says so by advance(); valid while this
  // lives.
  py::memoryview room() {
    return py::memoryview::from_memory(bytes_.get() + filled_,
                                       static_cast<py::ssize_t>(size_ - filled_));
  }
  void advance(std::size_t count) { filled_ += std::min(count, missing()); }

  std::size_t missing() const { return size_ - filled_; }
  // What has come so far.
  py::bytes content() const { return {reinterpret_cast<const char*>(bytes_.get()), filled_}; }
  std::string_view view() const { return {reinterpret_cast<const char*>(bytes_.get()), filled_}; }

 private:
  const std::size_t size_;
  std::size_t filled_ = 0;
  const std::unique_ptr<std::byte[]> bytes_;
};

struct WantedOutput {
  std::size_t index;
  std::string name;
  bool binary;
};

// Ends connections with their next answer, once the server drains.
using Closing = std::shared_ptr<const bool>;

class HttpAttachment final : public PyAttachment {
 public:
  using PyAttachment::PyAttachment;

  py::object answer(const Request& request) const override;

  py::object text;  // the bytes that inputs point into
  py::object body;
  std::vector<std::unique_ptr<std::byte[]>> numbers;  // what was JSON
  std::string id;
  std::vector<WantedOutput> outputs;
  Closing closing;
  Nanos parse_ns = 0;
};

py::object HttpAttachment::answer(const Request& request) const {
  std::vector<OipAnswerOutput> parts;
  parts.reserve(outputs.size());
  std::vector<std::vector<std::byte>> strings;
  strings.reserve(outputs.size());
  std::vector<std::int64_t> counts(outputs.size());
  for (const WantedOutput& output : outputs) {
    const Value& value = request.outputs[output.index];
    if (value.is_strings()) {
      std::int64_t& count = counts[strings.size()];
      count = value.rows();
      strings.push_back(encode_strings(*value.strings));
      parts.push_back({.name = output.name,
                       .dtype = Dtype::kBytes,
                       .shape = std::span(&count, 1),
                       .data = strings.back(),
                       .binary = output.binary});
    } else {
      const at::Tensor& tensor = value.tensor;
      parts.push_back(
          {.name = output.name,
           .dtype = dtype_of(tensor.scalar_type()).value(),
           .shape = std::span(tensor.sizes().data(), tensor.sizes().size()),
           .data = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()},
           .binary = output.binary});
    }
  }
  const Timing& timing = request.timing;
  const OipAnswer answer{.model = version->name(),
                         .version = version->number(),
                         .id = id,
                         .outputs = parts,
                         .timing = {.parse_ns = parse_ns,
                                    .queue_ns = timing.queue,
                                    .batch_size = timing.batch_size,
                                    .copy_in_ns = timing.copy_in,
                                    .compute_ns = timing.compute,
                                    .copy_out_ns = timing.copy_out},
                         .close = *closing};
  static std::string out;  // guarded by the GIL
  out.clear();
  if (const Status status = write_oip_answer(answer, out); !status.ok()) {
    throw NoAnswer(status.message);
  }
  return py::bytes(out);
}

// Printable ASCII that JSON writes as it is.
bool plain(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return c >= 0x20 && c <= 0x7e && c != '"' && c != '\\'; });
}

// Which outputs are wanted, and how; false where only the plain lane can tell.
bool choose_outputs(const Signature& signature, const OipRequest& asked,
                    std::vector<WantedOutput>& outputs) {
  if (asked.outputs.has_value()) {
    for (const OipOutput& one : *asked.outputs) {
      const std::optional<std::size_t> index = signature.output_index(one.name);
      if (!index.has_value()) {
        return false;
      }
      outputs.push_back({.index = *index, .name = std::string(one.name), .binary = one.binary});
    }
  } else {
    for (std::size_t i = 0; i < signature.outputs.size(); ++i) {
      outputs.push_back(
          {.index = i, .name = signature.outputs[i].name, .binary = asked.binary_default});
    }
  }
  return std::ranges::all_of(outputs, [&](const WantedOutput& output) {
    const std::optional<Dtype> dtype = signature.outputs[output.index].dtype;
    return dtype.has_value() && (output.binary || *dtype != Dtype::kBytes) && plain(output.name);
  });
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
    if (!signature.outputs_known || signature.inputs.empty() ||
        !read(signature, head.head, content, *attachment, tensors)) {
      return py::none();
    }
    auto request = std::make_shared<Request>();
    if (!borrow_inputs(signature, tensors, request->inputs, request->rows).ok() ||
        (head.head.accepts_compression &&
         may_be_long(signature, attachment->outputs, request->rows,
                     version->name().size() + version->number().size() + attachment->id.size()))) {
      request->inputs.clear();
      return py::none();
    }
    head.id = attachment->id;
    attachment->text = head.text;
    attachment->body = body_object;
    attachment->closing = closing_;
    attachment->parse_ns = clock.now() - started;
    request->borrows = true;
    request->keeps_outputs = false;
    request->attachment = std::move(attachment);
    request->queue = queue.queue();
    if (here && version->run_here(request, rehearsal_)) {
      return take_answer(*request);
    }
    if (rehearsal_) {
      release_inputs(*request);
      return py::none();
    }
    submit_checked(*version, request);
    return py::cast(PyRequest{std::move(request), version});
  }

 private:
  bool read(const Signature& signature, const HttpHead& head, std::string_view content,
            HttpAttachment& attachment, std::vector<WireTensor>& tensors) {
    if (head.header_length == 0) {
      asked_ = {.binary_default = true};
      return read_raw(signature, content, tensors) &&
             choose_outputs(signature, asked_, attachment.outputs);
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
           choose_outputs(signature, asked_, attachment.outputs);
  }

  const bool rehearsal_;
  const std::shared_ptr<bool> closing_ = std::make_shared<bool>(false);
  OipRequest asked_;  // its memory is reused
};

}  // namespace

void define_express(py::module_& m) {
  m.def("parse_head", &parse_head, py::arg("text"), py::arg("offset"));
  py::class_<RequestHead>(m, "RequestHead")
      .def_property_readonly(
          "text",
          [](const RequestHead& h) { return py::bytes(h.view().substr(0, h.head.head_bytes)); })
      .def_property_readonly("target", [](const RequestHead& h) { return h.head.target; })
      .def_property_readonly("head_bytes", [](const RequestHead& h) { return h.head.head_bytes; })
      .def_property_readonly("body_bytes", [](const RequestHead& h) { return h.head.body_bytes; })
      .def_property_readonly("close", [](const RequestHead& h) { return h.head.close; })
      .def_property_readonly("ordinary", [](const RequestHead& h) { return h.head.ordinary; })
      .def_readonly("id", &RequestHead::id);
  py::class_<RequestBody>(m, "RequestBody")
      .def(py::init<std::size_t>(), py::arg("size"))
      .def("append", &RequestBody::append, py::arg("text"), py::arg("offset"))
      .def("room", &RequestBody::room)
      .def("advance", &RequestBody::advance, py::arg("count"))
      .def_property_readonly("missing", &RequestBody::missing)
      .def("content", &RequestBody::content);
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
