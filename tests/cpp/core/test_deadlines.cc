// What the batcher promises about deadlines, priorities and threads; the rest is in
// test_batcher.cc.
#include <gtest/gtest.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "batching/batcher.h"
#include "fakes.h"
#include "threads.h"
#include "values.h"

namespace pyserve {
namespace {

constexpr Nanos kMs = 1'000'000;
constexpr Nanos kStart = 1'000'000 * kMs;

using Requests = std::vector<RequestPtr>;

class DeadlineTest : public ::testing::Test {
 protected:
  // Batches of four rows, by one instance; a row takes 10 ms.
  std::unique_ptr<Batcher> batcher(BatchPolicy policy = {.max_rows = 4, .max_delay = 0},
                                   std::int64_t capacity = 100, const Padding& padding = {}) {
    auto made = std::make_unique<Batcher>(policy, capacity, /*idle_spin_ns=*/0, clock_, padding);
    for (const std::int64_t rows : {1, 2, 4}) {
      if (padding.rows_for(rows) != rows) {
        continue;  // never run
      }
      made->learn({.rows = rows, .shortest = rows * 10 * kMs}, /*elastic=*/false);
    }
    return made;
  }

  RequestPtr due_in(Nanos left, Priority priority = kNormalPriority) {
    RequestPtr request = request_for({filled({1, 1}, 0)});
    request->deadline = left == kNever ? kNever : clock_.now() + left;
    request->priority = priority;
    return request;
  }

  Requests next(Batcher& batcher) {
    if (batcher.admission().queued() == 0) {
      ADD_FAILURE() << "there is nothing to take";  // and to wait for it would be for ever
      return {};
    }
    EXPECT_TRUE(batcher.next_batch(batch_));
    return batch_.requests;
  }

  void finish(Batcher& batcher) {
    batcher.finish(batch_.requests);
    batcher.finish(batch_.dropped);
  }

  FakeClock clock_{kStart};
  Batch batch_;
};

TEST_F(DeadlineTest, WhatEvenARunAloneCannotMeetIsRefusedAtOnce) {
  const auto batcher = this->batcher();
  const Status status = batcher->submit(due_in(9 * kMs));
  EXPECT_EQ(status.code, Code::kDeadlineExceeded);
  EXPECT_EQ(status.message,
            "the deadline cannot be met: a run takes about 10.0 ms, 9.0 ms are left");
  EXPECT_EQ(batcher->admission().in_flight(), 0);
  EXPECT_TRUE(batcher->submit(due_in(10 * kMs)).ok());
}

TEST_F(DeadlineTest, ABatchTakesAsLongAsTheAllowedSizeThatItIsFilledUpTo) {
  const auto batcher =
      this->batcher({.max_rows = 4, .max_delay = 0}, 100, Padding({.batch_sizes = {1, 4}}, {}, {}));
  const Requests two{due_in(39 * kMs), due_in(39 * kMs)};  // which would be done after 20 ms
  ASSERT_TRUE(batcher->submit(two.front()).ok());
  EXPECT_EQ(batcher->submit(two.back()).code, Code::kQueueFull);
  EXPECT_EQ(next(*batcher), Requests{two.front()});
  finish(*batcher);
  // What two rows took is a lesson about four.
  for (int run = 0; run < 2; ++run) {
    for (const RequestPtr& request : {due_in(kNever), due_in(kNever)}) {
      ASSERT_TRUE(batcher->submit(request).ok());
    }
    EXPECT_EQ(next(*batcher).size(), 2U);
    clock_.advance(90 * kMs);
    finish(*batcher);
  }
  EXPECT_TRUE(batcher->submit(due_in(kNever)).ok());
  EXPECT_EQ(next(*batcher).size(), 1U);
  finish(*batcher);
  const RequestPtr four = request_for({filled({4, 1}, 0)});
  four->deadline = clock_.now() + 89 * kMs;
  EXPECT_EQ(batcher->submit(four).code, Code::kDeadlineExceeded);
}

TEST_F(DeadlineTest, WhatWaitsBeforeItCountsAndTheRestDoesNot) {
  const auto batcher = this->batcher();
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(batcher->submit(due_in(500 * kMs)).ok());  // two batches
    ASSERT_TRUE(batcher->submit(due_in(kNever)).ok());     // later than any deadline
  }
  EXPECT_TRUE(batcher->submit(due_in(20 * kMs)).ok());  // goes ahead of them all
  // Behind 17 rows of a higher priority: four batches, and a part of one.
  EXPECT_TRUE(batcher->submit(due_in(190 * kMs, kLowPriority)).ok());
  const Status late = batcher->submit(due_in(170 * kMs, kLowPriority));
  EXPECT_EQ(late.code, Code::kQueueFull);
  EXPECT_EQ(
      late.message,
      "the deadline cannot be met: with what is waiting the answer would take about 180.0 ms, "
      "170.0 ms are left; try again later");
}

TEST_F(DeadlineTest, TheTimeUntilAnInstanceIsFreeCounts) {
  const auto batcher = this->batcher();
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(batcher->submit(due_in(kNever)).ok());
  }
  ASSERT_EQ(next(*batcher).size(), 4U);  // until 40 ms from now
  // It will share its batch with others, as the last one did: 40 ms more.
  EXPECT_EQ(batcher->submit(due_in(75 * kMs)).code, Code::kQueueFull);
  EXPECT_TRUE(batcher->submit(due_in(85 * kMs)).ok());
}

