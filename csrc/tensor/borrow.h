// borrow.h - bytes from outside -> the inputs of a request, without a copy where legal.
//
// A borrowed tensor points into the sender's buffer, which the request keeps alive until
// its completion is drained.  Bytes that are not aligned for their dtype are copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/signature.h"
#include "tensor/value.h"

namespace pyserve {

// One input as a protocol delivers it: every field is the sender's word for it.
struct WireTensor {
  std::string_view name;
  std::string_view datatype;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;  // little-endian, C order; BYTES: u32 length + bytes each
};

// Fills `inputs` in the signature's order.  Checks names, dtypes, shapes and byte sizes with
// arithmetic that cannot overflow, and sets `rows`; allocates nothing that the data does not back.
Status borrow_inputs(const Signature& signature, std::span<const WireTensor> tensors,
                     Values& inputs, std::int64_t& rows);

// The BYTES form of strings: a 4-byte little-endian length before each.
std::vector<std::byte> encode_strings(const Strings& strings);

}  // namespace pyserve
