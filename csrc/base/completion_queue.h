// completion_queue.h - finished requests on their way to the event loop.
//
// An intrusive list: a request carries its own link, so a push allocates nothing and
// the queue is never full, however slow the reader.  The reader takes all that waits
// at once and is woken once for it, through an eventfd that an event loop can watch.
//
// Thread safety: push() and push_all() from any thread; drain() from one thread at a
// time.  Nothing blocks or throws, but for the constructor.  The queue outlives every
// push (the write to the eventfd may come after the reader has taken the item).
//
// Invariants:
//   (1) head_ is the newest item, each `next` an older one; null ends the list.
//   (2) A listed item owns itself through `completion.self`.
//   (3) Who makes head_ non-null writes the eventfd afterwards; drain() resets it
//       before it takes the list.  So while items wait, the eventfd is readable or
//       about to be; a needless wake-up is possible and harmless.
//
// Happens-before:
//   head_  release in push -> acquire in drain   the item, its result and its link
//          are whole.  Later pushes are read-modify-writes, so they continue the
//          release sequence: one acquire covers every item in the list.
//   The eventfd orders nothing; it only wakes.

#pragma once

#include <atomic>
#include <cassert>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include "base/hardware.h"

namespace pyserve {

// A nonblocking, close-on-exec eventfd.
class EventFd {
 public:
  EventFd();  // throws std::system_error
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;
  EventFd(EventFd&&) = delete;
  EventFd& operator=(EventFd&&) = delete;
  ~EventFd();

  [[nodiscard]] int fd() const noexcept { return fd_; }
  void signal() noexcept;  // makes it readable
  void reset() noexcept;   // makes it not readable

 private:
  const int fd_;
};

// The link inside an item: a T has a member `CompletionNode<T> completion`.
template <class T>
struct CompletionNode {
  T* next = nullptr;
  std::shared_ptr<T> self;  // held from push to drain
};

template <class T>
class CompletionQueue {
 public:
  CompletionQueue() = default;  // throws std::system_error
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;
  CompletionQueue(CompletionQueue&&) = delete;
  CompletionQueue& operator=(CompletionQueue&&) = delete;

  // Lets go of what nobody drained.
  ~CompletionQueue() {
    drain([](const std::shared_ptr<T>&) {});
  }

  // Readable when there may be something to drain.
  [[nodiscard]] int event_fd() const noexcept { return event_.fd(); }

  // An item is in at most one queue, once, at a time.
  void push(std::shared_ptr<T> item) noexcept { push_all(std::span(&item, 1)); }

  // Pushes a burst, oldest first, with one wake-up at most; leaves null pointers behind.
  void push_all(std::span<std::shared_ptr<T>> items) noexcept {
    if (items.empty()) {
      return;
    }
    T* const oldest = items.front().get();
    T* newest = nullptr;
    for (std::shared_ptr<T>& item : items) {
      T* const raw = item.get();
      assert(raw->completion.self == nullptr);
      raw->completion.next = newest;
      raw->completion.self = std::move(item);
      newest = raw;
    }
    T* head = head_.load(std::memory_order_relaxed);
    do {
      oldest->completion.next = head;
    } while (!head_.compare_exchange_weak(head, newest, std::memory_order_release,
                                          std::memory_order_relaxed));
    if (head == nullptr) {
      event_.signal();
    }
  }

  // Calls f(std::shared_ptr<T>) for everything pushed so far, oldest first; returns how
  // many.  f must not throw: the items behind it would never complete.
  template <class F>
  std::size_t drain(F&& f) noexcept {
    event_.reset();
    T* item = reversed(head_.exchange(nullptr, std::memory_order_acquire));
    std::size_t count = 0;
    while (item != nullptr) {
      T* const next = std::exchange(item->completion.next, nullptr);
      // Out of the item before the call: an f that takes a reference moves nothing, and
      // an item that owns itself is never freed.
      f(std::exchange(item->completion.self, nullptr));
      item = next;
      ++count;
    }
    return count;
  }

 private:
  static T* reversed(T* item) noexcept {
    T* previous = nullptr;
    while (item != nullptr) {
      T* const next = std::exchange(item->completion.next, previous);
      previous = item;
      item = next;
    }
    return previous;
  }

  EventFd event_;
  alignas(kCacheLineBytes) std::atomic<T*> head_{nullptr};
};

}  // namespace pyserve
