#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "batching/backlog.h"
#include "seed.h"

namespace pyserve {
namespace {

constexpr Nanos kMs = 1'000'000;
constexpr Nanos kSlot = Nanos{1} << 23;
constexpr Nanos kNear = 127 * kSlot;

TEST(Backlog, CountsWhatIsDueBefore) {
  Backlog backlog;
  const Nanos now = 1'000'000 * kMs;
  static_cast<void>(backlog.add(now + 50 * kMs, now, 3));
  static_cast<void>(backlog.add(now + 500 * kMs, now, 5));
  EXPECT_EQ(backlog.due_before(now + 10 * kMs, now), 0);
  EXPECT_EQ(backlog.due_before(now + 100 * kMs, now), 3);
  EXPECT_EQ(backlog.due_before(now + 900 * kMs, now), 8);
}

TEST(Backlog, WhatIsDueMuchLaterComesAfterAllElse) {
  Backlog backlog;
  const Nanos now = 77 * kMs;
  static_cast<void>(backlog.add(now + 3'600'000 * kMs, now, 2));
  static_cast<void>(backlog.add(now + 20 * kMs, now, 1));
  EXPECT_EQ(backlog.due_before(now + 1000 * kMs, now), 1);
  EXPECT_EQ(backlog.due_before(now + 10'000 * kMs, now), 3);
  EXPECT_EQ(backlog.due_before(kNever - 1, now), 3);
}

TEST(Backlog, WhatIsRemovedIsForgotten) {
  Backlog backlog;
  const Nanos now = 0;
  const Backlog::Place near = backlog.add(now + 5 * kMs, now, 4);
  const Backlog::Place far = backlog.add(kNever - 1, now, 4);
  backlog.remove(near, 4);
  backlog.remove(far, 4);
  EXPECT_EQ(backlog.due_before(kNever - 1, now), 0);
}

// Against a list: exact but for the slot of the deadline itself.
TEST(Backlog, AgreesWithAList) {
  struct Item {
    Nanos deadline;
    std::int64_t rows;
    Backlog::Place place;
    bool near;  // when it came: else it counts as later than all near ones, for ever
  };
  auto random = seeded_random();
  Backlog backlog;
  std::vector<Item> list;
  Nanos now = static_cast<Nanos>(random() % 1'000'000'000);
  for (int step = 0; step < 20'000; ++step) {
    now += static_cast<Nanos>(random() % 1'000'000);
    // Nothing waits for long behind its deadline: whoever forms batches drops it.
    std::erase_if(list, [&](const Item& item) {
      if (item.deadline > now) {
        return false;
      }
      backlog.remove(item.place, item.rows);
      return true;
    });
    const Nanos deadline = now + 1 + static_cast<Nanos>(random() % 2'000'000'000);
    const auto rows = static_cast<std::int64_t>(1 + random() % 8);
    std::int64_t least = 0;
    std::int64_t most = 0;
    for (const Item& item : list) {
      least += item.deadline <= deadline && item.near ? item.rows : 0;
      most += item.deadline < deadline + kSlot || deadline - now >= kNear ? item.rows : 0;
    }
    const std::int64_t counted = backlog.due_before(deadline, now);
    ASSERT_GE(counted, least);
    ASSERT_LE(counted, most);
    list.push_back({.deadline = deadline,
                    .rows = rows,
                    .place = backlog.add(deadline, now, rows),
                    .near = deadline - now < kNear});
  }
}

}  // namespace
}  // namespace pyserve
