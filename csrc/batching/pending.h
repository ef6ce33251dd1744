// pending.h - requests that an instance has pulled and that wait for a batch: the most urgent
// first.
//
// A heap of small entries, so that ordering them touches no request.  Requests of equal urgency
// keep the order in which they were pulled.  Owned by the holder of the batch turn.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "batching/request.h"

namespace pyserve {

class Pending {
 public:
  // One that was pulled: its place in the order is fixed.
  struct Entry {
    Nanos urgency = 0;
    std::uint64_t ticket = 0;
    RequestPtr request;
  };

  void reserve(std::size_t capacity) { heap_.reserve(capacity); }

  void push(RequestPtr request) {
    const Nanos urgency = request->urgency;
    put_back({.urgency = urgency, .ticket = next_ticket_++, .request = std::move(request)});
  }

  void put_back(Entry entry) {
    heap_.push_back(std::move(entry));
    std::ranges::push_heap(heap_, later);
  }

  // The most urgent.  Precondition: not empty.
  Entry pop() {
    std::ranges::pop_heap(heap_, later);
    Entry entry = std::move(heap_.back());
    heap_.pop_back();
    return entry;
  }

  // Drops those that `gone` is true for; it may take the request that it is shown.
  template <class Gone>
  void remove_if(Gone&& gone) {
    std::erase_if(heap_, [&](Entry& entry) { return gone(entry.request); });
    std::ranges::make_heap(heap_, later);
  }

  [[nodiscard]] bool empty() const noexcept { return heap_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return heap_.size(); }

 private:
  static bool later(const Entry& a, const Entry& b) noexcept {
    return a.urgency != b.urgency ? a.urgency > b.urgency : a.ticket > b.ticket;
  }

  std::vector<Entry> heap_;
  std::uint64_t next_ticket_ = 0;
};

}  // namespace pyserve
