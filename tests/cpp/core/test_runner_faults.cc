#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/notices.h"
#include "engine/model_version.h"
#include "fake_model.h"
#include "fakes.h"
#include "values.h"

namespace pyserve {
namespace {

using Rows = std::vector<std::int64_t>;

const char* const kSticky = "CUDA error: device-side assert triggered";

std::atomic<bool> device_is_lost{false};
bool probe(DeviceStream& /*stream*/) noexcept { return device_is_lost.load(); }

[[noreturn]] void run_out() {
  throw c10::OutOfMemoryError({__func__, __FILE__, __LINE__},
                              "CUDA out of memory. Tried to allocate 9.00 GiB");
}

// A version of a model whose memory has room for so many rows.
class RunnerFaults : public ::testing::Test {
 protected:
  RunnerFaults() {
    options_.warmup = false;
    device_is_lost = false;
    process_notices().take();
  }
  ~RunnerFaults() override { model_->open(); }

  FakeModel::Body with_room(FakeModel::Body body = plus_one) {
    return [this, body = std::move(body)](const Values& inputs) {
      if (inputs.front().rows() > room_) {
        run_out();
      }
      return body(inputs);
    };
  }

  void start() { start(with_room()); }
  void start(FakeModel::Body body) {
    model_ = std::make_unique<FakeModel>(std::move(body));
    version_ = std::make_unique<ModelVersion>(options_, model_->executable(), clock_, &probe);
    model_->forget();
  }

  RequestPtr submit(RequestPtr request) {
    EXPECT_TRUE(version_->submit(request).ok());
    return request;
  }
  // The rows of each run, where these meet an instance that has just become free.
  Rows run(const std::vector<RequestPtr>& requests, std::int64_t first_rows = 1) {
    model_->hold();
    const RequestPtr first = submit(rows_of(0, first_rows));
    EXPECT_TRUE(model_->wait_held());
    model_->forget();
    for (const RequestPtr& request : requests) {
      submit(request);
    }
    model_->open();
    for (const RequestPtr& request : requests) {
      EXPECT_TRUE(delivered(*request));
    }
    return model_->batches();
  }
  static std::vector<RequestPtr> singles(int count) {
    std::vector<RequestPtr> requests;
    for (int i = 1; i <= count; ++i) {
      requests.push_back(rows_of(static_cast<float>(i)));
    }
    return requests;
  }
  static void expect_answers(const std::vector<RequestPtr>& requests) {
    for (const RequestPtr& request : requests) {
      ASSERT_TRUE(request->status.ok()) << request->status.message;
      const float value = floats_of(request->inputs[0]).front();
      EXPECT_EQ(floats_of(request->outputs[0]),
                std::vector<float>(static_cast<std::size_t>(request->rows) * 2, value + 1));
    }
  }
  std::vector<std::string> notices(NoticeKind kind) {
    std::vector<std::string> texts;
    for (const Notice& notice : process_notices().take()) {
      EXPECT_EQ(notice.kind, kind);
      texts.push_back(notice.text);
    }
    return texts;
  }
  std::int64_t outcomes(Code code) const {
    return version_->stats().outcomes[static_cast<std::size_t>(code)];
  }

