// oip_request.h - the JSON of the commonest Open Inference Protocol requests, as views.
//
// A strict subset of what pyserve/wire/header.py takes, with the same meaning: the keys that most
// clients send, each at most once, strings that are their own value (printable ASCII, no escape),
// no null.  Whatever else comes is false here, without a message, and the plain lane's to judge.
//
// The numbers in an input's data are not read: such an array holds no string and no object, so it
// ends at the last bracket before what must follow it, a quote or the closing brace of its input,
// and memchr finds those at the speed of memory.  Where a text is no valid JSON, or its array does
// hold strings or objects, that end may be the wrong one.  That does no harm as long as `data` goes
// through parse_json_numbers, which takes nothing but one whole array of numbers, balanced, at most
// kMaxJsonDepth deep and with nothing after it: an array that it takes ends where it was cut,
// for it has no bracket to spare on either side.  Until then the request is not known to be valid.
//
// A pure function, safe from any thread; it does not recurse, and runs in time linear in the text.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace pyserve {

inline constexpr std::uint8_t kMaxOipPriority = 3;
inline constexpr std::size_t kMaxOipTensors = 64;     // inputs of a request, and outputs
inline constexpr std::size_t kMaxOipDimensions = 64;  // of one input

struct OipInput {
  std::string_view name;
  std::string_view datatype;        // any word; see parse_dtype
  std::vector<std::int64_t> shape;  // each within [0, 2^62); their product is for others to check
  // Either the one or the other is given.
  std::optional<std::size_t> binary_size;  // below 2^62
  std::string_view data;  // the JSON text of its array, still to be checked; or empty
};

struct OipOutput {
  std::string_view name;
  bool binary = false;
};

struct OipRequest {
  std::string_view id;  // may be empty
  std::vector<OipInput> inputs;
  std::optional<std::vector<OipOutput>> outputs;  // nothing: all
  bool binary_default = false;                    // for outputs that the request does not list
  std::int64_t timeout_us = 0;                    // from arrival, below 2^62; 0: it names none
  std::uint8_t priority = 0;                      // 1 to kMaxOipPriority; 0: it names none
};

// Reads `json`, into which all views of `out` will point.  False for whatever is not plainly such a
// request; `out` is then unspecified.  `out` may be used again and again, and keeps its memory.
[[nodiscard]] bool parse_oip_request(std::string_view json, OipRequest& out);

}  // namespace pyserve
