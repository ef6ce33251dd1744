#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/probe.h"
#include "fake_model.h"
#include "values.h"

namespace pyserve {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Values mixing(const Values& inputs) {
  const at::Tensor& x = inputs.front().tensor;
  return {Value(x.sub(x.mean(0, /*keepdim=*/true)))};
}

class Probe : public ::testing::Test {
 protected:
  BatchingProof prove(FakeModel::Body body) {
    FakeModel model(std::move(body));
    return prove_batching(*model.executable(), signature_, rows_, stream_);
  }

  const Signature signature_ = rows_signature(8);
  const std::vector<Values> rows_{
      {floats({1, 2}, {1, 2})}, {floats({1, 2}, {3, 5})}, {floats({1, 2}, {-4, 0})}};
  DeviceStream stream_{c10::Device(c10::DeviceType::CPU)};
};

TEST_F(Probe, ToleratesRoundingAndNothingMore) {
  const Values one{floats({2}, {1, 1000})};
  EXPECT_EQ(first_difference(one, one), -1);
  EXPECT_EQ(first_difference(one, {floats({2}, {1.05F, 1000})}), -1);  // 1e-4 of the largest
  EXPECT_EQ(first_difference(one, {floats({2}, {1.2F, 1000})}), 0);
  EXPECT_EQ(first_difference({longs({1}, {1'000'000})}, {longs({1}, {1'000'001})}), 0);
  EXPECT_EQ(first_difference({Value(Strings{"a"})}, {Value(Strings{"a"})}), -1);
  EXPECT_EQ(first_difference({Value(Strings{"a"})}, {Value(Strings{"b"})}), 0);
}

TEST_F(Probe, FindsTheFirstOutputThatDiffers) {
  const Value same = filled({2}, 1);
  EXPECT_EQ(first_difference({same, same, same}, {same, filled({2}, 2), filled({2}, 2)}), 1);
  EXPECT_EQ(first_difference({same, same}, {same}), 1);
  EXPECT_EQ(first_difference({same}, {filled({1, 2}, 1)}), 0);
  EXPECT_EQ(first_difference({same}, {longs({2}, {1, 1})}), 0);
  EXPECT_EQ(first_difference({same}, {Value(Strings{"1", "1"})}), 0);
}

TEST_F(Probe, NotANumberAgreesWithItself) {
  EXPECT_EQ(first_difference({floats({2}, {kNan, 1})}, {floats({2}, {kNan, 1})}), -1);
  EXPECT_EQ(first_difference({floats({2}, {kNan, 1})}, {floats({2}, {1, 1})}), 0);
}

TEST_F(Probe, AnInfinityForgivesNothing) {
  EXPECT_EQ(first_difference({floats({2}, {-kInf, 1})}, {floats({2}, {-kInf, 1})}), -1);
  EXPECT_EQ(first_difference({floats({2}, {-kInf, 1})}, {floats({2}, {-kInf, 2})}), 0);
  EXPECT_EQ(first_difference({floats({2}, {-kInf, 1})}, {floats({2}, {kInf, 1})}), 0);
}

TEST_F(Probe, ProvesAModelThatTreatsRowsAlike) { EXPECT_TRUE(prove(plus_one).proven); }

TEST_F(Probe, CatchesAModelThatMixesRows) {
  const BatchingProof proof = prove(mixing);
  EXPECT_FALSE(proof.proven);
  EXPECT_EQ(proof.note,
            "output \"y\" mixes rows: a row's values change with the rows it is batched with");
}

TEST_F(Probe, CatchesAModelThatMixesRowsBesideInfinities) {
  const BatchingProof proof = prove([](const Values& inputs) {
    Values outputs = mixing(inputs);
    outputs[0].tensor.select(1, 0).fill_(-kInf);
    return outputs;
  });
  EXPECT_FALSE(proof.proven);
}

TEST_F(Probe, NamesTheOutputThatMixesRows) {
  Signature signature = signature_;
  signature.outputs.push_back(spec("worse", Dtype::kFp32, {-1}));
  FakeModel model(
      [](const Values& inputs) { return Values{plus_one(inputs)[0], mixing(inputs)[0]}; });
  const BatchingProof proof = prove_batching(*model.executable(), signature, rows_, stream_);
  EXPECT_NE(proof.note.find("output \"worse\" mixes rows"), std::string::npos) << proof.note;
}

TEST_F(Probe, CatchesAModelThatMixesTheLastRowOnly) {
  EXPECT_FALSE(prove([](const Values& inputs) {
                 Values outputs = plus_one(inputs);
                 const std::int64_t rows = outputs[0].rows();
                 if (rows > 1) {
                   outputs[0].tensor.select(0, rows - 1).add_(1);
                 }
                 return outputs;
               }).proven);
}

TEST_F(Probe, CatchesAnOutputWithoutOneRowPerInputRow) {
  const BatchingProof proof =
      prove([](const Values& inputs) { return Values{Value(inputs[0].tensor.sum(0, true))}; });
  EXPECT_FALSE(proof.proven);
  EXPECT_EQ(proof.note, "output \"y\" has 1 rows for a batch of 3");
}

TEST_F(Probe, ARunThatRaisesProvesNothing) {
  const BatchingProof proof = prove([](const Values& inputs) -> Values {
    if (inputs[0].rows() > 1) {
      throw std::runtime_error("one at a time, please");
    }
    return plus_one(inputs);
  });
  EXPECT_FALSE(proof.proven);
  EXPECT_EQ(proof.note, "a trial run of sample rows failed: one at a time, please");
}

class Optimized : public Probe {
 protected:
  std::unique_ptr<Executable> agreeing(FakeModel::Body body, std::string& note) {
    model_.optimized = std::move(body);
    return agreeing_optimized(*model_.executable(), Padding(), rows_, /*batched=*/true, stream_,
                              note);
  }

  FakeModel model_;
};

TEST_F(Optimized, IsTakenWhereItAgrees) {
  std::string note;
  EXPECT_NE(agreeing(plus_one, note), nullptr);
  EXPECT_EQ(note, "");
}

TEST_F(Optimized, IsTriedOnABatchToo) {
  std::string note;
  EXPECT_EQ(agreeing(
                [](const Values& inputs) {
                  return inputs[0].rows() > 1 ? mixing(inputs) : plus_one(inputs);
                },
                note),
            nullptr);
  EXPECT_EQ(note, "the optimised form's outputs differ from the plain module's: serving it plain");
}

TEST_F(Optimized, IsTriedTwice) {
  auto runs = std::make_shared<int>(0);
  std::string note;
  EXPECT_EQ(agreeing(
                [runs](const Values& inputs) {
                  return ++*runs % 2 == 0 ? mixing(inputs) : plus_one(inputs);
                },
                note),
            nullptr);
}

TEST_F(Optimized, ThatRaisesIsNoted) {
  std::string note;
  EXPECT_EQ(agreeing([](const Values&) -> Values { throw std::runtime_error("no such op"); }, note),
            nullptr);
  EXPECT_EQ(note, "the module could not be optimised for inference: no such op");
}

TEST_F(Optimized, IsNotMissedWhereThereIsNone) {
  std::string note;
  EXPECT_EQ(agreeing({}, note), nullptr);
  EXPECT_EQ(note, "");
}

}  // namespace
}  // namespace pyserve
