#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/samples.h"
#include "values.h"

namespace pyserve {
namespace {

Signature everything(bool batched) {
  return {.inputs = {spec("image", Dtype::kFp32, {3, -1}), spec("ids", Dtype::kInt64, {6}),
                     spec("flag", Dtype::kBool, {4}), spec("half", Dtype::kBf16, {2}),
                     spec("words", Dtype::kBytes, {1})},
          .batched = batched,
          .max_batch_size = batched ? 8 : 0};
}

bool same(const Value& a, const Value& b) {
  return a.is_strings() ? *a.strings == *b.strings : at::equal(a.tensor, b.tensor);
}

TEST(Samples, MadeUpRowsFitTheSignature) {
  for (const bool batched : {true, false}) {
    const Signature signature = everything(batched);
    const std::vector<Values> rows = sample_rows(signature, {}, 3, /*free_size=*/5);
    ASSERT_EQ(rows.size(), 3U);
    for (const Values& row : rows) {
      std::int64_t count = 0;
      const Status status = check_inputs(signature, row, count);
      EXPECT_TRUE(status.ok()) << status.message;
      EXPECT_EQ(count, 1);
      EXPECT_EQ(row[0].tensor.size(-1), 5);
    }
    EXPECT_TRUE(Padding().stackable(rows[0], rows[1]) || !batched);
  }
}

TEST(Samples, MadeUpRowsDifferAndAreTheSameEveryTime) {
  const std::vector<Values> rows = sample_rows(everything(true), {}, 3);
  const std::vector<Values> again = sample_rows(everything(true), {}, 3);
  for (std::size_t i = 0; i < rows[0].size(); ++i) {
    EXPECT_TRUE(same(rows[0][i], again[0][i]));
  }
  EXPECT_FALSE(same(rows[0][0], rows[1][0]));
  EXPECT_FALSE(same(rows[0][4], rows[1][4]));
}

TEST(Samples, MadeUpIdsAreInEveryVocabulary) {
  for (const Values& row : sample_rows(everything(true), {}, 3)) {
    EXPECT_GE(row[1].tensor.min().item<std::int64_t>(), 0);
    EXPECT_LE(row[1].tensor.max().item<std::int64_t>(), 1);
  }
}

TEST(Samples, ThereAreNoneWhereTheSignatureDoesNotSayEnough) {
  Signature signature = everything(true);
  signature.inputs[1].shape.reset();
  EXPECT_TRUE(sample_rows(signature, {}, 3).empty());
  signature.inputs[1].optional = true;
  const std::vector<Values> rows = sample_rows(signature, {}, 3);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_TRUE(rows[0][1].absent());
}

TEST(Samples, ExamplesAreTakenRowByRow) {
  const std::vector<Values> rows =
      sample_rows(rows_signature(8), {{floats({2, 2}, {1, 2, 3, 4})}, {filled({1, 2}, 5)}}, 3);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(floats_of(rows[0][0]), (std::vector<float>{1, 2}));
  EXPECT_EQ(floats_of(rows[1][0]), (std::vector<float>{3, 4}));
  EXPECT_EQ(floats_of(rows[2][0]), (std::vector<float>{5, 5}));
  EXPECT_EQ(rows[1][0].tensor.sizes(), (Shape{1, 2}));
}

TEST(Samples, FewExamplesAreVaried) {
  const std::vector<Values> rows = sample_rows(rows_signature(8), {{floats({1, 3}, {1, 2, 4})}}, 3);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(floats_of(rows[0][0]), (std::vector<float>{1, 2, 4}));
  EXPECT_EQ(floats_of(rows[1][0]), (std::vector<float>{4.5, 1.125, 2.25}));
}

TEST(Samples, TokenIdsAreRotatedAndStayInTheirVocabulary) {
  Signature signature = rows_signature(8);
  signature.inputs = {spec("ids", Dtype::kInt64, {-1})};
  const std::vector<Values> rows = sample_rows(signature, {{longs({1, 3}, {7, 8, 9})}}, 2);
  EXPECT_TRUE(same(rows[1][0], longs({1, 3}, {9, 7, 8})));
}

TEST(Samples, RowsOfZerosDifferToo) {
  const std::vector<Values> rows = sample_rows(rows_signature(8), {{filled({1, 4}, 0)}}, 3);
  EXPECT_FALSE(same(rows[0][0], rows[1][0]));
  EXPECT_FALSE(same(rows[1][0], rows[2][0]));
}

TEST(Samples, ExamplesOfAnotherKindThanTheFirstAreLeftOut) {
  Signature signature = rows_signature(8);
  signature.inputs.push_back({.name = "words", .dtype = Dtype::kBytes, .optional = true});
  const std::vector<Values> rows = sample_rows(signature,
                                               {{filled({1, 2}, 1), Value(Strings{"a"})},
                                                {filled({1, 3}, 2), Value(Strings{"a"})},
                                                {filled({1, 2}, 3), Value()}},
                                               3);
  ASSERT_EQ(rows.size(), 3U);
  for (const Values& row : rows) {
    EXPECT_TRUE(Padding().stackable(row, rows[0]));
  }
  EXPECT_EQ(*rows[1][1].strings, Strings{"aa"});
}

TEST(Samples, TheFirstInputOfAnExampleMayBeLeftOut) {
  Signature signature = rows_signature(8);
  signature.inputs.insert(signature.inputs.begin(), TensorSpec{.name = "maybe", .optional = true});
  const std::vector<Values> rows = sample_rows(signature, {{Value(), floats({2, 1}, {1, 2})}}, 2);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(floats_of(rows[1][1]), std::vector<float>{2});
}

TEST(Samples, AnUnbatchedExampleIsOneRow) {
  Signature signature = rows_signature(0);
  signature.batched = false;
  const std::vector<Values> rows = sample_rows(signature, {{floats({3}, {1, 2, 3})}}, 1);
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(floats_of(rows[0][0]), (std::vector<float>{1, 2, 3}));
}

}  // namespace
}  // namespace pyserve
