// oip_answer.h - the HTTP answer to an Open Inference Protocol request, head and body, as one text.
//
// Byte for byte what the plain lane sends for the same values: pyserve/http/answers.py (the head),
// pyserve/http/oip.py (its fields) and pyserve/wire/oip_binary.py (the body).  A client cannot tell
// by which lane its request went.
//
// Safe from any thread.  Each thread keeps a buffer for the JSON and the current Date line.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/dtype.h"
#include "base/status.h"

namespace pyserve {

struct OipAnswerOutput {
  std::string_view name;
  Dtype dtype;
  std::span<const std::int64_t> shape;
  std::span<const std::byte> data;  // little-endian, C order, as the shape has it
  bool binary;                      // as it is behind the JSON, else as numbers; BYTES only so
};

struct OipAnswerTiming {
  std::int64_t parse_ns, queue_ns, batch_size, copy_in_ns, compute_ns, copy_out_ns;
};

// Names, version and id are printable ASCII without backslash and quote: they are not escaped.
struct OipAnswer {
  std::string_view model, version, id;  // an empty id is left out
  std::span<const OipAnswerOutput> outputs;
  OipAnswerTiming timing;
  bool close = false;            // the connection ends with this answer
  std::string_view fields = {};  // more header lines, each ended by CR LF
};

// Appends the answer to `out`.  An output that JSON cannot carry (NaN, infinity, BYTES) is an error
// that names it; `out` is then unspecified.
Status write_oip_answer(const OipAnswer& answer, std::string& out);

// Appends the value of Server-Timing; as pyserve/wire/server_timing.py.
void append_server_timing(const OipAnswerTiming& timing, std::string& out);

// Appends the time as HTTP writes it (RFC 7231): "Sun, 06 Nov 1994 08:49:37 GMT".  `seconds` since
// 1970, within the years 1000 to 9999.
void append_http_date(std::int64_t seconds, std::string& out);

}  // namespace pyserve
