#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/instance.h"
#include "fake_model.h"
#include "fakes.h"
#include "seed.h"
#include "threads.h"
#include "values.h"

namespace pyserve {
namespace {

// One instance over a fake model, with everything that it refers to.
class Running {
 public:
  struct Setup {
    Signature signature = rows_signature(8);
    std::vector<std::vector<Values>> warmup;
  };

  Running(FakeModel& model, const Clock& clock, Setup setup)
      : model_(model),
        signature_(std::move(setup.signature)),
        executable_(model.executable()),
        batcher_({.max_rows = 8}, /*queue_capacity=*/64, /*idle_spin_ns=*/0, clock),
        context_{.label = "model \"m\" version 1",
                 .thread_name = "instance",
                 .executable = *executable_,
                 .signature = signature_,
                 .batcher = batcher_,
                 .device = c10::Device(c10::DeviceType::CPU),
                 .threads = 1,
                 .rows_checked = true,
                 .warmup = std::move(setup.warmup),
                 .clock = clock,
                 .failure = failure_},
        instance_(context_) {}
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  ~Running() {
    model_.open();
    batcher_.abort();
    EXPECT_TRUE(batcher_.wait_idle(kNever));
    batcher_.stop();
  }

  Batcher& batcher() { return batcher_; }
  Instance& instance() { return instance_; }

  RequestPtr submit(const RequestPtr& request) {
    EXPECT_TRUE(batcher_.submit(request).ok());
    return request;
  }

 private:
  FakeModel& model_;
  const Signature signature_;
  const std::unique_ptr<Executable> executable_;
  Batcher batcher_;
  Failure failure_;
  const InstanceContext context_;
  Instance instance_;
};

class InstanceTest : public ::testing::Test {
 protected:
  using Setup = Running::Setup;

  Running& start(FakeModel::Body body = plus_one, Setup setup = Setup()) {
    model_ = std::make_unique<FakeModel>(std::move(body));
    running_ = std::make_unique<Running>(*model_, clock_, std::move(setup));
    EXPECT_EQ(running_->instance().wait_warm().failure, "");
    return *running_;
  }

  // Submits requests while the instance is busy with another, so that it meets them together.
  void submit_together(const std::vector<RequestPtr>& requests) {
    model_->hold();
    const RequestPtr first = running_->submit(rows_of(0));
    ASSERT_TRUE(model_->wait_held());
    for (const RequestPtr& request : requests) {
      running_->submit(request);
    }
  }
  void run_together(const std::vector<RequestPtr>& requests) {
    submit_together(requests);
    model_->open();
    for (const RequestPtr& request : requests) {
      ASSERT_TRUE(delivered(*request));
    }
  }

  // One fails, its batch mates come out right.
  void expect_only_the_second_fails(const std::string& message) {
    const std::vector<RequestPtr> requests{rows_of(1), rows_of(13), rows_of(2, 3)};
    run_together(requests);
    EXPECT_EQ(requests[1]->status.code, Code::kModelFailed);
    EXPECT_EQ(requests[1]->status.message, "model \"m\" version 1 failed: " + message);
    expect_answer(*requests[0], 2, 1);
    expect_answer(*requests[2], 3, 3);
    EXPECT_EQ(model_->batches(), (std::vector<std::int64_t>{1, 5, 1, 1, 3}));
  }

  static void expect_answer(const Request& request, float value, std::int64_t rows) {
    ASSERT_TRUE(request.status.ok()) << request.status.message;
    ASSERT_EQ(request.outputs.size(), 1U);
    EXPECT_EQ(request.outputs[0].tensor.sizes(), (Shape{rows, 2}));
    EXPECT_EQ(floats_of(request.outputs[0]),
              std::vector<float>(static_cast<std::size_t>(rows * 2), value));
  }

  // plus_one, but what `wrong` returns for a batch with a 13 in it.
  static FakeModel::Body unlucky(std::function<Values(const Values&)> wrong) {
    return [wrong = std::move(wrong)](const Values& inputs) {
      const std::vector<float> numbers = floats_of(inputs[0]);
      return std::ranges::find(numbers, 13.0F) != numbers.end() ? wrong(inputs) : plus_one(inputs);
    };
  }

