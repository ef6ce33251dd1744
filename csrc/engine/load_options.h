// load_options.h - what a model version is made from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "batching/urgency.h"
#include "tensor/padding.h"
#include "tensor/signature.h"
#include "tensor/value.h"

namespace pyserve {

struct LoadOptions {
  std::string name;
  std::string version;
  std::string path;
  std::string platform = "torchscript";
  std::string device = "auto";

  // The declared signature; unset where nobody declared one.
  std::optional<std::vector<TensorSpec>> inputs;
  std::optional<std::vector<TensorSpec>> outputs;
  bool batched = false;
  std::int64_t max_batch_size = 0;
  bool insist_on_batching = false;  // a batch that mixes rows is an error rather than a note
  // A row's bits must not depend on its batch mates: sizes and threads of a run are fixed.
  bool batch_invariant = false;
  PaddingOptions padding;  // the shapes that it is run with

  std::optional<Nanos> max_queue_delay;  // unset: regroup (batching/policy.h)
  std::int64_t queue_capacity = 1024;
  Nanos default_timeout = 0;                    // of requests that bring no deadline; 0: none
  Priority default_priority = kNormalPriority;  // of requests that bring none
  int instances = 1;
  bool plan_instances = false;  // `instances` is the most: a light model gets one
  int threads = 1;
  bool elastic = false;  // a lone run may have the threads of all instances, where it gains by them
  bool warmup = true;
  bool cuda_graphs = false;
  Nanos idle_spin = 0;
  std::vector<Values> examples;  // requests for probing and warm-up, in the inputs' order
};

}  // namespace pyserve
