#include <gtest/gtest.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "batching/batcher.h"
#include "fakes.h"
#include "seed.h"
#include "threads.h"
#include "values.h"

namespace pyserve {
namespace {

constexpr Nanos kHour = 3'600'000'000'000;

// `rows` rows of `width` zeros.
RequestPtr wide(std::int64_t width, std::int64_t rows = 1) {
  return request_for({filled({rows, width}, 0)});
}

class BatcherTest : public ::testing::Test {
 protected:
  std::unique_ptr<Batcher> batcher(BatchPolicy policy, std::int64_t capacity = 32) {
    return std::make_unique<Batcher>(policy, capacity, /*idle_spin_ns=*/0, clock_);
  }

  // The batch that an instance would run next; what was dropped stays in `batch_`.
  std::vector<RequestPtr> next(Batcher& batcher) {
    if (batcher.admission().in_flight() == 0) {
      ADD_FAILURE() << "there is nothing to take";
      return {};
    }
    EXPECT_TRUE(batcher.next_batch(batch_));
    return batch_.requests;
  }

  void finish(Batcher& batcher) {
    batcher.finish(batch_.requests);
    batcher.finish(batch_.dropped);
  }

  FakeClock clock_{1000};
  Batch batch_;
};

using Requests = std::vector<RequestPtr>;

void submit_all(Batcher& batcher, const Requests& requests) {
  for (const RequestPtr& request : requests) {
    ASSERT_TRUE(batcher.submit(request).ok());
  }
}

TEST_F(BatcherTest, TakesWhatWaitsOldestFirst) {
  const auto batcher = this->batcher({.max_rows = 8});
  const Requests requests{wide(1), wide(1, 2), wide(1)};
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), requests);
  EXPECT_EQ(batch_.rows, 4);
  EXPECT_EQ(batch_.formed, 1000);
  EXPECT_EQ(requests[0]->arrival, 1000);
  EXPECT_EQ(batcher->admission().queued(), 0);
  EXPECT_EQ(batcher->admission().in_flight(), 3);
  finish(*batcher);
  EXPECT_EQ(batcher->admission().in_flight(), 0);
}

TEST_F(BatcherTest, TakesNoMoreRowsThanABatchHolds) {
  const auto batcher = this->batcher({.max_rows = 2});
  const Requests requests{wide(1), wide(1), wide(1)};
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), (Requests{requests[0], requests[1]}));
  finish(*batcher);
  EXPECT_EQ(next(*batcher), Requests{requests[2]});
}

TEST_F(BatcherTest, WhatDoesNotFitWaitsAndWhatFitsGoesOn) {
  const auto batcher = this->batcher({.max_rows = 4});
  const Requests requests{wide(1, 3), wide(1, 2), wide(1, 1), wide(1, 1)};
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), (Requests{requests[0], requests[2]}));
  EXPECT_EQ(batch_.rows, 4);
  finish(*batcher);
  EXPECT_EQ(next(*batcher), (Requests{requests[1], requests[3]}));
}

TEST_F(BatcherTest, ARequestOfMoreRowsThanABatchGoesAlone) {
  const auto batcher = this->batcher({.max_rows = 2});
  const Requests requests{wide(1, 5), wide(1)};
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), Requests{requests[0]});
  EXPECT_EQ(batch_.rows, 5);
  finish(*batcher);
  EXPECT_EQ(next(*batcher), Requests{requests[1]});
}

TEST_F(BatcherTest, DifferentShapesNeverShareABatch) {
  const auto batcher = this->batcher({.max_rows = 8});
  const Requests requests{wide(1), wide(2), wide(1), wide(3), wide(2)};
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), (Requests{requests[0], requests[2]}));
  finish(*batcher);
  EXPECT_EQ(next(*batcher), (Requests{requests[1], requests[4]}));
  finish(*batcher);
  EXPECT_EQ(next(*batcher), Requests{requests[3]});
}

