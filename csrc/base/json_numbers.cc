#include "base/json_numbers.h"

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
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include "base/decimal.h"
#include "base/dtype.h"
#include "base/narrow_float.h"
#include "base/status.h"

namespace pyserve {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors on the wire are little-endian");

// Why one element could not be read.
enum class Fault : std::uint8_t { kNone, kNotANumber, kNotAnInteger, kNotABool, kOutOfRange };

struct Step {
  const char* next;  // the first character after the element
  Fault fault;
};

using decimal::is_digit;

constexpr bool is_space(char c) noexcept { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// The first character from `p` on that is no space; there is one.
inline const char* skip_space(const char* p) noexcept {
  while (*p <= ' ' && is_space(*p)) ++p;
  return p;
}

// ---- one element of each dtype -----------------------------------------------------------------

template <class T>
void store(std::byte* out, T value) noexcept {
  std::memcpy(out, &value, sizeof value);
}

template <class T>
T load(const std::byte* data) noexcept {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

Fault fault_of(decimal::Reading reading) noexcept {
  switch (reading) {
    case decimal::Reading::kGood:
      return Fault::kNone;
    case decimal::Reading::kOutOfRange:
      return Fault::kOutOfRange;
    case decimal::Reading::kNotANumber:
      break;
  }
  return Fault::kNotANumber;
}

template <std::floating_point Float>
struct FloatElement {
  using Stored = Float;
  static Step read(const char* p, const char* end, std::byte* out) {
    const auto number = decimal::read<Float>(p, end);
    store(out, number.value);
    return {number.end, fault_of(number.reading)};
  }
  static Float value(const std::byte* data) noexcept { return load<Float>(data); }
};

template <int kExponentBits, int kMantissaBits, float (*kWiden)(std::uint16_t) noexcept>
struct NarrowElement {
  using Stored = std::uint16_t;
  static Step read(const char* p, const char* end, std::byte* out) {
    const auto number = decimal::read<double>(p, end);
    const auto narrowed = narrow<kExponentBits, kMantissaBits>(number.value);
    if (!narrowed) return {number.end, Fault::kOutOfRange};
    store(out, *narrowed);
    return {number.end, fault_of(number.reading)};
  }
  static float value(const std::byte* data) noexcept { return kWiden(load<std::uint16_t>(data)); }
};

template <std::integral Int>
struct IntElement {
  using Stored = Int;
  static Step read(const char* p, const char* end, std::byte* out) {
    const char* const token = p;
    const bool negative = *p == '-';
    if (negative) ++p;
    if (!is_digit(*p)) return {token, Fault::kNotANumber};
    const char* const first = p;
    auto [next, magnitude] = decimal::scan_digits(first, end, 0);
    p = next;
    if (*first == '0' && p - first > 1) return {token, Fault::kNotANumber};
    if (*p == '.' || *p == 'e' || *p == 'E') return {token, Fault::kNotAnInteger};
    if (p - first > decimal::kExactDigits &&
        std::from_chars(first, p, magnitude).ec == std::errc::result_out_of_range) {
      return {token, Fault::kOutOfRange};
    }
    constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<Int>::max());
    constexpr std::uint64_t kMaxNegative = std::is_signed_v<Int> ? kMax + 1 : 0;
    if (magnitude > (negative ? kMaxNegative : kMax)) return {token, Fault::kOutOfRange};
    store(out, static_cast<Int>(negative ? 0 - magnitude : magnitude));
    return {p, Fault::kNone};
  }
  static Int value(const std::byte* data) noexcept { return load<Int>(data); }
};

struct BoolElement {
  using Stored = std::uint8_t;
  static Step read(const char* p, const char* end, std::byte* out) {
    const std::string_view rest(p, static_cast<std::size_t>(end - p));
    for (const auto& [word, value] : kWords) {
      if (!rest.starts_with(word)) continue;
      const char* const next = p + word.size();
      if (is_digit(*next) || *next == '.') break;
      store(out, value);
      return {next, Fault::kNone};
    }
    return {p, Fault::kNotABool};
  }
  static bool value(const std::byte* data) noexcept { return load<std::uint8_t>(data) != 0; }

 private:
  static constexpr std::array<std::pair<std::string_view, std::uint8_t>, 4> kWords = {
      {{"true", 1}, {"false", 0}, {"1", 1}, {"0", 0}}};
};

// Calls `visit` with the Element of `dtype`; BYTES has none.
template <class Visitor>
Status with_element(Dtype dtype, Visitor&& visit) {
  switch (dtype) {
    case Dtype::kBool:
      return visit(BoolElement{});
    case Dtype::kUint8:
      return visit(IntElement<std::uint8_t>{});
    case Dtype::kUint16:
      return visit(IntElement<std::uint16_t>{});
    case Dtype::kUint32:
      return visit(IntElement<std::uint32_t>{});
    case Dtype::kUint64:
      return visit(IntElement<std::uint64_t>{});
    case Dtype::kInt8:
      return visit(IntElement<std::int8_t>{});
    case Dtype::kInt16:
      return visit(IntElement<std::int16_t>{});
    case Dtype::kInt32:
      return visit(IntElement<std::int32_t>{});
    case Dtype::kInt64:
      return visit(IntElement<std::int64_t>{});
    case Dtype::kFp16:
      return visit(NarrowElement<5, 10, widen_half>{});
    case Dtype::kBf16:
      return visit(NarrowElement<8, 7, widen_bfloat>{});
    case Dtype::kFp32:
      return visit(FloatElement<float>{});
    case Dtype::kFp64:
      return visit(FloatElement<double>{});
    case Dtype::kBytes:
      break;
  }
  return invalid_input("BYTES elements are strings, not numbers");
}

// ---- arrays ------------------------------------------------------------------------------------

// The text at `p`, cut to 40 characters and made printable: a message may go anywhere.
std::string quote(const char* p, const char* end) {
  constexpr std::ptrdiff_t kMaxQuoted = 40;
  std::string text = "\"";
  const char* const cut = p + std::min(end - p, kMaxQuoted);
  const char* const first = p;
  for (; p != cut; ++p) {
    const bool delimiter = *p == ',' || *p == ']' || *p == ' ' || *p == '\n';
    if (delimiter && p != first) break;
    text += *p >= ' ' && *p <= '~' ? *p : '?';
  }
  const bool was_cut = p == cut && p != end;
  return text + (was_cut ? "...\"" : "\"");
}

[[gnu::cold]] Status describe(Fault fault, Dtype dtype, std::size_t index, const char* token,
                              const char* end) {
  std::string message = "element " + std::to_string(index);
  message += " is " + quote(token, end);
  switch (fault) {
    case Fault::kOutOfRange:
      message += ", out of range for ";
      message += dtype_name(dtype);
      break;
    case Fault::kNotAnInteger:
      message += ", expected an integer for ";
      message += dtype_name(dtype);
      break;
    case Fault::kNotABool:
      message += ", expected true, false, 1 or 0";
      break;
    default:
      message += ", expected a number";
  }
  return invalid_input(std::move(message));
}

std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

template <class Element>
Status parse_array(std::string_view json, Dtype dtype, std::byte* out, std::size_t count) {
  json = trim(json);
  if (json.empty() || json.front() != '[') return invalid_input("expected an array of numbers");
  if (json.back() != ']') return invalid_input("the array of numbers is not closed");
  // That bracket is the sentinel: nothing but a bracket is consumed where it stands, so wherever
  // something else was, `p` is still before `end`.
  const char* p = json.data();
  const char* const end = p + json.size();
  std::size_t index = 0;
  int depth = 0;
  for (;;) {  // a value is due at `p`
    if (*p == '[') {
      if (++depth > kMaxJsonDepth) {
        return invalid_input("arrays nested deeper than " + std::to_string(kMaxJsonDepth));
      }
      p = skip_space(p + 1);
      if (*p != ']') continue;
    } else {
      if (index == count) {
        return invalid_input("expected " + std::to_string(count) + " numbers, got more");
      }
      const Step step = Element::read(p, end, out);
      if (step.fault != Fault::kNone) return describe(step.fault, dtype, index, p, end);
      out += sizeof(typename Element::Stored);
      ++index;
      p = skip_space(step.next);
    }
    while (*p == ']') {
      ++p;
      if (--depth == 0 || p == end) break;
      p = skip_space(p);
    }
    if (depth == 0) break;
    if (p == end) return invalid_input("the array of numbers is not closed");
    if (*p != ',') return invalid_input("expected \",\" or \"]\", got " + quote(p, end));
    p = skip_space(p + 1);
  }
  if (p != end) return invalid_input("unexpected text after the array: " + quote(p, end));
  if (index != count) {
    return invalid_input("expected " + std::to_string(count) + " numbers, got " +
                         std::to_string(index));
  }
  return {};
}

// Writes one element and returns its end; `out` has room for kMaxElementChars.
constexpr std::size_t kMaxElementChars = 32;

char* write(char* out, bool value) noexcept {
  const std::string_view word = value ? "true" : "false";
  return std::copy(word.begin(), word.end(), out);
}

template <std::integral Int>
char* write(char* out, Int value) noexcept {
  return std::to_chars(out, out + kMaxElementChars, value).ptr;
}

template <std::floating_point Float>
char* write(char* out, Float value) noexcept {
  char* const end = std::to_chars(out, out + kMaxElementChars - 2, value).ptr;
  // 1 becomes 1.0: a reader in a dynamic language should see a float in every element.
  if (std::find_if(out, end, [](char c) { return c == '.' || c == 'e'; }) != end) return end;
  end[0] = '.';
  end[1] = '0';
  return end + 2;
}

template <class Element>
Status format_array(const std::byte* data, std::size_t count, std::string& out) {
  std::array<char, 4096> buffer;
  char* const flush_at = buffer.data() + buffer.size() - kMaxElementChars - 2;
  char* p = buffer.data();
  *p++ = '[';
  for (std::size_t i = 0; i < count; ++i, data += sizeof(typename Element::Stored)) {
    const auto value = Element::value(data);
    if constexpr (std::is_floating_point_v<decltype(value)>) {
      if (!std::isfinite(value)) {
        const std::string_view word = std::isnan(value) ? "NaN" : value > 0 ? "inf" : "-inf";
        return invalid_input("element " + std::to_string(i) + " is " + std::string(word) +
                             ", which JSON cannot carry: ask for binary data");
      }
    }
    if (i != 0) *p++ = ',';
    p = write(p, value);
    if (p >= flush_at) {
      out.append(buffer.data(), p);
      p = buffer.data();
    }
  }
  *p++ = ']';
  out.append(buffer.data(), p);
  return {};
}

}  // namespace

Status parse_json_numbers(std::string_view json, Dtype dtype, std::byte* out, std::size_t count) {
  return with_element(
      dtype, [&]<class Element>(Element) { return parse_array<Element>(json, dtype, out, count); });
}

Status format_json_numbers(Dtype dtype, const std::byte* data, std::size_t count,
                           std::string& out) {
  return with_element(
      dtype, [&]<class Element>(Element) { return format_array<Element>(data, count, out); });
}

}  // namespace pyserve
