#include "engine/instance.h"

#include <c10/core/InferenceMode.h>

#include <utility>

#include "base/cpu.h"
#include "runtime/threads.h"

namespace pyserve {
namespace {

// Queue delays are timed waits of some hundred microseconds.
constexpr Nanos kTimerSlack = 1'000;

}  // namespace

Instance::Instance(const InstanceContext& context) : context_(context), runner_(context) {
  std::promise<WarmUp> warmed;
  warm_ = warmed.get_future();
  thread_ = std::thread(&Instance::main, this, std::move(warmed));
}

Instance::~Instance() { join(); }

void Instance::join() {
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Instance::main(std::promise<WarmUp> warmed) {
  name_this_thread(context_.thread_name);
  set_this_thread_timer_slack(kTimerSlack);
  int threads = context_.threads;
  set_intraop_threads(threads);
  runner_.stream().make_current();
  warmed.set_value(runner_.warm_up());
  const c10::InferenceMode inference;
  while (context_.batcher.next_batch(batch_)) {
    runner_.drop(batch_.dropped);
    context_.batcher.finish(batch_.dropped);
    if (!batch_.requests.empty()) {
      if (batch_.cpus > 0 && batch_.cpus != threads) {
        threads = batch_.cpus;
        set_intraop_threads(threads);
      }
      runner_.run(batch_.requests, batch_.rows, batch_.formed);
      context_.batcher.finish(batch_.requests);
    }
  }
  if (context_.failure.why() != nullptr) {
    static_cast<void>(context_.device_lost(runner_.stream()));  // what it owns there is left alone
  }
}

}  // namespace pyserve
