// http_head.h - the request line and headers of an HTTP/1.1 request that is plainly well-formed.
//
// The express lane and aiohttp read the same connection, so they must agree where each request
// ends; one that they cut differently could smuggle another past the checks of either.  So this
// reads a strict subset of what aiohttp (llhttp) takes, and takes nothing that aiohttp refuses or
// reads in another way: CR LF line ends, single spaces, the common methods, no folded lines, no
// control or non-ASCII characters, one Host, at most one Content-Length, no Transfer-Encoding, no
// Upgrade.  Whatever else arrives is nullopt here and aiohttp's to judge.
//
// A pure function, safe from any thread; it allocates nothing.

#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace pyserve {

// A head longer than this, or with more headers, is not read; aiohttp's limits are wider.
inline constexpr std::size_t kMaxHeadBytes = 8000;
inline constexpr std::size_t kMaxHeaders = 64;

struct HttpHead {
  std::string_view target;     // as sent; views into the text
  std::size_t head_bytes = 0;  // through the blank line
  std::size_t body_bytes = 0;  // Content-Length, 0 without one; below 10^18
  // Inference-Header-Content-Length, where there is one that can be read.
  std::optional<std::size_t> header_length;
  // An Accept-Encoding that names anything but identity.
  bool accepts_compression = false;
  // An Origin: a web page asks, and some servers answer it in their own way.
  bool origin = false;
  // Connection: close.  aiohttp reads nothing after such a request, so nobody else may.
  bool close = false;
  // A POST to a plain path, with a Content-Length and no header that asks for something special:
  // the express lane may take it.  Any other head only tells where its request ends.
  bool ordinary = false;
};

// The head that `text` begins with.  nullopt: not whole yet, not strictly well-formed, or its end
// cannot be told from the head alone; more bytes cure only the first.
[[nodiscard]] std::optional<HttpHead> parse_http_head(std::string_view text) noexcept;

// Whether `text`, which has no whole head, may begin one; nobody else finds fault with it so far.
[[nodiscard]] bool begins_http_head(std::string_view text) noexcept;

}  // namespace pyserve
