#include "python/lane.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "base/dtype.h"

namespace pyserve::python {
namespace {

// Printable ASCII that JSON writes as it is.
bool plain(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return c >= 0x20 && c <= 0x7e && c != '"' && c != '\\'; });
}

// The caller's deadline or the request's own, in nanoseconds; 0 where there is neither.
Nanos nearest_deadline(const LaneTurn& turn) {
  if (turn.timeout_us == 0) {
    return turn.deadline_ns;
  }
  const Nanos own = deadline_of(turn.started, turn.timeout_us);
  return turn.deadline_ns > 0 ? std::min(own, turn.deadline_ns) : own;
}

}  // namespace

LaneAnswer::LaneAnswer(const LaneAttachment& attachment, const Request& request, bool close) {
  parts_.reserve(attachment.outputs.size());
  strings_.reserve(attachment.outputs.size());
  counts_.resize(attachment.outputs.size());
  for (const WantedOutput& output : attachment.outputs) {
    const Value& value = request.outputs[output.index];
    if (value.is_strings()) {
      std::int64_t& count = counts_[strings_.size()];
      count = value.rows();
      strings_.push_back(encode_strings(*value.strings));
      parts_.push_back({.name = output.name,
                        .dtype = Dtype::kBytes,
                        .shape = std::span(&count, 1),
                        .data = strings_.back(),
                        .binary = output.binary});
    } else {
      const at::Tensor& tensor = value.tensor;
      parts_.push_back(
          {.name = output.name,
           .dtype = dtype_of(tensor.scalar_type()).value(),
           .shape = std::span(tensor.sizes().data(), tensor.sizes().size()),
           .data = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()},
           .binary = output.binary});
    }
  }
  const Timing& timing = request.timing;
  answer_ = {.model = attachment.version->name(),
             .version = attachment.version->number(),
             .id = attachment.id,
             .outputs = parts_,
             .timing = {.parse_ns = attachment.parse_ns,
                        .queue_ns = timing.queue,
                        .batch_size = timing.batch_size,
                        .copy_in_ns = timing.copy_in,
                        .compute_ns = timing.compute,
                        .copy_out_ns = timing.copy_out},
             .close = close};
}

bool lane_serves(const Signature& signature) {
  return signature.outputs_known && !signature.inputs.empty();
}

bool choose_outputs(const Signature& signature, const std::optional<std::vector<OipOutput>>& asked,
                    bool binary_default, std::vector<WantedOutput>& outputs) {
  if (asked.has_value()) {
    for (const OipOutput& one : *asked) {
      const std::optional<std::size_t> index = signature.output_index(one.name);
      if (!index.has_value()) {
        return false;
      }
      outputs.push_back({.index = *index, .name = std::string(one.name), .binary = one.binary});
    }
  } else {
    for (std::size_t i = 0; i < signature.outputs.size(); ++i) {
      outputs.push_back({.index = i, .name = signature.outputs[i].name, .binary = binary_default});
    }
  }
  return std::ranges::all_of(outputs, [&](const WantedOutput& output) {
    const std::optional<Dtype> dtype = signature.outputs[output.index].dtype;
    return dtype.has_value() && (output.binary || *dtype != Dtype::kBytes) && plain(output.name);
  });
}

RequestPtr lane_request(const Signature& signature, const std::vector<WireTensor>& tensors) {
  auto request = std::make_shared<Request>();
  if (!borrow_inputs(signature, tensors, request->inputs, request->rows).ok()) {
    request->inputs.clear();
    return nullptr;
  }
  request->borrows = true;
  request->keeps_outputs = false;
  return request;
}

Nanos deadline_of(Nanos started, std::int64_t timeout_us) {
  constexpr Nanos kMicrosecond = 1000;
  return timeout_us < (kNever - started) / kMicrosecond ? started + timeout_us * kMicrosecond
                                                        : kNever;
}

py::object run_lane(const VersionPtr& version, const PyCompletionQueue& queue, RequestPtr request,
                    std::unique_ptr<LaneAttachment> attachment, const LaneTurn& turn) {
  request->attachment = std::move(attachment);
  request->queue = queue.queue();
  schedule(*request, *version, nearest_deadline(turn), turn.priority);
  if (version->run_here(request)) {
    return take_answer(*request);
  }
  submit_checked(*version, request);
  return py::cast(PyRequest{std::move(request), version});
}

}  // namespace pyserve::python
