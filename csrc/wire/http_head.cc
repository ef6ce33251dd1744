#include "wire/http_head.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace pyserve {
namespace {

// ---- characters --------------------------------------------------------------------------------

constexpr std::uint8_t kToken = 1;      // of a header's name, as RFC 9110 has it
constexpr std::uint8_t kValue = 2;      // of a header's value: printable ASCII and tab
constexpr std::uint8_t kTarget = 4;     // of a request target: visible ASCII
constexpr std::uint8_t kPlainPath = 8;  // of a path that means itself: nothing to decode

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

constexpr bool is_letter(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

constexpr std::array<std::uint8_t, 256> kClasses = [] {
  std::array<std::uint8_t, 256> classes{};
  for (int code = 0; code < 128; ++code) {
    const char c = static_cast<char>(code);
    const bool word = is_digit(c) || is_letter(c);
    const bool visible = c > ' ' && c <= '~';
    std::uint8_t& of = classes[static_cast<std::size_t>(code)];
    if (word || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos) of |= kToken;
    if (visible || c == ' ' || c == '\t') of |= kValue;
    if (visible) of |= kTarget;
    if (word || std::string_view("._-/").find(c) != std::string_view::npos) of |= kPlainPath;
  }
  return classes;
}();

constexpr bool is(char c, std::uint8_t kind) noexcept {
  return (kClasses[static_cast<unsigned char>(c)] & kind) != 0;
}

// Takes the characters of `kind` that `rest` begins with.
std::string_view take(std::string_view& rest, std::uint8_t kind) noexcept {
  std::size_t size = 0;
  while (size < rest.size() && is(rest[size], kind)) ++size;
  const std::string_view taken = rest.substr(0, size);
  rest.remove_prefix(size);
  return taken;
}

bool take(std::string_view& rest, std::string_view word) noexcept {
  if (!rest.starts_with(word)) return false;
  rest.remove_prefix(word.size());
  return true;
}

// Whether `rest` ends within `word`: more bytes may complete it.
bool ends_within(std::string_view rest, std::string_view word) noexcept {
  return rest.size() < word.size() && word.starts_with(rest);
}

// The value without the optional white space that HTTP allows round it.
std::string_view trimmed(std::string_view value) noexcept {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!value.empty() && blank(value.front())) value.remove_prefix(1);
  while (!value.empty() && blank(value.back())) value.remove_suffix(1);
  return value;
}

constexpr char lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Whether `text` is `word`, which is in lower case, in whatever case.
bool same(std::string_view text, std::string_view word) noexcept {
  return text.size() == word.size() && std::equal(text.begin(), text.end(), word.begin(),
                                                  [](char a, char b) { return lower(a) == b; });
}

bool begins(std::string_view text, std::string_view word) noexcept {
  return text.size() >= word.size() && same(text.substr(0, word.size()), word);
}

// So that no sum of two such numbers overflows.
constexpr std::size_t kMaxDigits = 18;

// At most so many ASCII digits.
std::optional<std::size_t> parse_length(std::string_view digits) noexcept {
  if (digits.empty() || digits.size() > kMaxDigits) return std::nullopt;
  std::size_t length = 0;
  for (const char c : digits) {
    if (!is_digit(c)) return std::nullopt;
    length = length * 10 + static_cast<std::size_t>(c - '0');
  }
  return length;
}

// ---- headers -----------------------------------------------------------------------------------

// What a header is to the express lane.
enum class Meaning : std::uint8_t {
  kNone,     // nothing
  kUnclear,  // the end of the request, or aiohttp's opinion of it, depends on more than we know
  kSpecial,  // asks for something that only the plain lane does
  kContentLength,
  kHeaderLength,
  kAcceptEncoding,
  kConnection,
  kContentType,
  kOrigin,
};

// What a second header of the name makes of the request.
enum class Second : std::uint8_t { kAllowed, kUnclear, kSpecial };

struct KnownHeader {
  std::string_view name;
  Meaning meaning;
  Second second = Second::kAllowed;
};

// aiohttp refuses a request that gives one of its singletons twice, and one with
// Sec-WebSocket-Key1; llhttp reads Proxy-Connection like Connection.
constexpr std::array kKnownHeaders = {
    KnownHeader{"host", Meaning::kNone, Second::kUnclear},
    KnownHeader{"content-length", Meaning::kContentLength, Second::kUnclear},
    KnownHeader{"content-type", Meaning::kContentType, Second::kUnclear},
    KnownHeader{"user-agent", Meaning::kNone, Second::kUnclear},
    KnownHeader{"connection", Meaning::kConnection, Second::kUnclear},
    KnownHeader{"accept-encoding", Meaning::kAcceptEncoding, Second::kSpecial},
    KnownHeader{"inference-header-content-length", Meaning::kHeaderLength, Second::kSpecial},
    KnownHeader{"content-location", Meaning::kNone, Second::kUnclear},
    KnownHeader{"content-range", Meaning::kNone, Second::kUnclear},
    KnownHeader{"etag", Meaning::kNone, Second::kUnclear},
    KnownHeader{"max-forwards", Meaning::kNone, Second::kUnclear},
    KnownHeader{"server", Meaning::kNone, Second::kUnclear},
    KnownHeader{"transfer-encoding", Meaning::kUnclear},
    KnownHeader{"upgrade", Meaning::kUnclear},
    KnownHeader{"proxy-connection", Meaning::kUnclear},
    KnownHeader{"sec-websocket-key1", Meaning::kUnclear},
    KnownHeader{"content-encoding", Meaning::kSpecial},
    KnownHeader{"expect", Meaning::kSpecial},
    KnownHeader{"te", Meaning::kSpecial},
    KnownHeader{"trailer", Meaning::kSpecial},
    KnownHeader{"origin", Meaning::kOrigin},
    KnownHeader{"http2-settings", Meaning::kSpecial},
};
static_assert(kKnownHeaders.size() <= 32, "one bit each");
constexpr std::uint32_t kHostBit = 1;  // the first in the list
constexpr std::uint32_t kContentLengthBit = 2;

// Every header of one request, one after the other.
class Headers {
 public:
  explicit Headers(HttpHead& head) : head_(head) {}

