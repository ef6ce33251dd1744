// failure.h - why a version will never serve again, said once.
//
// Thread safety: every member from any thread.
//
// Happens-before: `state_` release store in set() -> acquire load in why(): the text is whole.  Who
// may write the text is decided by a CAS (acq_rel), so it is written once and constant afterwards.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

namespace pyserve {

class Failure {
 public:
  // False: another was first.
  bool set(std::string why) {
    State expected = State::kNone;
    if (!state_.compare_exchange_strong(expected, State::kWriting, std::memory_order_acq_rel)) {
      return false;
    }
    why_ = std::move(why);
    state_.store(State::kSet, std::memory_order_release);
    return true;
  }

  // Null: it has not failed.
  const std::string* why() const noexcept {
    return state_.load(std::memory_order_acquire) == State::kSet ? &why_ : nullptr;
  }

 private:
  enum class State : std::uint8_t { kNone, kWriting, kSet };
  std::atomic<State> state_{State::kNone};
  std::string why_;
};

}  // namespace pyserve
