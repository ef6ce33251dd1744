#include "runtime/cuda_graph.h"

#include <ATen/cuda/CUDAGraph.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace pyserve {
namespace {

// One recorded run: where it reads its inputs and leaves its outputs is fixed.
struct Recording {
  Values inputs;
  RunResult result;
  std::int64_t rows = 0;
  std::unique_ptr<at::cuda::CUDAGraph> graph;
};

// What one thread has recorded of one executable.  A graph's memory is its own, so two threads
// cannot share one; and all graphs of a thread can share theirs, because they run one after the
// other and each one's outputs are read before the next is launched.
struct Recordings {
  at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
  std::vector<Recording> all;
};

// By the executable's number: an address may come back.
thread_local std::map<std::uint64_t, Recordings> recordings_here;  // NOLINT: ends with its thread

// Recording while another thread records is allowed, and not worth being the first to do.
std::mutex recording_mutex;  // NOLINT: taken at load only

std::uint64_t next_number() {
  static std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed);  // a number, which orders nothing
}

bool all_tensors(const Values& values) {
  return std::ranges::all_of(values, [](const Value& value) { return value.tensor.defined(); });
}

class CudaGraphs final : public Executable {
 public:
  CudaGraphs(std::unique_ptr<Executable> plain, bool rows_are_independent)
      : plain_(std::move(plain)), rows_are_independent_(rows_are_independent) {}

  const std::vector<TensorSpec>& arguments() const override { return plain_->arguments(); }
  void set_outputs(const std::vector<TensorSpec>& outputs) override {
    plain_->set_outputs(outputs);
  }
  std::unique_ptr<Executable> optimized() const override { return nullptr; }  // it was asked before

  RunResult run(const Values& inputs) const override {
    Recording* const found = find(inputs);
    if (found == nullptr) {
      return plain_->run(inputs);
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      at::Tensor to = found->inputs[i].tensor;
      const at::Tensor& from = inputs[i].tensor;
      if (to.sizes() != from.sizes()) {
        to = to.narrow(0, 0, from.size(0));  // the rows behind keep what they had
      }
      to.copy_(from, /*non_blocking=*/true);
    }
    found->graph->replay();
    RunResult result = found->result;
    const std::int64_t rows = inputs.front().rows();
    if (rows != found->rows) {
      for (Value& value : result.values) {
        value.tensor = value.tensor.narrow(0, 0, rows);
      }
    }
    return result;
  }

  std::string prepare(const Values& inputs) const override {
    if (!all_tensors(inputs) || inputs.empty()) {
      return "cuda_graphs: inputs that are no tensors cannot be recorded";
    }
    const std::scoped_lock lock(recording_mutex);
    const auto place = recordings_here.try_emplace(number_).first;
    Recording recording{.rows = inputs.front().rows()};
    for (const Value& value : inputs) {
      recording.inputs.emplace_back(value.tensor.clone());
    }
    recording.graph = std::make_unique<at::cuda::CUDAGraph>();
    std::string note = record(recording, place->second.pool);
    if (note.empty() && !all_tensors(recording.result.values)) {
      note = "cuda_graphs: outputs that are no tensors cannot be recorded";
    }
    if (note.empty()) {
      place->second.all.push_back(std::move(recording));
    }
    return note;
  }

 private:
  // The run goes into the graph instead of onto the device.
  std::string record(Recording& recording, const at::cuda::MempoolId_t& pool) const {
    bool ended = false;
    try {
      // Thread-local: what other threads do meanwhile, such as to allocate, is theirs.
      recording.graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
      recording.result = plain_->run(recording.inputs);
      ended = true;
      recording.graph->capture_end();
      return "";
    } catch (const std::exception& error) {
      std::string note = "cuda_graphs: batches of " + std::to_string(recording.rows) +
                         " rows could not be recorded: " + failure_text(error);
      recording.result = {};
      if (!ended) {
        try {
          recording.graph->capture_end();  // or the stream would record for ever
        } catch (const std::exception&) {
          // It says again that the recording is broken.
        }
      }
      // The allocator may still ask this object whose memory is whose: it stays, once per load.
      static_cast<void>(recording.graph.release());
      return note;
    }
  }

  // The smallest recording that the inputs fit into.
  Recording* find(const Values& inputs) const {
    const auto mine = recordings_here.find(number_);
    if (mine == recordings_here.end() || !all_tensors(inputs)) {
      return nullptr;
    }
    Recording* best = nullptr;
    for (Recording& one : mine->second.all) {
      if (fits(inputs, one) && (best == nullptr || one.rows < best->rows)) {
        best = &one;
      }
    }
    return best;
  }

  bool fits(const Values& inputs, const Recording& recording) const {
    if (inputs.size() != recording.inputs.size()) {
      return false;
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const at::Tensor& given = inputs[i].tensor;
      const at::Tensor& recorded = recording.inputs[i].tensor;
      if (given.scalar_type() != recorded.scalar_type() || given.dim() != recorded.dim()) {
        return false;
      }
      if (given.sizes() == recorded.sizes()) {
        continue;
      }
      if (!rows_are_independent_ || given.dim() == 0 || given.size(0) == 0 ||
          given.size(0) > recorded.size(0) || given.sizes().slice(1) != recorded.sizes().slice(1)) {
        return false;
      }
    }
    return true;
  }

  const std::unique_ptr<Executable> plain_;
  const bool rows_are_independent_;
  const std::uint64_t number_ = next_number();
};

}  // namespace

std::unique_ptr<Executable> with_cuda_graphs(std::unique_ptr<Executable> plain,
                                             const c10::Device& device, bool rows_are_independent,
                                             std::string& note) {
  if (!device.is_cuda()) {
    note = "cuda_graphs is on, and the model runs on the CPU: there are none";
    return plain;
  }
  return std::make_unique<CudaGraphs>(std::move(plain), rows_are_independent);
}

}  // namespace pyserve
