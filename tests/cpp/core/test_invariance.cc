#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/invariance.h"
#include "engine/model_version.h"
#include "fake_model.h"
#include "fakes.h"
#include "values.h"

namespace pyserve {
namespace {

using Sizes = std::vector<std::int64_t>;

// y = x + 1, whose last bit changes where `changes(rows of the batch, place in it)`.
FakeModel::Body last_bit(std::function<bool(std::int64_t, std::int64_t)> changes) {
  return [changes = std::move(changes)](const Values& inputs) -> Values {
    at::Tensor y = inputs.front().tensor.add(1).contiguous();
    const std::int64_t rows = y.size(0);
    const std::int64_t columns = y.numel() / rows;
    auto* const data = y.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < y.numel(); ++i) {
      if (changes(rows, i / columns)) {
        data[i] = std::nextafter(data[i], 1e30F);
      }
    }
    return {Value(std::move(y))};
  };
}

bool never(std::int64_t /*rows*/, std::int64_t /*place*/) { return false; }
bool in_the_tail(std::int64_t rows, std::int64_t place) { return rows > 4 && place == rows - 1; }

// Rounds to a grid that the largest number of the whole batch spans, as dynamic quantisation does.
Values on_a_grid(const Values& inputs) {
  const at::Tensor& x = inputs.front().tensor;
  const at::Tensor step = x.abs().max().mul(1e-6);
  return {Value(x.div(step).round().mul(step))};
}

class InvarianceTest : public ::testing::Test {
 protected:
  InvarianceTest() {
    options_.inputs = {spec("x", Dtype::kFp32, {2})};
    options_.outputs = {spec("y", Dtype::kFp32, {2})};
    options_.batch_invariant = true;
  }
  ~InvarianceTest() override { model_->open(); }

