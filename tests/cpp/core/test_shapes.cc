// A version whose model is run at certain shapes: what it is run with, and what comes back.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/model_version.h"
#include "fake_model.h"
#include "fakes.h"
#include "values.h"

namespace pyserve {
namespace {

// "y" is the running sum of "x" where the mask keeps it, and "total" its last.
Values read(const Values& inputs) {
  const at::Tensor running = inputs[0].tensor.mul(inputs[1].tensor).cumsum(1);
  return {Value(running), Value(running.select(1, running.size(1) - 1).contiguous())};
}

// Adds one to what came, wherever the padding.
Values read_carelessly(const Values& inputs) {
  return {Value(inputs[0].tensor.add(1)), Value(inputs[0].tensor.sum(1))};
}

class ShapesTest : public ::testing::Test {
 protected:
  ~ShapesTest() override { model_->open(); }

  void allow(std::vector<std::int64_t> sizes) {
    options_.padding.batch_sizes = std::move(sizes);
    options_.insist_on_batching = true;
  }
  void pad_lengths() {
    options_.inputs = {spec("x", Dtype::kFp32, {-1}), spec("mask", Dtype::kFp32, {-1})};
    options_.outputs = {spec("y", Dtype::kFp32, {-1}), spec("total", Dtype::kFp32, {})};
    options_.padding.buckets = {4, 8};
    options_.padding.inputs = {{.name = "x", .dim = 0, .pad = 5}};
    options_.padding.outputs = {{.name = "y", .dim = 0}};
    options_.padding.mask = "mask";
  }

