// What a runner does where a run fails for want of memory, or because its device is lost.
#include <ATen/ops/cat.h>

#include <algorithm>
#include <utility>

#include "base/notices.h"
#include "engine/runner.h"
#include "tensor/collate.h"

namespace pyserve {
namespace {

// The parts' outputs, one after the other.
Values joined(const std::vector<RequestPtr>& parts) {
  Values whole = parts.front()->outputs;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    if (whole[i].is_strings()) {
      Strings all;
      for (const RequestPtr& part : parts) {
        const Strings& some = *part->outputs[i].strings;
        all.insert(all.end(), some.begin(), some.end());
      }
      whole[i] = Value(std::move(all));
    } else {
      std::vector<at::Tensor> some;
      some.reserve(parts.size());
      for (const RequestPtr& part : parts) {
        some.push_back(part->outputs[i].tensor);
      }
      whole[i] = Value(at::cat(some));
    }
  }
  return whole;
}

// Rows [begin, begin + rows) of a request's inputs, as views.
Values part_of(const Values& inputs, std::int64_t begin, std::int64_t rows) {
  Values part;
  part.reserve(inputs.size());
  for (const Value& value : inputs) {
    part.push_back(value.absent() ? value : split({value}, begin, rows).front());
  }
  return part;
}

std::string memory_text(const c10::Device& device) {
  return device.is_cpu() ? "memory" : "the memory of " + device.str();
}

std::string rows_text(std::int64_t rows) {
  return rows == 1 ? "one row" : std::to_string(rows) + " rows";
}

}  // namespace

Status Runner::failed(const std::exception& error) {
  fault_ = context_.device_lost(stream_) ? Fault::kDeviceLost : fault_of(error);
  fault_text_ = failure_text(error);
  return model_failed(context_.label + " failed: " + fault_text_);
}

void Runner::note_too_many(std::int64_t rows) {
  RowLimit& limit = context_.batcher.row_limit();
  if (context_.rows_checked && limit.too_many(rows)) {
    process_notices().post(NoticeKind::kOutOfMemory,
                           context_.label + ": " + rows_text(rows) + " did not fit into " +
                               memory_text(context_.device) + "; batches have at most " +
                               rows_text(limit.rows()) + " from now on");
  }
}

bool Runner::still_wanted(Request& request) {
  if (context_.failure.why() != nullptr) {
    context_.batcher.cancel(request);
  } else if (context_.clock.now() >= request.deadline) {
    context_.batcher.expire(request);
  }
  if (request.claim.outcome() == Outcome::kOpen) {
    return true;
  }
  settle(request, {});
  return false;
}

std::int64_t Runner::most_rows() const noexcept {
  return std::min(context_.batcher.row_limit().rows(), context_.signature.padding.most_rows());
}

void Runner::run_halves(std::span<const RequestPtr> requests, std::int64_t rows, Nanos formed) {
  if (requests.size() == 1) {
    run_parts(requests.front(), formed);
    return;
  }
  std::size_t count = 0;
  std::int64_t first = 0;
  while (count + 1 < requests.size() && (count == 0 || first + requests[count]->rows <= rows / 2)) {
    first += requests[count]->rows;
    ++count;
  }
  // The second half meets what has changed since: a limit, a deadline, a device that is lost.
  const std::pair<std::span<const RequestPtr>, std::int64_t> halves[] = {
      {requests.first(count), first}, {requests.subspan(count), rows - first}};
  for (const auto& [half, half_rows] : halves) {
    std::vector<RequestPtr> open;
    std::int64_t open_rows = half_rows;
    for (const RequestPtr& request : half) {
      if (still_wanted(*request)) {
        open.push_back(request);
      } else {
        open_rows -= request->rows;
      }
    }
    if (!open.empty()) {
      run(open, open_rows, formed);
    }
  }
}

Status Runner::attempt_part(Request& whole, std::int64_t begin, std::int64_t rows, Nanos formed,
                            std::vector<RequestPtr>& parts) {
  auto part = std::make_shared<Request>();
  part->inputs = part_of(whole.inputs, begin, rows);
  part->rows = rows;
  part->arrival = whole.arrival;
  part->borrows = whole.borrows;
  part->is_part = true;
  part->keeps_outputs = false;
  Status status = attempt(std::span(&part, 1), rows, formed);
  if (status.ok()) {
    context_.batcher.row_limit().fitted(rows);
    whole.timing.queue = part->timing.queue;
    whole.timing.copy_in += part->timing.copy_in;
    whole.timing.compute += part->timing.compute;
    whole.timing.copy_out += part->timing.copy_out;
    whole.timing.batch_size = std::max(whole.timing.batch_size, rows);
    whole.names = part->names;
    parts.push_back(std::move(part));
  }
  return status;
}

void Runner::run_parts(const RequestPtr& whole, Nanos formed) {
  Request& request = *whole;
  const bool divisible = context_.rows_checked && request.rows > 1;
  const std::int64_t most = most_rows();
  std::int64_t size = 0;
  if (divisible) {
    size = request.rows > most ? most : std::max<std::int64_t>(1, request.rows / 2);
  }
  std::vector<RequestPtr> parts;
  request.timing = {};
  for (std::int64_t begin = 0; divisible && begin < request.rows;) {
    if (!still_wanted(request)) {
      return;
    }
    const std::int64_t rows = std::min(size, request.rows - begin);
    Status status = attempt_part(request, begin, rows, formed, parts);
    if (status.ok()) {
      begin += rows;
      continue;
    }
    if (fault_ == Fault::kDeviceLost) {
      lose(std::span(&whole, 1));
      return;
    }
    if (fault_ != Fault::kOutOfMemory) {
      settle(request, std::move(status));
      return;
    }
    note_too_many(rows);
    size = rows / 2;
    if (size == 0) {
      break;
    }
  }
  if (!divisible || size == 0) {
    context_.batcher.row_limit().forget();
    settle(request,
           model_failed(context_.label + " failed: " + rows_text(divisible ? 1 : request.rows) +
                        " did not fit into " + memory_text(context_.device) + ": " + fault_text_));
    return;
  }
  request.outputs = joined(parts);
  settle(request, {});
}

void Runner::lose(std::span<const RequestPtr> requests) {
  const std::string why = context_.label + " has lost its device, " + context_.device.str() +
                          ", until the process is restarted: " + fault_text_;
  if (context_.failure.set(why)) {
    process_notices().post(NoticeKind::kDeviceLost, why);
  }
  context_.batcher.abort();  // what waits is answered the same way
  for (const RequestPtr& request : requests) {
    settle(*request, unavailable(why));
  }
}

}  // namespace pyserve
