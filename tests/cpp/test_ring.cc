#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/ring.h"
#include "seed.h"
#include "threads.h"

namespace pyserve {
namespace {

using Item = std::unique_ptr<std::size_t>;

Item item(std::size_t value) { return std::make_unique<std::size_t>(value); }

TEST(Ring, RoundsItsCapacityUpToAPowerOfTwo) {
  EXPECT_EQ(Ring<Item>(1).capacity(), 2U);
  EXPECT_EQ(Ring<Item>(2).capacity(), 2U);
  EXPECT_EQ(Ring<Item>(3).capacity(), 4U);
  EXPECT_EQ(Ring<Item>(1000).capacity(), 1024U);
}

TEST(Ring, RefusesACapacityOfNothingOrOfTooMuch) {
  EXPECT_THROW(Ring<Item>(0), std::invalid_argument);
  EXPECT_THROW(Ring<Item>(Ring<Item>::kMaxCapacity + 1), std::invalid_argument);
  EXPECT_THROW(Ring<Item>(static_cast<std::size_t>(-1)), std::invalid_argument);
}

TEST(Ring, IsEmptyAtFirstAndPopsNothing) {
  Ring<Item> ring(4);
  Item out;
  EXPECT_TRUE(ring.empty());
  EXPECT_FALSE(ring.try_pop(out));
  EXPECT_EQ(out, nullptr);
}

TEST(Ring, RefusesWhenFullAndKeepsTheItem) {
  Ring<Item> ring(2);
  Item first = item(1);
  Item second = item(2);
  Item third = item(3);
  EXPECT_TRUE(ring.try_push(first));
  EXPECT_TRUE(ring.try_push(second));
  EXPECT_EQ(first, nullptr);
  ASSERT_FALSE(ring.try_push(third));
  EXPECT_TRUE(third != nullptr && *third == 3);

  Item out;
  EXPECT_TRUE(ring.try_pop(out));
  EXPECT_EQ(*out, 1U);
  EXPECT_TRUE(ring.try_push(third)) << "one slot is free again";
}

TEST(Ring, LetsGoOfAnItemOnceItIsPopped) {
  Ring<std::shared_ptr<int>> ring(2);
  const auto kept = std::make_shared<int>(1);
  auto pushed = kept;
  ASSERT_TRUE(ring.try_push(pushed));
  std::shared_ptr<int> out;
  ASSERT_TRUE(ring.try_pop(out));
  out.reset();
  EXPECT_EQ(kept.use_count(), 1);
}

TEST(Ring, LetsGoOfWhatItStillHoldsWhenItDies) {
  const auto kept = std::make_shared<int>(1);
  {
    Ring<std::shared_ptr<int>> ring(2);
    auto pushed = kept;
    ASSERT_TRUE(ring.try_push(pushed));
    EXPECT_EQ(kept.use_count(), 2);
  }
  EXPECT_EQ(kept.use_count(), 1);
}

TEST(Ring, AgreesWithABoundedDeque) {
  auto random = seeded_random();
  for (const std::size_t capacity : {1U, 2U, 5U, 64U}) {
    Ring<Item> ring(capacity);
    std::deque<std::size_t> model;
    for (std::size_t step = 0; step < 5'000; ++step) {
      EXPECT_EQ(ring.empty(), model.empty());
      if (random() % 2 == 0) {
        Item in = item(step);
        const bool room = model.size() < ring.capacity();
        EXPECT_EQ(ring.try_push(in), room);
        EXPECT_EQ(in == nullptr, room);
        if (room) {
          model.push_back(step);
        }
      } else {
        Item out;
        ASSERT_EQ(ring.try_pop(out), !model.empty());
        if (!model.empty()) {
          EXPECT_EQ(*out, model.front());
          model.pop_front();
        }
      }
    }
  }
}

struct Parcel {
  std::size_t producer = 0;
  std::size_t number = 0;
};

// Takes parcels until every producer's last has come; the model is a counter per
// producer, for each producer's parcels come in its own order, without gaps.
void expect_all_in_order(Ring<std::unique_ptr<Parcel>>& ring, std::vector<std::size_t>& next,
                         std::size_t from_each) {
  const std::size_t total = next.size() * from_each;
  std::size_t taken = 0;
  std::unique_ptr<Parcel> parcel;
  EXPECT_TRUE(eventually([&] {
    while (ring.try_pop(parcel)) {
      EXPECT_EQ(parcel->number, next[parcel->producer]);
      next[parcel->producer] = parcel->number + 1;
      ++taken;
    }
    return taken == total;
  }));
}

void push_all(Ring<std::unique_ptr<Parcel>>& ring, std::size_t producer, std::size_t count) {
  for (std::size_t number = 0; number < count; ++number) {
    auto parcel = std::make_unique<Parcel>(Parcel{.producer = producer, .number = number});
    while (!ring.try_push(parcel)) {
      ASSERT_NE(parcel, nullptr);
      std::this_thread::yield();
    }
  }
}

TEST(Ring, CarriesEachProducersItemsWholeInOrderAndOnce) {
  constexpr std::size_t kProducers = 4;
  constexpr std::size_t kFromEach = 5'000;
  for (const std::size_t capacity : {2U, 16U, 1024U}) {
    Ring<std::unique_ptr<Parcel>> ring(capacity);
    std::vector<std::size_t> next(kProducers);
    run_together(kProducers + 1, [&](std::size_t self) {
      if (self < kProducers) {
        push_all(ring, self, kFromEach);
      } else {
        expect_all_in_order(ring, next, kFromEach);
      }
    });
    EXPECT_EQ(next, std::vector<std::size_t>(kProducers, kFromEach));
    EXPECT_TRUE(ring.empty());
  }
}

TEST(Ring, ConsumersThatPassATurnSeeOneSequence) {
  constexpr std::size_t kProducers = 2;
  constexpr std::size_t kConsumers = 2;
  constexpr std::size_t kFromEach = 10'000;
  Ring<std::unique_ptr<Parcel>> ring(32);
  std::atomic<bool> turn{false};
  std::vector<std::size_t> next(kProducers);  // these two belong to the turn's holder
  std::size_t taken = 0;
  run_together(kProducers + kConsumers, [&](std::size_t self) {
    if (self < kProducers) {
      push_all(ring, self, kFromEach);
      return;
    }
    std::unique_ptr<Parcel> parcel;
    EXPECT_TRUE(eventually([&] {
      if (turn.exchange(true, std::memory_order_acquire)) {
        return false;
      }
      for (int i = 0; i < 8 && ring.try_pop(parcel); ++i, ++taken) {
        EXPECT_EQ(parcel->number, next[parcel->producer]++);
      }
      const bool done = taken == kProducers * kFromEach;
      turn.store(false, std::memory_order_release);
      return done;
    }));
  });
  EXPECT_EQ(next, std::vector<std::size_t>(kProducers, kFromEach));
}

TEST(Ring, AnOnlookerNeverFindsItEmptyWhileAnItemThatItKnowsOfWaits) {
  constexpr std::size_t kRounds = 1'000;
  constexpr std::size_t kItems = 64;
  Ring<Item> ring(kItems);
  std::atomic<std::size_t> filled{0};  // rounds whose items are all pushed
  std::atomic<std::size_t> taken{0};   // rounds of which only the last item is left
  std::atomic<std::size_t> looked{0};  // rounds that the onlooker is done with
  run_together(2, [&](std::size_t self) {
    const auto reached = [](const std::atomic<std::size_t>& counter, std::size_t round) {
      return eventually([&] { return counter.load(std::memory_order_acquire) == round; });
    };
    for (std::size_t round = 1; round <= kRounds; ++round) {
      if (self == 0) {
        ASSERT_TRUE(reached(filled, round));
        do {
          ASSERT_FALSE(ring.empty());
        } while (taken.load(std::memory_order_relaxed) < round);
        looked.store(round, std::memory_order_release);
        continue;
      }
      for (std::size_t i = 0; i < kItems; ++i) {
        Item in = item(i);
        ASSERT_TRUE(ring.try_push(in));
      }
      filled.store(round, std::memory_order_release);
      Item out;
      for (std::size_t i = 0; i + 1 < kItems; ++i) {
        ASSERT_TRUE(ring.try_pop(out));  // under the onlooker's eyes
      }
      taken.store(round, std::memory_order_relaxed);
      ASSERT_TRUE(reached(looked, round));
      ASSERT_TRUE(ring.try_pop(out));
    }
  });
}

}  // namespace
}  // namespace pyserve