// A key is a hash, and somebody will find two shapes with the same one.
TEST_F(BatcherTest, DifferentShapesWithTheSameKeyNeverShareABatch) {
  const auto batcher = this->batcher({.max_rows = 8});
  const Requests requests{wide(1), wide(2)};
  requests[1]->key = requests[0]->key;
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), Requests{requests[0]});
  finish(*batcher);
  EXPECT_EQ(next(*batcher), Requests{requests[1]});
}

TEST_F(BatcherTest, TakesOneAtATimeWhereRequestsMayNotBeCombined) {
  const auto batcher = this->batcher({.max_rows = 8, .max_delay = kHour, .combine = false});
  const Requests requests{wide(1), wide(1), request_for({filled({}, 0)})};
  submit_all(*batcher, requests);
  for (const RequestPtr& request : requests) {
    EXPECT_EQ(next(*batcher), Requests{request});
    finish(*batcher);
  }
}

TEST_F(BatcherTest, RefusesWhenFullAndTheRequestStaysItsCallers) {
  const auto batcher = this->batcher({.max_rows = 8}, /*capacity=*/2);
  const Requests requests{wide(1), wide(1), wide(1)};
  ASSERT_TRUE(batcher->submit(requests[0]).ok());
  ASSERT_TRUE(batcher->submit(requests[1]).ok());
  EXPECT_EQ(batcher->submit(requests[2]).code, Code::kQueueFull);
  EXPECT_EQ(requests[2].use_count(), 1);
  EXPECT_EQ(next(*batcher).size(), 2U);
  EXPECT_TRUE(batcher->submit(requests[2]).ok());
}

TEST_F(BatcherTest, ACancelledRequestMakesRoomAndIsDropped) {
  const auto batcher = this->batcher({.max_rows = 8}, /*capacity=*/2);
  const Requests requests{wide(1), wide(1), wide(1)};
  ASSERT_TRUE(batcher->submit(requests[0]).ok());
  ASSERT_TRUE(batcher->submit(requests[1]).ok());
  EXPECT_TRUE(batcher->cancel(*requests[0]));
  EXPECT_FALSE(batcher->cancel(*requests[0]));
  EXPECT_FALSE(batcher->expire(*requests[0]));
  EXPECT_TRUE(batcher->submit(requests[2]).ok());
  EXPECT_EQ(next(*batcher), (Requests{requests[1], requests[2]}));
  EXPECT_EQ(batch_.dropped, Requests{requests[0]});
  EXPECT_EQ(requests[0]->claim.outcome(), Outcome::kCancelled);
}

TEST_F(BatcherTest, CancelledRequestsCannotTakeMemoryWithoutEnd) {
  const auto batcher = this->batcher({.max_rows = 8}, /*capacity=*/2);
  Status status;
  int admitted = 0;
  for (; admitted < 100 && status.ok(); ++admitted) {
    const RequestPtr request = wide(1);
    status = batcher->submit(request);
    EXPECT_EQ(batcher->cancel(*request), true);
  }
  EXPECT_LT(admitted, 12);
  EXPECT_EQ(status.code, Code::kQueueFull);
  EXPECT_EQ(status.message, "the queue is full of cancelled requests, try again later");
  EXPECT_TRUE(next(*batcher).empty());
  EXPECT_EQ(batch_.dropped.size(), static_cast<std::size_t>(admitted - 1));
  finish(*batcher);
  EXPECT_EQ(batcher->admission().in_flight(), 0);
  EXPECT_EQ(batcher->admission().queued(), 0);
}

TEST_F(BatcherTest, AnExpiredRequestIsDroppedRatherThanRun) {
  const auto batcher = this->batcher({.max_rows = 8});
  const Requests requests{wide(1), wide(1), wide(1)};
  requests[0]->deadline = 1500;
  requests[2]->deadline = 1501;
  submit_all(*batcher, requests);
  clock_.set(1500);
  EXPECT_EQ(next(*batcher), (Requests{requests[2], requests[1]}));
  EXPECT_EQ(batch_.dropped, Requests{requests[0]});
  EXPECT_EQ(requests[0]->claim.outcome(), Outcome::kExpired);
  EXPECT_EQ(requests[1]->claim.outcome(), Outcome::kOpen);
}

