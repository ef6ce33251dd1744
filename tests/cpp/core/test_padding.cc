#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "seed.h"
#include "tensor/collate.h"
#include "tensor/padding.h"
#include "values.h"

namespace pyserve {
namespace {

const c10::Device kCpu(c10::DeviceType::CPU);

// Rows of a text model: tokens [n], features [n, 2], a mask of n, and a number that has no length.
const std::vector<TensorSpec>& inputs() {
  static const std::vector<TensorSpec> specs{
      spec("tokens", Dtype::kInt64, {-1}), spec("features", Dtype::kFp32, {-1, 2}),
      spec("mask", Dtype::kInt32, {1, -1}), spec("scale", Dtype::kFp32, {1})};
  return specs;
}
const std::vector<TensorSpec>& outputs() {
  static const std::vector<TensorSpec> specs{spec("hidden", Dtype::kFp32, {2, -1}),
                                             spec("pooled", Dtype::kFp32, {2})};
  return specs;
}

PaddingOptions text_options() {
  return {.batch_sizes = {1, 4, 8},
          .buckets = {4, 8},
          .inputs = {{.name = "tokens", .dim = 0, .pad = -7}, {.name = "features", .dim = 0}},
          .outputs = {{.name = "hidden", .dim = 1}},
          .mask = "mask"};
}
Padding text_padding() { return {text_options(), inputs(), outputs()}; }

// `rows` rows whose tokens are 1, 2, 3 ... and whose features are their negatives, twice.
Values text(std::int64_t rows, std::int64_t length) {
  std::vector<std::int64_t> tokens;
  std::vector<float> features;
  for (std::int64_t i = 1; i <= rows * length; ++i) {
    tokens.push_back(i);
    features.insert(features.end(), 2, -static_cast<float>(i));
  }
  return {longs({rows, length}, tokens), floats({rows, length, 2}, features), Value(),
          filled({rows, 1}, static_cast<float>(rows))};
}

Values gather(const Padding& padding, const std::vector<Values>& requests) {
  std::vector<const Values*> pointers;
  std::int64_t rows = 0;
  for (const Values& request : requests) {
    pointers.push_back(&request);
    rows += request.front().rows();
  }
  return collate(pointers, padding, padding.fit(requests.front(), rows), kCpu);
}

template <class T>
std::vector<T> numbers(const Value& value) {
  const at::Tensor whole = value.tensor.contiguous();
  return {whole.const_data_ptr<T>(), whole.const_data_ptr<T>() + whole.numel()};
}

std::string complaint(const PaddingOptions& options) {
  try {
    const Padding padding(options, inputs(), outputs());
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

TEST(Padding, PadsNothingUnlessItIsAskedTo) {
  const Padding padding;
  const BatchShape shape = padding.fit(text(3, 5), 3);
  EXPECT_EQ(shape.rows, 3);
  EXPECT_EQ(shape.length, 0);
  EXPECT_FALSE(padding.fills());
  EXPECT_TRUE(padding.check(text(3, 5)).ok());
}

TEST(Padding, RowsAreFilledUpToTheNextAllowedSize) {
  const Padding padding({.batch_sizes = {2, 4, 16}}, inputs(), outputs());
  const std::vector<std::int64_t> sizes{2, 2, 4, 4, 16, 16};
  for (std::int64_t rows = 1; rows <= std::ssize(sizes); ++rows) {
    EXPECT_EQ(padding.rows_for(rows), sizes[static_cast<std::size_t>(rows - 1)]) << rows;
  }
  EXPECT_EQ(padding.rows_for(16), 16);
}

TEST(Padding, MissingRowsAreCopiesOfTheLast) {
  const Padding padding({.batch_sizes = {4}}, inputs(), outputs());
  const Values batch = gather(padding, {{floats({1, 2}, {1, 2}), Value(Strings{"a"})},
                                        {floats({1, 2}, {3, 4}), Value(Strings{"b"})}});
  EXPECT_EQ(floats_of(batch[0]), (std::vector<float>{1, 2, 3, 4, 3, 4, 3, 4}));
  EXPECT_EQ(*batch[1].strings, (Strings{"a", "b", "b", "b"}));
}

TEST(Padding, ARowWithoutElementsHasCopiesToo) {
  const Padding padding({.batch_sizes = {4}}, inputs(), outputs());
  EXPECT_EQ(gather(padding, {{filled({3, 0}, 0)}})[0].tensor.sizes(), (Shape{4, 0}));
}

TEST(Padding, ABatchOfOneThatIsFullIsNotCopied) {
  const Padding padding({.batch_sizes = {1, 4}}, inputs(), outputs());
  const Values row{filled({1, 2}, 1)};
  const Values four{filled({4, 2}, 1)};
  const Values three{filled({3, 2}, 1)};
  EXPECT_EQ(gather(padding, {row})[0].tensor.data_ptr(), row[0].tensor.data_ptr());
  EXPECT_EQ(gather(padding, {four})[0].tensor.data_ptr(), four[0].tensor.data_ptr());
  EXPECT_NE(gather(padding, {three})[0].tensor.data_ptr(), three[0].tensor.data_ptr());
}

TEST(Padding, LengthsAreFilledUpToTheirBucketAndTheMaskTellsWhich) {
  const Values batch = gather(text_padding(), {text(1, 3), text(2, 2)});
  EXPECT_EQ(batch[0].tensor.sizes(), (Shape{4, 4}));
  EXPECT_EQ(numbers<std::int64_t>(batch[0]),
            (std::vector<std::int64_t>{1, 2, 3, -7, 1, 2, -7, -7, 3, 4, -7, -7, 3, 4, -7, -7}));
  EXPECT_EQ(batch[1].tensor.sizes(), (Shape{4, 4, 2}));
  EXPECT_EQ(floats_of(batch[1]),
            (std::vector<float>{-1, -1, -2, -2, -3, -3, 0, 0, -1, -1, -2, -2, 0, 0, 0, 0,
                                -3, -3, -4, -4, 0,  0,  0, 0, -3, -3, -4, -4, 0, 0, 0, 0}));
  EXPECT_EQ(batch[2].tensor.sizes(), (Shape{4, 1, 4}));
  EXPECT_EQ(numbers<std::int32_t>(batch[2]),
            (std::vector<std::int32_t>{1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0}));
  EXPECT_EQ(floats_of(batch[3]), (std::vector<float>{1, 2, 2, 2}));
}

TEST(Padding, AMaskThatCameIsPaddedWithZeros) {
  Values one = text(1, 3);
  one[2] = tensor_of<std::int32_t>({1, 1, 3}, at::kInt, {1, 0, 1});
  const Values batch = gather(text_padding(), {one, text(1, 1)});
  EXPECT_EQ(numbers<std::int32_t>(batch[2]),
            (std::vector<std::int32_t>{1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}));
}

TEST(Padding, OnlyTheMaskIsMadeWhereTheLengthFillsItsBucket) {
  const Values row = text(1, 8);
  const Values batch = gather(text_padding(), {row});
  EXPECT_EQ(batch[0].tensor.data_ptr(), row[0].tensor.data_ptr());
  EXPECT_EQ(batch[1].tensor.data_ptr(), row[1].tensor.data_ptr());
  EXPECT_EQ(numbers<std::int32_t>(batch[2]), (std::vector<std::int32_t>(8, 1)));
}

TEST(Padding, ReadsLengthsThatAreNotContiguous) {
  Values row = text(2, 3);
  row[1].tensor = row[1].tensor.transpose(0, 1).contiguous().transpose(0, 1);
  ASSERT_FALSE(row[1].tensor.is_contiguous());
  EXPECT_EQ(floats_of(gather(text_padding(), {row, text(2, 4)})[1]),
            floats_of(gather(text_padding(), {text(2, 3), text(2, 4)})[1]));
}

TEST(Padding, RequestsOfOneBucketAreStackable) {
  const Padding padding = text_padding();
  Values masked = text(1, 2);
  masked[2] = tensor_of<std::int32_t>({1, 1, 2}, at::kInt, {1, 0});
  EXPECT_TRUE(padding.stackable(text(1, 1), text(2, 4)));
  EXPECT_EQ(padding.key(text(1, 1)), padding.key(text(2, 4)));
  EXPECT_TRUE(padding.stackable(masked, text(2, 4)));
  EXPECT_EQ(padding.key(masked), padding.key(text(2, 4)));
  EXPECT_FALSE(padding.stackable(text(1, 4), text(1, 5)));
  EXPECT_NE(padding.key(text(1, 4)), padding.key(text(1, 5)));
}

TEST(Padding, LengthsMustAgreeAndFitTheLargestBucket) {
  const Padding padding = text_padding();
  EXPECT_TRUE(padding.check(text(2, 1)).ok());
  EXPECT_TRUE(padding.check(text(2, 8)).ok());
  EXPECT_EQ(padding.check(text(2, 9)).message,
            "input \"tokens\" has length 9 along dimension 1, expected 1 to 8");
  EXPECT_EQ(padding.check(text(1, 0)).message,
            "input \"tokens\" has length 0 along dimension 1, expected 1 to 8");
  Values uneven = text(1, 3);
  uneven[1] = filled({1, 2, 2}, 0);
  EXPECT_EQ(padding.check(uneven).message,
            "input \"features\" has length 2 along dimension 1, but \"tokens\" has length 3 along "
            "dimension 1: they share one length");
  EXPECT_EQ(padding.check({Value(), Value(), Value(), filled({1, 1}, 0)}).message,
            "input \"tokens\" is missing: it tells the length");
}

TEST(Padding, CutsEachRequestsOutputsToItsOwnLength) {
  const Padding padding = text_padding();
  Values outputs{floats({1, 2, 4}, {1, 2, 3, 4, 5, 6, 7, 8}), floats({1, 2}, {1, 2})};
  padding.cut(outputs, 3);
  EXPECT_TRUE(outputs[0].tensor.is_contiguous());
  EXPECT_EQ(floats_of(outputs[0]), (std::vector<float>{1, 2, 3, 5, 6, 7}));
  EXPECT_EQ(floats_of(outputs[1]), (std::vector<float>{1, 2}));
}

TEST(Padding, AnOutputWithoutTheLengthIsNotCut) {
  const Padding padding = text_padding();
  EXPECT_TRUE(padding.check_outputs({filled({1, 2, 4}, 0), filled({1, 2}, 0)}, 4).ok());
  EXPECT_EQ(padding.check_outputs({filled({1, 2, 2}, 0), filled({1, 2}, 0)}, 4).message,
            "output \"hidden\" has length 2 along dimension 2 for inputs of length 4");
  EXPECT_FALSE(padding.check_outputs({filled({1, 2}, 0), filled({1, 2}, 0)}, 4).ok());
  EXPECT_FALSE(padding.check_outputs({}, 4).ok());
}

TEST(Padding, CuttingUndoesIt) {
  auto random = seeded_random();
  const Padding padding({.batch_sizes = {8, 64},
                         .buckets = {3, 5, 16},
                         .inputs = {{.name = "features", .dim = 0, .pad = 0.5}},
                         .outputs = {{.name = "same", .dim = 0}}},
                        {spec("features", Dtype::kFp32, {-1, 2})},
                        {spec("same", Dtype::kFp32, {-1, 2})});
  for (int round = 0; round < 50; ++round) {
    const auto longest = padding.buckets()[random() % 3];
    std::vector<Values> requests;
    float number = 0;
    while (requests.size() < 1 + random() % 8) {
      const auto rows = static_cast<std::int64_t>(1 + random() % 3);
      const auto length = static_cast<std::int64_t>(1 + random() % 16);
      std::vector<float> data(static_cast<std::size_t>(rows * length * 2));
      for (float& one : data) {
        one = ++number;
      }
      Values request{floats({rows, length, 2}, data)};
      if (padding.fit(request, rows).length == longest) {
        requests.push_back(std::move(request));
      }
    }
    const Values batch = gather(padding, requests);
    std::int64_t begin = 0;
    for (const Values& request : requests) {
      Values part = split(batch, begin, request[0].rows());
      padding.cut(part, padding.length(request));
      EXPECT_EQ(part[0].tensor.sizes(), request[0].tensor.sizes());
      EXPECT_EQ(floats_of(part[0]), floats_of(request[0]));
      begin += request[0].rows();
    }
  }
}

TEST(Padding, EveryDtypeHasItsPadAndItsMask) {
  for (const Dtype dtype : kAllDtypes) {
    if (dtype == Dtype::kBytes) {
      continue;
    }
    const at::ScalarType type = scalar_type(dtype);
    const Padding padding(
        {.buckets = {3}, .inputs = {{.name = "x", .dim = 0, .pad = 1}}, .mask = "mask"},
        {spec("x", dtype, {-1}), spec("mask", dtype, {-1})}, {});
    const Values row{Value(filled({1, 2}, 0).tensor.to(type)), Value()};
    const Values batch = gather(padding, {row});
    EXPECT_EQ(floats_of(Value(batch[0].tensor.to(at::kFloat))), (std::vector<float>{0, 0, 1}))
        << dtype_name(dtype);
    EXPECT_EQ(floats_of(Value(batch[1].tensor.to(at::kFloat))), (std::vector<float>{1, 1, 0}))
        << dtype_name(dtype);
  }
}

TEST(Padding, ABatchThatNoMemoryHasIsRefused) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 40;
  const Padding padding({.batch_sizes = {kHuge}, .buckets = {kHuge}, .inputs = {{.name = "x"}}},
                        {spec("x", Dtype::kFp32, {-1})}, {});
  EXPECT_THROW(gather(padding, {{filled({1, 1}, 0)}}), std::exception);
}

TEST(Padding, WhatTheSpecsHaveNoPlaceForIsRefused) {
  EXPECT_EQ(complaint(text_options()), "");
  PaddingOptions options = text_options();
  options.inputs[0].name = "token";
  EXPECT_EQ(complaint(options),
            "lengths.inputs.token: the model has no input \"token\", expected one of \"tokens\", "
            "\"features\", \"mask\", \"scale\"");
  options = text_options();
  options.inputs[1].dim = 1;
  EXPECT_EQ(complaint(options),
            "lengths.inputs.features: dim is 1, expected a dimension of -1 in the shape [-1, 2] "
            "(without the batch)");
  options.inputs[1].dim = 2;
  EXPECT_NE(complaint(options), "");
  options = text_options();
  options.inputs[0].pad = 0.5;
  EXPECT_EQ(complaint(options), "lengths.inputs.tokens: pad is no INT64");
  options = text_options();
  options.outputs[0].name = "pooled";
  EXPECT_NE(complaint(options), "");
  options = text_options();
  options.mask = "scale";
  EXPECT_EQ(complaint(options),
            "lengths.mask: the shape of \"scale\" is [1], expected numbers and exactly one "
            "dimension of -1");
  options.mask = "tokens";
  EXPECT_EQ(complaint(options),
            "lengths.mask: \"tokens\" is padded with 0, it cannot be one of lengths.inputs too");
}

}  // namespace
}  // namespace pyserve
