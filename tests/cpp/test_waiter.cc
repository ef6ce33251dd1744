#include <gtest/gtest.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <thread>

#include "base/clock.h"
#include "base/hardware.h"
#include "base/waiter.h"
#include "fakes.h"
#include "seed.h"
#include "threads.h"

namespace pyserve {
namespace {

constexpr Nanos kNoSpin = 0;
constexpr Nanos kShortSpin = 5'000;

// Waits for what must come.  False if it came only with the deadline, long after it
// should have: a wake-up was lost, even though the last look then found the waiter ready.
template <class Ready>
bool wait_awake(Waiter& waiter, Ready ready, Nanos spin_ns) {
  const Nanos deadline = steady_clock().now() + Nanos{1'000'000} * test_patience().count();
  return waiter.wait_until(ready, deadline, spin_ns, steady_clock()) &&
         steady_clock().now() < deadline;
}

// Counts its readers, to show who looks at the clock.
class CountingClock final : public Clock {
 public:
  [[nodiscard]] Nanos now() const noexcept override {
    return reads_.fetch_add(1, std::memory_order_relaxed);
  }
  [[nodiscard]] int reads() const noexcept { return reads_.load(std::memory_order_relaxed); }

 private:
  mutable std::atomic<int> reads_{0};
};

TEST(Waiter, ReturnsAtOnceWhenReadyAndReadsNoClock) {
  Waiter waiter;
  const CountingClock clock;
  EXPECT_TRUE(waiter.wait_until([] { return true; }, /*deadline=*/-1, kShortSpin, clock));
  EXPECT_EQ(clock.reads(), 0);
}

TEST(Waiter, AsksOnceMoreBeforeItGivesUpAtADeadlineInThePast) {
  Waiter waiter;
  const FakeClock clock(100);
  int asked = 0;
  EXPECT_FALSE(waiter.wait_until([&] { return ++asked > 100; }, /*deadline=*/100, kNoSpin, clock));
  EXPECT_GE(asked, 1);
  EXPECT_EQ(waiter.sleepers(), 0);
}

TEST(Waiter, NeverAsksAgainOnceReady) {
  Waiter waiter;
  const FakeClock clock;
  for (const int ready_at : {1, 2, 3, 50}) {  // at once, when spinning, before sleeping
    for (const Nanos spin : {kNoSpin, Nanos{1}, kShortSpin}) {
      int asked = 0;
      const auto ready = [&] {
        waiter.notify_one();  // so that it does not sleep for good
        return ++asked >= ready_at;
      };
      EXPECT_TRUE(waiter.wait_until(ready, kNever, spin, clock));
      EXPECT_EQ(asked, ready_at);
    }
  }
}

TEST(Waiter, SpinningEndsEvenIfTheClockStandsStill) {
  Waiter waiter;
  const FakeClock clock(7);
  std::atomic<bool> flag{false};
  const std::jthread waiting([&] {
    EXPECT_TRUE(waiter.wait_until([&] { return flag.load(std::memory_order_acquire); }, kNever,
                                  kShortSpin, clock));
  });
  EXPECT_TRUE(eventually([&] { return waiter.sleepers() == 1; }));
  flag.store(true, std::memory_order_release);
  waiter.notify_one();
}

TEST(Waiter, SpinningTakesAnySpinTimeWithoutOverflow) {
  Waiter waiter;
  const FakeClock clock(7);
  int asked = 0;
  EXPECT_TRUE(waiter.wait_until([&] { return ++asked > 1'000; }, kNever, kNever, clock));
  EXPECT_FALSE(waiter.wait_until([] { return false; }, /*deadline=*/7, kNever, clock));
}

TEST(Waiter, LooksAtTheClockAgainWhenNotified) {
  Waiter waiter;
  FakeClock clock;
  const Nanos an_hour = Nanos{3'600} * 1'000'000'000;
  const std::jthread waiting(
      [&] { EXPECT_FALSE(waiter.wait_until([] { return false; }, an_hour, kNoSpin, clock)); });
  EXPECT_TRUE(eventually([&] { return waiter.sleepers() == 1; }));
  clock.advance(an_hour);
  waiter.notify_one();
}

TEST(Waiter, ASleeperThatIsWokenAfterItsDeadlineStillAsksFirst) {
  Waiter waiter;
  FakeClock clock;
  std::atomic<bool> flag{false};
  const Nanos an_hour = Nanos{3'600} * 1'000'000'000;
  std::atomic<pid_t> id{0};
  const std::jthread waiting([&] {
    id.store(gettid(), std::memory_order_relaxed);
    EXPECT_TRUE(waiter.wait_until([&] { return flag.load(std::memory_order_acquire); }, an_hour,
                                  kNoSpin, clock));
  });
  // Asleep, not only about to be: it has looked at the clock.
  EXPECT_TRUE(eventually([&] { return waiter.sleepers() == 1 && asleep(id.load()); }));
  flag.store(true, std::memory_order_release);
  clock.advance(an_hour);
  waiter.notify_one();
}

TEST(Waiter, AChangeRightAfterTheLastLookIsNotSleptOver) {
  // ready() itself plays the notifier that comes at the worst moment: after the look
  // that found nothing, before the sleep.
  for (const int worst_look : {1, 2}) {
    Waiter waiter;
    int looks = 0;
    bool flag = false;
    EXPECT_TRUE(wait_awake(
        waiter,
        [&] {
          const bool seen = flag;
          if (++looks == worst_look) {
            flag = true;
            waiter.notify_one();
          }
          return seen;
        },
        kNoSpin));
    EXPECT_LE(looks, 3);
  }
}

TEST(Waiter, GivesUpByItselfAtTheDeadlineAndNotBefore) {
  Waiter waiter;
  for (const Nanos spin : {kNoSpin, kShortSpin, Nanos{60'000'000'000}}) {
    const Nanos deadline = steady_clock().now() + 2'000'000;
    EXPECT_FALSE(waiter.wait_until([] { return false; }, deadline, spin, steady_clock()));
    EXPECT_GE(steady_clock().now(), deadline);
  }
}

TEST(Waiter, SleepsOnWhenNotifiedForNothing) {
  Waiter waiter;
  std::atomic<bool> flag{false};
  std::atomic<int> asked{0};
  const std::jthread waiting([&] {
    EXPECT_TRUE(wait_awake(
        waiter,
        [&] {
          asked.fetch_add(1, std::memory_order_relaxed);
          return flag.load(std::memory_order_acquire);
        },
        kNoSpin));
  });
  for (int i = 0; i < 10; ++i) {
    const int before = asked.load(std::memory_order_relaxed);
    EXPECT_TRUE(eventually([&] {
      waiter.notify_one();
      return asked.load(std::memory_order_relaxed) > before;
    }));
  }
  flag.store(true, std::memory_order_release);
  waiter.notify_one();
}

TEST(Waiter, NotifyingAllWakesEverySleeper) {
  constexpr int kSleepers = 4;
  Waiter waiter;
  std::atomic<bool> flag{false};
  run_together(kSleepers + 1, [&](std::size_t self) {
    if (self > 0) {
      EXPECT_TRUE(
          wait_awake(waiter, [&] { return flag.load(std::memory_order_acquire); }, kNoSpin));
      return;
    }
    EXPECT_TRUE(eventually([&] { return waiter.sleepers() == kSleepers; }));
    flag.store(true, std::memory_order_release);
    waiter.notify_all();
  });
  EXPECT_EQ(waiter.sleepers(), 0);
}

TEST(Waiter, NotifyingOneWakesNobodyWhileAnotherSpins) {
  Waiter waiter;
  const FakeClock clock;
  std::atomic<bool> flag{false};
  const auto wait_counting = [&](std::atomic<int>& looks, Nanos spin_ns) {
    EXPECT_TRUE(waiter.wait_until(
        [&] {
          looks.fetch_add(1, std::memory_order_relaxed);
          return flag.load(std::memory_order_acquire);
        },
        kNever, spin_ns, clock));
  };
  std::atomic<pid_t> sleeper{0};
  std::atomic<int> slept{0};
  std::atomic<int> spun{0};
  const std::jthread sleeping([&] {
    sleeper.store(gettid(), std::memory_order_relaxed);
    wait_counting(slept, kNoSpin);
  });
  // Counted as a sleeper it may still look once more before it sleeps: wait until it does.
  EXPECT_TRUE(eventually(
      [&] { return waiter.sleepers() == 1 && asleep(sleeper.load(std::memory_order_relaxed)); }));
  const std::jthread spinning([&] { wait_counting(spun, /*spin_ns=*/kNever); });
  EXPECT_TRUE(eventually([&] { return spun.load(std::memory_order_relaxed) > 1; }));

  const int looks = slept.load(std::memory_order_relaxed);
  for (int i = 0; i < 100; ++i) {
    waiter.notify_one();
    std::this_thread::yield();  // whoever was woken by mistake would look
  }
  EXPECT_EQ(slept.load(std::memory_order_relaxed), looks);
  flag.store(true, std::memory_order_release);
  waiter.notify_all();
}

TEST(Waiter, CountsNoSleeperAfterReadyHasThrown) {
  Waiter waiter;
  int asked = 0;
  const auto ready = [&]() -> bool {
    if (++asked == 2) {  // the second time is the one before sleeping
      throw std::runtime_error("ready");
    }
    return false;
  };
  EXPECT_THROW(waiter.wait_until(ready, kNever, kNoSpin, steady_clock()), std::runtime_error);
  EXPECT_EQ(waiter.sleepers(), 0);
}

// Two threads hand a turn to and fro; one lost wake-up and both sleep until the deadline.
void hand_to_and_fro(std::uint64_t rounds, std::array<Nanos, 2> spin_ns) {
  std::array<Waiter, 2> waiters;
  std::atomic<std::uint64_t> turn{0};
  run_together(2, [&](std::size_t self) {
    auto random = seeded_random(self);
    for (std::uint64_t mine = self; mine < rounds; mine += 2) {
      ASSERT_TRUE(wait_awake(
          waiters[self], [&] { return turn.load(std::memory_order_acquire) == mine; },
          spin_ns[self]));
      for (std::uint64_t beats = random() % 8; beats > 0; --beats) {
        spin_pause();  // so that the two meet at every point of each other's wait
      }
      turn.store(mine + 1, std::memory_order_release);
      waiters[1 - self].notify_one();
    }
  });
  EXPECT_EQ(turn.load(std::memory_order_relaxed), rounds);
}

TEST(Waiter, LosesNoWakeUpBetweenTwoThreadsThatSleepAtOnce) {
  hand_to_and_fro(20'000, {kNoSpin, kNoSpin});
}

TEST(Waiter, LosesNoWakeUpBetweenTwoThreadsThatSpinFirst) {
  hand_to_and_fro(20'000, {kShortSpin, kShortSpin});
}

TEST(Waiter, LosesNoWakeUpWhenTheNotifierIsQuickAndTheOtherGoesToSleep) {
  // The one that spins answers while the other is on its way to sleep: the closest race.
  hand_to_and_fro(40'000, {Nanos{1'000'000}, kNoSpin});
}

// Takes one of `tokens` if there is one.
bool take_one(std::atomic<int>& tokens) {
  int held = tokens.load(std::memory_order_acquire);
  while (held > 0) {
    if (tokens.compare_exchange_weak(held, held - 1, std::memory_order_acq_rel,
                                     std::memory_order_acquire)) {
      return true;
    }
  }
  return false;
}

TEST(Waiter, NotifyingOneForEachTokenLeavesNoTokenBehind) {
  constexpr std::size_t kGivers = 2;
  constexpr std::size_t kTakers = 3;
  constexpr int kFromEach = 6'000;
  constexpr int kForEach = kFromEach * kGivers / kTakers;
  Waiter waiter;
  std::atomic<int> tokens{0};
  run_together(kGivers + kTakers, [&](std::size_t self) {
    auto random = seeded_random(self);
    if (self < kGivers) {
      for (int i = 0; i < kFromEach; ++i) {
        tokens.fetch_add(1, std::memory_order_acq_rel);
        waiter.notify_one();
        if (random() % 16 == 0) {
          std::this_thread::yield();  // lets the takers go to sleep
        }
      }
      return;
    }
    for (int i = 0; i < kForEach; ++i) {
      const Nanos spin = random() % 2 == 0 ? kNoSpin : kShortSpin;
      ASSERT_TRUE(wait_awake(waiter, [&] { return take_one(tokens); }, spin));
      // It may have spun while more came, and nobody else was woken for those.
      waiter.notify_one_if([&] { return tokens.load(std::memory_order_acquire) > 0; });
    }
  });
  EXPECT_EQ(tokens.load(std::memory_order_relaxed), 0);
  EXPECT_EQ(waiter.sleepers(), 0);
}

TEST(Waiter, ATakerThatTimesOutDoesNotSwallowAnothersWakeUp) {
  // Some takers give up at random moments while one waits on: every token that is left
  // when they have gone must still reach it.
  constexpr std::size_t kImpatient = 2;
  constexpr int kTokens = 4'000;
  Waiter waiter;
  std::atomic<int> tokens{0};
  std::atomic<int> taken{0};
  run_together(kImpatient + 2, [&](std::size_t self) {
    if (self == 0) {
      for (int i = 0; i < kTokens; ++i) {
        tokens.fetch_add(1, std::memory_order_acq_rel);
        waiter.notify_one();
        // One token at a time: a wake-up that goes astray is noticed at once.
        ASSERT_TRUE(eventually([&] { return taken.load(std::memory_order_acquire) == i + 1; }));
      }
      waiter.notify_all();  // the others see that all are taken
      return;
    }
    auto random = seeded_random(self);
    const auto all_taken = [&] { return taken.load(std::memory_order_acquire) >= kTokens; };
    while (!all_taken()) {
      bool took = false;
      const auto ready = [&] {
        took = take_one(tokens);
        return took || all_taken();
      };
      if (self == 1) {
        ASSERT_TRUE(wait_awake(waiter, ready, kNoSpin)) << "the patient taker";
      } else {
        const Nanos deadline = steady_clock().now() + static_cast<Nanos>(random() % 100'000);
        waiter.wait_until(ready, deadline, kNoSpin, steady_clock());
      }
      taken.fetch_add(took ? 1 : 0, std::memory_order_acq_rel);
    }
  });
  EXPECT_EQ(taken.load(std::memory_order_relaxed), kTokens);
}

TEST(Waiter, AConditionOfTwoPartsIsNotSleptOver) {
  // Work arrives while one thread holds the turn; the other must not sleep on when the
  // turn is passed with work left.  The holder does not come back for it.
  constexpr int kRounds = 10'000;
  Waiter waiter;
  std::atomic<int> work{0};
  std::atomic<bool> turn_free{false};
  std::atomic<int> done{0};
  run_together(3, [&](std::size_t self) {
    for (int round = 1; round <= kRounds; ++round) {
      if (self == 0) {  // brings work
        work.fetch_add(1, std::memory_order_acq_rel);
        waiter.notify_one();
      } else if (self == 1) {  // passes the turn
        turn_free.store(true, std::memory_order_release);
        waiter.notify_one_if([&] { return work.load(std::memory_order_acquire) > 0; });
      } else {  // needs both
        ASSERT_TRUE(wait_awake(
            waiter,
            [&] {
              return work.load(std::memory_order_acquire) > 0 &&
                     turn_free.load(std::memory_order_acquire);
            },
            kNoSpin));
        work.fetch_sub(1, std::memory_order_acq_rel);
        turn_free.store(false, std::memory_order_release);
        done.store(round, std::memory_order_release);
      }
      ASSERT_TRUE(eventually([&] { return done.load(std::memory_order_acquire) == round; }));
    }
  });
}

TEST(Waiter, AsksWhetherToWakeOnlyIfSomebodySleeps) {
  Waiter waiter;
  waiter.notify_one_if([] {
    ADD_FAILURE() << "nobody sleeps";
    return true;
  });
}

}  // namespace
}  // namespace pyserve
