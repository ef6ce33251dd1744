#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <set>
#include <vector>

#include "seed.h"
#include "tensor/collate.h"
#include "values.h"

namespace pyserve {
namespace {

const c10::Device kCpu(c10::DeviceType::CPU);

Values gather(const std::vector<Values>& requests) {
  std::vector<const Values*> pointers;
  for (const Values& request : requests) {
    pointers.push_back(&request);
  }
  std::int64_t rows = 0;
  for (const Values& request : requests) {
    rows += request.front().rows();
  }
  return collate(pointers, Padding(), {.rows = rows}, kCpu);
}

// Groups of requests of which only those of one group may share a batch.
std::vector<std::vector<Values>> kinds() {
  const Value longs_of_two = longs({1, 2}, {1, 2});
  return {{{filled({1, 2}, 0)}, {filled({5, 2}, 1)}},
          {{filled({1, 3}, 0)}},
          {{filled({2}, 0)}, {filled({7}, 0)}},
          {{filled({1, 2, 1}, 0)}},
          {{filled({1, 1, 2}, 0)}},
          {{longs_of_two}},
          {{Value(Strings{"a"})}, {Value(Strings{"a", "b"})}},
          {{Value()}},
          {{filled({1, 2}, 0), Value()}},
          {{Value(), filled({1, 2}, 0)}},
          {{filled({1, 2}, 0), longs_of_two}},
          {{filled({1, 2}, 0), Value(Strings{"a"})}}};
}

TEST(Collate, OnlyRequestsOfOneKindAreStackable) {
  const auto groups = kinds();
  for (std::size_t a = 0; a < groups.size(); ++a) {
    for (std::size_t b = 0; b < groups.size(); ++b) {
      for (const Values& one : groups[a]) {
        for (const Values& other : groups[b]) {
          EXPECT_EQ(Padding().stackable(one, other), a == b) << a << " and " << b;
          EXPECT_EQ(Padding().key(one) == Padding().key(other), a == b) << a << " and " << b;
        }
      }
    }
  }
}

TEST(Collate, AScalarStacksWithNothing) {
  EXPECT_FALSE(Padding().stackable({filled({}, 0)}, {filled({}, 0)}));
  EXPECT_FALSE(Padding().stackable({filled({}, 0)}, {filled({1}, 0)}));
}

TEST(Collate, KeysOfManyShapesDiffer) {
  std::set<std::size_t> keys;
  for (std::int64_t a = 1; a <= 64; ++a) {
    for (std::int64_t b = 1; b <= 256; ++b) {
      keys.insert(Padding().key({Value(at::empty({0, a, b}))}));
    }
  }
  EXPECT_EQ(keys.size(), 64U * 256U);
}

TEST(Collate, PutsRowsOneAfterTheOther) {
  const Values batch =
      gather({{floats({1, 2}, {1, 2})}, {floats({2, 2}, {3, 4, 5, 6})}, {floats({1, 2}, {7, 8})}});
  EXPECT_EQ(batch[0].tensor.sizes(), (Shape{4, 2}));
  EXPECT_EQ(floats_of(batch[0]), (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(Collate, ABatchOfOneIsNotCopied) {
  const Values one{floats({1, 2}, {1, 2}), Value(Strings{"a"})};
  const Values batch = gather({one});
  EXPECT_EQ(batch[0].tensor.const_data_ptr(), one[0].tensor.const_data_ptr());
  EXPECT_EQ(batch[1].strings, one[1].strings);
}

TEST(Collate, ReadsRowsThatAreNotContiguous) {
  const Value whole = floats({2, 3}, {1, 2, 3, 4, 5, 6});
  const Value turned(whole.tensor.t());  // [3, 2]: 1 4, 2 5, 3 6
  const Values batch = gather({{turned}, {floats({1, 2}, {7, 8})}, {turned}});
  EXPECT_EQ(floats_of(batch[0]), (std::vector<float>{1, 4, 2, 5, 3, 6, 7, 8, 1, 4, 2, 5, 3, 6}));
}

TEST(Collate, RowsMayBeEmpty) {
  const Values batch = gather({{filled({2, 0}, 0)}, {filled({1, 0}, 0)}});
  EXPECT_EQ(batch[0].tensor.sizes(), (Shape{3, 0}));
}

TEST(Collate, JoinsStringsAndLeavesOutWhatIsAbsent) {
  const Values batch =
      gather({{Value(Strings{"a", "b"}), Value()}, {Value(Strings{"c"}), Value()}});
  EXPECT_EQ(*batch[0].strings, (Strings{"a", "b", "c"}));
  EXPECT_TRUE(batch[1].absent());
}

TEST(Collate, SplitUndoesIt) {
  auto random = seeded_random();
  std::vector<Values> requests;
  float number = 0;
  for (int i = 0; i < 20; ++i) {
    const auto rows = static_cast<std::int64_t>(1 + random() % 4);
    std::vector<float> data(static_cast<std::size_t>(rows * 3));
    std::iota(data.begin(), data.end(), number);
    number += static_cast<float>(data.size());
    Strings strings;
    for (std::int64_t row = 0; row < rows; ++row) {
      strings.push_back(std::to_string(number) + "-" + std::to_string(row));
    }
    requests.push_back({floats({rows, 3}, data), Value(std::move(strings))});
  }
  const Values batch = gather(requests);
  std::int64_t begin = 0;
  for (const Values& request : requests) {
    const Values part = split(batch, begin, request[0].rows());
    EXPECT_EQ(floats_of(part[0]), floats_of(request[0]));
    EXPECT_EQ(*part[1].strings, *request[1].strings);
    begin += request[0].rows();
  }
  EXPECT_EQ(begin, batch[0].rows());
}

TEST(Collate, SplitGivesViews) {
  const Values batch{filled({4, 2}, 1)};
  const Values part = split(batch, 1, 2);
  EXPECT_TRUE(part[0].tensor.storage().is_alias_of(batch[0].tensor.storage()));
}

TEST(Collate, OwnMemoryEndsTheSharing) {
  const Values batch{filled({4, 2}, 1), Value(Strings(4, "a"))};
  Values part = split(batch, 1, 1);
  own_memory(part);
  EXPECT_FALSE(part[0].tensor.storage().is_alias_of(batch[0].tensor.storage()));
  EXPECT_EQ(part[0].tensor.storage().nbytes(), 8U);  // one row, not its whole batch
  EXPECT_EQ(floats_of(part[0]), (std::vector<float>{1, 1}));
}

TEST(Collate, HostOutputsAreContiguous) {
  const Value whole = floats({2, 3}, {1, 2, 3, 4, 5, 6});
  const Values host = to_host({Value(whole.tensor.t()), whole, Value(Strings{"a"})});
  EXPECT_TRUE(host[0].tensor.is_contiguous());
  EXPECT_EQ(floats_of(host[0]), (std::vector<float>{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(host[1].tensor.const_data_ptr(), whole.tensor.const_data_ptr());
  EXPECT_EQ(*host[2].strings, Strings{"a"});
}

TEST(Collate, AnOutputThatIsAnInputIsDetachedFromIt) {
  const Values borrowed{floats({2, 2}, {1, 2, 3, 4}), Value(), Value(Strings{"a"})};
  const Value own = filled({2, 2}, 9);
  Values outputs{borrowed[0], Value(borrowed[0].tensor.narrow(0, 1, 1)), own, Value(Strings{"b"})};
  detach_from(borrowed, outputs);
  for (const std::size_t i : {0U, 1U}) {
    EXPECT_FALSE(outputs[i].tensor.storage().is_alias_of(borrowed[0].tensor.storage()));
  }
  EXPECT_EQ(floats_of(outputs[0]), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(floats_of(outputs[1]), (std::vector<float>{3, 4}));
  EXPECT_EQ(outputs[2].tensor.const_data_ptr(), own.tensor.const_data_ptr());
}

}  // namespace
}  // namespace pyserve