TEST_F(BatcherTest, AWaitingRequestExpiresBehindOneThatIsTaken) {
  const auto batcher = this->batcher({.max_rows = 1});
  const Requests requests{wide(1), wide(1)};
  requests[0]->priority = kHighPriority;
  requests[1]->deadline = 1500;
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), Requests{requests[0]});
  clock_.set(2000);
  EXPECT_TRUE(next(*batcher).empty());
  EXPECT_EQ(batch_.dropped, Requests{requests[1]});
}

TEST_F(BatcherTest, ABatchFillsUpWhileItMayWait) {
  const auto batcher = this->batcher({.max_rows = 4, .max_delay = kHour});
  ASSERT_TRUE(batcher->submit(wide(1)).ok());
  const std::jthread instance([&] { EXPECT_EQ(next(*batcher).size(), 4U); });
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(batcher->submit(wide(1)).ok());
  }
}

TEST_F(BatcherTest, ABatchShipsWhenItsOldestRowHasWaitedEnough) {
  const auto batcher = this->batcher({.max_rows = 4, .max_delay = kHour});
  const Requests requests{wide(1), wide(1), wide(2)};
  ASSERT_TRUE(batcher->submit(requests[0]).ok());
  std::jthread instance([&] {
    EXPECT_EQ(next(*batcher), (Requests{requests[0], requests[1]}));
    EXPECT_EQ(batch_.formed, 1000 + kHour);
  });
  clock_.set(1000 + kHour / 2);
  ASSERT_TRUE(batcher->submit(requests[1]).ok());
  clock_.set(1000 + kHour);
  ASSERT_TRUE(batcher->submit(requests[2]).ok());  // the waiter looks at the clock again
  instance.join();
}

TEST_F(BatcherTest, ABatchShipsWhenTheNextRequestDoesNotFit) {
  const auto batcher = this->batcher({.max_rows = 4, .max_delay = kHour});
  const Requests requests{wide(1, 3), wide(1, 2)};
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), Requests{requests[0]});
}

TEST_F(BatcherTest, ADrainEndsTheWaitForCompany) {
  const auto batcher = this->batcher({.max_rows = 4, .max_delay = kHour});
  const RequestPtr request = wide(1);
  ASSERT_TRUE(batcher->submit(request).ok());
  std::jthread instance([&] {
    EXPECT_EQ(next(*batcher), Requests{request});
    finish(*batcher);
  });
  batcher->stop_accepting();
  EXPECT_EQ(batcher->submit(wide(1)).code, Code::kUnavailable);
  EXPECT_TRUE(batcher->wait_idle(kNever));
}

TEST_F(BatcherTest, AbortCancelsWhatWaits) {
  const auto batcher = this->batcher({.max_rows = 1});
  const Requests requests{wide(1), wide(1), wide(1)};
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), Requests{requests[0]});
  batcher->abort();
  EXPECT_TRUE(batcher->aborted());
  finish(*batcher);
  EXPECT_TRUE(next(*batcher).empty());
  EXPECT_EQ(batch_.dropped, (Requests{requests[1], requests[2]}));
  EXPECT_EQ(requests[1]->claim.outcome(), Outcome::kCancelled);
  finish(*batcher);
  EXPECT_TRUE(batcher->wait_idle(kNever));
}

TEST_F(BatcherTest, StopWakesIdleInstances) {
  const auto batcher = this->batcher({.max_rows = 1});
  std::vector<std::jthread> instances;
  for (int i = 0; i < 3; ++i) {
    instances.emplace_back([&] {
      Batch batch;
      EXPECT_FALSE(batcher->next_batch(batch));
    });
  }
  batcher->stop_accepting();
  EXPECT_TRUE(batcher->wait_idle(kNever));
  batcher->stop();
}

TEST_F(BatcherTest, WhatIsLeftIsTakenAfterStop) {
  const auto batcher = this->batcher({.max_rows = 1});
  const RequestPtr request = wide(1);
  ASSERT_TRUE(batcher->submit(request).ok());
  batcher->stop();
  EXPECT_EQ(next(*batcher), Requests{request});
  Batch batch;
  EXPECT_FALSE(batcher->next_batch(batch));
}

