// What is tried and timed of a version before it may serve: see probe.h and invariance.h.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "engine/invariance.h"
#include "engine/model_version.h"
#include "engine/probe.h"
#include "engine/samples.h"
#include "runtime/cuda_graph.h"
#include "runtime/device.h"
#include "runtime/threads.h"

namespace pyserve {
namespace {

constexpr std::int64_t kProofRows = 3;

// A model whose row, in a batch, takes less than this is outrun by whoever feeds it, and one
// instance serves more than several that take turns at the CPU.
constexpr Nanos kLightRow = 10'000;
constexpr std::int64_t kTimedRows = 16;

// A lone run has all CPUs where that makes it so much faster, and where it takes so long that
// waking the threads does not matter.
constexpr double kWorthMoreThreads = 1.2;
constexpr Nanos kWorthWaking = 300'000;

}  // namespace

void ModelVersion::prove(const LoadOptions& options) {
  const std::int64_t rows =
      signature_.batched ? std::clamp<std::int64_t>(signature_.max_batch_size, 1, kProofRows) : 1;
  samples_ = sample_rows(signature_, options.examples, rows);
  if (samples_.empty()) {
    batching_note_ = "no signature is known: requests are not batched and shapes are unchecked";
    if (signature_.padding.has_lengths() || options.batch_invariant) {
      throw std::invalid_argument(
          "lengths and batching.invariant cannot be proven: the shape of an input is not known");
    }
    return;
  }
  if (signature_.padding.has_lengths()) {
    for (Values& sample : samples_) {
      sample = with_length(signature_.padding, sample, signature_.padding.buckets().back());
    }
  }
  const IntraopThreads threads(options.threads);
  DeviceStream stream(parse_device(options.device));
  stream.make_current();
  stream.synchronize_device();  // the weights were put there on another stream
  try {
    const RunResult first =
        run_together(*executable_, signature_.padding, {samples_.front()}, stream);
    output_form_ = first.form;
    if (!signature_.outputs_known) {
      for (const std::string& name : first.names) {
        signature_.outputs.push_back({.name = name});
      }
    }
  } catch (const std::exception& error) {
    samples_.clear();
    batching_note_ = "a trial run failed, so requests are not batched: " + failure_text(error);
    if (options.insist_on_batching && signature_.max_batch_size > 1) {
      throw std::invalid_argument("batching cannot be proven: " + failure_text(error));
    }
    if (signature_.padding.has_lengths() || options.batch_invariant) {
      throw std::invalid_argument("lengths and batching.invariant cannot be proven: " +
                                  failure_text(error));
    }
    return;
  }
  std::string note;
  if (auto optimized = agreeing_optimized(*executable_, signature_.padding, samples_,
                                          signature_.batched, stream, note);
      optimized != nullptr) {
    executable_ = std::move(optimized);
  } else if (!note.empty()) {
    notes_.push_back(std::move(note));
  }
  prove_batching(options, stream);
  prove_lengths(stream);
  if (options.batch_invariant) {
    find_invariant_sizes(options, stream);
  }
  if (options.cuda_graphs) {
    executable_ = with_cuda_graphs(std::move(executable_), stream.device(), combines_, note = "");
    if (!note.empty()) {
      notes_.push_back(std::move(note));
    }
  }
  time_rows(stream);
  stream.synchronize_device();  // what optimising has computed, for the instances' streams
}

void ModelVersion::prove_batching(const LoadOptions& options, DeviceStream& stream) {
  if (signature_.max_batch_size <= 1) {
    batching_note_ =
        signature_.batched ? "max_batch_size is 1" : "the model takes no batch dimension";
    return;
  }
  const BatchingProof proof = pyserve::prove_batching(*executable_, signature_, samples_, stream);
  combines_ = proof.proven;
  if (!proof.proven) {
    if (options.insist_on_batching) {
      throw std::invalid_argument("max_batch_size " + std::to_string(signature_.max_batch_size) +
                                  " cannot be had: " + proof.note);
    }
    batching_note_ = proof.note;
  }
}

void ModelVersion::prove_lengths(DeviceStream& stream) {
  if (!signature_.padding.has_lengths()) {
    return;
  }
  const std::vector<Values> rows(samples_.begin(),
                                 combines_ ? samples_.end() : samples_.begin() + 1);
  BatchingProof proof = pyserve::prove_lengths(*executable_, signature_, rows, stream);
  if (!proof.proven) {
    throw std::invalid_argument("lengths cannot be padded: " + proof.note);
  }
  if (!proof.note.empty()) {
    notes_.push_back(std::move(proof.note));
  }
}

void ModelVersion::find_invariant_sizes(const LoadOptions& options, DeviceStream& stream) {
  std::vector<std::int64_t> candidates =
      warmup_sizes(signature_.padding, signature_.max_batch_size);
  std::string alone;  // why each row is run alone
  if (!combines_) {
    alone = batching_note_;
  } else if (const TensorSpec* const varying = varying_input(signature_); varying != nullptr) {
    alone = "input \"" + varying->name + "\" has sizes that vary, which cannot all be tried";
  }
  if (!alone.empty()) {
    std::erase_if(candidates, [](std::int64_t rows) { return rows > 1; });
  }
  signature_.padding.run_invariantly(candidates);
  const std::vector<std::int64_t> sizes =
      invariant_sizes(*executable_, signature_.padding, candidates, samples_, stream);
  if (sizes.empty()) {
    const std::string where =
        options.padding.batch_sizes.empty() ? "" : " at the allowed batch sizes";
    const bool one_row = candidates.size() == 1 && candidates.front() == 1;
    throw std::invalid_argument("batching.invariant cannot be had" + where + ": " +
                                (one_row         ? "a row's bits change from run to run"
                                 : alone.empty() ? "a row's bits change with its place in the batch"
                                                 : alone));
  }
  if (sizes.back() == 1 && signature_.max_batch_size > 1) {
    combines_ = false;
    batching_note_ =
        "batch-invariant, so every row is run alone: " +
        (alone.empty() ? "a row's bits change with its place or the size of its batch" : alone);
  }
  signature_.padding.run_invariantly(sizes);
}

void ModelVersion::time_rows(DeviceStream& stream) {
  try {
    row_time_ = shortest_run(*executable_, signature_.padding, {samples_.front()}, stream, clock_);
    const std::int64_t most = std::min(signature_.max_batch_size, signature_.padding.most_rows());
    const std::int64_t rows = combines_ ? std::min(most, kTimedRows) : 1;
    if (row_time_ < rows * kLightRow) {  // else a batch of them takes longer still
      const std::vector<Values> batch(static_cast<std::size_t>(rows), samples_.front());
      light_ =
          shortest_run(*executable_, signature_.padding, batch, stream, clock_) < rows * kLightRow;
    }
  } catch (const std::exception&) {
    // Not measured; the warm-up tells of a batch that fails.
  }
}

void ModelVersion::time_elastic(const LoadOptions& options) {
  const c10::Device device = parse_device(options.device);
  // As many threads for every run, where its bits are to be the same: sums are split among them.
  if (!options.elastic || options.batch_invariant || light_ || options.instances == 1 ||
      !device.is_cpu() || row_time_ == kNever || row_time_ < kWorthWaking) {
    return;
  }
  try {
    DeviceStream stream(device);
    const IntraopThreads threads(options.instances * options.threads);
    const Nanos time =
        shortest_run(*executable_, signature_.padding, {samples_.front()}, stream, clock_);
    if (static_cast<double>(row_time_) >= kWorthMoreThreads * static_cast<double>(time)) {
      lone_row_time_ = time;
    }
  } catch (const std::exception&) {
    // Not measured: the threads stay as they are.
  }
}

}  // namespace pyserve
