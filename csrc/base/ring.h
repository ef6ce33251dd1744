// ring.h - bounded ring that carries requests to one model version.
//
// Thread safety: try_push() from any thread; try_pop() only from the instance
// that holds the batch turn; empty() from any thread.  None blocks, allocates or
// throws.  Whoever passes the turn on does so with release/acquire, which is all
// that two consumers in succession need.
//
// Invariants (a ticket is a position in the endless sequence of items; ticket t
// lives in slot t mod capacity):
//   (1) slot.turn == ticket      the producer holding `ticket` may write it.
//   (2) slot.turn == ticket + 1  the consumer at `ticket` may read it.
// A capacity of one would make (1) of the next ticket look like (2): the least is two.
//
// Happens-before:
//   slot.turn  release in try_push -> acquire in try_pop   the item is whole
//   slot.turn  release in try_pop  -> acquire in try_push  the slot is empty
//   tail_      relaxed: hands out tickets, publishes nothing.
//   head_      relaxed: written by the consumer alone, before it releases the slot, so
//              who sees the slot emptied also sees the head beyond it (empty() relies
//              on that).  The batch turn orders one consumer's write before the next
//              one's read.
//
// A producer that stalls between its ticket and its release holds back the items
// behind it (they are delivered in ticket order), but never another producer.  It
// notifies the waiter only after the release, so the consumer is woken for it.

#pragma once

#include <atomic>
#include <bit>
#include <concepts>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "base/hardware.h"

namespace pyserve {

template <class T>
class Ring {
  static_assert(std::default_initializable<T>, "an empty slot holds a T{}");
  static_assert(std::is_nothrow_move_assignable_v<T>, "push and pop must not throw");

 public:
  static constexpr std::size_t kMaxCapacity = std::size_t{1} << 24;

  // Room for `capacity` items, rounded up to a power of two, two at least; the only
  // allocation.  Throws std::invalid_argument for 0 or more than kMaxCapacity.
  explicit Ring(std::size_t capacity)
      : mask_(rounded_up(capacity) - 1), slots_(std::make_unique<Slot[]>(mask_ + 1)) {
    for (std::size_t ticket = 0; ticket <= mask_; ++ticket) {
      slots_[ticket].turn.store(ticket, std::memory_order_relaxed);
    }
  }

  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  Ring(Ring&&) = delete;
  Ring& operator=(Ring&&) = delete;
  ~Ring() = default;

  // Moves from `item` only on success; false when the ring is full.
  [[nodiscard]] bool try_push(T& item) noexcept {
    std::size_t ticket = tail_.load(std::memory_order_relaxed);
    for (;;) {
      Slot& slot = slots_[ticket & mask_];
      const std::size_t turn = slot.turn.load(std::memory_order_acquire);
      if (turn == ticket) {
        if (tail_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_relaxed,
                                        std::memory_order_relaxed)) {
          slot.item = std::move(item);
          slot.turn.store(ticket + 1, std::memory_order_release);
          return true;
        }
        // Another producer took this ticket; `ticket` is now the next one.
      } else if (static_cast<std::ptrdiff_t>(turn - ticket) < 0) {
        return false;  // the slot still holds the item of one lap ago
      } else {
        ticket = tail_.load(std::memory_order_relaxed);  // others moved on meanwhile
      }
    }
  }

  // Takes the oldest item; false when there is none whole yet.
  [[nodiscard]] bool try_pop(T& out) noexcept {
    const std::size_t head = head_.load(std::memory_order_relaxed);
    Slot& slot = slots_[head & mask_];
    if (slot.turn.load(std::memory_order_acquire) != head + 1) {
      return false;
    }
    out = std::move(slot.item);
    head_.store(head + 1, std::memory_order_relaxed);
    slot.turn.store(head + mask_ + 1, std::memory_order_release);
    return true;
  }

  // For the consumer: whether try_pop() would fail now.  For others, a hint that errs
  // safely: an item whose push happened before this call is seen unless it was taken
  // or waits behind one that is not whole yet, so a thread that finds the ring empty
  // may go to sleep on the waiter that producers notify.
  [[nodiscard]] bool empty() const noexcept {
    std::size_t head = head_.load(std::memory_order_relaxed);
    for (;;) {
      const std::size_t turn = slots_[head & mask_].turn.load(std::memory_order_acquire);
      if (turn == head || turn == head + 1) {
        return turn == head;
      }
      head = head_.load(std::memory_order_relaxed);  // the consumer moved on meanwhile
    }
  }

  [[nodiscard]] std::size_t capacity() const noexcept { return mask_ + 1; }

 private:
  struct Slot {
    std::atomic<std::size_t> turn{0};
    T item{};
  };

  static std::size_t rounded_up(std::size_t capacity) {
    if (capacity == 0 || capacity > kMaxCapacity) {
      throw std::invalid_argument("ring capacity must be between 1 and 2^24");
    }
    return std::bit_ceil(capacity < 2 ? std::size_t{2} : capacity);
  }

  // Constant after construction.
  const std::size_t mask_;
  const std::unique_ptr<Slot[]> slots_;

  // Shared by the producers.
  alignas(kCacheLineBytes) std::atomic<std::size_t> tail_{0};

  // Written by the consumer.
  alignas(kCacheLineBytes) std::atomic<std::size_t> head_{0};
};

}  // namespace pyserve
