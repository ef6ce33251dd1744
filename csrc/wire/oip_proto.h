// oip_proto.h - gRPC's Open Inference Protocol: ModelInferRequest as views, ModelInferResponse as
// bytes.
//
// A strict subset of what protobuf takes, with the same meaning: names, shapes and raw contents,
// each field that is not repeated at most once, strings that are UTF-8, integers in as few bytes as
// they need, and of parameters the request's timeout and priority.  Other parameters, typed
// contents and unknown fields are nothing here, without a message, and pyserve/wire/oip_proto.py's
// to judge.
//
// Pure functions, safe from any thread; they do not recurse, and run in time linear in the bytes.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "wire/oip_answer.h"
#include "wire/oip_request.h"

namespace pyserve {

struct ProtoInput {
  std::string_view name;
  std::string_view datatype;        // any word; see parse_dtype
  std::vector<std::int64_t> shape;  // each within [0, 2^62); their product is for others to check
  std::string_view data;            // its raw contents
};

struct ProtoRequest {
  std::string_view model, version, id;  // version and id may be empty
  std::vector<ProtoInput> inputs;
  std::optional<std::vector<OipOutput>> outputs;  // nothing: all
  std::int64_t timeout_us = 0;                    // from arrival, below 2^62; 0: it names none
  std::uint8_t priority = 0;                      // 1 to kMaxOipPriority; 0: it names none
};

// Reads `message`, into which all views of `out` will point.  False for whatever is not plainly
// such a request; `out` is then unspecified.  `out` may be used again and again, and keeps its
// memory.
[[nodiscard]] bool parse_infer_request(std::string_view message, ProtoRequest& out);

// The length of the ModelInferResponse, every output in raw_output_contents, and its bytes: those
// that pyserve/wire/oip_proto.py makes of the same values.
[[nodiscard]] std::size_t infer_response_bytes(const OipAnswer& answer) noexcept;
void write_infer_response(const OipAnswer& answer, char* out) noexcept;

}  // namespace pyserve