  ModelVersion& start(FakeModel::Body body) {
    version_.reset();
    model_ = std::make_unique<FakeModel>(std::move(body));
    version_ = std::make_unique<ModelVersion>(options_, model_->executable(), clock_);
    model_->forget();
    return *version_;
  }
  Sizes sizes(FakeModel::Body body) {
    return start(std::move(body)).signature().padding.batch_sizes();
  }
  std::string complaint(FakeModel::Body body) {
    try {
      start(std::move(body));
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  }
  RequestPtr run(Values inputs) {
    RequestPtr request = request_for(std::move(inputs));
    EXPECT_TRUE(version_->submit(request).ok());
    EXPECT_TRUE(delivered(*request));
    EXPECT_TRUE(request->status.ok()) << request->status.message;
    return request;
  }

  LoadOptions options_ = small_options();
  FakeClock clock_{1000};
  std::unique_ptr<FakeModel> model_ = std::make_unique<FakeModel>();
  std::unique_ptr<ModelVersion> version_;  // last: it uses the others
};

TEST_F(InvarianceTest, AModelWhoseBitsNeverChangeRunsAtAllSizes) {
  EXPECT_EQ(sizes(last_bit(never)), (Sizes{1, 2, 4, 8}));
  EXPECT_TRUE(version_->batch_invariant());
  EXPECT_TRUE(version_->combines());
}

TEST_F(InvarianceTest, ASizeWhosePlacesDifferIsNotRun) {
  EXPECT_EQ(sizes(last_bit(in_the_tail)), (Sizes{1, 2, 4}));
}

TEST_F(InvarianceTest, SizesThatDifferFromEachOtherAreNotMixed) {
  EXPECT_EQ(sizes(last_bit([](auto rows, auto) { return rows == 1; })), (Sizes{2, 4, 8}));
  EXPECT_EQ(sizes(last_bit([](auto rows, auto) { return rows == 8; })), (Sizes{1, 2, 4}));
}

TEST_F(InvarianceTest, OfSetsOfOneSizeThatWithTheLargestBatchIsRun) {
  options_.max_batch_size = 4;
  options_.padding.batch_sizes = {2, 4};
  EXPECT_EQ(sizes(last_bit([](auto rows, auto) { return rows == 2; })), (Sizes{4}));
}

TEST_F(InvarianceTest, RowsThatShareAScaleAreRunAlone) {
  EXPECT_EQ(sizes(on_a_grid), (Sizes{1}));
  EXPECT_FALSE(version_->combines());
  EXPECT_NE(version_->batching_note().find("every row is run alone"), std::string::npos);
}

TEST_F(InvarianceTest, ABatchIsFilledUpToASizeThatAgrees) {
  start(last_bit([](auto rows, auto) { return rows == 1; }));
  EXPECT_EQ(floats_of(run({filled({1, 2}, 1)})->outputs[0]), (std::vector<float>{2, 2}));
  EXPECT_EQ(model_->batches(), (Sizes{2}));
}

TEST_F(InvarianceTest, ARequestOfMoreRowsThanARunMayHaveIsRunInParts) {
  start(last_bit(in_the_tail));
  const RequestPtr seven = run({floats({7, 2}, {1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7})});
  EXPECT_EQ(floats_of(seven->outputs[0]),
            (std::vector<float>{2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8}));
  EXPECT_EQ(model_->batches(), (Sizes{4, 4}));
  EXPECT_EQ(version_->stats().rows, 7);
  EXPECT_EQ(version_->stats().batches, 2);
}

TEST_F(InvarianceTest, APartThatFailsFailsItsRequest) {
  start(on_a_grid);
  const RequestPtr bad = request_for({floats({2, 2}, {1, 1, kPoison, 1})});
  ASSERT_TRUE(version_->submit(bad).ok());
  ASSERT_TRUE(delivered(*bad));
  EXPECT_EQ(bad->status.code, Code::kModelFailed);
  EXPECT_EQ(floats_of(run({filled({1, 2}, 1)})->outputs[0]).size(), 2U);
}

TEST_F(InvarianceTest, EvenALoneRowIsCopied) {
  const void* seen = nullptr;
  start([&seen](const Values& inputs) {
    seen = inputs.front().tensor.const_data_ptr();
    return plus_one(inputs);
  });
  const Values row{filled({1, 2}, 1)};
  run(row);
  EXPECT_NE(seen, row[0].tensor.const_data_ptr());
}

TEST_F(InvarianceTest, AModelThatMixesRowsIsRunRowByRow) {
  start([](const Values& inputs) -> Values {
    const at::Tensor& x = inputs.front().tensor;
    return {Value(x.sub(x.mean(0, /*keepdim=*/true)))};
  });
  EXPECT_EQ(version_->signature().padding.batch_sizes(), (Sizes{1}));
  EXPECT_EQ(floats_of(run({floats({2, 2}, {1, 2, 3, 4})})->outputs[0]),
            (std::vector<float>{0, 0, 0, 0}));
}

TEST_F(InvarianceTest, SizesThatCannotAllBeTriedAreRunRowByRow) {
  options_.inputs = rows_signature(8).inputs;
  options_.outputs = rows_signature(8).outputs;
  EXPECT_EQ(sizes(last_bit(never)), (Sizes{1}));
  EXPECT_NE(version_->batching_note().find("input \"x\" has sizes that vary"), std::string::npos);
  options_.padding.buckets = {2, 4};
  options_.padding.inputs = {{.name = "x", .dim = 0}};
  options_.padding.outputs = {{.name = "y", .dim = 0}};
  EXPECT_EQ(sizes(last_bit(never)), (Sizes{1, 2, 4, 8}));
}

TEST_F(InvarianceTest, EveryBucketMustAgree) {
  options_.inputs = rows_signature(8).inputs;
  options_.outputs = rows_signature(8).outputs;
  options_.padding.buckets = {2, 4};
  options_.padding.inputs = {{.name = "x", .dim = 0}};
  options_.padding.outputs = {{.name = "y", .dim = 0}};
  EXPECT_EQ(sizes([](const Values& inputs) {
              const bool wide = inputs.front().tensor.size(1) == 4;
              return last_bit([wide](auto rows, auto) { return wide && rows == 8; })(inputs);
            }),
            (Sizes{1, 2, 4}));
}

TEST_F(InvarianceTest, AllowedSizesOfWhichNoneAgreesWithItselfAreRefused) {
  options_.padding.batch_sizes = {8};
  EXPECT_EQ(complaint(last_bit(in_the_tail)),
            "batching.invariant cannot be had at the allowed batch sizes: a row's bits change with "
            "its place in the batch");
}

TEST_F(InvarianceTest, WithoutAWarmUpItIsRefused) {
  options_.warmup = false;
  EXPECT_NE(complaint(plus_one).find("batching.invariant needs warmup"), std::string::npos);
}

TEST_F(InvarianceTest, ItsThreadsAreNotElastic) {
  // The clock says that a row takes half as long on all threads.
  const auto body = [this](const Values& inputs) {
    clock_.advance(at::get_num_threads() > 1 ? 1'000'000 : 2'000'000);
    return plus_one(inputs);
  };
  options_.instances = 2;
  options_.elastic = true;
  EXPECT_FALSE(start(body).elastic());
  options_.batch_invariant = false;
  EXPECT_TRUE(start(body).elastic());
}

TEST_F(InvarianceTest, AModelWithoutABatchDimensionIsRefused) {
  options_.batched = false;
  options_.max_batch_size = 0;
  EXPECT_NE(complaint(plus_one).find("needs a batch dimension"), std::string::npos);
}

TEST_F(InvarianceTest, ARunThatIsNeverTheSameTwiceIsRefused) {
  options_.max_batch_size = 1;
  int runs = 0;
  EXPECT_EQ(complaint([&runs](const Values& inputs) {
              const bool odd = ++runs % 2 == 1;
              return last_bit([odd](auto, auto) { return odd; })(inputs);
            }),
            "batching.invariant cannot be had: a row's bits change from run to run");
}

}  // namespace
}  // namespace pyserve