  // plus_one, whose runs take so long: one after the other, and all others as the last.
  FakeModel::Body taking(std::vector<Nanos> times) {
    return [this, times = std::move(times), run = std::size_t{0}](const Values& inputs) mutable {
      clock_.advance(times[std::min(run++, times.size() - 1)]);
      return plus_one(inputs);
    };
  }

  FakeClock clock_{1000};
  std::unique_ptr<FakeModel> model_;
  std::unique_ptr<Running> running_;  // last: it uses the others
};

TEST_F(InstanceTest, AnswersARequest) {
  start();
  const RequestPtr request = running_->submit(rows_of(41, 3));
  ASSERT_TRUE(delivered(*request));
  expect_answer(*request, 42, 3);
  EXPECT_EQ(request->claim.outcome(), Outcome::kCompleted);
}

TEST_F(InstanceTest, RunsTogetherWhatWaitedTogether) {
  start();
  const std::vector<RequestPtr> requests{rows_of(1), rows_of(2, 3), rows_of(3)};
  run_together(requests);
  EXPECT_EQ(model_->batches(), (std::vector<std::int64_t>{1, 5}));
  expect_answer(*requests[0], 2, 1);
  expect_answer(*requests[1], 3, 3);
  expect_answer(*requests[2], 4, 1);
  EXPECT_EQ(requests[1]->timing.batch_size, 5);
}

TEST_F(InstanceTest, OnlyThePoisonedRequestOfABatchFails) {
  start();
  const std::vector<RequestPtr> requests{rows_of(1), rows_of(kPoison, 2), rows_of(3)};
  run_together(requests);
  expect_answer(*requests[0], 2, 1);
  expect_answer(*requests[2], 4, 1);
  EXPECT_EQ(requests[1]->status.code, Code::kModelFailed);
  EXPECT_EQ(requests[1]->status.message, "model \"m\" version 1 failed: cannot swallow 666");
  EXPECT_TRUE(requests[1]->outputs.empty());
  EXPECT_EQ(model_->batches(), (std::vector<std::int64_t>{1, 4, 1, 2, 1}));
}

TEST_F(InstanceTest, ASingleRequestThatRaisesIsNotRunAgain) {
  start();
  const RequestPtr request = running_->submit(rows_of(kPoison));
  ASSERT_TRUE(delivered(*request));
  EXPECT_EQ(request->status.code, Code::kModelFailed);
  EXPECT_EQ(model_->batches(), std::vector<std::int64_t>{1});
}

TEST_F(InstanceTest, ServesOnAfterAFailure) {
  start();
  ASSERT_TRUE(delivered(*running_->submit(rows_of(kPoison))));
  const RequestPtr request = running_->submit(rows_of(1));
  ASSERT_TRUE(delivered(*request));
  expect_answer(*request, 2, 1);
}

TEST_F(InstanceTest, TooFewOutputsFailTheirRequestAlone) {
  start(unlucky([](const Values&) { return Values{}; }));
  expect_only_the_second_fails("the model returned 0 outputs, its signature declares 1");
}

TEST_F(InstanceTest, TooManyOutputsFailTheirRequestAlone) {
  start(unlucky([](const Values& inputs) { return Values{inputs[0], inputs[0]}; }));
  expect_only_the_second_fails("the model returned 2 outputs, its signature declares 1");
}

TEST_F(InstanceTest, OutputsOfAnotherDtypeFailTheirRequestAlone) {
  start(
      unlucky([](const Values& inputs) { return Values{Value(inputs[0].tensor.to(at::kLong))}; }));
  expect_only_the_second_fails("output \"y\" has dtype INT64, expected FP32");
}

TEST_F(InstanceTest, OutputsOfAnotherShapeFailTheirRequestAlone) {
  start(unlucky([](const Values& inputs) { return Values{Value(inputs[0].tensor.unsqueeze(1))}; }));
  expect_only_the_second_fails("output \"y\" has shape [1, 1, 2], expected [-1, -1]");
}

TEST_F(InstanceTest, OutputsOfOtherRowsFailTheirRequestAlone) {
  start(
      unlucky([](const Values& inputs) { return Values{Value(inputs[0].tensor.repeat({2, 1}))}; }));
  expect_only_the_second_fails("output \"y\" has 2 rows for a batch of 1");
}

TEST_F(InstanceTest, AnUndefinedOutputFailsItsRequestAlone) {
  start(unlucky([](const Values&) { return Values{Value()}; }));
  expect_only_the_second_fails("the model did not return output \"y\"");
}

TEST_F(InstanceTest, WhatIsThrownNeedNotBeAnException) {
  start(unlucky([](const Values&) -> Values { throw 42; }));
  expect_only_the_second_fails("it raised something that is no exception");
}

TEST_F(InstanceTest, RunningOutOfMemoryFailsTheRequestAlone) {
  start(unlucky([](const Values&) -> Values { throw std::bad_alloc(); }));
  const std::vector<RequestPtr> requests{rows_of(1), rows_of(13), rows_of(2, 3)};
  run_together(requests);
  EXPECT_EQ(requests[1]->status.code, Code::kModelFailed);
  EXPECT_EQ(requests[1]->status.message,
            "model \"m\" version 1 failed: one row did not fit into memory: not enough memory");
  expect_answer(*requests[0], 2, 1);
  expect_answer(*requests[2], 3, 3);
  EXPECT_EQ(model_->batches(), (std::vector<std::int64_t>{1, 5, 2, 1, 1, 3}));
}

TEST_F(InstanceTest, AnExpiredRequestIsNeverRun) {
  start();
  const std::vector<RequestPtr> requests{rows_of(1), rows_of(2), rows_of(3)};
  requests[1]->deadline = 2000;
  submit_together(requests);
  clock_.set(2000);
  model_->open();
  for (const RequestPtr& request : requests) {
    ASSERT_TRUE(delivered(*request));
  }
  EXPECT_EQ(model_->seen(), (std::vector<float>{0, 1, 3}));
  EXPECT_EQ(requests[1]->status.code, Code::kDeadlineExceeded);
  EXPECT_EQ(requests[1]->claim.outcome(), Outcome::kExpired);
  expect_answer(*requests[2], 4, 1);
}

TEST_F(InstanceTest, ARequestThatExpiresBeforeItsSecondRunIsNotRunAgain) {
  start([this](const Values& inputs) {
    const at::Tensor& x = inputs[0].tensor;
    clock_.advance(x.size(0) == 1 && x.flatten()[0].item<float>() == 1 ? 1100 : 0);
    return plus_one(inputs);
  });
  // 1's second run takes so long that 2's comes too late.
  const std::vector<RequestPtr> requests{rows_of(1), rows_of(2), rows_of(kPoison)};
  requests[0]->priority = kHighPriority;
  requests[1]->deadline = 2000;
  run_together(requests);
  expect_answer(*requests[0], 2, 1);
  EXPECT_EQ(requests[1]->status.code, Code::kDeadlineExceeded);
  EXPECT_EQ(requests[2]->status.code, Code::kModelFailed);
  EXPECT_EQ(model_->seen(), (std::vector<float>{0, 1, 2, kPoison, 1, kPoison}));
}

TEST_F(InstanceTest, ACancelledRequestIsNotRun) {
  start();
  const std::vector<RequestPtr> requests{rows_of(1), rows_of(2)};
  submit_together(requests);
  EXPECT_TRUE(running_->batcher().cancel(*requests[0]));
  model_->open();
  ASSERT_TRUE(delivered(*requests[0]));
  ASSERT_TRUE(delivered(*requests[1]));
  EXPECT_EQ(requests[0]->status.code, Code::kCancelled);
  EXPECT_EQ(requests[0]->status.message, "the request was cancelled");
  EXPECT_EQ(model_->seen(), (std::vector<float>{0, 2}));
}

TEST_F(InstanceTest, ARequestCancelledWhileItRunsYieldsNothing) {
  start();
  model_->hold();
  const RequestPtr request = running_->submit(rows_of(1));
  ASSERT_TRUE(model_->wait_held());
  EXPECT_TRUE(running_->batcher().cancel(*request));
  EXPECT_FALSE(running_->batcher().expire(*request));
  model_->open();
  ASSERT_TRUE(delivered(*request));
  EXPECT_EQ(request->status.code, Code::kCancelled);
  EXPECT_TRUE(request->outputs.empty());
}

TEST_F(InstanceTest, AnAnsweredRequestCannotBeCancelled) {
  start();
  const RequestPtr request = running_->submit(rows_of(1));
  ASSERT_TRUE(delivered(*request));
  EXPECT_FALSE(running_->batcher().cancel(*request));
  EXPECT_FALSE(running_->batcher().expire(*request));
  expect_answer(*request, 2, 1);
}

TEST_F(InstanceTest, ExactlyOneOfCompleteCancelAndExpireWins) {
  start();
  auto random = seeded_random();
  for (int round = 0; round < 300; ++round) {
    const RequestPtr request = rows_of(1);
    const int head_start = static_cast<int>(random() % 64);  // so that each wins at times
    running_->submit(request);
    std::atomic<int> wins{0};
    std::atomic<Outcome> winner{Outcome::kCompleted};
    pyserve::run_together(2, [&](std::size_t index) {
      for (int i = 0; i < head_start * 50; ++i) {
        spin_pause();
      }
      Batcher& batcher = running_->batcher();
      if (index == 0 ? batcher.cancel(*request) : batcher.expire(*request)) {
        wins.fetch_add(1);
        winner.store(index == 0 ? Outcome::kCancelled : Outcome::kExpired);
      }
    });
    ASSERT_TRUE(delivered(*request));
    ASSERT_LE(wins.load(), 1);
    ASSERT_EQ(request->claim.outcome(), winner.load());
    constexpr std::array kCodes{Code::kModelFailed, Code::kOk, Code::kCancelled,
                                Code::kDeadlineExceeded};
    ASSERT_EQ(request->status.code, kCodes[static_cast<std::size_t>(winner.load())]);
    ASSERT_EQ(request->outputs.empty(), wins.load() == 1);
  }
}

TEST_F(InstanceTest, AnOutputThatIsTheBorrowedInputIsDetachedFromIt) {
  start([](const Values& inputs) { return inputs; });
  for (const bool borrows : {true, false}) {
    const RequestPtr request = rows_of(1);
    request->borrows = borrows;
    running_->submit(request);
    ASSERT_TRUE(delivered(*request));
    expect_answer(*request, 1, 1);
    EXPECT_EQ(request->outputs[0].tensor.storage().is_alias_of(request->inputs[0].tensor.storage()),
              !borrows);
  }
}

TEST_F(InstanceTest, ACallerWhoKeepsARowDoesNotKeepItsBatch) {
  start();
  const std::vector<RequestPtr> requests{rows_of(1), rows_of(2), rows_of(3)};
  requests[0]->keeps_outputs = false;
  requests[1]->keeps_outputs = false;
  run_together(requests);
  const auto& storage = [&](std::size_t i) -> const c10::Storage& {
    return requests[i]->outputs[0].tensor.storage();
  };
  EXPECT_TRUE(storage(0).is_alias_of(storage(1)));
  EXPECT_FALSE(storage(2).is_alias_of(storage(0)));
  EXPECT_EQ(storage(2).nbytes(), 8U);
  expect_answer(*requests[1], 3, 1);
  expect_answer(*requests[2], 4, 1);
}

TEST_F(InstanceTest, StringsGoInAndOutInABatch) {
  const Signature signature{.inputs = {spec("words", Dtype::kBytes, {1})},
                            .outputs = {spec("shouted", Dtype::kBytes, {1})},
                            .outputs_known = true,
                            .batched = true,
                            .max_batch_size = 8};
  const auto shout = [](const Values& inputs) {
    Strings shouted = *inputs[0].strings;
    for (std::string& text : shouted) {
      text += "!";
    }
    return Values{Value(std::move(shouted))};
  };
  model_ = std::make_unique<FakeModel>(shout);
  running_ = std::make_unique<Running>(*model_, clock_, Setup{.signature = signature});
  model_->hold();
  const RequestPtr first = running_->submit(request_for({Value(Strings{"first"})}));
  ASSERT_TRUE(model_->wait_held());
  const RequestPtr one = running_->submit(request_for({Value(Strings{"a", "b"})}));
  const RequestPtr other = running_->submit(request_for({Value(Strings{"c"})}));
  model_->open();
  for (const RequestPtr& request : {first, one, other}) {
    ASSERT_TRUE(delivered(*request));
    ASSERT_TRUE(request->status.ok()) << request->status.message;
  }
  EXPECT_EQ(*one->outputs[0].strings, (Strings{"a!", "b!"}));
  EXPECT_EQ(*other->outputs[0].strings, Strings{"c!"});
  EXPECT_EQ(model_->batches(), (std::vector<std::int64_t>{1, 3}));
}

TEST_F(InstanceTest, AnOptionalInputSeparatesThoseWhoGiveItFromThoseWhoDoNot) {
  Signature signature = rows_signature(8);
  signature.inputs.push_back({.name = "bias", .optional = true});
  start(
      [](const Values& inputs) {
        return Values{Value(inputs[1].absent() ? inputs[0].tensor.add(1)
                                               : inputs[0].tensor.add(inputs[1].tensor))};
      },
      Setup{.signature = signature});
  const auto with = [](float value) {
    return request_for({filled({1, 2}, value), filled({1, 2}, 100)});
  };
  const auto without = [](float value) { return request_for({filled({1, 2}, value), Value()}); };
  const std::vector<RequestPtr> requests{with(1), without(2), with(3), without(4)};
  model_->hold();
  running_->submit(without(0));
  ASSERT_TRUE(model_->wait_held());
  for (const RequestPtr& request : requests) {
    running_->submit(request);
  }
  model_->open();
  for (const RequestPtr& request : requests) {
    ASSERT_TRUE(delivered(*request));
  }
  expect_answer(*requests[0], 101, 1);
  expect_answer(*requests[1], 3, 1);
  expect_answer(*requests[2], 103, 1);
  expect_answer(*requests[3], 5, 1);
  EXPECT_EQ(model_->batches(), (std::vector<std::int64_t>{1, 2, 2}));
}

TEST_F(InstanceTest, OutputsThatNobodyDeclaredBringTheirNames) {
  Signature signature = rows_signature(8);
  signature.outputs_known = false;
  start(plus_one, Setup{.signature = signature});
  const RequestPtr request = running_->submit(rows_of(1));
  ASSERT_TRUE(delivered(*request));
  EXPECT_EQ(request->names, std::vector<std::string>{"y"});
}

TEST_F(InstanceTest, TellsHowLongEachPartTook) {
  start([this](const Values& inputs) {
    clock_.advance(500);
    return plus_one(inputs);
  });
  const std::vector<RequestPtr> requests{rows_of(1), rows_of(2)};
  submit_together(requests);
  clock_.advance(30);
  model_->open();
  for (const RequestPtr& request : requests) {
    ASSERT_TRUE(delivered(*request));
    EXPECT_EQ(request->timing.queue, 530);
    EXPECT_EQ(request->timing.copy_in, 0);
    EXPECT_EQ(request->timing.compute, 500);
    EXPECT_EQ(request->timing.copy_out, 0);
    EXPECT_EQ(request->timing.batch_size, 2);
  }
}

TEST_F(InstanceTest, CountsWhatItDid) {
  start();
  run_together({rows_of(1), rows_of(kPoison), rows_of(2, 3)});
  const RequestPtr cancelled = rows_of(4);
  submit_together({cancelled});
  EXPECT_TRUE(running_->batcher().cancel(*cancelled));
  model_->open();
  ASSERT_TRUE(delivered(*cancelled));
  running_->batcher().stop_accepting();
  EXPECT_TRUE(running_->batcher().wait_idle(kNever));  // all is counted by then
  const InstanceStats& stats = running_->instance().stats();
  const auto count = [&](Code code) {
    return stats.outcomes[static_cast<std::size_t>(code)].get();
  };
  EXPECT_EQ(count(Code::kOk), 4);  // two of them were submitted to keep it busy
  EXPECT_EQ(count(Code::kModelFailed), 1);
  EXPECT_EQ(count(Code::kCancelled), 1);
  EXPECT_EQ(stats.rows.get(), 6);     // that came out right
  EXPECT_EQ(stats.batches.get(), 4);  // 0, 1, 2 after the batch that raised, 0
  EXPECT_EQ(stats.batch_size.snapshot().count, 4U);
  EXPECT_EQ(stats.request.snapshot().count, 4U);
  EXPECT_GT(stats.last_inference_ms.get(), 1'500'000'000'000);
}

TEST_F(InstanceTest, EveryBatchSizeIsWarmedThreeTimes) {
  const Values row{filled({1, 2}, 0)};
  start(taking({2'000'000}), Setup{.warmup = {{row}, {row, row, row}}});
  EXPECT_EQ(model_->batches(), (std::vector<std::int64_t>{1, 1, 1, 3, 3, 3}));
}

TEST_F(InstanceTest, LightBatchesAreWarmedSomeMoreForTheirTime) {
  const Values row{filled({1, 2}, 0)};
  start(plus_one, Setup{.warmup = {{row}, {row, row}}});  // the clock stands still
  const std::vector<std::int64_t> batches = model_->batches();
  EXPECT_EQ(std::ranges::count(batches, 1), 32);
  EXPECT_EQ(std::ranges::count(batches, 2), 32);
}

TEST_F(InstanceTest, AWarmUpTellsTheShortestRunOfEveryBatchSize) {
  const Values row{filled({1, 2}, 0)};
  model_ = std::make_unique<FakeModel>(
      taking({9'000'000, 2'000'000, 5'000'000, 8'000'000, 7'000'000, 3'000'000}));
  running_ = std::make_unique<Running>(*model_, clock_, Setup{.warmup = {{row}, {row, row, row}}});
  const WarmUp warm = running_->instance().wait_warm();
  EXPECT_EQ(warm.failure, "");
  ASSERT_EQ(warm.times.size(), 2U);
  EXPECT_EQ(warm.times[0].rows, 1);
  EXPECT_EQ(warm.times[0].shortest, 2'000'000);
  EXPECT_EQ(warm.times[1].rows, 3);
  EXPECT_EQ(warm.times[1].shortest, 3'000'000);
}

TEST_F(InstanceTest, WithoutAWarmUpNothingIsTimed) {
  model_ = std::make_unique<FakeModel>(plus_one);
  running_ = std::make_unique<Running>(*model_, clock_, Setup());
  EXPECT_TRUE(running_->instance().wait_warm().times.empty());
}

TEST_F(InstanceTest, AWarmUpThatFailsTellsTheTimesSoFar) {
  const Values row{filled({1, 2}, 0)};
  const Values poisoned{filled({1, 2}, kPoison)};
  model_ = std::make_unique<FakeModel>(taking({4'000'000}));
  running_ = std::make_unique<Running>(*model_, clock_,
                                       Setup{.warmup = {{row}, {row, poisoned}, {row, row, row}}});
  const WarmUp warm = running_->instance().wait_warm();
  EXPECT_EQ(warm.failure, "cannot swallow 666");
  ASSERT_EQ(warm.times.size(), 1U);
  EXPECT_EQ(warm.times[0].rows, 1);
  EXPECT_EQ(warm.times[0].shortest, 4'000'000);
  EXPECT_EQ(model_->batches(), (std::vector<std::int64_t>{1, 1, 1, 2}));
}

TEST_F(InstanceTest, AFailedWarmUpIsToldAndDoesNotStopIt) {
  model_ = std::make_unique<FakeModel>(plus_one);
  running_ =
      std::make_unique<Running>(*model_, clock_, Setup{.warmup = {{{filled({1, 2}, kPoison)}}}});
  EXPECT_EQ(running_->instance().wait_warm().failure, "cannot swallow 666");
  const RequestPtr request = running_->submit(rows_of(1));
  ASSERT_TRUE(delivered(*request));
  expect_answer(*request, 2, 1);
}

TEST_F(InstanceTest, EndlessWarmUpIsCutShort) {
  const Values row{filled({1, 2}, 0)};
  model_ = std::make_unique<FakeModel>(taking({15'000'000'000}));
  running_ = std::make_unique<Running>(*model_, clock_, Setup{.warmup = {{row}, {row, row}}});
  const WarmUp warm = running_->instance().wait_warm();
  EXPECT_EQ(warm.failure, "");
  EXPECT_TRUE(warm.times.empty());
  EXPECT_EQ(model_->batches(), (std::vector<std::int64_t>{1, 1}));
}

}  // namespace
}  // namespace pyserve
