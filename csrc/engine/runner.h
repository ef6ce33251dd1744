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
#include "engine/failure.h"
#include "engine/gathered.h"
#include "engine/stats.h"
#include "runtime/device.h"
#include "runtime/executable.h"
#include "runtime/fault.h"
#include "tensor/signature.h"

namespace pyserve {

// Whether the device can be used no more, asked after a run has failed.
using DeviceProbe = bool (*)(DeviceStream&) noexcept;
inline bool probe_device(DeviceStream& stream) noexcept { return stream.lost(); }

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
  Failure& failure;
  DeviceProbe device_lost = probe_device;
};

struct WarmUp {
  std::string failure;         // why a run failed; "" if none did
  std::string note;            // what it will serve without; "" for nothing
  std::vector<RunTime> times;  // of the batches that were run, in order
  std::int64_t too_many = 0;   // rows of the batch that did not fit into memory; 0: all did
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
  Status caught(Run&& run);
  Status compute(const Values& inputs, std::int64_t rows, Computed& result);
  Status attempt(std::span<const RequestPtr> requests, std::int64_t rows, Nanos formed);
  void settle(Request& request, Status status);
  void count_batch(const Timing& timing);
  void count_request(Code code, Nanos took, Nanos queued);
  // What an exception of a run means; remembers it in `fault_`.
  Status failed(const std::exception& error);
  // That a run may have: what fits into memory and is allowed.
  std::int64_t most_rows() const noexcept;
  // A batch of more rows than fit: runs halves of it, and halves of those.
  void run_halves(std::span<const RequestPtr> requests, std::int64_t rows, Nanos formed);
  // The same for one request, whose rows are put together again; also where it has more rows than
  // are allowed.
  void run_parts(const RequestPtr& whole, Nanos formed);
  Status attempt_part(Request& whole, std::int64_t begin, std::int64_t rows, Nanos formed,
                      std::vector<RequestPtr>& parts);
  void note_too_many(std::int64_t rows);
  // Settles a request that is not to be run any more.
  bool still_wanted(Request& request);
  // The version will never serve again; answers these, and what waits.
  void lose(std::span<const RequestPtr> requests);

  const InstanceContext& context_;
  DeviceStream stream_;
  InstanceStats stats_;
  std::vector<const Values*> gathered_;
  Fault fault_ = Fault::kModel;  // of the last attempt that failed
  std::string fault_text_;
};

}  // namespace pyserve