// The holder of the turn waits for company with both; the drain wakes it alone, and it leaves with
// the first and does not come back for the second.
TEST_F(BatcherTest, WhatOneInstanceLeavesBehindWakesAnother) {
  for (int round = 0; round < 50; ++round) {
    const auto batcher = this->batcher({.max_rows = 2, .max_delay = kHour});
    std::atomic<int> taken{0};
    std::vector<std::jthread> instances;
    for (int i = 0; i < 2; ++i) {
      instances.emplace_back([&] {
        Batch batch;
        taken.fetch_add(batcher->next_batch(batch) ? 1 : 0);
      });
    }
    EXPECT_TRUE(batcher->submit(wide(1)).ok());
    EXPECT_TRUE(batcher->submit(wide(2)).ok());
    for (int i = 0; i < round; ++i) {
      std::this_thread::yield();  // so that the other is asleep by then, at times
    }
    batcher->stop_accepting();
    const bool all = eventually([&] { return taken.load() == 2; });
    batcher->stop();
    ASSERT_TRUE(all);
  }
}

// ---- regrouping --------------------------------------------------------------------

// After a run of so long, an instance waits for a crowd to come back for an hour of real time, as
// the waiter sleeps by it: only an arrival ends that within a test.
constexpr Nanos kLongRun = kRunsPerRegrouping * kHour;
// After this one it looks at the clock every millisecond.
constexpr Nanos kMillisecond = 1'000'000;
constexpr Nanos kShortRun = kRunsPerRegrouping * kMillisecond;

// An instance that takes a batch on a thread of its own.
class Taker {
 public:
  Taker(Batcher& batcher, Batch& batch)
      : batcher_(batcher), thread_([this, &batch] {
          id_.store(gettid(), std::memory_order_relaxed);
          EXPECT_TRUE(batcher_.next_batch(batch));
        }) {}
  Taker(const Taker&) = delete;
  Taker& operator=(const Taker&) = delete;
  ~Taker() { batcher_.stop_accepting(); }  // so that a test that fails ends

  // With requests there and the turn free, it sleeps for nothing but company.
  [[nodiscard]] bool waits() const {
    return eventually([this] {
      const pid_t id = id_.load(std::memory_order_relaxed);
      return id != 0 && asleep(id);
    });
  }
  void join() { thread_.join(); }

 private:
  Batcher& batcher_;
  std::atomic<pid_t> id_{0};
  std::jthread thread_;  // last: joined before the rest goes
};

class RegroupingTest : public BatcherTest {
 protected:
  static Requests crowd_of(std::size_t count) {
    Requests requests(count);
    std::ranges::generate(requests, [] { return wide(1); });
    return requests;
  }

  // `count` requests come, run together for `run_time` and are answered: their callers are about
  // to come back, and so is the instance.
  void answer_crowd(Batcher& batcher, std::size_t count, Nanos run_time) {
    submit_all(batcher, crowd_of(count));
    ASSERT_EQ(next(batcher).size(), count);
    clock_.advance(run_time);
    finish(batcher);
  }
};

TEST_F(RegroupingTest, ACrowdIsSplitIntoItsShares) {
  const auto batcher = this->batcher({.max_rows = 32, .shares = 2});
  const Requests crowd = crowd_of(8);
  submit_all(*batcher, crowd);
  Batch other;
  EXPECT_EQ(next(*batcher), Requests(crowd.begin(), crowd.begin() + 4));
  ASSERT_TRUE(batcher->next_batch(other));
  EXPECT_EQ(other.requests, Requests(crowd.begin() + 4, crowd.end()));
}

TEST_F(RegroupingTest, SharesAreRoundedUpSoThatNobodyIsLeftOver) {
  const auto batcher = this->batcher({.max_rows = 32, .shares = 2});
  submit_all(*batcher, crowd_of(7));
  EXPECT_EQ(next(*batcher).size(), 4U);
  EXPECT_EQ(next(*batcher).size(), 3U);
}

