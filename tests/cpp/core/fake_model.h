// fake_model.h - an executable in the test's hands: it can be held at a gate, raises on a
// poisoned value, computes what the test says, and remembers what it ran.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/load_options.h"
#include "runtime/executable.h"
#include "tensor/value.h"
#include "threads.h"
#include "values.h"

namespace pyserve {

inline constexpr float kPoison = 666;

// y = x + 1.
inline Values plus_one(const Values& inputs) { return {Value(inputs.front().tensor.add(1))}; }

// A version of y = x + 1 on rows of any width, of eight rows at most.
inline LoadOptions small_options() {
  const Signature signature = rows_signature(8);
  return {.name = "m",
          .version = "1",
          .device = "cpu",
          .inputs = signature.inputs,
          .outputs = signature.outputs,
          .batched = true,
          .max_batch_size = signature.max_batch_size,
          .queue_capacity = 16};
}

// Outlives the executables made from it.  Thread-safe, but for what is set up first.
class FakeModel {
 public:
  using Body = std::function<Values(const Values&)>;

  explicit FakeModel(Body body = plus_one) : body_(std::move(body)) {}

  // Set up before use.
  std::vector<TensorSpec> arguments{{.name = "x"}};
  std::vector<std::string> names{"y"};  // that a run gives to its outputs
  Body optimized;                       // what the optimised form computes; empty: there is none

  std::unique_ptr<Executable> executable() { return std::make_unique<Fake>(*this, body_); }

  // From now on runs stop at the gate, until open().
  void hold() {
    const std::scoped_lock lock(mutex_);
    held_ = true;
  }
  void open() {
    {
      const std::scoped_lock lock(mutex_);
      held_ = false;
    }
    changed_.notify_all();
  }
  // Waits until `count` runs stand at the gate.
  [[nodiscard]] bool wait_held(int count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, test_patience(), [&] { return at_gate_ == count; });
  }

  // Rows of every run since the start or forget(), and the first number of every row run.
  [[nodiscard]] std::vector<std::int64_t> batches() const {
    const std::scoped_lock lock(mutex_);
    return batches_;
  }
  [[nodiscard]] std::vector<float> seen() const {
    const std::scoped_lock lock(mutex_);
    return seen_;
  }
  void forget() {
    const std::scoped_lock lock(mutex_);
    batches_.clear();
    seen_.clear();
  }

 private:
  class Fake final : public Executable {
   public:
    Fake(FakeModel& model, Body body) : model_(model), body_(std::move(body)) {}

    const std::vector<TensorSpec>& arguments() const override { return model_.arguments; }
    void set_outputs(const std::vector<TensorSpec>& outputs) override {
      model_.names.clear();
      for (const TensorSpec& output : outputs) {
        model_.names.push_back(output.name);
      }
    }
    RunResult run(const Values& inputs) const override {
      model_.enter(inputs);
      RunResult result{.values = body_(inputs), .names = model_.names};
      result.form = result.values.size() == 1 ? OutputForm::kSingle : OutputForm::kTuple;
      return result;
    }
    std::unique_ptr<Executable> optimized() const override {
      return model_.optimized ? std::make_unique<Fake>(model_, model_.optimized) : nullptr;
    }

   private:
    FakeModel& model_;
    const Body body_;
  };

  void enter(const Values& inputs) {
    const Value& first = inputs.front();
    const std::vector<float> numbers = first.tensor.defined() && first.tensor.dtype() == at::kFloat
                                           ? floats_of(first)
                                           : std::vector<float>{};
    std::unique_lock lock(mutex_);
    const auto rows = static_cast<std::size_t>(first.rows());
    batches_.push_back(first.rows());
    for (std::size_t i = 0; i < numbers.size() && rows > 0; i += numbers.size() / rows) {
      seen_.push_back(numbers[i]);
    }
    ++at_gate_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !held_; });
    --at_gate_;
    lock.unlock();
    if (std::ranges::find(numbers, kPoison) != numbers.end()) {
      throw std::runtime_error("cannot swallow 666");
    }
  }

  const Body body_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  int at_gate_ = 0;
  std::vector<std::int64_t> batches_;
  std::vector<float> seen_;
};

}  // namespace pyserve
