// policy.h - ship the batch that waits, or wait for more: a pure function of what is there.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace pyserve {

struct BatchPolicy {
  std::int64_t max_rows = 1;
  Nanos max_delay = 0;  // how long the oldest row may wait for company
  bool combine = true;  // several requests may share a batch
};

struct Decision {
  bool ship = true;
  Nanos wait_until = 0;  // when not shipped: decide again then, or on an arrival
};

// `rows` fit together and the oldest of them arrived at `oldest`.  `no_more`: nothing else can
// join (the next request does not fit, or the version drains), so that waiting is no use.
inline Decision decide(const BatchPolicy& policy, std::int64_t rows, Nanos oldest, Nanos now,
                       bool no_more) {
  if (no_more || !policy.combine || rows >= policy.max_rows || now - oldest >= policy.max_delay) {
    return {.ship = true};
  }
  return {.ship = false, .wait_until = oldest + policy.max_delay};
}

}  // namespace pyserve
