#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tensor/signature.h"
#include "values.h"

namespace pyserve {
namespace {

Signature two_inputs() {
  return {.inputs = {spec("image", Dtype::kFp32, {3, -1}), spec("mask", Dtype::kInt64, {4})},
          .batched = true,
          .max_batch_size = 4};
}

Value image(std::int64_t rows) { return filled({rows, 3, 5}, 0); }
Value mask(std::int64_t rows) {
  return longs({rows, 4}, std::vector<std::int64_t>(static_cast<std::size_t>(rows * 4), 1));
}

TEST(Signature, FindsAnInputByName) {
  const Signature signature = two_inputs();
  EXPECT_EQ(signature.input_index("image"), 0U);
  EXPECT_EQ(signature.input_index("mask"), 1U);
  EXPECT_EQ(signature.input_index("Mask"), std::nullopt);
}

TEST(Signature, AnEmptyNameIsNoInput) {
  EXPECT_EQ(rows_signature(4).input_index(""), std::nullopt);
  EXPECT_EQ(two_inputs().input_index(""), std::nullopt);
}

TEST(Signature, TritonsNamesCountFromZero) {
  const Signature signature = two_inputs();
  EXPECT_EQ(signature.input_index("INPUT__0"), 0U);
  EXPECT_EQ(signature.input_index("INPUT__1"), 1U);
  for (const auto* const name : {"INPUT__2", "INPUT__", "INPUT__-1", "INPUT__1x", "INPUT__ 1",
                                 "INPUT__99999999999999999999", "OUTPUT__0"}) {
    EXPECT_EQ(signature.input_index(name), std::nullopt) << name;
  }
}

TEST(Signature, ADeclaredNameGoesBeforeTritons) {
  Signature signature = two_inputs();
  signature.inputs[0].name = "INPUT__1";
  EXPECT_EQ(signature.input_index("INPUT__1"), 0U);
}

TEST(Signature, EveryDtypeButBytesHasATensorType) {
  for (const Dtype dtype : kAllDtypes) {
    if (dtype == Dtype::kBytes) {
      EXPECT_EQ(scalar_type(dtype), at::ScalarType::Undefined);
      continue;
    }
    EXPECT_EQ(dtype_of(scalar_type(dtype)), dtype) << dtype_name(dtype);
    EXPECT_EQ(c10::elementSize(scalar_type(dtype)), dtype_size(dtype)) << dtype_name(dtype);
  }
}

TEST(Signature, ATypeThatTheProtocolLacksIsNotServed) {
  EXPECT_EQ(dtype_of(at::kComplexFloat), std::nullopt);
  EXPECT_EQ(dtype_of(at::ScalarType::Undefined), std::nullopt);
  EXPECT_EQ(dtype_of(at::kQInt8), std::nullopt);
}

TEST(Signature, ShapeTextIsCutAfterAFewDozenDimensions) {
  EXPECT_EQ(shape_text({}), "[]");
  EXPECT_EQ(shape_text(Shape{2, -1, 8}), "[2, -1, 8]");
  const std::string text = shape_text(Shape(1000, 7));
  EXPECT_LT(text.size(), 200U);
  EXPECT_TRUE(text.ends_with(", ...]"));
}

TEST(CheckShape, AMinusOneStandsForAnySize) {
  const Signature signature = two_inputs();
  const TensorSpec& image = signature.inputs[0];
  EXPECT_TRUE(check_shape(signature, image, Shape{1, 3, 1}).ok());
  EXPECT_TRUE(check_shape(signature, image, Shape{7, 3, 1000}).ok());
  EXPECT_TRUE(check_shape(signature, image, Shape{7, 3, 0}).ok());
}

TEST(CheckShape, SaysWhatCameAndWhatWasExpected) {
  const Signature signature = two_inputs();
  const Status status = check_shape(signature, signature.inputs[0], Shape{1, 4, 5});
  EXPECT_EQ(status.code, Code::kInvalidInput);
  EXPECT_EQ(status.message, "input \"image\" has shape [1, 4, 5], expected [-1, 3, -1]");
}

TEST(CheckShape, RefusesAnotherRank) {
  const Signature signature = two_inputs();
  for (const Shape& shape : {Shape{}, Shape{3}, Shape{3, 5}, Shape{1, 3, 5, 1}}) {
    EXPECT_FALSE(check_shape(signature, signature.inputs[0], shape).ok()) << shape_text(shape);
  }
}

TEST(CheckShape, HasNoBatchDimensionWhereTheModelIsNotBatched) {
  Signature signature = two_inputs();
  signature.batched = false;
  EXPECT_TRUE(check_shape(signature, signature.inputs[0], Shape{3, 5}).ok());
  EXPECT_FALSE(check_shape(signature, signature.inputs[0], Shape{1, 3, 5}).ok());
}

TEST(CheckInputs, CountsTheRows) {
  std::int64_t rows = 0;
  EXPECT_TRUE(check_inputs(two_inputs(), {image(3), mask(3)}, rows).ok());
  EXPECT_EQ(rows, 3);
}

TEST(CheckInputs, NamesTheInputThatIsMissing) {
  std::int64_t rows = 0;
  const Status status = check_inputs(two_inputs(), {image(3), Value()}, rows);
  EXPECT_EQ(status.code, Code::kInvalidInput);
  EXPECT_EQ(status.message, "input \"mask\" is missing");
}

TEST(CheckInputs, AnOptionalInputMayBeLeftOut) {
  Signature signature = two_inputs();
  signature.inputs[1].optional = true;
  std::int64_t rows = 0;
  EXPECT_TRUE(check_inputs(signature, {image(3), Value()}, rows).ok());
  EXPECT_EQ(rows, 3);
}

TEST(CheckInputs, NamesTheInputOfAnotherDtype) {
  std::int64_t rows = 0;
  const Status status = check_inputs(two_inputs(), {image(1), filled({1, 4}, 1)}, rows);
  EXPECT_EQ(status.message, "input \"mask\" has dtype FP32, expected INT64");
  const Value complex(at::empty({1, 4}, at::TensorOptions().dtype(at::kComplexFloat)));
  EXPECT_EQ(check_inputs(two_inputs(), {image(1), complex}, rows).message,
            "input \"mask\" has a dtype that cannot be served: ComplexFloat");
}

TEST(CheckInputs, AllInputsShareTheBatchDimension) {
  std::int64_t rows = 0;
  const Status status = check_inputs(two_inputs(), {image(2), mask(3)}, rows);
  EXPECT_EQ(status.code, Code::kInvalidInput);
  EXPECT_EQ(status.message,
            "input \"mask\" has 3 rows, but input \"image\" has 2: all inputs share the batch "
            "dimension");
}

TEST(CheckInputs, RefusesNoRowsAndMoreThanTheBatchHolds) {
  std::int64_t rows = 0;
  EXPECT_EQ(check_inputs(two_inputs(), {image(0), mask(0)}, rows).message,
            "the request has 0 rows, expected at least 1");
  EXPECT_TRUE(check_inputs(two_inputs(), {image(4), mask(4)}, rows).ok());
  EXPECT_EQ(check_inputs(two_inputs(), {image(5), mask(5)}, rows).message,
            "the request has 5 rows, expected at most max_batch_size 4");
}

TEST(CheckInputs, AnUnbatchedRequestIsOneRow) {
  const Signature signature{.inputs = {spec("x", Dtype::kFp32, {5})}};
  std::int64_t rows = 0;
  EXPECT_TRUE(check_inputs(signature, {filled({5}, 0)}, rows).ok());
  EXPECT_EQ(rows, 1);
}

TEST(CheckInputs, AScalarHasNoBatchDimension) {
  const Signature signature{
      .inputs = {TensorSpec{.name = "x"}}, .batched = true, .max_batch_size = 4};
  std::int64_t rows = 0;
  EXPECT_EQ(check_inputs(signature, {filled({}, 0)}, rows).message,
            "input \"x\" has shape [], expected a batch dimension");
}

TEST(CheckInputs, CountsStringsAgainstTheShapeOfAnUnbatchedModel) {
  const Signature signature{.inputs = {spec("words", Dtype::kBytes, {2, 2})}};
  std::int64_t rows = 0;
  EXPECT_TRUE(check_inputs(signature, {Value(Strings(4, "a"))}, rows).ok());
  const Status status = check_inputs(signature, {Value(Strings(3, "a"))}, rows);
  EXPECT_EQ(status.message, "input \"words\" has 3 strings, expected shape [2, 2]");
}

TEST(CheckInputs, AStringIsARowOfABatchedModel) {
  const Signature signature{
      .inputs = {spec("words", Dtype::kBytes, {1})}, .batched = true, .max_batch_size = 4};
  std::int64_t rows = 0;
  EXPECT_TRUE(check_inputs(signature, {Value(Strings(3, "a"))}, rows).ok());
  EXPECT_EQ(rows, 3);
  EXPECT_EQ(check_inputs(signature, {filled({3, 1}, 0)}, rows).message,
            "input \"words\" has dtype FP32, expected BYTES");
}

TEST(CheckOutputs, FindsEveryWayToBeWrong) {
  const Signature signature = rows_signature(8);
  EXPECT_TRUE(check_outputs(signature, {filled({3, 2}, 0)}, 3).ok());
  const auto complaint = [&](const Values& outputs) {
    const Status status = check_outputs(signature, outputs, 3);
    EXPECT_EQ(status.code, Code::kModelFailed);
    return status.message;
  };
  EXPECT_EQ(complaint({filled({3, 2}, 0), filled({3, 2}, 0)}),
            "the model returned 2 outputs, its signature declares 1");
  EXPECT_EQ(complaint({}), "the model returned 0 outputs, its signature declares 1");
  EXPECT_EQ(complaint({Value()}), "the model did not return output \"y\"");
  EXPECT_EQ(complaint({longs({3, 1}, {1, 2, 3})}), "output \"y\" has dtype INT64, expected FP32");
  EXPECT_EQ(complaint({filled({3, 2, 1}, 0)}),
            "output \"y\" has shape [3, 2, 1], expected [-1, -1]");
  EXPECT_EQ(complaint({filled({2, 2}, 0)}), "output \"y\" has 2 rows for a batch of 3");
}

TEST(CheckOutputs, RowsMayGoUnchecked) {
  EXPECT_TRUE(check_outputs(rows_signature(8), {filled({2, 2}, 0)}, kAnyRows).ok());
}

TEST(CheckOutputs, WhatNobodyDeclaredIsServedUnlessItCannotBeNamed) {
  Signature signature = rows_signature(8);
  signature.outputs_known = false;
  EXPECT_TRUE(check_outputs(signature, {longs({3}, {1, 2, 3}), filled({3, 9}, 0)}, 3).ok());
  EXPECT_EQ(check_outputs(signature, {longs({3}, {1, 2, 3}), Value()}, 3).message,
            "the model did not return output \"output_1\"");
  const Value complex(at::empty({3}, at::TensorOptions().dtype(at::kComplexFloat)));
  EXPECT_FALSE(check_outputs(signature, {complex}, 3).ok());
}

}  // namespace
}  // namespace pyserve