TEST_F(RegroupingTest, AnExplicitDelayKnowsNoShares) {
  for (const Nanos delay : {Nanos{0}, kHour}) {
    const auto batcher = this->batcher({.max_rows = 8, .max_delay = delay, .shares = 2});
    submit_all(*batcher, crowd_of(8));
    EXPECT_EQ(next(*batcher).size(), 8U);
  }
}

TEST_F(RegroupingTest, ACrowdThatComesBackIsWaitedFor) {
  const auto batcher = this->batcher({.max_rows = 32});
  answer_crowd(*batcher, 4, kLongRun);
  const Requests crowd = crowd_of(4);
  ASSERT_TRUE(batcher->submit(crowd[0]).ok());
  Taker taker(*batcher, batch_);
  ASSERT_TRUE(taker.waits());
  for (std::size_t i = 1; i < crowd.size(); ++i) {
    ASSERT_TRUE(batcher->submit(crowd[i]).ok());
  }
  taker.join();
  EXPECT_EQ(batch_.requests, crowd);
  EXPECT_EQ(batch_.formed, 1000 + kLongRun);  // at once: the clock has not moved since
}

TEST_F(RegroupingTest, ABatchShipsWhenItsShareOfTheCrowdIsThere) {
  const auto batcher = this->batcher({.max_rows = 32, .shares = 2});
  submit_all(*batcher, crowd_of(8));
  EXPECT_EQ(next(*batcher).size(), 4U);
  Batch other;
  ASSERT_TRUE(batcher->next_batch(other));
  clock_.advance(kLongRun);
  finish(*batcher);  // the other half still runs
  const Requests half = crowd_of(4);
  submit_all(*batcher, {half[0], half[1]});
  Taker taker(*batcher, batch_);
  ASSERT_TRUE(taker.waits());
  submit_all(*batcher, {half[2], half[3]});
  taker.join();
  EXPECT_EQ(batch_.requests, half);
}

TEST_F(RegroupingTest, ABatchShipsAtTheEndOfItsPatience) {
  const auto batcher = this->batcher({.max_rows = 32});
  answer_crowd(*batcher, 4, kShortRun);
  clock_.advance(5);  // an instance that is late has not waited yet
  const Requests few = crowd_of(3);
  submit_all(*batcher, few);
  Taker taker(*batcher, batch_);
  ASSERT_TRUE(taker.waits());
  clock_.advance(kMillisecond);
  taker.join();
  EXPECT_EQ(batch_.requests, few);
  EXPECT_EQ(batch_.formed, 1000 + kShortRun + 5 + kMillisecond);
}

TEST_F(RegroupingTest, WhoIsCancelledMeanwhileIsNoCompany) {
  const auto batcher = this->batcher({.max_rows = 32});
  answer_crowd(*batcher, 4, kLongRun);
  const Requests crowd = crowd_of(5);
  submit_all(*batcher, {crowd[0], crowd[1]});
  Taker taker(*batcher, batch_);
  ASSERT_TRUE(taker.waits());
  EXPECT_TRUE(batcher->cancel(*crowd[0]));
  submit_all(*batcher, {crowd[2], crowd[3], crowd[4]});
  taker.join();
  EXPECT_EQ(batch_.requests, Requests(crowd.begin() + 1, crowd.end()));
  EXPECT_EQ(batch_.dropped, Requests{crowd[0]});
}

TEST_F(RegroupingTest, NobodyWaitsWhileRequestsOfAnotherShapeDo) {
  const auto batcher = this->batcher({.max_rows = 32});
  answer_crowd(*batcher, 4, kLongRun);
  const Requests requests{wide(1), wide(2), wide(1)};
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), (Requests{requests[0], requests[2]}));
  EXPECT_EQ(next(*batcher), Requests{requests[1]});
}

