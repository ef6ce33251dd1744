#include <gtest/gtest.h>

#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include "tensor/collate.h"
#include "tensor/staging.h"
#include "values.h"

namespace pyserve {
namespace {

TEST(Staging, ASlotIsReusedWhateverItsShapeAndDtype) {
  Staging staging(/*pinned=*/false);
  const at::Tensor large = staging.input(0, {64, 100}, at::kFloat);
  const at::Tensor small = staging.input(0, {3, 5}, at::kLong);
  EXPECT_EQ(large.const_data_ptr(), small.const_data_ptr());
  EXPECT_EQ(small.sizes(), (Shape{3, 5}));
  EXPECT_EQ(small.scalar_type(), at::kLong);
  EXPECT_TRUE(small.is_contiguous());
}

TEST(Staging, SlotsOfInputsAndOutputsAreApart) {
  Staging staging(/*pinned=*/false);
  const at::Tensor first = staging.input(0, {4}, at::kFloat).fill_(1);
  const at::Tensor second = staging.input(1, {4}, at::kFloat).fill_(2);
  const at::Tensor output = staging.output(0, {4}, at::kFloat).fill_(3);
  EXPECT_EQ(floats_of(Value(first)), (std::vector<float>{1, 1, 1, 1}));
  EXPECT_EQ(floats_of(Value(second)), (std::vector<float>{2, 2, 2, 2}));
  EXPECT_EQ(floats_of(Value(output)), (std::vector<float>{3, 3, 3, 3}));
}

TEST(Staging, ASlotGrowsToWhatIsAskedOfIt) {
  Staging staging(/*pinned=*/false);
  staging.input(0, {1}, at::kByte);
  const at::Tensor grown = staging.input(0, {1 << 16}, at::kDouble);
  grown.fill_(1.5);
  EXPECT_EQ(grown.nbytes(), std::size_t{8} << 16);
  EXPECT_EQ(staging.input(0, {}, at::kDouble).item<double>(), 1.5);
}

TEST(Staging, NothingTakesNoMemoryAndIsStillATensor) {
  Staging staging(/*pinned=*/false);
  EXPECT_EQ(staging.output(2, {0, 7}, at::kFloat).sizes(), (Shape{0, 7}));
}

TEST(Staging, RowsAreGatheredInTheirInputsSlot) {
  Staging staging(/*pinned=*/false);
  const Values one{floats({1, 2}, {1, 2}), longs({1}, {7})};
  const Values other{floats({2, 2}, {3, 4, 5, 6}), longs({2}, {8, 9})};
  const std::vector<const Values*> requests{&one, &other};
  const Values batch =
      collate(requests, Padding(), {.rows = 3}, c10::Device(c10::DeviceType::CPU), &staging);
  EXPECT_EQ(floats_of(batch[0]), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(batch[0].tensor.const_data_ptr(), staging.input(0, {1}, at::kFloat).const_data_ptr());
  EXPECT_EQ(batch[1].tensor.const_data_ptr(), staging.input(1, {1}, at::kLong).const_data_ptr());
}

TEST(Staging, WhatIsFilledUpIsGatheredThereOnce) {
  Staging staging(/*pinned=*/false);
  const Padding padding({.batch_sizes = {4}}, {}, {});
  const Values one{floats({1, 2}, {1, 2})};
  const std::vector<const Values*> requests{&one};
  const Values batch =
      collate(requests, padding, padding.fit(one, 1), c10::Device(c10::DeviceType::CPU), &staging);
  EXPECT_EQ(floats_of(batch[0]), (std::vector<float>{1, 2, 1, 2, 1, 2, 1, 2}));
  EXPECT_EQ(batch[0].tensor.const_data_ptr(), staging.input(0, {1}, at::kFloat).const_data_ptr());
}

TEST(Staging, AbandonedMemoryStays) {
#ifdef __SANITIZE_ADDRESS__
  const __lsan::ScopedDisabler on_purpose;
#endif
  at::Tensor seen;
  {
    Staging staging(/*pinned=*/false);
    seen = staging.input(0, {2}, at::kFloat).fill_(4);
    staging.abandon();
  }
  EXPECT_EQ(floats_of(Value(seen)), (std::vector<float>{4, 4}));
}

}  // namespace
}  // namespace pyserve
