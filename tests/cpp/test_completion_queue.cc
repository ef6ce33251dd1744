#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/completion_queue.h"
#include "seed.h"
#include "threads.h"

namespace pyserve {
namespace {

struct Parcel {
  std::size_t producer = 0;
  std::size_t number = 0;
  CompletionNode<Parcel> completion;
};

using Queue = CompletionQueue<Parcel>;

std::shared_ptr<Parcel> parcel(std::size_t number, std::size_t producer = 0) {
  auto made = std::make_shared<Parcel>();
  made->producer = producer;
  made->number = number;
  return made;
}

bool readable(const Queue& queue) {
  pollfd fd{.fd = queue.event_fd(), .events = POLLIN, .revents = 0};
  return poll(&fd, 1, 0) == 1;
}

// How often the eventfd was written since it was last reset; nothing if it is not readable.
std::optional<eventfd_t> take_signals(const Queue& queue) {
  eventfd_t value = 0;
  if (eventfd_read(queue.event_fd(), &value) != 0) {
    return std::nullopt;
  }
  return value;
}

std::vector<std::size_t> drain_numbers(Queue& queue) {
  std::vector<std::size_t> numbers;
  const std::size_t count =
      queue.drain([&](const std::shared_ptr<Parcel>& one) { numbers.push_back(one->number); });
  EXPECT_EQ(count, numbers.size());
  return numbers;
}

using Numbers = std::vector<std::size_t>;

TEST(CompletionQueue, ItsEventFdDoesNotBlockAndIsClosedOnExec) {
  const Queue queue;
  EXPECT_TRUE(fcntl(queue.event_fd(), F_GETFL) & O_NONBLOCK);
  EXPECT_TRUE(fcntl(queue.event_fd(), F_GETFD) & FD_CLOEXEC);
}

TEST(CompletionQueue, ClosesItsEventFdWhenItDies) {
  int fd = -1;
  {
    const Queue queue;
    fd = queue.event_fd();
  }
  EXPECT_EQ(fcntl(fd, F_GETFD), -1);
}

TEST(CompletionQueue, DrainsNothingWhenNothingWasPushed) {
  Queue queue;
  EXPECT_FALSE(readable(queue));
  EXPECT_EQ(drain_numbers(queue), Numbers{});
}

TEST(CompletionQueue, DrainsOldestFirst) {
  Queue queue;
  for (const std::size_t number : {1U, 2U, 3U}) {
    queue.push(parcel(number));
  }
  EXPECT_EQ(drain_numbers(queue), (Numbers{1, 2, 3}));
  EXPECT_EQ(drain_numbers(queue), Numbers{});
}

TEST(CompletionQueue, SignalsOncePerBurst) {
  Queue queue;
  for (int burst = 0; burst < 3; ++burst) {
    for (const std::size_t number : {1U, 2U, 3U}) {
      queue.push(parcel(number));
    }
    EXPECT_EQ(take_signals(queue), 1U);
    EXPECT_EQ(drain_numbers(queue).size(), 3U);
  }
}

TEST(CompletionQueue, IsNotReadableAfterADrain) {
  Queue queue;
  queue.push(parcel(1));
  EXPECT_TRUE(readable(queue));
  drain_numbers(queue);
  EXPECT_FALSE(readable(queue));
}

TEST(CompletionQueue, PushesABurstInOrderWithOneSignal) {
  Queue queue;
  queue.push(parcel(1));
  std::vector<std::shared_ptr<Parcel>> burst{parcel(2), parcel(3), parcel(4)};
  queue.push_all(burst);
  EXPECT_EQ(burst, (std::vector<std::shared_ptr<Parcel>>(3)));
  queue.push_all({});
  queue.push(parcel(5));
  EXPECT_EQ(take_signals(queue), 1U);
  EXPECT_EQ(drain_numbers(queue), (Numbers{1, 2, 3, 4, 5}));
  queue.push_all({});
  EXPECT_FALSE(readable(queue));
}

TEST(CompletionQueue, AnItemPushedDuringADrainWaitsForTheNextOne) {
  Queue queue;
  queue.push(parcel(1));
  Numbers numbers;
  queue.drain([&](const std::shared_ptr<Parcel>& one) {
    numbers.push_back(one->number);
    queue.push(parcel(2));
  });
  EXPECT_EQ(numbers, Numbers{1});
  EXPECT_TRUE(readable(queue));
  EXPECT_EQ(drain_numbers(queue), Numbers{2});
}

TEST(CompletionQueue, AnItemMayBePushedAgainOnceDrained) {
  Queue queue;
  const auto again = parcel(1);
  for (int round = 0; round < 3; ++round) {
    queue.push(again);
    EXPECT_EQ(again.use_count(), 2);
    EXPECT_EQ(drain_numbers(queue), Numbers{1});
    EXPECT_EQ(again.use_count(), 1);
  }
}

TEST(CompletionQueue, LetsGoOfWhatNobodyDrainedWhenItDies) {
  const auto kept = parcel(1);
  {
    Queue queue;
    queue.push(kept);
    queue.push(parcel(2));
  }
  EXPECT_EQ(kept.use_count(), 1);
}

// Waits on an event queue as an event loop does.
class Poller {
 public:
  explicit Poller(const Queue& queue) : fd_(epoll_create1(EPOLL_CLOEXEC)) {
    epoll_event event{};
    event.events = EPOLLIN;
    EXPECT_EQ(epoll_ctl(fd_, EPOLL_CTL_ADD, queue.event_fd(), &event), 0);
  }
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;
  ~Poller() { close(fd_); }