TEST_F(RegroupingTest, ArrivalsOfAnotherShapeEndTheWaitToo) {
  const auto batcher = this->batcher({.max_rows = 32});
  answer_crowd(*batcher, 3, kLongRun);
  const Requests requests{wide(1), wide(2), wide(2)};
  ASSERT_TRUE(batcher->submit(requests[0]).ok());
  Taker taker(*batcher, batch_);
  ASSERT_TRUE(taker.waits());
  submit_all(*batcher, {requests[1], requests[2]});
  taker.join();
  EXPECT_EQ(batch_.requests, Requests{requests[0]});
  EXPECT_EQ(next(*batcher), (Requests{requests[1], requests[2]}));
}

TEST_F(RegroupingTest, ALoneCallerIsNeverWaitedWith) {
  const auto batcher = this->batcher({.max_rows = 32});
  for (int i = 0; i < 3; ++i) {
    answer_crowd(*batcher, 1, kLongRun);
  }
}

TEST_F(RegroupingTest, ALoneCallerAfterACrowdIsSoonAnsweredAtOnce) {
  const BatchPolicy policy{.max_rows = 32};
  const auto batcher = this->batcher(policy);
  answer_crowd(*batcher, 20, 0);
  for (std::int64_t crowd = 20; crowd > 1; crowd = next_crowd(policy, crowd, 1)) {
    answer_crowd(*batcher, 1, 0);  // runs of no time, so that nobody waits yet
  }
  answer_crowd(*batcher, 1, kLongRun);
  ASSERT_TRUE(batcher->submit(wide(1)).ok());
  EXPECT_EQ(next(*batcher).size(), 1U);
  EXPECT_EQ(batch_.formed, batch_.requests[0]->arrival);
}

TEST_F(RegroupingTest, ASmallBatchDoesNotMakeACrowdForgotten) {
  const auto batcher = this->batcher({.max_rows = 32});
  answer_crowd(*batcher, 5, 0);
  answer_crowd(*batcher, 1, kLongRun);  // after a run of no time, so that nobody waits
  const Requests crowd = crowd_of(5);   // five were in flight when the last batch but one ended
  ASSERT_TRUE(batcher->submit(crowd[0]).ok());
  Taker taker(*batcher, batch_);
  ASSERT_TRUE(taker.waits());
  submit_all(*batcher, {crowd[1], crowd[2], crowd[3], crowd[4]});
  taker.join();
  EXPECT_EQ(batch_.requests, crowd);
}

TEST_F(RegroupingTest, ADelayOfNothingWaitsForNoCrowd) {
  const auto batcher = this->batcher({.max_rows = 32, .max_delay = 0});
  answer_crowd(*batcher, 4, kLongRun);
  ASSERT_TRUE(batcher->submit(wide(1)).ok());
  EXPECT_EQ(next(*batcher).size(), 1U);
}

TEST_F(RegroupingTest, NoBatchIsLargerThanWhatPays) {
  const auto batcher = this->batcher({.max_rows = 8});
  batcher->set_paying_rows(2);
  submit_all(*batcher, crowd_of(5));
  EXPECT_EQ(next(*batcher).size(), 2U);
  clock_.advance(kLongRun);
  finish(*batcher);
  EXPECT_EQ(next(*batcher).size(), 2U);  // full, whatever the crowd
  finish(*batcher);
  EXPECT_EQ(next(*batcher).size(), 1U);
}

TEST_F(RegroupingTest, AnExplicitDelayFillsBatchesBeyondWhatPays) {
  for (const Nanos delay : {Nanos{0}, kHour}) {
    const auto batcher = this->batcher({.max_rows = 8, .max_delay = delay});
    batcher->set_paying_rows(2);
    submit_all(*batcher, crowd_of(8));
    EXPECT_EQ(next(*batcher).size(), 8U);
  }
}

TEST_F(RegroupingTest, ARequestOfMoreRowsThanPayGoesAlone) {
  const auto batcher = this->batcher({.max_rows = 8});
  batcher->set_paying_rows(2);
  const Requests requests{wide(1, 5), wide(1)};
  submit_all(*batcher, requests);
  EXPECT_EQ(next(*batcher), Requests{requests[0]});
  EXPECT_EQ(next(*batcher), Requests{requests[1]});
}

