// stress_request.h - a request as the stress run needs it, with plain members to race for.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/claim.h"
#include "base/clock.h"
#include "base/completion_queue.h"

namespace pyserve {

struct Request {
  std::size_t client = 0;
  std::uint64_t input = 0;
  Nanos deadline = kNever;

  Claim claim;
  std::uint64_t result = 0;          // written by who completes it, before the claim
  Outcome told = Outcome::kOpen;     // written by the winner, before the push
  bool settled_once = false;         // the reader's
  std::atomic<bool> settled{false};  // release by the reader -> acquire by the client
  CompletionNode<Request> completion;
};

using RequestPtr = std::shared_ptr<Request>;

inline std::uint64_t answer(std::uint64_t input) { return input * 0x9E3779B97F4A7C15U + 1; }

}  // namespace pyserve
