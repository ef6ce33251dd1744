// claim.h - complete, cancel, expire: exactly one of them wins a request.
//
// Thread safety: every function from any thread.  None blocks or throws.
//
// Invariant: outcome_ leaves kOpen at most once and never changes after that.
//
// Happens-before:
//   outcome_  acq_rel in the winner's try_*  ->  acquire in outcome() and in every
//             losing try_*: who learns the outcome also sees what its winner
//             wrote before claiming.

#pragma once

#include <atomic>
#include <cstdint>

namespace pyserve {

enum class Outcome : std::uint8_t { kOpen, kCompleted, kCancelled, kExpired };

class Claim {
 public:
  // Each returns true for one caller of all, ever: the one that ends the request
  // and so owes its completion.
  [[nodiscard]] bool try_complete() noexcept { return try_settle(Outcome::kCompleted); }
  [[nodiscard]] bool try_cancel() noexcept { return try_settle(Outcome::kCancelled); }
  [[nodiscard]] bool try_expire() noexcept { return try_settle(Outcome::kExpired); }

  [[nodiscard]] Outcome outcome() const noexcept {
    return outcome_.load(std::memory_order_acquire);
  }

 private:
  bool try_settle(Outcome outcome) noexcept {
    Outcome expected = Outcome::kOpen;
    return outcome_.compare_exchange_strong(expected, outcome, std::memory_order_acq_rel,
                                            std::memory_order_acquire);
  }

  std::atomic<Outcome> outcome_{Outcome::kOpen};
};

}  // namespace pyserve