TEST_F(RegroupingTest, ADrainEndsTheWaitForTheCrowd) {
  const auto batcher = this->batcher({.max_rows = 32});
  answer_crowd(*batcher, 4, kLongRun);
  const RequestPtr request = wide(1);
  ASSERT_TRUE(batcher->submit(request).ok());
  Taker taker(*batcher, batch_);
  ASSERT_TRUE(taker.waits());
  batcher->stop_accepting();
  taker.join();
  EXPECT_EQ(batch_.requests, Requests{request});
  finish(*batcher);
  EXPECT_TRUE(batcher->wait_idle(kNever));
}

TEST_F(RegroupingTest, AbortEndsTheWaitAndCancelsWhoWaited) {
  const auto batcher = this->batcher({.max_rows = 32});
  answer_crowd(*batcher, 4, kLongRun);
  const RequestPtr request = wide(1);
  ASSERT_TRUE(batcher->submit(request).ok());
  Taker taker(*batcher, batch_);
  ASSERT_TRUE(taker.waits());
  batcher->abort();
  taker.join();
  EXPECT_TRUE(batch_.requests.empty());
  EXPECT_EQ(batch_.dropped, Requests{request});
}

// ---- many at once ------------------------------------------------------------------

// More requests of other shapes than the window holds: none starves, none is lost.
TEST_F(BatcherTest, AWindowFullOfOtherShapesShipsWithoutDelay) {
  const auto batcher = this->batcher({.max_rows = 2, .max_delay = kHour}, /*capacity=*/400);
  std::size_t count = 0;
  for (std::int64_t width = 1; width <= 200; ++width, ++count) {
    ASSERT_TRUE(batcher->submit(wide(width)).ok());
  }
  std::int64_t width = 1;
  while (count > 64) {
    ASSERT_EQ(next(*batcher).size(), 1U);
    EXPECT_EQ(batch_.requests.front()->inputs[0].tensor.size(1), width++);
    finish(*batcher);
    --count;
  }
  batcher->stop_accepting();  // fewer than a window: they would wait for company
  while (count > 0) {
    count -= next(*batcher).size();
    finish(*batcher);
  }
  EXPECT_TRUE(batcher->wait_idle(kNever));
}

// Random submits, cancels, deadlines, priorities and batches against a list and the words of
// batcher.h, as long as nothing is known of how long runs take.
class ListModel {
 public:
  ListModel(std::int64_t max_rows, std::size_t capacity)
      : max_rows_(max_rows), capacity_(capacity) {}

  bool has_room(Priority priority) const {
    return static_cast<std::size_t>(std::ranges::count_if(list_, [&](const Item& item) {
             return !item.cancelled && item.request->priority <= priority;
           })) < capacity_;
  }
  std::size_t size() const { return list_.size(); }
  void submit(const RequestPtr& request) {
    // Behind all that are no less urgent.
    const auto place = std::ranges::upper_bound(
        list_, urgency_of(request), {}, [](const Item& item) { return urgency_of(item.request); });
    list_.insert(place, {.request = request});
  }
  void cancel(std::size_t i) { list_[i].cancelled = true; }
  const RequestPtr& at(std::size_t i) const { return list_[i].request; }

  struct Next {
    Requests run;
    Requests dropped;
  };
  // Whoever is met on the way to a full batch is taken, dropped or passed over.
  Next next(Nanos now) {
    Next next;
    std::int64_t rows = 0;
    std::erase_if(list_, [&](const Item& item) {
      if (rows >= max_rows_) {
        return false;
      }
      if (item.cancelled || now >= item.request->deadline) {
        next.dropped.push_back(item.request);
        return true;
      }
      const bool joins = next.run.empty() || (item.request->inputs[0].tensor.size(1) ==
                                                  next.run[0]->inputs[0].tensor.size(1) &&
                                              rows + item.request->rows <= max_rows_);
      if (joins) {
        rows += item.request->rows;
        next.run.push_back(item.request);
      }
      return joins;
    });
    return next;
  }

 private:
  static Nanos urgency_of(const RequestPtr& request) {
    return urgency(request->priority, request->arrival, request->deadline);
  }

