// decimal.h - JSON's decimal numbers -> float and double, rounded to nearest; for json_numbers.cc.
//
// The digits are read eight at a time into 64 bits and scaled in double.  Where that provably
// rounds as the exact value would, it is the answer; everywhere else std::from_chars reads the text
// again.
//
// Every text here ends in a sentinel: `end[-1]` is no digit and no other part of a number, and `p`
// never starts at `end`.  So a scan stops by itself, and only reading a whole word has to look at
// `end`.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <system_error>

namespace pyserve::decimal {

constexpr bool is_digit(char c) noexcept { return static_cast<unsigned char>(c - '0') < 10; }

// ---- digits, eight at a time -------------------------------------------------------------------

inline constexpr std::ptrdiff_t kWordBytes = 8;
inline constexpr std::uint64_t kZeros = 0x3030303030303030;

// A set top bit marks a byte that is no digit; only the lowest mark counts, for a carry or a borrow
// may spoil what lies above it.
constexpr std::uint64_t mark_non_digits(std::uint64_t word) noexcept {
  return ((word + 0x4646464646464646) | (word - kZeros)) & 0x8080808080808080;
}

// The number that eight bytes of 0..9 spell, the first digit in the lowest byte.
constexpr std::uint64_t eight_digits(std::uint64_t word) noexcept {
  constexpr std::uint64_t kPairs = 0x000000FF000000FF;
  constexpr std::uint64_t kLow = 100 + (std::uint64_t{1'000'000} << 32);
  constexpr std::uint64_t kHigh = 1 + (std::uint64_t{10'000} << 32);
  word = (word * 10) + (word >> 8);
  return (((word & kPairs) * kLow) + (((word >> 16) & kPairs) * kHigh)) >> 32;
}

inline constexpr auto kSmallPowersOfTen =
    std::to_array<std::uint64_t>({1, 10, 100, 1'000, 10'000, 100'000, 1'000'000, 10'000'000});

// Where digits ended, and the number they spell; beyond 19 digits it wraps: the caller counts.
// Two words, so that it travels in registers: through memory a scan takes half as long again.
struct Digits {
  const char* end;
  std::uint64_t value;
};

// Appends the digits at `p`, if any, to `value`.
inline Digits scan_digits(const char* p, const char* end, std::uint64_t value) noexcept {
  while (end - p >= kWordBytes) {
    std::uint64_t word = 0;
    std::memcpy(&word, p, sizeof word);
    const std::uint64_t marks = mark_non_digits(word);
    if (marks == 0) {
      value = (value * 100'000'000) + eight_digits(word - kZeros);
      p += kWordBytes;
      continue;
    }
    const int count = std::countr_zero(marks) / 8;
    if (count == 0) return {p, value};
    const std::uint64_t shifted = (word - kZeros) << (8 * (8 - count));
    value = (value * kSmallPowersOfTen[static_cast<std::size_t>(count)]) + eight_digits(shifted);
    return {p + count, value};
  }
  for (; is_digit(*p); ++p) value = (value * 10) + static_cast<std::uint64_t>(*p - '0');
  return {p, value};
}

// ---- decimal numbers ---------------------------------------------------------------------------

// A JSON number: mantissa * 10^exponent while it has no more than kExactDigits digits.
struct Decimal {
  const char* end = nullptr;  // behind the number; null where there is none
  std::uint64_t mantissa = 0;
  std::int64_t exponent = 0;
  std::int64_t digits = 0;
  bool negative = false;
};

inline constexpr std::int64_t kExactDigits = 19;  // 10^19 - 1 fits in 64 bits

struct Exponent {
  const char* end;  // null where "e" is not followed by a number
  std::int64_t value;
};

// `p` is after the "e".
[[gnu::noinline]] inline Exponent scan_exponent(const char* p) noexcept {
  // Beyond any body's length, so that clamping here changes no outcome.
  constexpr std::int64_t kClamp = 1'000'000'000'000;
  const bool negative = *p == '-';
  if (*p == '-' || *p == '+') ++p;
  if (!is_digit(*p)) return {nullptr, 0};
  std::int64_t value = 0;
  for (; is_digit(*p); ++p) value = std::min((value * 10) + (*p - '0'), kClamp);
  return {p, negative ? -value : value};
}

[[gnu::always_inline]] inline Decimal scan_decimal(const char* p, const char* end) noexcept {
  Decimal out;
  out.negative = *p == '-';
  p += static_cast<std::ptrdiff_t>(out.negative);
  if (!is_digit(*p)) return out;
  // The first digit by itself: whether it is a zero is a coin's toss, what follows it is not.
  const char* const integer = p;
  const bool zero = *p == '0';
  Digits digits{p + 1, static_cast<std::uint64_t>(*p - '0')};
  if (is_digit(*digits.end)) {
    if (zero) return out;
    digits = scan_digits(digits.end, end, digits.value);
  }
  out.digits = digits.end - integer - static_cast<std::ptrdiff_t>(zero);
  if (*digits.end == '.') {
    const char* const fraction = digits.end + 1;
    digits = scan_digits(fraction, end, digits.value);
    if (digits.end == fraction) return out;
    out.exponent = fraction - digits.end;
    out.digits -= out.exponent;
  }
  out.mantissa = digits.value;
  out.end = digits.end;
  if ((*out.end | 0x20) == 'e') {
    const Exponent exponent = scan_exponent(out.end + 1);
    out.exponent += exponent.value;
    out.end = exponent.end;
  }
  return out;
}

// What became of a text that is a JSON number, or is not.
enum class Reading : std::uint8_t { kGood, kNotANumber, kOutOfRange };

template <class Float>
struct Number {
  const char* end;  // behind the number
  Reading reading;
  Float value;
};

// Without a branch: in most data the sign is a coin's toss too.
inline double with_sign(double magnitude, bool negative) noexcept {
  const std::uint64_t sign = std::uint64_t{negative} << 63;
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(magnitude) | sign);
}

inline float with_sign(float magnitude, bool negative) noexcept {
  const std::uint32_t sign = std::uint32_t{negative} << 31;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
}

// ---- the way that is right for every number ----------------------------------------------------

// For a non-zero number that no floating-point type can hold: is it too small (it rounds to zero)
// rather than too large?  The two lie so far apart that the sign of the magnitude decides.
inline bool rounds_to_zero(std::string_view token, std::int64_t exponent) noexcept {
  std::int64_t places = 0;  // digits from the first non-zero one on
  for (const char c : token) {
    if (c == 'e' || c == 'E') break;
    if (is_digit(c) && (places != 0 || c != '0')) ++places;
  }
  return places + exponent < 0;
}

template <std::floating_point Float>
[[gnu::noinline]] Number<Float> parse_slowly(std::string_view token, std::int64_t exponent) {
  const char* const end = token.data() + token.size();
  Float value{};
  const std::errc error = std::from_chars(token.data(), end, value).ec;
  if (error == std::errc{} && std::isfinite(value)) return {end, Reading::kGood, value};
  if (error == std::errc{} || !rounds_to_zero(token, exponent)) {
    return {end, Reading::kOutOfRange, 0};
  }
  return {end, Reading::kGood, with_sign(Float{0}, token.front() == '-')};
}

// ---- the fast ways, which say no where they might be wrong -------------------------------------

// 10^-64 to 10^64, each rounded to nearest; exact from 10^0 to 10^22.
inline constexpr std::int64_t kMaxPower = 64;
inline constexpr auto kPowersOfTen = std::to_array<double>({
    1e-64, 1e-63, 1e-62, 1e-61, 1e-60, 1e-59, 1e-58, 1e-57, 1e-56, 1e-55, 1e-54, 1e-53, 1e-52,
    1e-51, 1e-50, 1e-49, 1e-48, 1e-47, 1e-46, 1e-45, 1e-44, 1e-43, 1e-42, 1e-41, 1e-40, 1e-39,
    1e-38, 1e-37, 1e-36, 1e-35, 1e-34, 1e-33, 1e-32, 1e-31, 1e-30, 1e-29, 1e-28, 1e-27, 1e-26,
    1e-25, 1e-24, 1e-23, 1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14, 1e-13,
    1e-12, 1e-11, 1e-10, 1e-9,  1e-8,  1e-7,  1e-6,  1e-5,  1e-4,  1e-3,  1e-2,  1e-1,  1e0,
    1e1,   1e2,   1e3,   1e4,   1e5,   1e6,   1e7,   1e8,   1e9,   1e10,  1e11,  1e12,  1e13,
    1e14,  1e15,  1e16,  1e17,  1e18,  1e19,  1e20,  1e21,  1e22,  1e23,  1e24,  1e25,  1e26,
    1e27,  1e28,  1e29,  1e30,  1e31,  1e32,  1e33,  1e34,  1e35,  1e36,  1e37,  1e38,  1e39,
    1e40,  1e41,  1e42,  1e43,  1e44,  1e45,  1e46,  1e47,  1e48,  1e49,  1e50,  1e51,  1e52,
    1e53,  1e54,  1e55,  1e56,  1e57,  1e58,  1e59,  1e60,  1e61,  1e62,  1e63,  1e64,
});
static_assert(kPowersOfTen.size() == (2 * kMaxPower) + 1);

constexpr double power_of_ten(std::int64_t exponent) noexcept {
  return kPowersOfTen[static_cast<std::size_t>(exponent + kMaxPower)];
}

// Clinger's fast path: mantissa and power are exact, so the one operation rounds correctly.
inline bool parse_fast(const Decimal& decimal, double& out) noexcept {
  constexpr std::uint64_t kExactMantissa = std::uint64_t{1} << 53;
  constexpr std::int64_t kExactPower = 22;
  if (decimal.mantissa > kExactMantissa || decimal.exponent < -kExactPower ||
      decimal.exponent > kExactPower) {
    return false;
  }
  const auto mantissa = static_cast<double>(decimal.mantissa);
  const double magnitude = decimal.exponent < 0 ? mantissa / power_of_ten(-decimal.exponent)
                                                : mantissa * power_of_ten(decimal.exponent);
  out = with_sign(magnitude, decimal.negative);
  return true;
}

// Computed in double, the mantissa, the power and their product each err by at most half a unit in
// the last place: three units for all, to be generous.  Rounding that double to float goes wrong
// only if the exact value lies on the other side of the midpoint of two floats, and a midpoint of
// normal floats is a double whose low 29 bits are 1 followed by zeros.
inline bool parse_fast(const Decimal& decimal, float& out) noexcept {
  constexpr std::uint64_t kLowBits = (std::uint64_t{1} << 29) - 1;
  constexpr std::uint64_t kMidpoint = std::uint64_t{1} << 28;
  constexpr std::uint64_t kGuard = 8;
  if (decimal.exponent < -kMaxPower || decimal.exponent > kMaxPower) return false;
  const double magnitude = static_cast<double>(decimal.mantissa) * power_of_ten(decimal.exponent);
  const std::uint64_t low_bits = std::bit_cast<std::uint64_t>(magnitude) & kLowBits;
  const bool near_midpoint = low_bits - (kMidpoint - kGuard) <= 2 * kGuard;
  const bool normal = magnitude >= double{std::numeric_limits<float>::min()} * 2 &&
                      magnitude <= double{std::numeric_limits<float>::max()};
  if (near_midpoint || !normal) return false;
  out = with_sign(static_cast<float>(magnitude), decimal.negative);
  return true;
}

// Reads the number at `p`.
template <std::floating_point Float>
[[gnu::always_inline]] inline Number<Float> read(const char* p, const char* end) {
  const Decimal decimal = scan_decimal(p, end);
  if (decimal.end == nullptr) return {p, Reading::kNotANumber, 0};
  if (decimal.digits <= kExactDigits) {
    Float value{};
    if (parse_fast(decimal, value)) return {decimal.end, Reading::kGood, value};
    if (decimal.mantissa == 0) {
      return {decimal.end, Reading::kGood, with_sign(Float{0}, decimal.negative)};
    }
  }
  return parse_slowly<Float>({p, static_cast<std::size_t>(decimal.end - p)}, decimal.exponent);
}

}  // namespace pyserve::decimal
