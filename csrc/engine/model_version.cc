#include "engine/model_version.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "engine/samples.h"
#include "runtime/device.h"
#include "runtime/threads.h"

namespace pyserve {
namespace {

// Handing a request to another thread and back takes about as long as this.
constexpr Nanos kInstantRow = 40'000;
// A run on its submitter's thread that takes this long was no quicker; so many in a row, which a
// busy machine does not explain, end the practice.
constexpr Nanos kTooLongHere = 1'000'000;
constexpr int kTooOftenHere = 8;

// Declared inputs in the order of the module's arguments: by name where all are its argument
// names, else by position.
std::vector<TensorSpec> arrange(const std::vector<TensorSpec>& arguments,
                                std::vector<TensorSpec> declared) {
  if (declared.size() > arguments.size()) {
    throw std::invalid_argument("the signature declares " + std::to_string(declared.size()) +
                                " inputs, the model takes " + std::to_string(arguments.size()) +
                                ": " + names_text(arguments));
  }
  const bool by_name = std::ranges::all_of(declared, [&](const TensorSpec& spec) {
    return std::ranges::find(arguments, spec.name, &TensorSpec::name) != arguments.end();
  });
  std::vector<TensorSpec> arranged;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const auto found =
        by_name ? std::ranges::find(declared, arguments[i].name, &TensorSpec::name)
                : declared.begin() + static_cast<std::ptrdiff_t>(std::min(i, declared.size()));
    if (found != declared.end()) {
      arranged.push_back(*found);
      arranged.back().optional = arguments[i].optional;
    } else if (arguments[i].optional) {
      arranged.push_back(arguments[i]);
    } else {
      throw std::invalid_argument("the signature does not declare the model's input \"" +
                                  arguments[i].name + "\"");
    }
  }
  return arranged;
}

}  // namespace

ModelVersion::ModelVersion(const LoadOptions& options, const Clock& clock)
    : ModelVersion(options,
                   load_executable(options.platform, options.path, parse_device(options.device)),
                   clock) {}

ModelVersion::ModelVersion(const LoadOptions& options, std::unique_ptr<Executable> executable,
                           const Clock& clock, DeviceProbe device_lost)
    : clock_(clock),
      name_(options.name),
      number_(options.version),
      label_("model \"" + options.name + "\" version " + options.version),
      default_timeout_(options.default_timeout),
      default_priority_(options.default_priority),
      device_text_(parse_device(options.device).str()),
      executable_(std::move(executable)),
      device_lost_(device_lost) {
  resolve_signature(options);
  prove(options);
  const int instances = options.plan_instances && light_ && parse_device(options.device).is_cpu()
                            ? 1
                            : options.instances;
  time_elastic(options);
  batcher_ = std::make_unique<Batcher>(
      BatchPolicy{.max_rows = signature_.batched ? std::min(signature_.max_batch_size,
                                                            signature_.padding.most_rows())
                                                 : 1,
                  .max_delay = options.max_queue_delay,
                  .combine = combines_,
                  .shares = instances,
                  .cpus = elastic() ? instances * options.threads : 0},
      options.queue_capacity, options.idle_spin, clock_, signature_.padding);
  start(options, instances);
}

ModelVersion::~ModelVersion() { close(); }

void ModelVersion::resolve_signature(const LoadOptions& options) {
  signature_.inputs = options.inputs.has_value()
                          ? arrange(executable_->arguments(), *options.inputs)
                          : executable_->arguments();
  signature_.outputs_known = options.outputs.has_value();
  if (signature_.outputs_known) {
    signature_.outputs = *options.outputs;
    executable_->set_outputs(signature_.outputs);
  }
  signature_.batched = options.batched && options.inputs.has_value();
  signature_.max_batch_size = signature_.batched ? options.max_batch_size : 0;
  signature_.padding = Padding(options.padding, signature_.inputs, signature_.outputs);
  if (signature_.padding.fills() && !signature_.batched) {
    throw std::invalid_argument(
        "batching.allowed_batch_sizes and lengths need a batch dimension, the model takes none");
  }
  if (options.batch_invariant && !signature_.batched) {
    throw std::invalid_argument(
        "batching.invariant needs a batch dimension, the model takes none: each of its requests is "
        "run alone");
  }
  if (options.batch_invariant && !options.warmup) {
    throw std::invalid_argument(
        "batching.invariant needs warmup: the first runs of a shape may compute in another order");
  }
  if (const auto& mask = signature_.padding.mask(); mask.has_value()) {
    signature_.inputs[mask->length.index].optional = true;  // made where it is left out
  }
}

