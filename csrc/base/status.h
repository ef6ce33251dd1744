// status.h - an outcome carried as a value.
//
// On the data path nothing throws: a function that may refuse returns a Status.
// A code is named here once; pyserve/errors.py maps each name to its exception,
// HTTP status and gRPC code, also once.  The numbers are not part of any wire.

#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace pyserve {

enum class Code : std::uint8_t {
  kOk = 0,
  kInvalidInput = 1,
  kQueueFull = 2,
  kCancelled = 3,
  kModelFailed = 4,
  kUnavailable = 5,
  kDeadlineExceeded = 6,
};

// In the order of their numbers, so kAllCodes[i] has the number i.
inline constexpr std::array kAllCodes{
    Code::kOk,          Code::kInvalidInput, Code::kQueueFull,        Code::kCancelled,
    Code::kModelFailed, Code::kUnavailable,  Code::kDeadlineExceeded,
};

// The name that Python and the metrics use.
[[nodiscard]] constexpr std::string_view code_name(Code code) noexcept {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalidInput:
      return "invalid_input";
    case Code::kQueueFull:
      return "queue_full";
    case Code::kCancelled:
      return "cancelled";
    case Code::kModelFailed:
      return "model_failed";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kDeadlineExceeded:
      return "deadline_exceeded";
  }
  return "unknown";
}

// `Status{}` is success.  A message says what came and what was expected, for the
// client's eyes: no paths, no secrets.
struct [[nodiscard]] Status {
  Code code = Code::kOk;
  std::string message;

  [[nodiscard]] bool ok() const noexcept { return code == Code::kOk; }
};

inline Status invalid_input(std::string message) {
  return {.code = Code::kInvalidInput, .message = std::move(message)};
}
inline Status queue_full(std::string message) {
  return {.code = Code::kQueueFull, .message = std::move(message)};
}
inline Status cancelled(std::string message) {
  return {.code = Code::kCancelled, .message = std::move(message)};
}
inline Status model_failed(std::string message) {
  return {.code = Code::kModelFailed, .message = std::move(message)};
}
inline Status unavailable(std::string message) {
  return {.code = Code::kUnavailable, .message = std::move(message)};
}
inline Status deadline_exceeded(std::string message) {
  return {.code = Code::kDeadlineExceeded, .message = std::move(message)};
}

}  // namespace pyserve
