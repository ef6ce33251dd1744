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
#include "engine/gathered.h"
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

  // Runs a batch that its submitter has collated and whose answers he splits himself, and counts
  // its requests.  Not ok: the model failed, and a lone request is counted; of several, none is.
  Status run_gathered(const Values& inputs, std::span<const GatheredRequest> requests,
                      Gathered& gathered);

  DeviceStream& stream() noexcept { return stream_; }
  const InstanceStats& stats() const noexcept { return stats_; }

 private:
  // A run of one batch, checked.
  struct Computed {
    Values outputs;  // on the host, contiguous
    std::vector<std::string> names;
    Nanos finished = 0;
  };

  // What run() returns, or what it threw as a status.
  template <class Run>
  Status caught(Run&& run) const;
  Status compute(const Values& inputs, std::int64_t rows, Computed& result);
  Status attempt(std::span<const RequestPtr> requests, std::int64_t rows, Nanos formed);
  void settle(Request& request, Status status);
  void count_batch(const Timing& timing);
  void count_request(Code code, Nanos took, Nanos queued);

  const InstanceContext& context_;
  DeviceStream stream_;
  InstanceStats stats_;
  std::vector<const Values*> gathered_;
};

}  // namespace pyserve
