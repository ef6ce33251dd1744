// model_version.h - one loaded version of one model: an executable, a batcher and its instances.
//
// Thread safety: every member from any thread.  The constructor loads, proves and warms, which
// takes as long as it takes; nothing after it does but drain() and close().
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "batching/batcher.h"
#include "engine/failure.h"
#include "engine/gathered.h"
#include "engine/instance.h"
#include "engine/load_options.h"
#include "engine/runner.h"
#include "engine/stats.h"
#include "runtime/executable.h"
#include "tensor/signature.h"

namespace pyserve {

class ModelVersion {
 public:
  // Throws std::runtime_error when the file cannot be loaded, std::invalid_argument when the
  // options ask for what the file or the machine cannot do; both with one clear line.
  explicit ModelVersion(const LoadOptions& options, const Clock& clock = steady_clock());
  // The same with a model that is loaded already.
  ModelVersion(const LoadOptions& options, std::unique_ptr<Executable> executable,
               const Clock& clock, DeviceProbe device_lost = probe_device);
  ModelVersion(const ModelVersion&) = delete;
  ModelVersion& operator=(const ModelVersion&) = delete;
  ~ModelVersion();

  const std::string& name() const noexcept { return name_; }
  const std::string& number() const noexcept { return number_; }
  const Signature& signature() const noexcept { return signature_; }
  const std::string& device() const noexcept { return device_text_; }
  bool combines() const noexcept { return combines_; }
  bool batch_invariant() const noexcept { return signature_.padding.copies(); }
  const std::string& batching_note() const noexcept { return batching_note_; }
  const std::vector<std::string>& notes() const noexcept { return notes_; }
  int instances() const noexcept { return static_cast<int>(instances_.size()); }
  // Whether a lone run has the threads of all instances.
  bool elastic() const noexcept { return lone_row_time_ != kNever; }
  OutputForm output_form() const noexcept { return output_form_; }
  Nanos default_timeout() const noexcept { return default_timeout_; }
  Priority default_priority() const noexcept { return default_priority_; }

  // Admits a request whose inputs were checked, or says why not.
  Status submit(const RequestPtr& request);
  // Runs a request of one row at once, on the calling thread, where that is quicker than handing it
  // over: the model is light and nothing is in flight.  True: `request` is settled.  False: it was
  // not touched; submit it.
  bool run_here(const RequestPtr& request);
  // How long the calling thread takes for a batch of so many rows; kNever where it may not.
  Nanos time_here(std::int64_t rows) const noexcept;
  // Runs a batch that the caller gathered, on his thread; nullopt: it was not touched, because the
  // version drains or another thread runs one.  `inputs` are collated, and `requests` share their
  // rows in order; several only where combines().  A rehearsal leaves no trace in the statistics.
  // As Runner::run_gathered.
  std::optional<Status> run_gathered(const Values& inputs,
                                     std::span<const GatheredRequest> requests, Gathered& gathered,
                                     bool rehearsal = false);
  // Whether any of that may ever be done here.
  bool runs_here() const noexcept { return caller_ != nullptr; }
  bool cancel(Request& request) noexcept { return batcher_->cancel(request); }
  bool expire(Request& request) noexcept { return batcher_->expire(request); }

  // Counts a request that was refused before submit (bad input).
  void count_refused(Code code) noexcept;

  std::int64_t in_flight() const noexcept { return batcher_->admission().in_flight(); }
  // Why it will never serve again; null: it has not failed.
  const std::string* failure() const noexcept { return failure_.why(); }
  // How many rows a batch may have since larger ones did not fit into memory; 0: all did.
  std::int64_t row_limit() const noexcept;
  bool accepting() const noexcept { return batcher_->admission().accepting(); }
  // Stops accepting and waits for what is in flight; false when `until` came first.
  bool drain(Nanos until);
  // Cancels what waits, waits for what runs, and ends the instances.  Idempotent.
  void close();

  RequestQueue& orphans() noexcept { return batcher_->orphans(); }
  const Clock& clock() const noexcept { return clock_; }
  VersionStats stats() const;

 private:
  void resolve_signature(const LoadOptions& options);
  void prove(const LoadOptions& options);
  void prove_batching(const LoadOptions& options, DeviceStream& stream);
  void prove_lengths(DeviceStream& stream);
  void find_invariant_sizes(const LoadOptions& options, DeviceStream& stream);
  void time_rows(DeviceStream& stream);
  void time_elastic(const LoadOptions& options);
  void start(const LoadOptions& options, int instances);
  // Runs on the calling thread; the holder of `caller_busy_` alone.
  template <class Run>
  void run_as_caller(Nanos since, Run&& run);
  void release_caller() noexcept;

  const Clock& clock_;
  const std::string name_;
  const std::string number_;
  const std::string label_;
  const Nanos default_timeout_;
  const Priority default_priority_;
  std::string device_text_;
  Signature signature_;
  bool combines_ = false;  // requests may share a batch
  std::string batching_note_;
  std::vector<std::string> notes_;
  OutputForm output_form_ = OutputForm::kSingle;
  std::vector<Values> samples_;
  Nanos row_time_ = kNever;       // one run of one row; kNever: not measured
  bool light_ = false;            // a row, in a batch, takes next to no time
  Nanos lone_row_time_ = kNever;  // the same on all CPUs, where that is worth it
  std::vector<RunTime> times_;    // of batches, at best; in ascending order of rows

  std::array<std::atomic<std::int64_t>, kAllCodes.size()> refused_{};  // relaxed counters
  std::unique_ptr<Executable> executable_;
  std::unique_ptr<Batcher> batcher_;
  Failure failure_;
  const DeviceProbe device_lost_;
  std::unique_ptr<InstanceContext> context_;
  std::unique_ptr<Runner> caller_;  // runs requests on their submitter's thread; null: none
  int slow_here_ = 0;               // slow runs in a row; both are the holder's of `caller_busy_`
  std::atomic<bool> caller_busy_{false};              // acquire exchange, release store
  std::vector<std::unique_ptr<Instance>> instances_;  // last: they use all the above
  std::atomic<bool> closed_{false};                   // seq_cst: one closer does the work
};

}  // namespace pyserve