  struct Item {
    RequestPtr request;
    bool cancelled = false;
  };
  const std::int64_t max_rows_;
  const std::size_t capacity_;
  std::vector<Item> list_;
};

TEST_F(BatcherTest, AgreesWithAList) {
  auto random = seeded_random();
  for (int round = 0; round < 20; ++round) {
    const auto max_rows = static_cast<std::int64_t>(1 + random() % 6);
    const auto batcher = this->batcher({.max_rows = max_rows}, /*capacity=*/16);
    ListModel model(max_rows, 16);
    for (int step = 0; step < 500; ++step) {
      clock_.advance(static_cast<Nanos>(random() % 10));
      const auto dice = random() % 10;
      if (dice < 6 && model.size() < 60) {  // the ring holds 64
        const auto rows = static_cast<std::int64_t>(1 + random() % max_rows);
        const RequestPtr request = wide(static_cast<std::int64_t>(1 + random() % 3), rows);
        if (random() % 4 == 0) {
          request->deadline = clock_.now() + 1 + static_cast<Nanos>(random() % 100);
        }
        request->priority = static_cast<Priority>(1 + random() % 3);
        const bool admitted = batcher->submit(request).ok();
        ASSERT_EQ(admitted, model.has_room(request->priority));
        if (admitted) {
          model.submit(request);
        }
      } else if (dice < 8 && model.size() > 0) {
        const std::size_t i = random() % model.size();
        if (batcher->cancel(*model.at(i))) {
          model.cancel(i);
        }
      } else if (model.size() > 0) {
        batch_ = {};  // so that nothing is learnt from it
        const ListModel::Next expected = model.next(clock_.now());
        ASSERT_EQ(next(*batcher), expected.run);
        std::ranges::sort(batch_.dropped);
        Requests dropped = expected.dropped;
        std::ranges::sort(dropped);
        ASSERT_EQ(batch_.dropped, dropped);
        finish(*batcher);
      }
    }
    ASSERT_EQ(batcher->admission().in_flight(), static_cast<std::int64_t>(model.size()));
  }
}

class BatcherRaceTest : public ::testing::TestWithParam<std::optional<Nanos>> {};

TEST_P(BatcherRaceTest, EveryRequestComesBackOnceFromSeveralInstances) {
  constexpr std::size_t kSubmitters = 2;
  constexpr std::size_t kInstances = 2;
  constexpr int kEach = 2000;
  Batcher batcher({.max_rows = 4, .max_delay = GetParam(), .shares = kInstances}, 16,
                  /*idle_spin_ns=*/0, steady_clock());
  const auto queue = std::make_shared<RequestQueue>();
  std::atomic<int> run{0};
  {
    std::vector<std::jthread> instances;
    for (std::size_t i = 0; i < kInstances; ++i) {
      instances.emplace_back([&] {
        for (Batch batch; batcher.next_batch(batch);) {
          run.fetch_add(static_cast<int>(batch.requests.size()));
          batcher.finish(batch.requests);
          batcher.finish(batch.dropped);
        }
      });
    }
    run_together(kSubmitters, [&](std::size_t index) {
      for (int i = 0; i < kEach; ++i) {
        const RequestPtr request = request_for({filled({1, i % 3}, 0)}, queue);
        while (!batcher.submit(request).ok()) {
          std::this_thread::yield();
        }
        if (i % 5 == static_cast<int>(index)) {
          static_cast<void>(batcher.cancel(*request));
        }
      }
    });
    batcher.stop_accepting();
    EXPECT_TRUE(batcher.wait_idle(kNever));
    batcher.stop();
  }
  EXPECT_EQ(queue->drain([](const RequestPtr&) {}), kSubmitters * kEach);
  EXPECT_LE(run.load(), static_cast<int>(kSubmitters * kEach));
  EXPECT_EQ(batcher.admission().queued(), 0);
}

INSTANTIATE_TEST_SUITE_P(RegroupingNotWaitingAndWaiting, BatcherRaceTest,
                         ::testing::Values(std::nullopt, 0, 20'000));

}  // namespace
}  // namespace pyserve
