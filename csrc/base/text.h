// text.h - text from outside (a client's name for an input, what a model raised) made fit for
// a message, which travels as a Python string, JSON and a header: all of them want UTF-8.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace pyserve {

// Bytes of the UTF-8 character that `text` starts with; 0 if it starts with none (a stray or
// missing continuation, an overlong form, a surrogate, beyond U+10FFFF).
[[nodiscard]] constexpr std::size_t utf8_length(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (text.empty()) {
    return 0;
  }
  const unsigned lead = byte(0);
  if (lead < 0x80) {
    return 1;
  }
  if (lead < 0xC2 || lead > 0xF4) {
    return 0;
  }
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() < length) {
    return 0;
  }
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) {
      return 0;
    }
  }
  const unsigned second = byte(1);
  const bool wrong = (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
                     (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F);
  return wrong ? 0 : length;
}

// The first `limit` bytes of `text` at most, cut between characters, with a `?` for every byte
// that is no UTF-8.
[[nodiscard]] inline std::string utf8_text(std::string_view text, std::size_t limit) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const std::string_view character = length > 0 ? text.substr(0, length) : "?";
    if (out.size() + character.size() > limit) {
      break;
    }
    out += character;
    text.remove_prefix(length > 0 ? length : 1);
  }
  return out;
}

}  // namespace pyserve
