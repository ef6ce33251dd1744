// waiter.h - spins briefly, then sleeps on a futex, with a timeout (an eventcount).
//
// One side makes a condition true and notifies; the other waits until the condition
// holds.  The condition itself lives elsewhere (a ring that is not empty, a claim
// that is settled): the waiter only saves the sleeper from missing the change.
//
// Thread safety: every function from any thread.  Notifying neither blocks nor
// throws, and makes no system call when nobody sleeps.
//
// No lost wake-up.  The notifier does (a) make the condition true, (b) epoch_ + 1,
// (c) read sleepers_.  The sleeper does (1) sleepers_ + 1, (2) read epoch_, (3) check
// the condition, (4) sleep if epoch_ is still what (2) read.  b, c, 1 and 2 are
// seq_cst, so they have one order.  Either (1) precedes (c): the notifier sees a
// sleeper and wakes it, or the kernel finds the epoch changed and (4) returns at once.
// Or (c) precedes (1): then (b) precedes (2), which reads (b)'s value or a later one,
// and so (3) sees (a).  An epoch would have to come round 2^32 times between (2) and
// (4) to fool the kernel's comparison.
//
// Happens-before:
//   epoch_     seq_cst fetch_add in notify -> seq_cst load in wait_until
//              what the notifier wrote before is visible to ready()
//   sleepers_  seq_cst, for the order above; publishes nothing.
//   spinners_  seq_cst: a notifier that reads one (after b) leaves the change to it.  That
//              read precedes the spinner's decrement, which precedes its (2), so whether
//              it leaves with what it found or goes on to sleep, it sees (a) from there on.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/clock.h"
#include "base/hardware.h"

namespace pyserve {

class alignas(kCacheLineBytes) Waiter {
 public:
  Waiter() = default;
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  Waiter(Waiter&&) = delete;
  Waiter& operator=(Waiter&&) = delete;
  ~Waiter() = default;

  // Waits until ready() or the deadline on `clock`, and returns the last ready().
  //
  // ready() is called at least once, even if the deadline has passed, and never
  // again once it has returned true: it may take what it finds (a try_pop).
  // Spins for up to `spin_ns` first (0: not at all).  The deadline is looked at after
  // every notification, so a test moves a fake clock and then notifies; without that
  // the futex sleeps the remaining time as if `clock` ran at real speed.  With
  // kNever the sleep has no limit and the clock is read for the spin alone.
  template <class Ready>
  bool wait_until(Ready&& ready, Nanos deadline, Nanos spin_ns, const Clock& clock) {
    if (ready()) {
      return true;
    }
    if (spin_ns > 0) {
      const Counted spinner(spinners_);
      if (spin(ready, deadline, spin_ns, clock)) {
        return true;
      }
    }
    for (;;) {
      const Counted sleeper(sleepers_);
      const std::uint32_t epoch = epoch_.load(std::memory_order_seq_cst);
      if (ready()) {
        return true;
      }
      Nanos timeout = kNever;
      if (deadline != kNever) {
        const Nanos now = clock.now();
        if (now >= deadline) {
          return false;
        }
        timeout = deadline - now;
      }
      sleep(epoch, timeout);
    }
  }

  // Call after making the condition true.  notify_one() only where any waiter will do: all of
  // them wait for the same condition.  It wakes nobody while one spins, who will see the change
  // by itself; so a waiter that leaves something for others to do notifies again.
  void notify_one() noexcept {
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (spinners_.load(std::memory_order_seq_cst) == 0 &&
        sleepers_.load(std::memory_order_seq_cst) > 0) {
      wake_one();
    }
  }
  void notify_all() noexcept {
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      wake_all();
    }
  }

  // Wakes a sleeper if worth() says so.  For who makes one part of a condition true and
  // cannot know the rest: an instance that passes the turn wakes another only if there
  // is work.  worth() is asked after epoch_ + 1, which acquires what every earlier
  // notifier wrote: a change that a sleeper has seen before it went to sleep over the
  // part missing then is seen by worth().  Asking before the call could miss it.
  template <class Worth>
  void notify_one_if(Worth&& worth) noexcept {
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (spinners_.load(std::memory_order_seq_cst) == 0 &&
        sleepers_.load(std::memory_order_seq_cst) > 0 && worth()) {
      wake_one();
    }
  }

  // Threads asleep or about to be (they will notice a notification from here on).
  // For tests and statistics: it may have changed when you look at it.
  [[nodiscard]] int sleepers() const noexcept { return sleepers_.load(std::memory_order_seq_cst); }

 private:
  // Counts a waiter for as long as it lives, also if ready() throws.
  class Counted {
   public:
    explicit Counted(std::atomic<std::int32_t>& waiters) noexcept : waiters_(waiters) {
      waiters_.fetch_add(1, std::memory_order_seq_cst);
    }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    Counted(Counted&&) = delete;
    Counted& operator=(Counted&&) = delete;
    ~Counted() { waiters_.fetch_sub(1, std::memory_order_seq_cst); }

   private:
    std::atomic<std::int32_t>& waiters_;  // the waiter's, which outlives its wait
  };

  // Reading the clock costs as much as a pause or a few; ready() costs one load.
  static constexpr int kSpinsPerClockRead = 32;
  // No round of that many spins is quicker, whatever the processor: with it a clock
  // that a test has stopped ends the spin too.
  static constexpr Nanos kLeastRoundNs = 64;

  template <class Ready>
  static bool spin(Ready& ready, Nanos deadline, Nanos spin_ns, const Clock& clock) {
    const Nanos start = clock.now();
    const Nanos end = spin_ns < kNever - start ? std::min(start + spin_ns, deadline) : deadline;
    for (Nanos rounds = spin_ns / kLeastRoundNs + 1; rounds > 0; --rounds) {
      for (int i = 0; i < kSpinsPerClockRead; ++i) {
        spin_pause();
        if (ready()) {
          return true;
        }
      }
      if (clock.now() >= end) {
        return false;
      }
    }
    return false;
  }

  // Returns when notified since `epoch` was read, after `timeout` (kNever: none), on
  // a signal, or for no reason; the caller looks again.
  void sleep(std::uint32_t epoch, Nanos timeout) noexcept;
  void wake_one() noexcept;
  void wake_all() noexcept;

  std::atomic<std::uint32_t> epoch_{0};
  std::atomic<std::int32_t> sleepers_{0};
  std::atomic<std::int32_t> spinners_{0};
};

}  // namespace pyserve
