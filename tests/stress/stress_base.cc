// stress_base - the lock-free parts together, as the server uses them, for as long as asked.
//
//   stress_base SECONDS [SEED]
//
// Clients submit requests to a ring; instances take a turn at it and complete what they
// find open; clients, a canceller and the deadlines race them for the claim; whoever
// wins pushes the request to the completion queue; a reader on epoll settles it and
// wakes the client that waits.  Every request must come out exactly once, with the
// outcome of the one winner, and with a result that belongs to it.
//
// Exits 0 if all agreed, 1 if not (the first disagreements are printed), 2 on bad usage.
// The plain (not atomic) members of Request are the point: under ThreadSanitizer each is
// a question to the memory orders of csrc/base.

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/claim.h"
#include "base/clock.h"
#include "base/completion_queue.h"
#include "base/cpu.h"
#include "base/ring.h"
#include "base/waiter.h"
#include "stress_request.h"
#include "tally.h"

namespace pyserve {
namespace {

constexpr std::size_t kClients = 4;
constexpr std::size_t kInstances = 2;
constexpr std::size_t kRingCapacity = 64;  // small, so that it is often full
constexpr std::size_t kMaxBatch = 8;
constexpr std::size_t kMaxOpen = 48;       // a client's requests under way
constexpr std::size_t kNobody = kClients;  // client of the request that ends the reader
constexpr Nanos kPatience = 60'000'000'000;

class Stress {
 public:
  Stress(Nanos duration, std::uint64_t seed) : seed_(seed), end_(steady_clock().now() + duration) {}

  bool run();

 private:
  using Random = std::mt19937_64;

  [[nodiscard]] Random random(std::uint64_t stream) const {
    return Random(seed_ + stream * 0x9E3779B97F4A7C15U);
  }

  void client(std::size_t self, Tally& tally);
  void canceller(Tally& tally);
  void instance(std::size_t self, Tally& tally);
  void reader(Tally& tally);

  RequestPtr make_request(std::size_t client, Random& random);
  bool submit(const RequestPtr& request, Tally& tally);
  bool wait_for(const RequestPtr& request, Random& random, Tally& tally);
  void form_batch(std::vector<RequestPtr>& batch, Random& random, Tally& tally);
  void complete(std::vector<RequestPtr>& batch, Random& random, Tally& tally);
  void deliver(RequestPtr request, Outcome outcome, Tally& tally);
  void settle(const RequestPtr& request, Tally& tally);

  const std::uint64_t seed_;
  const Nanos end_;

  Ring<RequestPtr> ring_{kRingCapacity};
  Waiter work_;                      // instances wait here
  std::atomic<bool> turn_{false};    // acquire to take, release to pass
  std::atomic<bool> closed_{false};  // clients are done and the ring will stay empty
  CompletionQueue<Request> completed_;
  std::array<Waiter, kClients> clients_;  // each waits for its requests' ends
  Complaints complaints_;

