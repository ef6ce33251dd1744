// mutate.h - a valid text with a few seeded faults, for parsers that must not be led astray.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pyserve {

// `text`, which must be long, with up to three characters of `alphabet` put in, pieces left out or
// repeated, and now and then cut off.  `random` is seeded_random()'s, or alike.
template <class Random>
std::string mutated(std::string text, std::string_view alphabet, Random& random) {
  for (std::uint64_t edits = random() % 4; edits-- > 0;) {
    const std::size_t at = random() % text.size();
    const char c = alphabet[random() % alphabet.size()];
    switch (random() % 4) {
      case 0:
        text[at] = c;
        break;
      case 1:
        text.insert(at, 1, c);
        break;
      case 2:
        text.erase(at, 1 + random() % 3);
        break;
      default:
        text.insert(at, text.substr(random() % text.size(), random() % 40));
    }
  }
  if (random() % 8 == 0) text.resize(random() % text.size());
  return text;
}

}  // namespace pyserve
