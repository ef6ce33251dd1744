#include "batching/forecast.h"

#include <string>

namespace pyserve {
namespace {

// Rounded up, with one decimal.
std::string milliseconds(Nanos time) {
  constexpr Nanos kTenth = 100'000;
  const Nanos tenths = (time + kTenth - 1) / kTenth;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " ms";
}

}  // namespace

Status too_late(Nanos takes, Nanos left) {
  return deadline_exceeded("the deadline cannot be met: a run takes about " + milliseconds(takes) +
                           ", " + milliseconds(left) + " are left");
}

Status too_much_waits(Nanos ends_in, Nanos left) {
  return {Code::kQueueFull,
          "the deadline cannot be met: with what is waiting the answer would take "
          "about " +
              milliseconds(ends_in) + ", " + milliseconds(left) + " are left; try again later"};
}

}  // namespace pyserve
