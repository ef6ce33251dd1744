// json_numbers.h - JSON arrays of numbers <-> typed buffers, without an object per number.
//
// Pure functions, safe from any thread; they do not recurse, however deep the brackets, and
// allocate nothing but the output string and an error's message.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/dtype.h"
#include "base/status.h"

namespace pyserve {

// Brackets deeper than this are refused: no tensor has so many dimensions.
inline constexpr int kMaxJsonDepth = 64;

// Reads one JSON array (RFC 8259, strictly: no NaN, no leading zeros, no trailing commas) whose
// elements are numbers or such arrays again, in any mixture, and writes exactly `count` elements to
// `out`, in order, little-endian and unaligned if need be.  `out` holds count * dtype_size(dtype)
// bytes; on an error its contents are unspecified.
//
//   FP64, FP32   rounded to nearest, as std::from_chars does.
//   FP16, BF16   the nearest double, rounded to nearest-even.
//   integers     digits only (no fraction, no exponent), exact, within the dtype's range.
//   BOOL         true, false, 1, 0.
//   BYTES        refused: strings are not numbers.
//
// What rounds beyond the dtype's largest finite value is an error; what rounds to zero is zero.  An
// error names the value (cut short) and the index of the element.
Status parse_json_numbers(std::string_view json, Dtype dtype, std::byte* out, std::size_t count);

// Appends `count` elements at `data` (unaligned is fine) to `out` as one flat array, "[1.0,2.5]":
// the shortest digits that read back as the same value, booleans as true and false.  NaN and
// infinity have no JSON form and are an error, as is BYTES; `out` is then unspecified.
Status format_json_numbers(Dtype dtype, const std::byte* data, std::size_t count, std::string& out);

}  // namespace pyserve