  // False if nothing came for long: a wake-up was lost.
  [[nodiscard]] bool wait() const {
    epoll_event event{};
    return epoll_wait(fd_, &event, 1, static_cast<int>(test_patience().count())) == 1;
  }

 private:
  const int fd_;
};

TEST(CompletionQueue, LosesNothingAndNoWakeUpUnderManyProducers) {
  constexpr std::size_t kProducers = 4;
  constexpr std::size_t kFromEach = 10'000;
  Queue queue;
  const Poller poller(queue);
  std::vector<std::size_t> next(kProducers);  // the model: each producer's next number
  std::size_t drained = 0;
  run_together(kProducers + 1, [&](std::size_t self) {
    if (self == kProducers) {
      while (drained < kProducers * kFromEach) {
        ASSERT_TRUE(poller.wait()) << "after " << drained;
        drained += queue.drain([&](const std::shared_ptr<Parcel>& one) {
          EXPECT_EQ(one->number, next[one->producer]);
          next[one->producer] = one->number + 1;
        });
      }
      return;
    }
    auto random = seeded_random(self);
    std::vector<std::shared_ptr<Parcel>> burst;
    for (std::size_t number = 0; number < kFromEach; ++number) {
      burst.push_back(parcel(number, self));
      if (burst.size() > random() % 8 || number + 1 == kFromEach) {
        if (burst.size() == 1) {
          queue.push(std::move(burst.front()));
        } else {
          queue.push_all(burst);
        }
        burst.clear();
      }
    }
  });
  EXPECT_EQ(next, std::vector<std::size_t>(kProducers, kFromEach));
  EXPECT_EQ(drained, kProducers * kFromEach);
  EXPECT_EQ(queue.drain([](const std::shared_ptr<Parcel>&) {}), 0U);
}

TEST(CompletionQueue, OnePushAtATimeIsAlwaysAnnounced) {
  // The race of a push into an empty list with a drain that has just reset the eventfd.
  constexpr std::size_t kRounds = 10'000;
  Queue queue;
  const Poller poller(queue);
  std::atomic<std::size_t> seen{0};
  run_together(2, [&](std::size_t self) {
    if (self == 0) {
      for (std::size_t number = 0; number < kRounds; ++number) {
        queue.push(parcel(number));
        // At most two under way, so that most pushes find the list empty.
        ASSERT_TRUE(eventually([&] { return seen.load(std::memory_order_acquire) + 1 >= number; }));
      }
      return;
    }
    std::size_t count = 0;
    while (count < kRounds) {
      ASSERT_TRUE(poller.wait()) << "after " << count;
      count += queue.drain([](const std::shared_ptr<Parcel>&) {});
      seen.store(count, std::memory_order_release);
    }
  });
}

}  // namespace
}  // namespace pyserve
