#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/model_version.h"
#include "fake_model.h"
#include "fakes.h"
#include "script_model.h"
#include "threads.h"
#include "values.h"

namespace pyserve {
namespace {

Values mixing(const Values& inputs) {
  const at::Tensor& x = inputs.front().tensor;
  return {Value(x.sub(x.mean(0, /*keepdim=*/true)))};
}

class ModelVersionTest : public ::testing::Test {
 protected:
  ModelVersionTest() { options_.warmup = false; }
  ~ModelVersionTest() override { model_->open(); }

  // Before start(); a FakeModel outlives what was made from it.
  void use(FakeModel::Body body) {
    version_.reset();
    model_ = std::make_unique<FakeModel>(std::move(body));
  }

  ModelVersion& start() {
    version_ = std::make_unique<ModelVersion>(options_, model_->executable(), clock_);
    model_->forget();
    return *version_;
  }
  std::string complaint() {
    try {
      start();
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  }

  // plus_one, whose run of so many rows takes time_of(rows).
  template <class TimeOf>
  FakeModel::Body taking(TimeOf time_of) {
    return [this, time_of](const Values& inputs) {
      clock_.advance(time_of(inputs.front().rows()));
      return plus_one(inputs);
    };
  }

  RequestPtr submit(RequestPtr request) {
    EXPECT_TRUE(version_->submit(request).ok());
    return request;
  }
  // The only instance runs it until the model's gate is opened.
  RequestPtr submit_held() {
    model_->hold();
    const RequestPtr request = submit(rows_of(0));
    EXPECT_TRUE(model_->wait_held());
    return request;
  }
  // The rows of each batch when four callers wait for the run of a fifth to end.
  std::vector<std::int64_t> batches_of_five() {
    std::vector<RequestPtr> requests{submit_held()};
    for (int i = 0; i < 4; ++i) {
      requests.push_back(submit(rows_of(1)));
    }
    model_->open();
    for (const RequestPtr& request : requests) {
      EXPECT_TRUE(delivered(*request));
    }
    return model_->batches();
  }
  static void expect_answer(Request& request, float value) {
    ASSERT_TRUE(delivered(request));
    ASSERT_TRUE(request.status.ok()) << request.status.message;
    EXPECT_EQ(floats_of(request.outputs[0]).front(), value);
  }

  LoadOptions options_ = small_options();
  FakeClock clock_{1000};
  std::unique_ptr<FakeModel> model_ = std::make_unique<FakeModel>();
  std::unique_ptr<ModelVersion> version_;  // last: it uses the others
};

TEST_F(ModelVersionTest, ServesAModelWhoseBatchingIsProven) {
  start();
  EXPECT_TRUE(version_->combines());
  EXPECT_EQ(version_->batching_note(), "");
  EXPECT_TRUE(version_->notes().empty());
  EXPECT_EQ(version_->device(), "cpu");
  EXPECT_EQ(version_->output_form(), OutputForm::kSingle);
  EXPECT_TRUE(version_->accepting());
  expect_answer(*submit(rows_of(41)), 42);
}

TEST_F(ModelVersionTest, AModelThatMixesRowsIsServedOneRequestAtATime) {
  use(mixing);
  start();
  EXPECT_FALSE(version_->combines());
  EXPECT_EQ(version_->batching_note(),
            "output \"y\" mixes rows: a row's values change with the rows it is batched with");
  model_->forget();
  model_->hold();
  const RequestPtr first = submit(rows_of(0));
  ASSERT_TRUE(model_->wait_held());
  const RequestPtr one = submit(rows_of(1, 3));
  const RequestPtr other = submit(rows_of(2));
  model_->open();
  for (const RequestPtr& request : {first, one, other}) {
    expect_answer(*request, 0);
  }
  EXPECT_EQ(model_->batches(), (std::vector<std::int64_t>{1, 3, 1}));
}

TEST_F(ModelVersionTest, InsistingOnBatchingAModelThatMixesRowsIsAnError) {
  use(mixing);
  options_.insist_on_batching = true;
  EXPECT_EQ(complaint(),
            "max_batch_size 8 cannot be had: output \"y\" mixes rows: a row's values change with "
            "the rows it is batched with");
}

TEST_F(ModelVersionTest, AnExampleOfZerosHidesNoMixing) {
  use(mixing);
  options_.examples = {{filled({1, 4}, 0)}};
  start();
  EXPECT_FALSE(version_->combines());
}

TEST_F(ModelVersionTest, ATrialRunThatFailsIsNotedOrInsistedOn) {
  use([](const Values&) -> Values { throw std::runtime_error("not today"); });
  start();
  EXPECT_FALSE(version_->combines());
  EXPECT_EQ(version_->batching_note(),
            "a trial run failed, so requests are not batched: not today");
  options_.insist_on_batching = true;
  EXPECT_EQ(complaint(), "batching cannot be proven: not today");
}

TEST_F(ModelVersionTest, WithoutASignatureNothingIsBatched) {
  options_.inputs.reset();
  options_.outputs.reset();
  start();
  EXPECT_FALSE(version_->combines());
  EXPECT_FALSE(version_->signature().batched);
  EXPECT_EQ(version_->signature().inputs[0].name, "x");
  EXPECT_EQ(version_->batching_note(),
            "no signature is known: requests are not batched and shapes are unchecked");
  const RequestPtr request = submit(rows_of(1, 3));
  expect_answer(*request, 2);
  EXPECT_EQ(request->names, std::vector<std::string>{"y"});
}

TEST_F(ModelVersionTest, OutputsThatNobodyDeclaredAreNamedByATrialRun) {
  options_.outputs.reset();
  start();
  EXPECT_FALSE(version_->signature().outputs_known);
  ASSERT_EQ(version_->signature().outputs.size(), 1U);
  EXPECT_EQ(version_->signature().outputs[0].name, "y");
  EXPECT_TRUE(version_->combines());
}

TEST_F(ModelVersionTest, SaysWhyABatchOfOneIsAll) {
  options_.max_batch_size = 1;
  EXPECT_EQ(start().batching_note(), "max_batch_size is 1");
  options_.batched = false;
  EXPECT_EQ(start().batching_note(), "the model takes no batch dimension");
}

TEST_F(ModelVersionTest, DeclaredInputsAreArrangedByName) {
  model_->arguments = {{.name = "x"}, {.name = "z", .optional = true}};
  options_.inputs = {{spec("z", Dtype::kInt64, {4}), spec("x", Dtype::kFp32, {-1})}};
  start();
  ASSERT_EQ(version_->signature().inputs.size(), 2U);
  EXPECT_EQ(version_->signature().inputs[0].name, "x");
  EXPECT_EQ(version_->signature().inputs[1].name, "z");
  EXPECT_TRUE(version_->signature().inputs[1].optional);
}

TEST_F(ModelVersionTest, InputsOfOtherNamesAreArrangedByPosition) {
  options_.inputs = {{spec("image", Dtype::kFp32, {-1})}};
  EXPECT_EQ(start().signature().inputs[0].name, "image");
}

TEST_F(ModelVersionTest, TheDeclaredInputsMustFitTheModel) {
  options_.inputs = {{spec("x", Dtype::kFp32, {-1}), spec("z", Dtype::kFp32, {-1})}};
  EXPECT_EQ(complaint(), "the signature declares 2 inputs, the model takes 1: \"x\"");
  model_->arguments = {{.name = "x"}, {.name = "z"}};
  options_.inputs = {{spec("z", Dtype::kFp32, {-1})}};
  EXPECT_EQ(complaint(), "the signature does not declare the model's input \"x\"");
}

TEST_F(ModelVersionTest, TheOptimisedFormServesWhereItAgrees) {
  auto runs = std::make_shared<std::atomic<int>>(0);
  model_->optimized = [runs](const Values& inputs) {
    runs->fetch_add(1);
    return plus_one(inputs);
  };
  start();
  EXPECT_TRUE(version_->notes().empty());
  const int before = runs->load();
  expect_answer(*submit(rows_of(1)), 2);
  EXPECT_EQ(runs->load(), before + 1);
}

TEST_F(ModelVersionTest, AnOptimisedFormThatDiffersIsNotedAndNotUsed) {
  model_->optimized = [](const Values& inputs) { return Values{Value(inputs[0].tensor.add(2))}; };
  start();
  ASSERT_EQ(version_->notes().size(), 1U);
  EXPECT_EQ(version_->notes()[0],
            "the optimised form's outputs differ from the plain module's: serving it plain");
  expect_answer(*submit(rows_of(1)), 2);
}

TEST_F(ModelVersionTest, EveryInstanceIsWarmedOnTheBatchesThatItWillForm) {
  use(taking([](std::int64_t) { return Nanos{3'000'000}; }));  // too slow to be run some more
  options_.warmup = true;
  options_.instances = 2;
  options_.max_batch_size = 5;
  version_ = std::make_unique<ModelVersion>(options_, model_->executable(), clock_);
  std::vector<std::int64_t> batches = model_->batches();
  for (const std::int64_t rows : {2, 4, 5}) {
    EXPECT_EQ(std::ranges::count(batches, rows), 6) << rows;
  }
}

TEST_F(ModelVersionTest, AWarmUpThatFailsIsNoted) {
  auto runs = std::make_shared<std::atomic<int>>(0);
  use([runs](const Values& inputs) {
    if (inputs[0].rows() == 8) {  // beyond what the proof runs
      throw std::runtime_error("too many");
    }
    return plus_one(inputs);
  });
  options_.warmup = true;
  start();
  ASSERT_EQ(version_->notes().size(), 1U);
  EXPECT_EQ(version_->notes()[0], "a warm-up run failed: too many");
}

TEST_F(ModelVersionTest, InstancesRunAtTheSameTime) {
  options_.instances = 2;
  start();
  model_->hold();
  const RequestPtr one = submit(rows_of(1));
  EXPECT_TRUE(model_->wait_held(1));
  const RequestPtr other = submit(rows_of(2));
  EXPECT_TRUE(model_->wait_held(2));
  model_->open();
  expect_answer(*one, 2);
  expect_answer(*other, 3);
}

TEST_F(ModelVersionTest, ALightModelIsPlannedOneInstance) {
  options_.instances = 3;
  options_.plan_instances = true;
  EXPECT_EQ(start().instances(), 1);  // a run takes no time at all
  use(taking([](std::int64_t) { return Nanos{1'000'000}; }));
  EXPECT_EQ(start().instances(), 3);
  options_.plan_instances = false;
  EXPECT_EQ(start().instances(), 3);
}

TEST_F(ModelVersionTest, WhetherAModelIsLightIsToldByItsRowsInABatch) {
  options_.instances = 3;
  options_.plan_instances = true;
  use(taking([](std::int64_t) { return Nanos{70'000}; }));
  EXPECT_EQ(start().instances(), 1);  // a batch of 8
  use(taking([](std::int64_t rows) { return rows * 70'000; }));
  EXPECT_EQ(start().instances(), 3);
}

TEST_F(ModelVersionTest, AModelWhoseRowAloneTakesTooLongIsNotTimedInABatch) {
  for (const Nanos run : {Nanos{79'000}, Nanos{81'000}}) {
    use(taking([run](std::int64_t) { return run; }));
    version_ = std::make_unique<ModelVersion>(options_, model_->executable(), clock_);
    const std::vector<std::int64_t> batches = model_->batches();
    EXPECT_EQ(std::ranges::count(batches, 8) > 0, run == 79'000);
  }
}

// ---- what was timed decides how batches are formed ---------------------------------

TEST_F(ModelVersionTest, CallersThatWaitAreRunTogether) {
  start();
  EXPECT_EQ(batches_of_five(), (std::vector<std::int64_t>{1, 4}));
}

TEST_F(ModelVersionTest, WithAnExplicitDelayCallersAreRunTogether) {
  options_.max_queue_delay = 0;
  start();
  EXPECT_EQ(batches_of_five(), (std::vector<std::int64_t>{1, 4}));
}

TEST_F(ModelVersionTest, NoBatchIsLargerThanThoseThatPaidInTheWarmUp) {
  // 1, 2, 2 and 2 rows a millisecond
  use(taking([](std::int64_t rows) { return std::max<Nanos>(rows * 500'000, 1'000'000); }));
  options_.warmup = true;
  start();
  EXPECT_EQ(batches_of_five(), (std::vector<std::int64_t>{1, 2, 2}));
  options_.max_queue_delay = 0;  // the user's word counts for more
  start();
  EXPECT_EQ(batches_of_five(), (std::vector<std::int64_t>{1, 4}));
}

TEST_F(ModelVersionTest, AModelThatCannotRunTheLargestBatchIsServedUpToIt) {
  use([](const Values& inputs) {
    if (inputs[0].rows() == 8) {  // beyond what the proof runs
      throw std::runtime_error("too many");
    }
    return plus_one(inputs);
  });
  start();
  EXPECT_TRUE(version_->combines());
  expect_answer(*submit(rows_of(1, 7)), 2);
}

TEST_F(ModelVersionTest, ADrainRefusesTheNewAndFinishesTheOld) {
  start();
  const RequestPtr first = submit_held();
  const RequestPtr second = submit(rows_of(1));
  EXPECT_FALSE(version_->drain(/*until=*/clock_.now()));
  EXPECT_FALSE(version_->accepting());
  EXPECT_EQ(version_->submit(rows_of(2)).code, Code::kUnavailable);
  EXPECT_EQ(version_->in_flight(), 2);
  model_->open();
  EXPECT_TRUE(version_->drain(kNever));
  EXPECT_EQ(version_->in_flight(), 0);
  expect_answer(*first, 1);
  expect_answer(*second, 2);
}

TEST_F(ModelVersionTest, ClosingFinishesWhatRunsAndCancelsWhatWaits) {
  start();
  const RequestPtr running = submit_held();
  const RequestPtr waiting = submit(rows_of(1));
  std::jthread closing([&] { version_->close(); });
  ASSERT_TRUE(eventually([&] { return !version_->accepting(); }));
  model_->open();
  closing.join();
  expect_answer(*running, 1);
  ASSERT_TRUE(delivered(*waiting));
  EXPECT_EQ(waiting->status.code, Code::kUnavailable);
  EXPECT_EQ(waiting->status.message, "model \"m\" version 1 is being unloaded");
  EXPECT_EQ(model_->seen(), std::vector<float>{0});
}

TEST_F(ModelVersionTest, ClosingTwiceIsClosingOnce) {
  start();
  version_->close();
  version_->close();
  EXPECT_EQ(version_->submit(rows_of(1)).code, Code::kUnavailable);
  EXPECT_TRUE(version_->drain(kNever));
}

TEST_F(ModelVersionTest, ItsEndLosesNoRequest) {
  start();
  const auto queue = std::make_shared<RequestQueue>();
  model_->hold();
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(version_->submit(request_for({filled({1, 2}, 0)}, queue)).ok());
  }
  std::jthread opening([&] {
    EXPECT_TRUE(eventually([&] { return !version_->accepting(); }));
    model_->open();
  });
  version_->close();
  opening.join();
  version_.reset();
  EXPECT_EQ(queue->drain([](const RequestPtr& request) {
    EXPECT_NE(request->claim.outcome(), Outcome::kOpen);
  }),
            10U);
}

TEST_F(ModelVersionTest, ARefusedRequestIsCountedAndStaysItsCallers) {
  options_.queue_capacity = 1;
  start();
  const RequestPtr running = submit_held();
  const RequestPtr waiting = submit(rows_of(1));
  const RequestPtr refused = rows_of(2);
  EXPECT_EQ(version_->submit(refused).code, Code::kQueueFull);
  EXPECT_EQ(refused.use_count(), 1);
  refused->deadline = clock_.now();
  EXPECT_EQ(version_->submit(refused).code, Code::kDeadlineExceeded);
  version_->count_refused(Code::kInvalidInput);
  VersionStats stats = version_->stats();
  EXPECT_EQ(stats.queued, 1);
  EXPECT_EQ(stats.in_flight, 2);
  model_->open();
  EXPECT_TRUE(version_->drain(kNever));
  stats = version_->stats();
  const auto count = [&](Code code) { return stats.outcomes[static_cast<std::size_t>(code)]; };
  EXPECT_EQ(count(Code::kQueueFull), 1);
  EXPECT_EQ(count(Code::kDeadlineExceeded), 1);
  EXPECT_EQ(count(Code::kInvalidInput), 1);
  EXPECT_EQ(count(Code::kOk), 2);
  EXPECT_EQ(stats.queued, 0);
  EXPECT_EQ(stats.in_flight, 0);
  EXPECT_EQ(stats.rows, 2);
  EXPECT_EQ(stats.batches, 2);
}

TEST_F(ModelVersionTest, StatsAddUpTheInstances) {
  options_.instances = 2;
  start();
  model_->hold();
  const RequestPtr one = submit(rows_of(1, 2));
  EXPECT_TRUE(model_->wait_held(1));
  const RequestPtr other = submit(rows_of(2, 3));
  EXPECT_TRUE(model_->wait_held(2));
  model_->open();
  EXPECT_TRUE(version_->drain(kNever));
  const VersionStats stats = version_->stats();
  EXPECT_EQ(stats.rows, 5);
  EXPECT_EQ(stats.batches, 2);
  EXPECT_EQ(stats.batch_size.count, 2U);
  EXPECT_EQ(stats.batch_size.sum, 5);
  EXPECT_EQ(stats.request.count, 2U);
}

TEST_F(ModelVersionTest, WhatItsCallerLeftGoesToTheOrphans) {
  start();
  const RequestPtr request = submit_held();
  EXPECT_TRUE(version_->expire(*request));
  EXPECT_FALSE(version_->cancel(*request));
  EXPECT_TRUE(request->abandon());
  model_->open();
  EXPECT_TRUE(version_->drain(kNever));
  EXPECT_EQ(version_->orphans().drain([&](const RequestPtr& orphan) {
    EXPECT_EQ(orphan, request);
    EXPECT_EQ(orphan->status.code, Code::kDeadlineExceeded);
  }),
            1U);
}

// The fake clock stands still, so every model is light.
TEST_F(ModelVersionTest, ALightModelRunsOnItsSubmittersThread) {
  options_.warmup = true;
  start();
  const RequestPtr request = rows_of(1);
  ASSERT_TRUE(version_->run_here(request));
  ASSERT_TRUE(request->status.ok()) << request->status.message;
  EXPECT_EQ(floats_of(request->outputs[0]).front(), 2);
  EXPECT_EQ(version_->stats().rows, 1);
  EXPECT_EQ(version_->in_flight(), 0);
}

TEST_F(ModelVersionTest, OnlyAQueueDelayKeepsRequestsOffTheirSubmittersThreads) {
  options_.warmup = true;
  options_.max_queue_delay = 0;
  start();
  EXPECT_TRUE(version_->run_here(rows_of(1)));
  options_.max_queue_delay = 1;
  start();
  EXPECT_FALSE(version_->run_here(rows_of(1)));
}

TEST_F(ModelVersionTest, ARequestInFlightKeepsOthersOffTheirSubmittersThreads) {
  options_.warmup = true;
  start();
  const RequestPtr running = submit_held();
  EXPECT_FALSE(version_->run_here(rows_of(1)));
  model_->open();
  expect_answer(*running, 1);
}

TEST_F(ModelVersionTest, WhatFailsOnItsSubmittersThreadIsSettledToo) {
  options_.warmup = true;
  start();
  const RequestPtr poisoned = rows_of(kPoison);
  ASSERT_TRUE(version_->run_here(poisoned));
  EXPECT_EQ(poisoned->status.code, Code::kModelFailed);
  version_->close();
  const RequestPtr late = rows_of(1);
  ASSERT_TRUE(version_->run_here(late));
  EXPECT_EQ(late->status.code, Code::kUnavailable);
  EXPECT_EQ(version_->in_flight(), 0);
}

TEST_F(ModelVersionTest, TheTimeOfABatchOnItsSubmittersThreadIsThatOfTheNextTried) {
  options_.warmup = true;
  options_.max_batch_size = 6;
  use(taking([](std::int64_t rows) { return rows * 10; }));
  start();
  EXPECT_EQ(version_->time_here(1), 10);
  EXPECT_EQ(version_->time_here(3), 40);
  EXPECT_EQ(version_->time_here(6), 60);
  EXPECT_EQ(version_->time_here(7), kNever);
  options_.warmup = false;
  start();
  EXPECT_EQ(version_->time_here(1), kNever);
}

TEST_F(ModelVersionTest, AGatheredBatchIsRunAndCountedByTheRequest) {
  options_.warmup = true;
  start();
  clock_.advance(100);
  const std::vector<GatheredRequest> requests{{.rows = 1, .arrival = clock_.now() - 30},
                                              {.rows = 2, .arrival = clock_.now() - 10}};
  Gathered gathered{.formed = clock_.now()};
  const Values inputs{floats({3, 1}, {1, 2, 3})};
  const std::optional<Status> status = version_->run_gathered(inputs, requests, gathered);
  ASSERT_TRUE(status.has_value());
  ASSERT_TRUE(status->ok()) << status->message;
  EXPECT_EQ(floats_of(gathered.outputs[0]), (std::vector<float>{2, 3, 4}));
  EXPECT_EQ(gathered.timing.batch_size, 3);
  const VersionStats stats = version_->stats();
  EXPECT_EQ(stats.outcomes[static_cast<std::size_t>(Code::kOk)], 2);
  EXPECT_EQ(stats.rows, 3);
  EXPECT_EQ(stats.batches, 1);
  EXPECT_EQ(stats.request.count, 2U);
  EXPECT_EQ(stats.queue.sum, 40);
  EXPECT_EQ(version_->in_flight(), 0);
}

TEST_F(ModelVersionTest, AGatheredBatchThatFailsIsCountedOnlyWhereItIsOneRequest) {
  options_.warmup = true;
  start();
  Gathered gathered;
  const Values two{floats({2, 1}, {1, kPoison})};
  const std::vector<GatheredRequest> requests(2);
  EXPECT_EQ(version_->run_gathered(two, requests, gathered)->code, Code::kModelFailed);
  const auto failed = static_cast<std::size_t>(Code::kModelFailed);
  EXPECT_EQ(version_->stats().outcomes[failed], 0);
  const Values one{floats({1, 1}, {kPoison})};
  EXPECT_EQ(version_->run_gathered(one, std::span(requests).first(1), gathered)->code,
            Code::kModelFailed);
  EXPECT_EQ(version_->stats().outcomes[failed], 1);
  EXPECT_EQ(version_->in_flight(), 0);
}

TEST_F(ModelVersionTest, AGatheredBatchIsNotTouchedOnceTheVersionDrains) {
  options_.warmup = true;
  start();
  ASSERT_TRUE(version_->drain(kNever));
  Gathered gathered;
  const Values inputs{floats({1, 1}, {1})};
  const std::vector<GatheredRequest> requests(1);
  EXPECT_FALSE(version_->run_gathered(inputs, requests, gathered).has_value());
  EXPECT_EQ(version_->stats().batches, 0);
}

TEST_F(ModelVersionTest, ARehearsedBatchLeavesNoTrace) {
  options_.warmup = true;
  start();
  Gathered gathered;
  const Values inputs{floats({1, 1}, {1})};
  const std::vector<GatheredRequest> requests(1);
  EXPECT_TRUE(version_->run_gathered(inputs, requests, gathered, /*rehearsal=*/true)->ok());
  EXPECT_EQ(floats_of(gathered.outputs[0]), std::vector<float>{2});
  EXPECT_EQ(version_->stats().batches, 0);
}

TEST_F(ModelVersionTest, WhatCannotBeHadIsOneLine) {
  options_.platform = "onnx";
  EXPECT_THROW(ModelVersion{options_}, std::runtime_error);
  options_.platform = "torchscript";
  options_.device = "tpu";
  EXPECT_THROW(ModelVersion{options_}, std::invalid_argument);
  options_.device = "cpu";
  options_.queue_capacity = 0;
  EXPECT_THROW(start(), std::invalid_argument);
}

TEST_F(ModelVersionTest, ServesATorchScriptFile) {
  const ScriptFile file("def forward(self, x):\n  return torch.matmul(x, self.weight)",
                        {{"weight", floats({2, 2}, {0, 1, 1, 0}).tensor}});
  options_.path = file.path();
  options_.inputs = {{spec("x", Dtype::kFp32, {2})}};
  options_.outputs = {{spec("y", Dtype::kFp32, {2})}};
  options_.warmup = true;
  options_.instances = 2;
  version_ = std::make_unique<ModelVersion>(options_);
  EXPECT_TRUE(version_->combines()) << version_->batching_note();
  std::vector<RequestPtr> requests;
  for (int i = 0; i < 10; ++i) {
    requests.push_back(submit(request_for({floats({1, 2}, {static_cast<float>(i), -1})})));
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(delivered(*requests[i]));
    ASSERT_TRUE(requests[i]->status.ok()) << requests[i]->status.message;
    EXPECT_EQ(floats_of(requests[i]->outputs[0]), (std::vector<float>{-1, static_cast<float>(i)}));
  }
}

TEST_F(ModelVersionTest, ATorchScriptFileThatMixesRowsIsFoundOut) {
  const ScriptFile file("def forward(self, x):\n  return x - x.mean(0)");
  options_.path = file.path();
  options_.inputs = {{spec("x", Dtype::kFp32, {2})}};
  options_.outputs = {{spec("centred", Dtype::kFp32, {2})}};
  version_ = std::make_unique<ModelVersion>(options_);
  EXPECT_FALSE(version_->combines());
  EXPECT_NE(version_->batching_note().find("output \"centred\" mixes rows"), std::string::npos);
  options_.insist_on_batching = true;
  EXPECT_THROW(ModelVersion{options_}, std::invalid_argument);
}

}  // namespace
}  // namespace pyserve
