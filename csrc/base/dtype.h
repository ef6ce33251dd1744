// dtype.h - the element types of the Open Inference Protocol, and their sizes.
//
// Values, no torch: csrc/tensor maps them to scalar types, pyserve/signature.py names the same
// words in Python.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace pyserve {

enum class Dtype : std::uint8_t {
  kBool,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFp16,
  kBf16,
  kFp32,
  kFp64,
  kBytes,
};

inline constexpr std::array kAllDtypes = {
    Dtype::kBool, Dtype::kUint8, Dtype::kUint16, Dtype::kUint32, Dtype::kUint64,
    Dtype::kInt8, Dtype::kInt16, Dtype::kInt32,  Dtype::kInt64,  Dtype::kFp16,
    Dtype::kBf16, Dtype::kFp32,  Dtype::kFp64,   Dtype::kBytes,
};

// Bytes per element; 0 for BYTES, whose elements carry their own length.
constexpr std::size_t dtype_size(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kBool:
    case Dtype::kUint8:
    case Dtype::kInt8:
      return 1;
    case Dtype::kUint16:
    case Dtype::kInt16:
    case Dtype::kFp16:
    case Dtype::kBf16:
      return 2;
    case Dtype::kUint32:
    case Dtype::kInt32:
    case Dtype::kFp32:
      return 4;
    case Dtype::kUint64:
    case Dtype::kInt64:
    case Dtype::kFp64:
      return 8;
    case Dtype::kBytes:
      return 0;
  }
  return 0;
}

// The word on the wire: "FP32".
constexpr std::string_view dtype_name(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kBool:
      return "BOOL";
    case Dtype::kUint8:
      return "UINT8";
    case Dtype::kUint16:
      return "UINT16";
    case Dtype::kUint32:
      return "UINT32";
    case Dtype::kUint64:
      return "UINT64";
    case Dtype::kInt8:
      return "INT8";
    case Dtype::kInt16:
      return "INT16";
    case Dtype::kInt32:
      return "INT32";
    case Dtype::kInt64:
      return "INT64";
    case Dtype::kFp16:
      return "FP16";
    case Dtype::kBf16:
      return "BF16";
    case Dtype::kFp32:
      return "FP32";
    case Dtype::kFp64:
      return "FP64";
    case Dtype::kBytes:
      return "BYTES";
  }
  return "";
}

// The dtype that goes by `name`, exactly; nullopt for any other word.
constexpr std::optional<Dtype> parse_dtype(std::string_view name) noexcept {
  for (const Dtype dtype : kAllDtypes) {
    if (dtype_name(dtype) == name) return dtype;
  }
  return std::nullopt;
}

}  // namespace pyserve