  // What clients leave for the canceller: cold, so a lock is fine.
  std::mutex condemned_mutex_;
  std::deque<RequestPtr> condemned_;
  Waiter condemned_waiter_;
  std::atomic<bool> clients_gone_{false};
};

RequestPtr Stress::make_request(std::size_t client, Random& random) {
  auto request = std::make_shared<Request>();
  request->client = client;
  request->input = random();
  switch (random() % 4) {
    case 0:
      request->deadline = steady_clock().now() + static_cast<Nanos>(random() % 20'000);
      break;
    case 1:
      request->deadline = steady_clock().now() + static_cast<Nanos>(random() % 500'000);
      break;
    default:
      break;  // none
  }
  return request;
}

bool Stress::submit(const RequestPtr& request, Tally& tally) {
  RequestPtr item = request;
  if (!ring_.try_push(item)) {
    if (item != request) {
      complaints_.add("a refused item was moved from");
    }
    ++tally.refused;
    return false;
  }
  ++tally.admitted;
  work_.notify_one();
  return true;
}

// Waits as an in-process caller does; at the deadline it tries to expire the request.
bool Stress::wait_for(const RequestPtr& request, Random& random, Tally& tally) {
  const auto settled = [&] { return request->settled.load(std::memory_order_acquire); };
  const Nanos patience = steady_clock().now() + kPatience;
  const Nanos spin = random() % 2 == 0 ? 0 : 10'000;
  Waiter& waiter = clients_[request->client];
  if (!waiter.wait_until(settled, std::min(request->deadline, patience), spin, steady_clock())) {
    if (request->deadline < patience && request->claim.try_expire()) {
      deliver(request, Outcome::kExpired, tally);
    }
    if (!waiter.wait_until(settled, patience, 0, steady_clock())) {
      complaints_.add("a request was not settled for a minute");
      return false;
    }
  }
  const Outcome outcome = request->claim.outcome();
  if (outcome == Outcome::kCompleted && request->result != answer(request->input)) {
    complaints_.add("a client got a result that is not its own");
  }
  if (request->told != outcome) {
    complaints_.add("a request was told another outcome than its claim's");
  }
  return true;
}

void Stress::client(std::size_t self, Tally& tally) {
  name_this_thread("client");
  Random random = this->random(self);
  std::deque<RequestPtr> open;
  bool hanging = false;
  while (steady_clock().now() < end_ && !hanging) {
    RequestPtr request = make_request(self, random);
    if (submit(request, tally)) {
      switch (random() % 8) {
        case 0:  // the client leaves at once
          if (request->claim.try_cancel()) {
            deliver(request, Outcome::kCancelled, tally);
          }
          break;
        case 1: {  // or soon
          const std::scoped_lock lock(condemned_mutex_);
          condemned_.push_back(request);
          break;
        }
        default:
          break;
      }
      if (random() % 4 == 0) {
        condemned_waiter_.notify_one();
      }
      open.push_back(std::move(request));
    } else {
      std::this_thread::yield();
    }
    while (!open.empty() && (open.size() > kMaxOpen || random() % 4 == 0) && !hanging) {
      hanging = !wait_for(open.front(), random, tally);
      open.pop_front();
    }
  }
  while (!open.empty() && !hanging) {
    hanging = !wait_for(open.front(), random, tally);
    open.pop_front();
  }
}

void Stress::canceller(Tally& tally) {
  name_this_thread("canceller");
  for (;;) {
    RequestPtr request;
    const auto ready = [&] {
      const std::scoped_lock lock(condemned_mutex_);
      if (!condemned_.empty()) {
        request = std::move(condemned_.front());
        condemned_.pop_front();
      }
      return request != nullptr || clients_gone_.load(std::memory_order_acquire);
    };
    condemned_waiter_.wait_until(ready, kNever, 0, steady_clock());
    if (request == nullptr) {
      return;
    }
    if (request->claim.try_cancel()) {
      deliver(std::move(request), Outcome::kCancelled, tally);
    }
  }
}

// Pops what waits, without what others have ended; ends what is too late.
void Stress::form_batch(std::vector<RequestPtr>& batch, Random& random, Tally& tally) {
  const std::size_t rows = 1 + random() % kMaxBatch;
  RequestPtr request;
  while (batch.size() < rows && ring_.try_pop(request)) {
    if (steady_clock().now() >= request->deadline && request->claim.try_expire()) {
      deliver(std::move(request), Outcome::kExpired, tally);
    } else if (request->claim.outcome() == Outcome::kOpen) {
      batch.push_back(std::move(request));
    }
  }
}

void Stress::complete(std::vector<RequestPtr>& batch, Random& random, Tally& tally) {
  std::vector<RequestPtr> burst;
  const bool together = random() % 2 == 0;
  for (RequestPtr& request : batch) {
    request->result = answer(request->input);
    if (!request->claim.try_complete()) {
      continue;
    }
    if (together) {
      request->told = Outcome::kCompleted;
      ++tally.won[static_cast<std::size_t>(Outcome::kCompleted)];
      burst.push_back(std::move(request));
    } else {
      deliver(std::move(request), Outcome::kCompleted, tally);
    }
  }
  completed_.push_all(burst);
  batch.clear();
  ++tally.batches;
}

void Stress::instance(std::size_t self, Tally& tally) {
  name_this_thread("instance");
  set_this_thread_timer_slack(1);
  Random random = this->random(kClients + self);
  std::vector<RequestPtr> batch;
  for (;;) {
    bool have_turn = false;
    work_.wait_until(
        [&] {
          have_turn = !ring_.empty() && !turn_.load(std::memory_order_relaxed) &&
                      !turn_.exchange(true, std::memory_order_acquire);
          return have_turn || closed_.load(std::memory_order_acquire);
        },
        kNever, random() % 2 == 0 ? 0 : 10'000, steady_clock());
    if (!have_turn) {
      return;
    }
    form_batch(batch, random, tally);
    turn_.store(false, std::memory_order_release);
    // Whoever found the turn taken may have gone to sleep over what is left.
    work_.notify_one_if([&] { return !ring_.empty(); });
    complete(batch, random, tally);
  }
}

void Stress::deliver(RequestPtr request, Outcome outcome, Tally& tally) {
  request->told = outcome;
  ++tally.won[static_cast<std::size_t>(outcome)];
  completed_.push(std::move(request));
}

void Stress::settle(const RequestPtr& request, Tally& tally) {
  const Outcome outcome = request->claim.outcome();
  if (std::exchange(request->settled_once, true)) {
    complaints_.add("a request was completed twice");
  }
  if (request->told != outcome) {
    complaints_.add("the reader was told another outcome than the claim's");
  }
  if (outcome == Outcome::kCompleted && request->result != answer(request->input)) {
    complaints_.add("the reader got a result that is not the request's own");
  }
  ++tally.settled[static_cast<std::size_t>(outcome)];
  Waiter& waiter = clients_[request->client];
  request->settled.store(true, std::memory_order_release);
  waiter.notify_one();
}

void Stress::reader(Tally& tally) {
  name_this_thread("reader");
  const int poller = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  epoll_ctl(poller, EPOLL_CTL_ADD, completed_.event_fd(), &event);
  bool more = true;
  while (more) {
    if (epoll_wait(poller, &event, 1, static_cast<int>(kPatience / 1'000'000)) != 1) {
      complaints_.add("the reader was not woken for a minute");
      break;
    }
    ++tally.wake_ups;
    completed_.drain([&](const RequestPtr& request) {
      if (request->client == kNobody) {
        more = false;
      } else {
        settle(request, tally);
      }
    });
  }
  close(poller);
}

bool Stress::run() {
  std::vector<Tally> tallies(kClients + kInstances + 2);
  {
    const std::jthread reading([&] { reader(tallies[0]); });
    {
      std::vector<std::jthread> instances;
      instances.reserve(kInstances);
      for (std::size_t i = 0; i < kInstances; ++i) {
        instances.emplace_back([&, i] { instance(i, tallies[2 + i]); });
      }
      {
        const std::jthread cancelling([&] { canceller(tallies[1]); });
        {
          std::vector<std::jthread> clients;
          clients.reserve(kClients);
          for (std::size_t i = 0; i < kClients; ++i) {
            clients.emplace_back([&, i] { client(i, tallies[2 + kInstances + i]); });
          }
        }
        clients_gone_.store(true, std::memory_order_release);
        condemned_waiter_.notify_all();
      }
      closed_.store(true, std::memory_order_release);
      work_.notify_all();
    }
    auto last = std::make_shared<Request>();
    last->client = kNobody;
    completed_.push(std::move(last));
  }

  Tally total;
  for (const Tally& tally : tallies) {
    total.add(tally);
  }
  total.check(complaints_);
  total.print();
  return complaints_.count() == 0;
}

template <class T>
std::optional<T> parse(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

// The whole of main().
int run(const std::vector<std::string_view>& arguments) {
  const double seconds = !arguments.empty() ? parse<double>(arguments[0]).value_or(-1) : -1;
  const auto seed = arguments.size() > 1 ? parse<std::uint64_t>(arguments[1])
                                         : std::optional<std::uint64_t>(std::random_device{}());
  if (arguments.size() > 2 || !(seconds >= 0 && seconds < 1e6) || !seed.has_value()) {
    std::fprintf(stderr, "usage: stress_base SECONDS [SEED]\n");
    return 2;
  }
  std::printf("stress_base %g %llu\n", seconds, static_cast<unsigned long long>(seed.value()));
  std::fflush(stdout);
  Stress stress(static_cast<Nanos>(seconds * 1e9), seed.value());
  return stress.run() ? 0 : 1;
}

}  // namespace
}  // namespace pyserve

int main(int argc, char** argv) {
  try {
    return pyserve::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "stress_base: %s\n", error.what());
    return 1;
  }
}
