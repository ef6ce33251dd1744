// instance.h - one thread and one stream that run one model version: take a batch, run it, deliver.
#pragma once

#include <future>
#include <thread>

#include "batching/batcher.h"
#include "engine/runner.h"
#include "engine/stats.h"

namespace pyserve {

class Instance {
 public:
  explicit Instance(const InstanceContext& context);
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;
  ~Instance();

  // Waits for the thread to end: stop the batcher first.  Idempotent; not thread-safe.
  void join();

  // Blocks until warmed; once.
  WarmUp wait_warm() { return warm_.get(); }

  const InstanceStats& stats() const noexcept { return runner_.stats(); }

 private:
  void main(std::promise<WarmUp> warmed);

  const InstanceContext& context_;
  Runner runner_;
  Batch batch_;
  std::future<WarmUp> warm_;
  std::thread thread_;  // last: joined before the rest goes
};

}  // namespace pyserve
