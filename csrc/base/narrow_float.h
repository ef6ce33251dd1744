// narrow_float.h - FP16 and BF16 values without a type for them: 16 bits <-> wider floats.

#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>

namespace pyserve {

// Rounds to a 16-bit float of so many exponent and mantissa bits, to nearest-even; nullopt beyond
// its largest finite value.
template <int kExponentBits, int kMantissaBits>
std::optional<std::uint16_t> narrow(double value) noexcept {
  static_assert(kExponentBits + kMantissaBits == 15);
  constexpr int kBias = (1 << (kExponentBits - 1)) - 1;
  constexpr int kDoubleMantissa = 52;
  constexpr std::uint64_t kHidden = std::uint64_t{1} << kDoubleMantissa;
  constexpr std::uint64_t kInfinity = ((std::uint64_t{1} << kExponentBits) - 1) << kMantissaBits;

  const auto bits = std::bit_cast<std::uint64_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 63 << 15);
  const int exponent = static_cast<int>(bits >> kDoubleMantissa & 0x7FF) - 1023;
  const bool subnormal = exponent < 1 - kBias;
  const int shift = kDoubleMantissa - kMantissaBits + (subnormal ? 1 - kBias - exponent : 0);
  if (shift > kDoubleMantissa + 1) return sign;  // below half of the smallest subnormal

  const std::uint64_t significand = (bits & (kHidden - 1)) | kHidden;
  const std::uint64_t rest = significand & ((std::uint64_t{1} << shift) - 1);
  const std::uint64_t half = std::uint64_t{1} << (shift - 1);
  std::uint64_t rounded = significand >> shift;
  if (rest > half || (rest == half && (rounded & 1) != 0)) ++rounded;
  // A carry out of the mantissa lands in the exponent, where it belongs; the hidden bit of a normal
  // number does too, so the exponent is written one low.
  if (!subnormal) rounded += static_cast<std::uint64_t>(exponent + kBias - 1) << kMantissaBits;
  if (rounded >= kInfinity) return std::nullopt;
  return static_cast<std::uint16_t>(sign | rounded);
}

inline float widen_half(std::uint16_t bits) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t exponent = bits >> 10 & 0x1FU;
  const std::uint32_t mantissa = bits & 0x3FFU;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t wide = exponent == 0x1F ? 0xFFU : exponent + 127 - 15;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

inline float widen_bfloat(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace pyserve