  ModelVersion& start(FakeModel::Body body = plus_one) {
    version_.reset();
    model_ = std::make_unique<FakeModel>([this, body = std::move(body)](const Values& inputs) {
      {
        const std::scoped_lock lock(mutex_);
        shapes_.push_back(inputs.front().tensor.sizes().vec());
      }
      return body(inputs);
    });
    if (options_.inputs->size() == 2) {
      model_->arguments = {{.name = "x"}, {.name = "mask"}};
    }
    version_ = std::make_unique<ModelVersion>(options_, model_->executable(), clock_);
    return *version_;
  }
  std::string complaint(FakeModel::Body body) {
    try {
      start(std::move(body));
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  }
  // The shapes that the model was run with since the last call.
  std::vector<Shape> shapes() {
    const std::scoped_lock lock(mutex_);
    return std::exchange(shapes_, {});
  }

  RequestPtr request(Values inputs) {
    RequestPtr made = request_for(std::move(inputs));
    EXPECT_EQ(check_inputs(version_->signature(), made->inputs, made->rows).message, "");
    made->key = version_->signature().padding.key(made->inputs);
    return made;
  }
  RequestPtr submit(Values inputs) {
    RequestPtr made = request(std::move(inputs));
    EXPECT_TRUE(version_->submit(made).ok());
    return made;
  }
  static void expect_answer(Request& request, const Shape& shape, const std::vector<float>& data) {
    ASSERT_TRUE(delivered(request));
    ASSERT_TRUE(request.status.ok()) << request.status.message;
    EXPECT_EQ(request.outputs[0].tensor.sizes(), shape);
    EXPECT_EQ(floats_of(request.outputs[0]), data);
  }

  LoadOptions options_ = small_options();
  FakeClock clock_{1000};
  std::mutex mutex_;
  std::vector<Shape> shapes_;
  std::unique_ptr<FakeModel> model_ = std::make_unique<FakeModel>();
  std::unique_ptr<ModelVersion> version_;  // last: it uses the others
};

TEST_F(ShapesTest, IsNeverRunAtARowCountThatIsNotAllowed) {
  allow({2, 8});
  start();
  submit({filled({1, 2}, 1)});
  expect_answer(*submit({filled({5, 2}, 2)}), {5, 2}, std::vector<float>(10, 3));
  for (const Shape& shape : shapes()) {
    EXPECT_TRUE(shape.front() == 2 || shape.front() == 8) << shape.front();
  }
}

TEST_F(ShapesTest, WarmsUpAtExactlyTheAllowedSizes) {
  allow({2, 3, 8});
  start();
  std::vector<std::int64_t> sizes;
  for (const Shape& shape : shapes()) {
    sizes.push_back(shape.front());
  }
  for (const std::int64_t size : {2, 3, 8}) {
    EXPECT_GE(std::ranges::count(sizes, size), 3) << size;
  }
}

TEST_F(ShapesTest, AnAnswerIsCutToTheRowsThatCame) {
  allow({4, 8});
  start();
  shapes();
  expect_answer(*submit({floats({3, 1}, {1, 2, 3})}), {3, 1}, {2, 3, 4});
  EXPECT_EQ(shapes(), (std::vector<Shape>{{4, 1}}));
}

TEST_F(ShapesTest, StatisticsCountTheRowsThatCame) {
  allow({8});
  start();
  const RequestPtr three = submit({filled({3, 1}, 1)});
  ASSERT_TRUE(delivered(*three));
  EXPECT_EQ(three->timing.batch_size, 3);
  EXPECT_EQ(version_->stats().rows, 3);
}

TEST_F(ShapesTest, ThePoisonedRequestFailsAloneAtAnAllowedSizeToo) {
  allow({2, 4});
  options_.max_batch_size = 4;
  start();
  model_->hold();
  const RequestPtr first = submit({filled({1, 1}, 0)});
  ASSERT_TRUE(model_->wait_held());
  shapes();
  const RequestPtr good = submit({filled({1, 1}, 1)});
  const RequestPtr bad = submit({filled({2, 1}, kPoison)});
  model_->open();
  expect_answer(*good, {1, 1}, {2});
  ASSERT_TRUE(delivered(*bad));
  EXPECT_EQ(bad->status.code, Code::kModelFailed);
  for (const Shape& shape : shapes()) {
    EXPECT_TRUE(shape.front() == 2 || shape.front() == 4) << shape.front();
  }
}

TEST_F(ShapesTest, AllowedSizesOfAModelThatMixesRowsAreRefused) {
  allow({1, 8});
  EXPECT_EQ(complaint([](const Values& inputs) -> Values {
              const at::Tensor& x = inputs.front().tensor;
              return {Value(x.sub(x.mean(0, /*keepdim=*/true)))};
            }),
            "max_batch_size 8 cannot be had: output \"y\" mixes rows: a row's values change with "
            "the rows it is batched with");
}

TEST_F(ShapesTest, AModelWithoutABatchDimensionIsRefused) {
  options_.batched = false;
  options_.max_batch_size = 0;
  options_.padding.batch_sizes = {1};
  EXPECT_NE(complaint(plus_one).find("need a batch dimension"), std::string::npos);
}

TEST_F(ShapesTest, LengthsOfOneBucketShareABatchAndAreCutAgain) {
  pad_lengths();
  start(read);
  model_->hold();
  const RequestPtr first = submit({filled({1, 1}, 0), Value()});
  ASSERT_TRUE(model_->wait_held());
  shapes();
  const RequestPtr three = submit({floats({1, 3}, {1, 2, 3}), Value()});
  const RequestPtr other = submit({filled({1, 5}, 1), Value()});
  const RequestPtr two = submit({floats({2, 2}, {1, 1, 2, 2}), floats({2, 2}, {1, 1, 0, 1})});
  model_->open();
  expect_answer(*three, {1, 3}, {1, 3, 6});
  expect_answer(*two, {2, 2}, {1, 2, 0, 2});
  expect_answer(*other, {1, 5}, {1, 2, 3, 4, 5});
  EXPECT_EQ(floats_of(three->outputs[1]), (std::vector<float>{6}));
  EXPECT_EQ(floats_of(two->outputs[1]), (std::vector<float>{2, 2}));
  std::vector<Shape> ran = shapes();
  std::ranges::sort(ran);
  EXPECT_EQ(ran, (std::vector<Shape>{{1, 4}, {1, 8}, {3, 4}}));
}

TEST_F(ShapesTest, WarmsUpEachBucketAtEachSizeTheLongestFirst) {
  pad_lengths();
  allow({1, 8});
  start(read);
  const std::vector<Shape> ran = shapes();
  for (const Shape& shape : std::vector<Shape>{{1, 4}, {8, 4}, {1, 8}, {8, 8}}) {
    EXPECT_GE(std::ranges::count(ran, shape), 3) << shape_text(shape);
  }
  EXPECT_EQ(ran.back(), (Shape{8, 4}));
}

TEST_F(ShapesTest, ALengthBeyondTheLargestBucketIsBadInput) {
  pad_lengths();
  start(read);
  std::int64_t rows = 0;
  const Status status = check_inputs(version_->signature(), {filled({1, 9}, 0), Value()}, rows);
  EXPECT_EQ(status.code, Code::kInvalidInput);
  EXPECT_EQ(status.message, "input \"x\" has length 9 along dimension 1, expected 1 to 8");
}

TEST_F(ShapesTest, AModelThatSeesItsPaddingIsRefusedAndTheOutputNamed) {
  pad_lengths();
  EXPECT_EQ(complaint(read_carelessly),
            "lengths cannot be padded: output \"total\" of a row of length 2 changes when the row "
            "is padded to 4");
}

TEST_F(ShapesTest, AnOutputThatHasNotTheLengthIsRefused) {
  pad_lengths();
  EXPECT_EQ(complaint([](const Values& inputs) -> Values {
              Values outputs = read(inputs);
              outputs[0].tensor = outputs[0].tensor.narrow(1, 0, 1);
              return outputs;
            }),
            "lengths cannot be padded: output \"y\" has length 1 along dimension 1 for inputs of "
            "length 4");
}

TEST_F(ShapesTest, AModelThatRunsAtItsBucketsOnlyIsServedWithANote) {
  pad_lengths();
  start([](const Values& inputs) -> Values {
    const std::int64_t length = inputs[0].tensor.size(1);
    if (length != 4 && length != 8) {
      throw std::runtime_error("compiled for 4 and 8");
    }
    return read(inputs);
  });
  ASSERT_EQ(version_->notes().size(), 1U);
  EXPECT_EQ(version_->notes().front(),
            "the model does not run at length 2, so padding could not be compared with it: "
            "compiled for 4 and 8");
  expect_answer(*submit({floats({1, 3}, {1, 2, 3}), Value()}), {1, 3}, {1, 3, 6});
}

TEST_F(ShapesTest, AnUnbatchedModelPadsItsLengthsRowByRow) {
  pad_lengths();
  options_.max_batch_size = 1;
  start(read);
  shapes();
  expect_answer(*submit({floats({1, 3}, {1, 2, 3}), Value()}), {1, 3}, {1, 3, 6});
  EXPECT_EQ(shapes(), (std::vector<Shape>{{1, 4}}));
}

}  // namespace
}  // namespace pyserve
