#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "batching/request.h"
#include "fakes.h"
#include "threads.h"
#include "values.h"

namespace pyserve {
namespace {

RequestPtr request_to(const std::shared_ptr<RequestQueue>& queue) {
  auto request = std::make_shared<Request>();
  request->queue = queue;
  return request;
}

std::vector<Request*> drained(RequestQueue& queue) {
  std::vector<Request*> requests;
  queue.drain([&](const RequestPtr& request) { requests.push_back(request.get()); });
  return requests;
}

// How often the queue's reader was woken since it looked last.
std::uint64_t wake_ups(const RequestQueue& queue) {
  std::uint64_t count = 0;
  return read(queue.event_fd(), &count, sizeof count) == sizeof count ? count : 0;
}

TEST(Deliver, GivesEveryQueueItsOwnInOrder) {
  RequestQueue orphans;
  const auto one = std::make_shared<RequestQueue>();
  const auto other = std::make_shared<RequestQueue>();
  std::vector<RequestPtr> requests{request_to(one), request_to(one), request_to(other),
                                   request_to(one)};
  std::vector<Request*> raw;
  for (const RequestPtr& request : requests) {
    raw.push_back(request.get());
  }
  Request::deliver(requests, orphans);
  EXPECT_EQ(requests, std::vector<RequestPtr>(4));
  EXPECT_EQ(drained(*one), (std::vector<Request*>{raw[0], raw[1], raw[3]}));
  EXPECT_EQ(drained(*other), std::vector<Request*>{raw[2]});
  EXPECT_TRUE(drained(orphans).empty());
}

TEST(Deliver, WakesTheReaderOnceForABurst) {
  RequestQueue orphans;
  const auto queue = std::make_shared<RequestQueue>();
  std::vector<RequestPtr> requests;
  for (int i = 0; i < 100; ++i) {
    requests.push_back(request_to(queue));
  }
  Request::deliver(requests, orphans);
  EXPECT_EQ(wake_ups(*queue), 1U);
  EXPECT_EQ(drained(*queue).size(), 100U);
}

TEST(Deliver, AQueueAndItsRequestsLetGoOfEachOther) {
  RequestQueue orphans;
  std::vector<RequestPtr> requests{request_to(std::make_shared<RequestQueue>())};
  Request* const raw = requests.front().get();
  Request::deliver(requests, orphans);
  // The queue holds the request and the request the queue: the reader takes both apart.
  EXPECT_EQ(drained(*std::shared_ptr<RequestQueue>(raw->queue)).size(), 1U);
}

TEST(Deliver, WakesACallerThatWaits) {
  RequestQueue orphans;
  const auto request = std::make_shared<Request>();
  const std::jthread delivering([&] {
    request->outputs = {filled({1}, 42)};
    std::vector<RequestPtr> requests{request};
    Request::deliver(requests, orphans);
  });
  ASSERT_TRUE(delivered(*request));
  EXPECT_EQ(floats_of(request->outputs[0]), std::vector<float>{42});
}

TEST(Deliver, ACallerWaitsNoLongerThanAsked) {
  const FakeClock clock(100);
  Request request;
  EXPECT_FALSE(request.wait(100, /*spin_ns=*/0, clock));
  EXPECT_FALSE(request.wait(99, /*spin_ns=*/1000, clock));
}

TEST(Deliver, WhatItsCallerLeftGoesToTheOrphans) {
  RequestQueue orphans;
  std::vector<RequestPtr> requests{std::make_shared<Request>()};
  Request* const raw = requests.front().get();
  EXPECT_TRUE(raw->abandon());
  Request::deliver(requests, orphans);
  EXPECT_EQ(drained(orphans), std::vector<Request*>{raw});
}

TEST(Deliver, ACallerThatLeavesTooLateStillHasItsRequest) {
  RequestQueue orphans;
  const auto request = std::make_shared<Request>();
  std::vector<RequestPtr> requests{request};
  Request::deliver(requests, orphans);
  EXPECT_FALSE(request->abandon());
  EXPECT_TRUE(drained(orphans).empty());
}

TEST(Deliver, ALeavingCallerOrTheOrphansGetIt) {
  RequestQueue orphans;
  for (int round = 0; round < 500; ++round) {
    const auto request = std::make_shared<Request>();
    bool orphaned = false;
    run_together(2, [&](std::size_t index) {
      if (index == 0) {
        orphaned = request->abandon();
      } else {
        std::vector<RequestPtr> requests{request};
        Request::deliver(requests, orphans);
      }
    });
    ASSERT_EQ(drained(orphans).size(), orphaned ? 1U : 0U);
  }
}

// The attachment is what must not die on an instance's thread.
class Grave final : public Attachment {
 public:
  explicit Grave(std::atomic<int>& dead) : dead_(dead) {}
  ~Grave() override { dead_.fetch_add(1); }

 private:
  std::atomic<int>& dead_;
};

TEST(Deliver, WhatTheSubmitterAttachedDiesWithTheReader) {
  std::atomic<int> dead{0};
  RequestQueue orphans;
  const auto queue = std::make_shared<RequestQueue>();
  std::vector<RequestPtr> requests{request_to(queue), std::make_shared<Request>()};
  for (const RequestPtr& request : requests) {
    request->attachment = std::make_unique<Grave>(dead);
  }
  ASSERT_TRUE(requests[1]->abandon());
  Request::deliver(requests, orphans);
  requests.clear();
  EXPECT_EQ(dead.load(), 0);
  EXPECT_EQ(drained(*queue).size(), 1U);
  EXPECT_EQ(dead.load(), 1);
  EXPECT_EQ(drained(orphans).size(), 1U);
  EXPECT_EQ(dead.load(), 2);
}

}  // namespace
}  // namespace pyserve