TEST_F(DeadlineTest, ALoneRequestAfterACrowdIsNotHeldToTheCrowdsBatches) {
  const auto batcher = this->batcher();
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(batcher->submit(due_in(kNever)).ok());
  }
  ASSERT_EQ(next(*batcher).size(), 4U);
  clock_.advance(40 * kMs);
  finish(*batcher);
  // The instance comes back for the next.
  const RequestPtr request = due_in(50 * kMs);
  ASSERT_TRUE(batcher->submit(request).ok());
  EXPECT_EQ(next(*batcher), Requests{request});
  clock_.advance(10 * kMs);
  finish(*batcher);
}

TEST_F(DeadlineTest, AfterALongTimeWithoutNewsOneIsTriedAfterAll) {
  const auto batcher = this->batcher();
  clock_.advance(3'000 * kMs);
  const RequestPtr trial = due_in(5 * kMs);
  EXPECT_TRUE(batcher->submit(trial).ok());
  EXPECT_EQ(batcher->submit(due_in(5 * kMs)).code, Code::kDeadlineExceeded);  // one at a time
  EXPECT_EQ(next(*batcher), Requests{trial});
  clock_.advance(2 * kMs);  // the model has become faster
  finish(*batcher);
  ASSERT_TRUE(batcher->submit(due_in(kNever)).ok());
  next(*batcher);
  finish(*batcher);
  EXPECT_TRUE(batcher->submit(due_in(5 * kMs)).ok());
}

TEST_F(DeadlineTest, ABatchIsNoLargerThanItsNearestDeadlineAllows) {
  const auto batcher = this->batcher();
  const Requests requests{due_in(kNever), due_in(25 * kMs), due_in(kNever), due_in(kNever)};
  for (const RequestPtr& request : requests) {
    ASSERT_TRUE(batcher->submit(request).ok());
  }
  EXPECT_EQ(next(*batcher), (Requests{requests[1], requests[0]}));
  clock_.advance(20 * kMs);
  finish(*batcher);
  EXPECT_EQ(next(*batcher), (Requests{requests[2], requests[3]}));
}

TEST_F(DeadlineTest, WhereOthersFillTheBatchInTimeTheOneThatIsTooLateGivesWay) {
  const auto batcher = this->batcher();
  const Requests requests{due_in(50 * kMs), due_in(90 * kMs), due_in(90 * kMs), due_in(90 * kMs),
                          due_in(90 * kMs)};
  for (const RequestPtr& request : requests) {
    ASSERT_TRUE(batcher->submit(request).ok());
  }
  clock_.advance(20 * kMs);
  EXPECT_EQ(next(*batcher), (Requests{requests[1], requests[2], requests[3], requests[4]}));
  EXPECT_EQ(batch_.dropped, Requests{requests[0]});
  EXPECT_EQ(requests[0]->claim.outcome(), Outcome::kExpired);
  EXPECT_EQ(requests[0]->status.code, Code::kDeadlineExceeded);
  EXPECT_EQ(requests[0]->status.message,
            "the deadline cannot be met: a run takes about 40.0 ms, 30.0 ms are left");
}

TEST_F(DeadlineTest, NobodyGivesWayToWhoIsLessImportantOrInNoHurry) {
  for (const bool hurry : {true, false}) {
    const auto batcher = this->batcher();
    batch_ = {};
    Requests requests{due_in(50 * kMs)};
    for (int i = 0; i < 4; ++i) {
      requests.push_back(hurry ? due_in(900 * kMs, kLowPriority) : due_in(kNever));
    }
    for (const RequestPtr& request : requests) {
      ASSERT_TRUE(batcher->submit(request).ok());
    }
    clock_.advance(25 * kMs);
    EXPECT_EQ(next(*batcher), (Requests{requests[0], requests[1]}));
    EXPECT_TRUE(batch_.dropped.empty());
    clock_.set(kStart);
  }
}

TEST_F(DeadlineTest, WhatHasBecomeHopelessWhileItWaitedIsNotRun) {
  const auto batcher = this->batcher();
  const Requests requests{due_in(15 * kMs), due_in(kNever)};
  for (const RequestPtr& request : requests) {
    ASSERT_TRUE(batcher->submit(request).ok());
  }
  clock_.advance(10 * kMs);
  EXPECT_EQ(next(*batcher), Requests{requests[1]});
  EXPECT_EQ(batch_.dropped, Requests{requests[0]});
}

// The time of a run jumps tenfold: within 20 batches nothing is admitted that cannot be met, and
// once it is fast again, within 20 batches all is.
TEST_F(DeadlineTest, AdmissionFollowsAModelWhoseTimeJumps) {
  const auto batcher = this->batcher();
  const auto run = [&](Nanos takes, int batches) {
    for (int i = 0; i < batches; ++i) {
      ASSERT_TRUE(batcher->submit(due_in(kNever)).ok());
      ASSERT_EQ(next(*batcher).size(), 1U);
      clock_.advance(takes);
      finish(*batcher);
    }
  };
  run(10 * kMs, 50);
  EXPECT_EQ(batcher->submit(due_in(9 * kMs)).code, Code::kDeadlineExceeded);
  run(100 * kMs, 20);
  EXPECT_EQ(batcher->submit(due_in(90 * kMs)).code, Code::kDeadlineExceeded);
  run(10 * kMs, 20);
  EXPECT_TRUE(batcher->submit(due_in(12 * kMs)).ok());
}

TEST_F(DeadlineTest, ADeadlineInThePastOrFarAwayHarmsNobody) {
  const auto batcher = this->batcher();
  EXPECT_EQ(batcher->submit(due_in(0)).code, Code::kDeadlineExceeded);
  EXPECT_EQ(batcher->submit(due_in(-clock_.now() - kMs)).code, Code::kDeadlineExceeded);
  const RequestPtr request = due_in(kNever - clock_.now() - 1);
  EXPECT_TRUE(batcher->submit(request).ok());
  EXPECT_EQ(next(*batcher), Requests{request});
}

// ---- priorities --------------------------------------------------------------------

TEST_F(DeadlineTest, AHigherPriorityComesFirst) {
  const auto batcher = this->batcher({.max_rows = 1, .max_delay = 0});
  const Requests requests{due_in(kNever, kLowPriority), due_in(kNever, kNormalPriority),
                          due_in(kNever, kHighPriority), due_in(kNever, kHighPriority)};
  for (const RequestPtr& request : requests) {
    ASSERT_TRUE(batcher->submit(request).ok());
  }
  for (const int i : {2, 3, 1, 0}) {
    EXPECT_EQ(next(*batcher), Requests{requests[static_cast<std::size_t>(i)]});
    finish(*batcher);
  }
}

TEST_F(DeadlineTest, ALowPriorityIsServedHoweverManyHighOnesKeepComing) {
  const auto batcher = this->batcher({.max_rows = 1, .max_delay = 0});
  const RequestPtr low = due_in(kNever, kLowPriority);
  ASSERT_TRUE(batcher->submit(low).ok());
  int served_before = 0;
  for (;; ++served_before) {
    ASSERT_LT(served_before, 100);
    ASSERT_TRUE(batcher->submit(due_in(kNever, kHighPriority)).ok());
    clock_.advance(1'000 * kMs);  // one a second, and a run takes as long
    const Requests batch = next(*batcher);
    finish(*batcher);
    if (batch == Requests{low}) {
      break;
    }
  }
  EXPECT_GE(served_before, 9);  // two steps of five seconds
}

TEST_F(DeadlineTest, LowPrioritiesCannotFillTheQueueForHighOnes) {
  const auto batcher = this->batcher({.max_rows = 4, .max_delay = 0}, /*capacity=*/2);
  for (const Priority priority : {kLowPriority, kNormalPriority, kHighPriority}) {
    ASSERT_TRUE(batcher->submit(due_in(kNever, priority)).ok());
    ASSERT_TRUE(batcher->submit(due_in(kNever, priority)).ok());
    EXPECT_EQ(batcher->submit(due_in(kNever, priority)).code, Code::kQueueFull);
  }
  EXPECT_EQ(batcher->admission().queued(), 6);
}

// ---- threads -----------------------------------------------------------------------

TEST_F(DeadlineTest, ALoneRunHasAllCpusAndACrowdsRunsShareThem) {
  const auto batcher = this->batcher({.max_rows = 8, .shares = 4, .cpus = 4});
  ASSERT_TRUE(batcher->submit(due_in(kNever)).ok());
  next(*batcher);
  EXPECT_EQ(batch_.cpus, 4);
  finish(*batcher);
  batch_.clear();
  std::vector<Batch> batches(4);
  batches[0].cpus = std::exchange(batch_.cpus, 0);  // the first instance is back
  batches[0].instance = batch_.instance;
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(batcher->submit(due_in(kNever)).ok());
  }
  for (Batch& batch : batches) {
    ASSERT_TRUE(batcher->next_batch(batch));
    EXPECT_EQ(batch.cpus, 1);
    EXPECT_EQ(batch.requests.size(), 2U);
  }
}

TEST_F(DeadlineTest, NoBatchIsFormedWhileALoneRunHasAllCpus) {
  const auto batcher = this->batcher({.max_rows = 8, .shares = 2, .cpus = 2});
  ASSERT_TRUE(batcher->submit(due_in(kNever)).ok());
  next(*batcher);
  ASSERT_EQ(batch_.cpus, 2);
  const RequestPtr second = due_in(kNever);
  ASSERT_TRUE(batcher->submit(second).ok());
  std::atomic<pid_t> id{0};
  Batch other;
  std::jthread instance([&] {
    id.store(gettid());
    static_cast<void>(batcher->next_batch(other));
  });
  ASSERT_TRUE(eventually([&] { return id.load() != 0 && asleep(id.load()); }));
  finish(*batcher);
  EXPECT_EQ(next(*batcher), Requests{second});  // whoever gives back looks for work itself
  EXPECT_EQ(batch_.cpus, 1);                    // two were in flight of late
  finish(*batcher);
  batcher->stop_accepting();
  batcher->stop();
}

}  // namespace
}  // namespace pyserve