void ModelVersion::start(const LoadOptions& options, int instances) {
  const std::vector<std::int64_t> sizes =
      warmup_sizes(signature_.padding, combines_ ? batcher_->max_rows() : 1);
  context_ = std::make_unique<InstanceContext>(
      InstanceContext{.label = label_,
                      .thread_name = "ps-" + options.name,
                      .executable = *executable_,
                      .signature = signature_,
                      .batcher = *batcher_,
                      .device = parse_device(options.device),
                      .threads = options.threads,
                      .cpus = elastic() ? instances * options.threads : 0,
                      .rows_checked = combines_ || batch_invariant(),
                      .warmup = options.warmup ? warmup_batches(samples_, signature_.padding, sizes)
                                               : std::vector<std::vector<Values>>{},
                      .clock = clock_,
                      .failure = failure_,
                      .device_lost = device_lost_});
  try {
    for (int i = 0; i < instances; ++i) {
      instances_.push_back(std::make_unique<Instance>(*context_));
    }
  } catch (...) {
    batcher_->stop();  // the instances that did start must end before they are joined
    throw;
  }
  std::vector<RunTime> times;
  for (const auto& instance : instances_) {
    const WarmUp warm = instance->wait_warm();
    if (!warm.failure.empty()) {
      notes_.push_back("a warm-up run failed: " + warm.failure);
    }
    if (!warm.note.empty() && std::ranges::find(notes_, warm.note) == notes_.end()) {
      notes_.push_back(warm.note);
    }
    if (warm.too_many > 1) {
      static_cast<void>(batcher_->row_limit().too_many(warm.too_many));
    }
    // The longest bucket's: what others are timed by.
    const std::size_t timed = std::min(warm.times.size(), sizes.size());
    times.resize(std::max(times.size(), timed));
    for (std::size_t i = 0; i < timed; ++i) {
      times[i].rows = warm.times[i].rows;
      times[i].shortest = std::min(times[i].shortest, warm.times[i].shortest);
    }
  }
  batcher_->set_paying_rows(paying_rows(times, batcher_->max_rows()));
  for (const RunTime& time : times) {
    batcher_->learn(time, /*elastic=*/false);
  }
  batcher_->learn({.rows = 1, .shortest = lone_row_time_}, /*elastic=*/true);
  times_ = std::move(times);
  // A queue delay asks for company, which a request that runs at once cannot have.
  if (row_time_ < kInstantRow && options.max_queue_delay.value_or(0) == 0 && options.warmup &&
      parse_device(options.device).is_cpu()) {
    caller_ = std::make_unique<Runner>(*context_);
  }
  samples_.clear();
  context_->warmup.clear();  // every instance is past it
}

Status ModelVersion::submit(const RequestPtr& request) {
  Status status = batcher_->submit(request);
  if (!status.ok()) {
    if (failure_.why() != nullptr) {
      status = unavailable(*failure_.why());
    }
    count_refused(status.code);
  }
  return status;
}

template <class Run>
void ModelVersion::run_as_caller(Nanos since, Run&& run) {
  const c10::InferenceMode inference;
  const IntraopThreads threads(context_->threads);
  run();
  slow_here_ = clock_.now() - since < kTooLongHere ? 0 : slow_here_ + 1;
}

void ModelVersion::release_caller() noexcept {
  if (slow_here_ < kTooOftenHere) {
    caller_busy_.store(false, std::memory_order_release);
  }
}

