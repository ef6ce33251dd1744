#include "engine/runner.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/probe.h"
#include "runtime/threads.h"
#include "tensor/collate.h"

namespace pyserve {
namespace {

constexpr Nanos kWarmupBudget = 20'000'000'000;
// The interpreter profiles the first run and optimises on the second.
constexpr int kWarmupRuns = 3;
// Light batches are run some more, for a shortest time that means something.
constexpr int kTimedRuns = 32;
constexpr Nanos kTimedNs = 3'000'000;

std::int64_t epoch_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Runner::Runner(const InstanceContext& context) : context_(context), stream_(context.device) {}

WarmUp Runner::warm_up() {
  WarmUp result;
  const Nanos start = context_.clock.now();
  for (const std::vector<Values>& rows : context_.warmup) {
    RunTime time{.rows = static_cast<std::int64_t>(rows.size())};
    const Nanos first = context_.clock.now();
    Nanos now = first;
    for (int run = 0; run < kWarmupRuns || (run < kTimedRuns && now - first < kTimedNs); ++run) {
      const Nanos before = now;
      try {
        run_together(context_.executable, context_.signature.padding, rows, stream_);
      } catch (const std::exception& error) {
        result.failure = failure_text(error);
        if (fault_of(error) == Fault::kOutOfMemory) {
          result.too_many = time.rows;
        }
        static_cast<void>(context_.device_lost(stream_));  // its copies have ended
        return result;
      }
      now = context_.clock.now();
      time.shortest = std::min(time.shortest, now - before);
      if (now - start > kWarmupBudget) {
        return result;
      }
    }
    result.times.push_back(time);
    if (std::string note = prepare(context_.executable, context_.signature.padding, rows, stream_);
        !note.empty()) {
      result.note = std::move(note);
    }
  }
  if (context_.cpus > 0 && !context_.warmup.empty()) {
    // The first run on more threads starts them.
    const IntraopThreads threads(context_.cpus);
    for (int run = 0; run < kWarmupRuns; ++run) {
      run_together(context_.executable, context_.signature.padding, context_.warmup.front(),
                   stream_);
    }
  }
  return result;
}

void Runner::drop(std::span<const RequestPtr> requests) {
  for (const RequestPtr& request : requests) {
    settle(*request, {});
  }
}

void Runner::run(std::span<const RequestPtr> requests, std::int64_t rows, Nanos formed) {
  if (rows > most_rows()) {
    run_halves(requests, rows, formed);  // one request: the batcher joins no more than fit
    return;
  }
  Status status = attempt(requests, rows, formed);
  if (status.ok()) {
    context_.batcher.row_limit().fitted(rows);
    return;
  }
  if (fault_ == Fault::kDeviceLost) {
    lose(requests);
    return;
  }
  if (fault_ == Fault::kOutOfMemory) {
    note_too_many(rows);
    run_halves(requests, rows, formed);
    return;
  }
  if (requests.size() == 1) {
    settle(*requests.front(), std::move(status));
    return;
  }
  // Alone, so that only the poisoned request fails.
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (still_wanted(*requests[i])) {
      run(requests.subspan(i, 1), requests[i]->rows, context_.clock.now());
    }
  }
}

template <class Run>
Status Runner::caught(Run&& run) {
  fault_ = Fault::kModel;
  try {
    return run();
  } catch (const std::exception& error) {
    return failed(error);
  } catch (...) {  // a custom operator may throw anything
    return model_failed(context_.label + " failed: it raised something that is no exception");
  }
}

Status Runner::compute(const Values& inputs, std::int64_t rows, Computed& result) {
  RunResult returned = context_.executable.run(inputs);
  stream_.synchronize();
  result.finished = context_.clock.now();
  const Status status =
      check_outputs(context_.signature, returned.values, context_.rows_checked ? rows : kAnyRows);
  if (!status.ok()) {
    return model_failed(context_.label + " failed: " + status.message);
  }
  result.outputs = stream_.fetch(std::move(returned.values));
  result.names = std::move(returned.names);
  return {};
}

Status Runner::attempt(std::span<const RequestPtr> requests, std::int64_t rows, Nanos formed) {
  return caught([&]() -> Status {
    gathered_.clear();
    for (const RequestPtr& request : requests) {
      gathered_.push_back(&request->inputs);
    }
    const Padding& padding = context_.signature.padding;
    const BatchShape shape = padding.fit(*gathered_.front(), rows);
    const Values inputs = collate(gathered_, padding, shape, context_.device, stream_.staging());
    const Nanos collated = context_.clock.now();
    Computed result;
    Status status = compute(inputs, shape.rows, result);
    if (status.ok()) {
      status = padding.check_outputs(result.outputs, shape.length);
      if (!status.ok()) {
        status = model_failed(context_.label + " failed: " + status.message);
      }
    }
    if (!status.ok()) {
      return status;
    }
    const bool whole = requests.size() == 1 && shape.rows == rows;
    std::int64_t begin = 0;
    for (const RequestPtr& request : requests) {
      request->outputs =
          whole ? std::move(result.outputs) : split(result.outputs, begin, request->rows);
      begin += request->rows;
      padding.cut(request->outputs, padding.length(request->inputs));
      if (!whole && request->keeps_outputs) {
        own_memory(request->outputs);
      } else if (requests.size() == 1 && request->borrows) {
        detach_from(request->inputs, request->outputs);
      }
      if (!context_.signature.outputs_known) {
        request->names = result.names;
      }
    }
    Timing timing{.copy_in = collated - formed,
                  .compute = result.finished - collated,
                  .copy_out = context_.clock.now() - result.finished,
                  .batch_size = rows};
    for (const RequestPtr& request : requests) {
      timing.queue = formed - request->arrival;
      request->timing = timing;
      settle(*request, {});
    }
    count_batch(timing);
    return {};
  });
}

Status Runner::run_gathered(const Values& inputs, std::span<const GatheredRequest> requests,
                            Gathered& gathered) {
  std::int64_t rows = 0;
  for (const GatheredRequest& request : requests) {
    rows += request.rows;
  }
  const Nanos collated = context_.clock.now();
  Computed result;
  Status status = caught([&] { return compute(inputs, rows, result); });
  const Nanos done = context_.clock.now();
  if (!status.ok()) {
    if (requests.size() == 1) {
      count_request(status.code, done - requests.front().arrival, 0);
    }
    return status;
  }
  gathered.outputs = std::move(result.outputs);
  gathered.timing = {.copy_in = collated - gathered.formed,
                     .compute = result.finished - collated,
                     .copy_out = done - result.finished,
                     .batch_size = rows};
  for (const GatheredRequest& request : requests) {
    count_request(Code::kOk, done - request.arrival, gathered.formed - request.arrival);
  }
  count_batch(gathered.timing);
  return {};
}

void Runner::count_batch(const Timing& timing) {
  stats_.rows.add(timing.batch_size);
  stats_.batches.add(1);
  stats_.last_inference_ms.set(epoch_ms());
  stats_.copy_in.record(timing.copy_in);
  stats_.compute.record(timing.compute);
  stats_.copy_out.record(timing.copy_out);
  stats_.batch_size.record(timing.batch_size);
}

void Runner::count_request(Code code, Nanos took, Nanos queued) {
  stats_.outcomes[static_cast<std::size_t>(code)].add(1);
  if (code == Code::kOk) {
    stats_.success_ns.add(took);
    stats_.request.record(took);
    stats_.queue.record(queued);
  } else {
    stats_.failure_ns.add(took);
  }
}

void Runner::settle(Request& request, Status status) {
  if (request.claim.try_complete()) {
    request.status = std::move(status);
  } else {
    request.outputs.clear();
  }
  switch (request.claim.outcome()) {
    case Outcome::kCancelled:
      request.status = context_.batcher.aborted()
                           ? unavailable(context_.failure.why() != nullptr
                                             ? *context_.failure.why()
                                             : context_.label + " is being unloaded")
                           : cancelled("the request was cancelled");
      break;
    case Outcome::kExpired:
      if (request.status.ok()) {  // else the batcher has said why
        request.status = deadline_exceeded("the deadline passed before the request was answered");
      }
      break;
    case Outcome::kCompleted:
    case Outcome::kOpen:
      break;
  }
  if (request.is_part) {
    return;
  }
  count_request(request.status.code, context_.clock.now() - request.arrival, request.timing.queue);
}

}  // namespace pyserve
