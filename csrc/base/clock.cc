#include "base/clock.h"

#include <new>

namespace pyserve {

const Clock& steady_clock() noexcept {
  // Built in place and never destroyed: an instance thread may outlive main().
  alignas(SteadyClock) static unsigned char storage[sizeof(SteadyClock)];
  static const Clock* const clock = new (storage) SteadyClock();
  return *clock;
}

}  // namespace pyserve