std::int64_t ModelVersion::row_limit() const noexcept {
  const std::int64_t rows = batcher_->row_limit().rows();
  return rows < batcher_->max_rows() ? rows : 0;
}

bool ModelVersion::run_here(const RequestPtr& request) {
  if (caller_ == nullptr || request->rows != 1 || in_flight() != 0 ||
      caller_busy_.exchange(true, std::memory_order_acquire)) {
    return false;
  }
  if (Status status = batcher_->admit(*request); !status.ok()) {
    count_refused(status.code);
    request->status = std::move(status);
  } else {
    run_as_caller(request->arrival,
                  [&] { caller_->run(std::span(&request, 1), request->rows, request->arrival); });
    batcher_->leave();
  }
  release_caller();
  return true;
}

Nanos ModelVersion::time_here(std::int64_t rows) const noexcept {
  if (caller_ == nullptr || signature_.padding.fills()) {
    return kNever;  // what is gathered is run as it is
  }
  const auto found =
      std::ranges::find_if(times_, [&](const RunTime& tried) { return tried.rows >= rows; });
  return found == times_.end() ? kNever : found->shortest;
}

std::optional<Status> ModelVersion::run_gathered(const Values& inputs,
                                                 std::span<const GatheredRequest> requests,
                                                 Gathered& gathered, bool rehearsal) {
  const auto count = static_cast<std::int64_t>(requests.size());
  if (caller_ == nullptr || caller_busy_.exchange(true, std::memory_order_acquire)) {
    return std::nullopt;
  }
  std::optional<Status> status;
  if (batcher_->enter(count)) {
    std::optional<Runner> forgotten;
    Runner& runner = rehearsal ? forgotten.emplace(*context_) : *caller_;
    run_as_caller(gathered.formed,
                  [&] { status = runner.run_gathered(inputs, requests, gathered); });
    batcher_->leave(count);
  }
  release_caller();
  return status;
}

void ModelVersion::count_refused(Code code) noexcept {
  refused_[static_cast<std::size_t>(code)].fetch_add(1, std::memory_order_relaxed);
}

bool ModelVersion::drain(Nanos until) {
  batcher_->stop_accepting();
  return batcher_->wait_idle(until);
}

void ModelVersion::close() {
  if (batcher_ == nullptr || closed_.exchange(true, std::memory_order_seq_cst)) {
    return;
  }
  batcher_->abort();
  batcher_->wait_idle(kNever);
  batcher_->stop();
  for (const auto& instance : instances_) {
    instance->join();
  }
}

VersionStats ModelVersion::stats() const {
  VersionStats sum;
  for (std::size_t i = 0; i < sum.outcomes.size(); ++i) {
    sum.outcomes[i] = refused_[i].load(std::memory_order_relaxed);
  }
  std::vector<const InstanceStats*> parts;
  for (const auto& instance : instances_) {
    parts.push_back(&instance->stats());
  }
  if (caller_ != nullptr) {
    parts.push_back(&caller_->stats());
  }
  for (const InstanceStats* const part : parts) {
    const InstanceStats& one = *part;
    for (std::size_t i = 0; i < sum.outcomes.size(); ++i) {
      sum.outcomes[i] += one.outcomes[i].get();
    }
    sum.success_ns += one.success_ns.get();
    sum.failure_ns += one.failure_ns.get();
    sum.rows += one.rows.get();
    sum.batches += one.batches.get();
    sum.last_inference_ms = std::max(sum.last_inference_ms, one.last_inference_ms.get());
    Histogram::merge(one.request.snapshot(), sum.request);
    Histogram::merge(one.queue.snapshot(), sum.queue);
    Histogram::merge(one.copy_in.snapshot(), sum.copy_in);
    Histogram::merge(one.compute.snapshot(), sum.compute);
    Histogram::merge(one.copy_out.snapshot(), sum.copy_out);
    Histogram::merge(one.batch_size.snapshot(), sum.batch_size);
  }
  sum.queued = batcher_->admission().queued();
  sum.in_flight = batcher_->admission().in_flight();
  sum.row_limit = row_limit();
  return sum;
}

}  // namespace pyserve