  LoadOptions options_ = small_options();
  FakeClock clock_{1000};
  std::atomic<std::int64_t> room_{1000};
  std::unique_ptr<FakeModel> model_ = std::make_unique<FakeModel>();
  std::unique_ptr<ModelVersion> version_;  // last: it uses the others
};

TEST_F(RunnerFaults, ABatchThatDoesNotFitIsRunInHalves) {
  start();
  room_ = 2;
  const auto requests = singles(8);
  EXPECT_EQ(run(requests), (Rows{8, 4, 2, 2, 2, 2}));
  expect_answers(requests);
  EXPECT_EQ(version_->row_limit(), 2);
  EXPECT_EQ(outcomes(Code::kOk), 9);
  EXPECT_TRUE(version_->drain(kNever));  // nothing is left in flight
}

TEST_F(RunnerFaults, WhatFitsIsRemembered) {
  start();
  room_ = 2;
  run(singles(4));
  const auto requests = singles(4);
  EXPECT_EQ(run(requests), (Rows{2, 2}));
  expect_answers(requests);
}

TEST_F(RunnerFaults, WhatFitsHoldsWithAQueueDelayToo) {
  options_.max_queue_delay = 3'600'000'000'000;  // only full batches
  start();
  room_ = 2;
  EXPECT_EQ(run(singles(8), /*first_rows=*/8), (Rows{4, 2, 2, 2, 2, 2, 2, 2, 2}));
}

TEST_F(RunnerFaults, TheLimitIsToldOnceForEachStep) {
  start();
  room_ = 2;
  run(singles(8));
  run(singles(8));
  EXPECT_EQ(notices(NoticeKind::kOutOfMemory),
            (std::vector<std::string>{"model \"m\" version 1: 8 rows did not fit into memory; "
                                      "batches have at most 4 rows from now on",
                                      "model \"m\" version 1: 4 rows did not fit into memory; "
                                      "batches have at most 2 rows from now on"}));
}

TEST_F(RunnerFaults, OneRequestOfTooManyRowsIsRunInPartsAndAnsweredWhole) {
  start();
  room_ = 3;
  const RequestPtr request = rows_of(5, 7);
  EXPECT_EQ(run({request}), (Rows{7, 3, 3, 1}));
  expect_answers({request});
  EXPECT_EQ(request->timing.batch_size, 3);
  EXPECT_EQ(outcomes(Code::kOk), 2);
  const RequestPtr again = rows_of(6, 8);
  EXPECT_EQ(run({again}), (Rows{3, 3, 2}));
  expect_answers({again});
}

TEST_F(RunnerFaults, PartsKeepTheOrderOfStringsAndTheAbsenceOfInputs) {
  options_.inputs = std::vector<TensorSpec>{spec("words", Dtype::kBytes, {1})};
  options_.outputs = std::vector<TensorSpec>{spec("same", Dtype::kBytes, {1})};
  model_->arguments = {{.name = "words"}};
  options_.examples = {{Value(Strings{"a"})}, {Value(Strings{"b"})}};
  start(with_room([](const Values& inputs) { return Values{inputs.front()}; }));
  ASSERT_TRUE(version_->combines()) << version_->batching_note();
  room_ = 1;
  const RequestPtr request = submit(request_for({Value(Strings{"a", "b", "c"})}));
  ASSERT_TRUE(delivered(*request));
  ASSERT_TRUE(request->status.ok()) << request->status.message;
  EXPECT_EQ(*request->outputs[0].strings, (Strings{"a", "b", "c"}));
}

TEST_F(RunnerFaults, ARowThatDoesNotFitAloneFailsAndSaysSo) {
  start();
  room_ = 0;
  const auto requests = singles(2);
  EXPECT_EQ(run(requests), (Rows{2, 1, 1}));
  for (const RequestPtr& request : requests) {
    EXPECT_EQ(request->status.code, Code::kModelFailed);
    EXPECT_EQ(request->status.message,
              "model \"m\" version 1 failed: one row did not fit into memory: CUDA out of memory. "
              "Tried to allocate 9.00 GiB");
  }
}

TEST_F(RunnerFaults, AnOverlargeRowDoesNotShrinkTheBatchesOfOthers) {
  start([](const Values& inputs) {
    const std::vector<float> numbers = floats_of(inputs[0]);
    if (std::ranges::find(numbers, 3.0F) != numbers.end()) {
      run_out();
    }
    return plus_one(inputs);
  });
  const auto requests = singles(4);
  run(requests);
  EXPECT_EQ(requests[2]->status.code, Code::kModelFailed);
  expect_answers({requests[0], requests[1], requests[3]});
  EXPECT_EQ(version_->row_limit(), 0);
  EXPECT_EQ(run(singles(2)), Rows{2});
}

TEST_F(RunnerFaults, AModelThatMixesRowsIsNotRunInParts) {
  start(with_room([](const Values& inputs) {
    const at::Tensor& x = inputs.front().tensor;
    return Values{Value(x.sub(x.mean(0, /*keepdim=*/true)))};
  }));
  room_ = 2;
  const RequestPtr request = rows_of(1, 3);
  EXPECT_EQ(run({request}), Rows{3});
  EXPECT_EQ(
      request->status.message,
      "model \"m\" version 1 failed: 3 rows did not fit into memory: CUDA out of memory. Tried "
      "to allocate 9.00 GiB");
  EXPECT_EQ(version_->row_limit(), 0);
}

TEST_F(RunnerFaults, ADeadlineThatPassesBetweenTheHalvesIsKept) {
  start(with_room([this](const Values& inputs) {
    clock_.advance(floats_of(inputs.front()).front() == 1 ? 1'000 : 0);
    return plus_one(inputs);
  }));
  room_ = 1;
  const auto requests = singles(2);
  requests[0]->priority = kHighPriority;
  requests[1]->deadline = clock_.now() + 1'000;  // which the first takes
  run(requests);
  expect_answers({requests[0]});
  EXPECT_EQ(requests[1]->status.code, Code::kDeadlineExceeded);
}

TEST_F(RunnerFaults, AWarmUpThatDoesNotFitSetsTheLimit) {
  options_.warmup = true;
  options_.max_batch_size = 8;
  room_ = 4;
  start();
  EXPECT_EQ(version_->row_limit(), 4);
  EXPECT_EQ(run(singles(8)), (Rows{4, 4}));
}

TEST_F(RunnerFaults, ALostDeviceAnswersWhatRunsAndWhatWaitsAndRefusesTheRest) {
  start([](const Values& inputs) -> Values {
    if (device_is_lost) {
      throw c10::Error({__func__, __FILE__, __LINE__}, kSticky);
    }
    return plus_one(inputs);
  });
  model_->hold();
  const RequestPtr runs = submit(rows_of(1));
  ASSERT_TRUE(model_->wait_held());
  const RequestPtr waits = submit(rows_of(2));
  device_is_lost = true;
  model_->open();
  const std::string text = std::string(
                               "model \"m\" version 1 has lost its device, cpu, until the "
                               "process is restarted: ") +
                           kSticky;
  for (const RequestPtr& request : {runs, waits}) {
    ASSERT_TRUE(delivered(*request));
    EXPECT_EQ(request->status.code, Code::kUnavailable);
    EXPECT_EQ(request->status.message, text);
  }
  const Status refused = version_->submit(rows_of(3));
  EXPECT_EQ(refused.code, Code::kUnavailable);
  EXPECT_EQ(refused.message, text);
  ASSERT_NE(version_->failure(), nullptr);
  EXPECT_EQ(*version_->failure(), text);
  EXPECT_FALSE(version_->accepting());
  EXPECT_EQ(model_->batches(), Rows{1});  // what waited was not run
  EXPECT_EQ(notices(NoticeKind::kDeviceLost), std::vector<std::string>{text});
  version_->close();
}

TEST_F(RunnerFaults, ADeviceLostWhileRequestsRunAgainAloneLosesTheRestOfThem) {
  start([](const Values& inputs) -> Values {
    const std::vector<float> numbers = floats_of(inputs[0]);
    if (numbers.front() == 1.0F && inputs.front().rows() > 1) {
      throw c10::Error({__func__, __FILE__, __LINE__}, "an unlucky batch");
    }
    if (numbers.front() == 2.0F) {
      device_is_lost = true;
    }
    if (device_is_lost) {
      throw c10::Error({__func__, __FILE__, __LINE__}, kSticky);
    }
    return plus_one(inputs);
  });
  const auto requests = singles(4);
  EXPECT_EQ(run(requests), (Rows{4, 1, 1}));  // the fourth is not even tried
  expect_answers({requests[0]});
  for (const std::size_t i : {1, 2, 3}) {
    EXPECT_EQ(requests[i]->status.code, Code::kUnavailable) << i;
  }
}

TEST_F(RunnerFaults, TheTextOfAStickyErrorAloneLosesNoDevice) {
  start([](const Values& inputs) -> Values {
    if (floats_of(inputs[0]).front() == 13.0F) {
      throw c10::Error({__func__, __FILE__, __LINE__}, kSticky);
    }
    return plus_one(inputs);
  });
  const RequestPtr request = submit(rows_of(13));
  ASSERT_TRUE(delivered(*request));
  EXPECT_EQ(request->status.code, Code::kModelFailed);
  EXPECT_EQ(version_->failure(), nullptr);
  EXPECT_TRUE(notices(NoticeKind::kDeviceLost).empty());
  expect_answers({[&] {
    RequestPtr next = submit(rows_of(1));
    EXPECT_TRUE(delivered(*next));
    return next;
  }()});
}

}  // namespace
}  // namespace pyserve