  // Takes in one header; false where the end of the request is no longer certain.
  bool add(std::string_view name, std::string_view value) noexcept {
    for (std::size_t i = 0; i < kKnownHeaders.size(); ++i) {
      const KnownHeader& known = kKnownHeaders[i];
      if (!same(name, known.name)) continue;
      const std::uint32_t bit = std::uint32_t{1} << i;
      if ((seen_ & bit) != 0) {
        if (known.second == Second::kUnclear) return false;
        special_ |= known.second == Second::kSpecial;
      }
      seen_ |= bit;
      return read(known.meaning, value);
    }
    special_ |= begins(name, "proxy-") || begins(name, "sec-");
    return true;
  }

  [[nodiscard]] bool has_host() const noexcept { return (seen_ & kHostBit) != 0; }
  [[nodiscard]] bool has_length() const noexcept { return (seen_ & kContentLengthBit) != 0; }
  [[nodiscard]] bool special() const noexcept { return special_; }

 private:
  bool read(Meaning meaning, std::string_view value) noexcept {
    switch (meaning) {
      case Meaning::kNone:
        return true;
      case Meaning::kUnclear:
        return false;
      case Meaning::kSpecial:
        special_ = true;
        return true;
      case Meaning::kContentLength: {
        const auto length = parse_length(value);
        head_.body_bytes = length.value_or(0);
        return length.has_value();
      }
      case Meaning::kHeaderLength:
        head_.header_length = parse_length(value);
        special_ |= !head_.header_length;
        return true;
      case Meaning::kAcceptEncoding:
        head_.accepts_compression |= !value.empty() && !same(value, "identity");
        return true;
      case Meaning::kConnection:
        head_.close = same(value, "close");
        special_ |= head_.close;
        return head_.close || same(value, "keep-alive");
      case Meaning::kOrigin:
        head_.origin = true;
        return true;
      case Meaning::kContentType:
        special_ |= begins(value, "multipart/");
        return true;
    }
    return false;
  }

