#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#include "batching/admission.h"
#include "batching/request.h"
#include "fakes.h"
#include "threads.h"

namespace pyserve {
namespace {

TEST(Admission, CountsWhatWaitsAndWhatIsInFlight) {
  Admission admission(2);
  Request request;
  ASSERT_TRUE(admission.admit(request, 0).ok());
  EXPECT_EQ(admission.queued(), 1);
  EXPECT_EQ(admission.in_flight(), 1);
  admission.dequeue(request);
  EXPECT_EQ(admission.queued(), 0);
  EXPECT_EQ(admission.in_flight(), 1);
  admission.leave(1);
  EXPECT_EQ(admission.in_flight(), 0);
}

TEST(Admission, RefusesWhenFullAndLeavesNoTrace) {
  Admission admission(1);
  Request first;
  Request second;
  ASSERT_TRUE(admission.admit(first, 0).ok());
  const Status status = admission.admit(second, 0);
  EXPECT_EQ(status.code, Code::kQueueFull);
  EXPECT_EQ(status.message, "the queue is full: 1 requests wait, try again later");
  EXPECT_EQ(admission.queued(), 1);
  EXPECT_EQ(admission.in_flight(), 1);
  admission.dequeue(first);
  EXPECT_TRUE(admission.admit(second, 0).ok());
}

TEST(Admission, ARequestIsUncountedOnce) {
  Admission admission(4);
  Request one;
  Request other;
  ASSERT_TRUE(admission.admit(one, 0).ok());
  ASSERT_TRUE(admission.admit(other, 0).ok());
  run_together(4, [&](std::size_t) { admission.dequeue(one); });
  EXPECT_EQ(admission.queued(), 1);
}

TEST(Admission, RefusesAPassedDeadline) {
  Admission admission(4);
  Request request;
  request.deadline = 100;
  EXPECT_EQ(admission.admit(request, 100).code, Code::kDeadlineExceeded);
  EXPECT_EQ(admission.in_flight(), 0);
  EXPECT_TRUE(admission.admit(request, 99).ok());
}

TEST(Admission, RefusesWhileDraining) {
  Admission admission(4);
  Request request;
  admission.stop_accepting();
  EXPECT_FALSE(admission.accepting());
  EXPECT_EQ(admission.admit(request, 0).code, Code::kUnavailable);
  EXPECT_EQ(admission.in_flight(), 0);
}

TEST(Admission, ABatchEntersAtOnceOrNotAtAll) {
  Admission admission(4);
  EXPECT_TRUE(admission.enter(100));  // it does not wait, so it needs no room
  EXPECT_EQ(admission.in_flight(), 100);
  EXPECT_EQ(admission.queued(), 0);
  admission.stop_accepting();
  EXPECT_FALSE(admission.enter(1));
  EXPECT_EQ(admission.in_flight(), 100);
  admission.leave(100);
  EXPECT_TRUE(admission.wait_idle(kNever, steady_clock()));
}

TEST(Admission, WaitsNoLongerThanAsked) {
  const FakeClock clock(100);
  Admission admission(4);
  Request request;
  ASSERT_TRUE(admission.admit(request, 100).ok());
  admission.stop_accepting();
  EXPECT_FALSE(admission.wait_idle(100, clock));
  admission.leave(1);
  EXPECT_TRUE(admission.wait_idle(100, clock));
}

TEST(Admission, TheLastOneToLeaveWakesTheDrain) {
  Admission admission(1000);
  std::deque<Request> requests(100);
  for (Request& request : requests) {
    ASSERT_TRUE(admission.admit(request, 0).ok());
  }
  admission.stop_accepting();
  std::jthread leaving([&] {
    for (std::size_t i = 0; i < requests.size(); i += 2) {
      admission.leave(2);
    }
  });
  EXPECT_TRUE(admission.wait_idle(kNever, steady_clock()));
}

// Whoever was admitted is seen by the drain; whoever comes later is refused.
TEST(Admission, NobodySlipsInBehindADrainThatSawNobody) {
  constexpr int kRounds = 100;
  for (int round = 0; round < kRounds; ++round) {
    Admission admission(1000);
    std::atomic<int> inside{0};
    std::atomic<bool> drained{false};
    std::atomic<int> late{0};
    run_together(3, [&](std::size_t index) {
      if (index == 0) {
        admission.stop_accepting();
        EXPECT_TRUE(admission.wait_idle(kNever, steady_clock()));
        EXPECT_EQ(inside.load(), 0);
        drained.store(true);
        return;
      }
      for (Request request; admission.admit(request, 0).ok();) {
        inside.fetch_add(1);
        late.fetch_add(drained.load() ? 1 : 0);
        admission.dequeue(request);
        inside.fetch_sub(1);
        admission.leave(1);
      }
    });
    ASSERT_EQ(late.load(), 0);
    ASSERT_EQ(admission.in_flight(), 0);
    ASSERT_EQ(admission.queued(), 0);
  }
}

}  // namespace
}  // namespace pyserve
