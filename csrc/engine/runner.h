// runner.h - runs batches of one model version and completes their requests.  The only place that
// catches what a model throws while it serves.
//
// Thread safety: used by one thread at a time; stats() from any.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "batching/batcher.h"
#include "batching/policy.h"
#include "batching/request.h"
#include "engine/stats.h"
#include "runtime/device.h"
#include "runtime/executable.h"
#include "tensor/signature.h"

namespace pyserve {

// What the instances of one version share; constant while they run, and outlives them.
struct InstanceContext {
  std::string label;  // model "x" version 1
  std::string thread_name;
  const Executable& executable;
  const Signature& signature;
  Batcher& batcher;
  c10::Device device;
  int threads;
  int cpus;           // that a lone run may have instead, where threads are elastic; else 0
  bool rows_checked;  // outputs must have one row per input row
  // Batches to run before the first request, each of requests of one row.
  std::vector<std::vector<Values>> warmup;
  const Clock& clock;
};

struct WarmUp {
  std::string failure;         // why a run failed; "" if none did
  std::vector<RunTime> times;  // of the batches that were run, in order
};

class Runner {
 public:
  explicit Runner(const InstanceContext& context);

  // Runs each of the batches a few times, on the current stream.
  WarmUp warm_up();

  // Settles requests that were cancelled or expired before they could run.
  void drop(std::span<const RequestPtr> requests);
  // Runs requests of `rows` together (alone, if that fails) and settles them.  What is left to do
  // is to deliver them.
  void run(std::span<const RequestPtr> requests, std::int64_t rows, Nanos formed);

  DeviceStream& stream() noexcept { return stream_; }
  const InstanceStats& stats() const noexcept { return stats_; }

 private:
  Status attempt(std::span<const RequestPtr> requests, std::int64_t rows, Nanos formed);
  void settle(Request& request, Status status);

  const InstanceContext& context_;
  DeviceStream stream_;
  InstanceStats stats_;
  std::vector<const Values*> gathered_;
};

}  // namespace pyserve