  HttpHead& head_;
  std::uint32_t seen_ = 0;  // a bit for each of kKnownHeaders
  bool special_ = false;
};

// ---- the request line --------------------------------------------------------------------------

// Methods that aiohttp knows and that have no rules of their own for where a request ends.
constexpr std::array<std::string_view, 7> kMethods = {"POST",    "GET",   "HEAD",  "PUT",
                                                      "OPTIONS", "PATCH", "DELETE"};

// A path that no reader decodes, splits or normalises into another one.
bool is_plain_path(std::string_view target) noexcept {
  if (!std::all_of(target.begin(), target.end(), [](char c) { return is(c, kPlainPath); })) {
    return false;
  }
  for (std::size_t at = 0; (at = target.find('/', at)) != std::string_view::npos;) {
    ++at;
    const std::string_view segment = target.substr(at, target.find('/', at) - at);
    if (segment == "." || segment == ".." || (segment.empty() && at != target.size())) return false;
  }
  return true;
}

enum class Found : std::uint8_t { kWhole, kPartial, kOdd };

constexpr std::string_view kVersionAndLineEnd = " HTTP/1.1\r\n";

// A text that ends within a header's value.  Others judge that of some headers character by
// character, so what they would refuse is not waited for.
bool may_go_on(const Headers& before, std::string_view name, std::string_view value) noexcept {
  if (same(name, "content-length")) {
    return !before.has_length() && value.size() <= kMaxDigits &&
           std::all_of(value.begin(), value.end(), is_digit);
  }
  return !same(name, "transfer-encoding");
}

Found read_head(std::string_view text, HttpHead& head) noexcept {
  const std::string_view whole = text.substr(0, kMaxHeadBytes);
  const Found cut = text.size() < kMaxHeadBytes ? Found::kPartial : Found::kOdd;
  std::string_view rest = whole;
  const std::string_view method = take(rest, kToken);
  const bool known = std::find(kMethods.begin(), kMethods.end(), method) != kMethods.end();
  if (rest.empty()) {
    return std::any_of(kMethods.begin(), kMethods.end(),
                       [&](std::string_view one) { return one.starts_with(method); })
               ? cut
               : Found::kOdd;
  }
  if (!known || !take(rest, " ")) return Found::kOdd;
  head.target = take(rest, kTarget);
  if (!head.target.starts_with('/')) return rest.empty() && head.target.empty() ? cut : Found::kOdd;
  if (!take(rest, kVersionAndLineEnd)) {
    return ends_within(rest, kVersionAndLineEnd) ? cut : Found::kOdd;
  }

  Headers headers(head);
  for (std::size_t count = 0; !take(rest, "\r\n"); ++count) {
    if (ends_within(rest, "\r\n")) return cut;
    const std::string_view name = take(rest, kToken);
    if (count == kMaxHeaders || name.empty()) return Found::kOdd;
    if (rest.empty()) return cut;
    if (!take(rest, ":")) return Found::kOdd;
    const std::string_view value = trimmed(take(rest, kValue));
    if (ends_within(rest, "\r\n")) {
      return may_go_on(headers, name, value) ? cut : Found::kOdd;
    }
    if (!take(rest, "\r\n") || !headers.add(name, value)) return Found::kOdd;
  }
  head.head_bytes = whole.size() - rest.size();

  if (!headers.has_host()) return Found::kOdd;  // aiohttp refuses that
  // Some take a body here for the next request, so whoever sends one may be up to something.
  if ((method == "GET" || method == "HEAD") && head.body_bytes > 0) return Found::kOdd;
  head.ordinary =
      method == "POST" && headers.has_length() && !headers.special() && is_plain_path(head.target);
  return Found::kWhole;
}

}  // namespace

std::optional<HttpHead> parse_http_head(std::string_view text) noexcept {
  HttpHead head;
  return read_head(text, head) == Found::kWhole ? std::optional(head) : std::nullopt;
}

bool begins_http_head(std::string_view text) noexcept {
  HttpHead head;
  return read_head(text, head) == Found::kPartial;
}

}  // namespace pyserve
