#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "mutate.h"
#include "seed.h"
#include "wire/http_head.h"

namespace pyserve {
namespace {

// What was read, with the target as a copy: the text is gone.
struct Read {
  std::string target;
  HttpHead head;
};

// The text is copied to the heap, exactly as long as it is: AddressSanitizer sees any byte too far.
std::optional<Read> read(std::string_view text) {
  const auto copy = std::make_unique<char[]>(text.size());
  std::memcpy(copy.get(), text.data(), text.size());
  const auto head = parse_http_head({copy.get(), text.size()});
  if (!head) return std::nullopt;
  EXPECT_LE(head->head_bytes, text.size());
  EXPECT_GE(head->target.data(), copy.get());
  EXPECT_LE(head->target.data() + head->target.size(), copy.get() + head->head_bytes);
  return Read{std::string(head->target), *head};
}

constexpr std::string_view kStart = "POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n";

std::optional<Read> read_post(std::string_view headers) {
  return read(std::string(kStart) + std::string(headers) + "\r\n");
}

// Express takes a POST with these headers and a Content-Length of 3.
bool is_ordinary(std::string_view headers) {
  const auto got = read_post("Content-Length: 3\r\n" + std::string(headers));
  EXPECT_TRUE(got) << headers;
  return got && got->head.ordinary;
}

bool is_refused(std::string_view headers) {
  return !read_post("Content-Length: 3\r\n" + std::string(headers)) && !read_post(headers);
}

TEST(HttpHead, ReadsWhatCommonClientsSend) {
  const std::string_view curl =
      "POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: curl/7.88.1\r\n"
      "Accept: */*\r\nContent-Type: application/json\r\nContent-Length: 118\r\n\r\n{";
  const std::string_view triton =
      "POST /v2/models/digits/versions/3/infer HTTP/1.1\r\nHost: localhost:8000\r\n"
      "content-length: 151\r\ninference-header-content-length: 135\r\n"
      "content-type: application/octet-stream\r\nconnection: Keep-Alive\r\n\r\n{";
  const std::string_view requests =
      "POST /v2/models/digits/infer HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"
      "User-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n"
      "Connection: keep-alive\r\nContent-Length: 12\r\nContent-Type: application/json\r\n\r\n";
  auto got = read(curl);
  ASSERT_TRUE(got);
  EXPECT_TRUE(got->head.ordinary);
  EXPECT_EQ(got->target, "/v2/models/digits/infer");
  EXPECT_EQ(got->head.head_bytes, curl.size() - 1);
  EXPECT_EQ(got->head.body_bytes, 118U);
  EXPECT_FALSE(got->head.header_length);
  EXPECT_FALSE(got->head.accepts_compression);
  EXPECT_FALSE(got->head.close);
  got = read(triton);
  ASSERT_TRUE(got);
  EXPECT_TRUE(got->head.ordinary);
  EXPECT_EQ(got->target, "/v2/models/digits/versions/3/infer");
  EXPECT_EQ(got->head.body_bytes, 151U);
  EXPECT_EQ(got->head.header_length, 135U);
  got = read(requests);
  ASSERT_TRUE(got);
  EXPECT_TRUE(got->head.ordinary);
  EXPECT_TRUE(got->head.accepts_compression);
}

TEST(HttpHead, OtherRequestsAreDelimitedAndLeftToThePlainLane) {
  for (const char* line :
       {"GET /v2/health", "HEAD /v2", "GET /v2?a=b#c", "OPTIONS /v2", "PUT /a%2Fb", "PATCH /~x",
        "DELETE //a/../b", "GET /\"<>\\^`{|}~[]", "POST /v2/repository/index"}) {
    const std::string text = std::string(line) + " HTTP/1.1\r\nhost:\r\n\r\n";
    const auto got = read(text + "GET /");
    ASSERT_TRUE(got) << text;
    EXPECT_EQ(got->head.head_bytes, text.size());
    EXPECT_EQ(got->head.body_bytes, 0U);
    EXPECT_FALSE(got->head.ordinary);
  }
  const auto got = read("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc");
  ASSERT_TRUE(got);
  EXPECT_EQ(got->head.body_bytes, 3U);
}

// The text is copied as in read().
bool begins(std::string_view text) {
  const auto copy = std::make_unique<char[]>(text.size());
  std::memcpy(copy.get(), text.data(), text.size());
  return begins_http_head({copy.get(), text.size()});
}

TEST(HttpHead, EveryCutOfAGoodHeadIsNotWholeAndMayBecomeOne) {
  const std::string text = std::string(kStart) + "Content-Length: 3\r\nAccept: */*\r\n\r\n";
  ASSERT_TRUE(read(text));
  EXPECT_FALSE(begins(text));
  for (std::size_t size = 0; size < text.size(); ++size) {
    EXPECT_FALSE(read(std::string_view(text).substr(0, size))) << size;
    EXPECT_TRUE(begins(std::string_view(text).substr(0, size))) << size;
  }
}

TEST(HttpHead, WhatCanBecomeNoHeadIsNotWaitedFor) {
  for (const char* text : {"X",
                           "POSTS",
                           "post",
                           "POST  ",
                           "POST a",
                           "POST /\x01",
                           "POST /a HTTP/1.0",
                           "POST /a HTTQ",
                           "POST /a HTTP/1.1\n",
                           "\r\n",
                           "\x16\x03",
                           "GET /a HTTP/1.1\r\n: ",
                           "GET /a HTTP/1.1\r\nA ",
                           "GET /a HTTP/1.1\r\n A",
                           "GET /a HTTP/1.1\r\nA: \x01",
                           "GET /a HTTP/1.1\r\nA: b\rc",
                           "POST /a HTTP/1.1\r\nContent-Length: x",
                           "POST /a HTTP/1.1\r\nContent-Length: +",
                           "POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: ",
                           "POST /a HTTP/1.1\r\nTransfer-Encoding: c"}) {
    EXPECT_FALSE(begins(text)) << text;
  }
  const std::string long_head = std::string(kStart) + "A: " + std::string(kMaxHeadBytes, 'a');
  EXPECT_TRUE(begins(long_head.substr(0, kMaxHeadBytes - 1)));
  EXPECT_FALSE(begins(long_head.substr(0, kMaxHeadBytes)));
  std::string many(kStart);
  for (std::size_t i = 1; i <= kMaxHeaders; ++i) many += "A: b\r\n";
  EXPECT_FALSE(begins(many + "A"));
}

TEST(HttpHead, SaysWhetherAPageAsks) {
  EXPECT_FALSE(read_post("")->head.origin);
  EXPECT_TRUE(read_post("ORIGIN: https://a.example\r\n")->head.origin);
}

TEST(HttpHead, RefusesRequestLinesThatAreNotPlain) {
  for (const char* line : {"",
                           " GET /a HTTP/1.1",
                           "GET  /a HTTP/1.1",
                           "GET /a  HTTP/1.1",
                           "GET\t/a HTTP/1.1",
                           "GET /a HTTP/1.0",
                           "GET /a HTTP/1.1 ",
                           "GET /a http/1.1",
                           "GET /a HTTP/2.0",
                           "GET /a",
                           "GET a HTTP/1.1",
                           "GET * HTTP/1.1",
                           "OPTIONS * HTTP/1.1",
                           "GET http://a/b HTTP/1.1",
                           "GET /a b HTTP/1.1",
                           "GET /\x7f HTTP/1.1",
                           "GET /\xc3\xa9 HTTP/1.1",
                           "GET /a\r HTTP/1.1",
                           "get /a HTTP/1.1",
                           "CONNECT /a HTTP/1.1",
                           "CONNECT a:1 HTTP/1.1",
                           "FOO /a HTTP/1.1",
                           "PRI * HTTP/2.0",
                           "\r\nGET /a HTTP/1.1",
                           "G@T /a HTTP/1.1"}) {
    EXPECT_FALSE(read(std::string(line) + "\r\nHost: a\r\n\r\n")) << line;
  }
}

TEST(HttpHead, RefusesLineEndsOtherThanCrLf) {
  const std::string good = std::string(kStart) + "Content-Length: 3\r\nA: b\r\n\r\n";
  ASSERT_TRUE(read(good));
  for (std::size_t at = good.find('\r'); at != std::string::npos; at = good.find('\r', at + 1)) {
    std::string text = good;
    EXPECT_FALSE(read(text.replace(at, 2, "\n") + "\r\n\r\n")) << at;
    text = good;
    EXPECT_FALSE(read(text.replace(at, 2, "\r") + "\r\n\r\n")) << at;
    text = good;
    EXPECT_FALSE(read(text.replace(at, 2, "\r\r\n") + "\r\n\r\n")) << at;
  }
}

TEST(HttpHead, RefusesHeadersThatAreNotPlain) {
  for (const char* header :
       {"A\r\n", ":b\r\n", "A : b\r\n", " A: b\r\n", "A b: c\r\n", "A\t: b\r\n", "A: b\r\n c\r\n",
        "A: b\r\n\tc\r\n", "A: b\nC: d\r\n", "A: b\rC: d\r\n", "A: \x01\r\n", "A: \x7f\r\n",
        "A: \xc3\xa9\r\n", "\xc3\xa9: a\r\n", "A(: b\r\n", "A;: b\r\n",
        "\x0b"
        "A: b\r\n"}) {
    EXPECT_TRUE(is_refused(header)) << header;
  }
  EXPECT_FALSE(read_post(std::string_view("A: \0\r\n", 6)));
}

TEST(HttpHead, WhiteSpaceRoundAValueIsNotPartOfIt) {
  const auto got = read_post(
      "Content-Length:\t 12 \t\r\nInference-Header-Content-Length:7\r\nA:\r\nB: \r\nC: a\tb\r\n"
      "Connection: \tkeep-alive \r\nAccept-Encoding: \tidentity\t\r\n!#$%&'*+-.^_`|~09: x\r\n");
  ASSERT_TRUE(got);
  EXPECT_TRUE(got->head.ordinary);
  EXPECT_EQ(got->head.body_bytes, 12U);
  EXPECT_EQ(got->head.header_length, 7U);
  EXPECT_FALSE(got->head.accepts_compression);
}

TEST(HttpHead, RefusesASecondContentLength) {
  EXPECT_FALSE(read_post("Content-Length: 3\r\nContent-Length: 3\r\n"));
  EXPECT_FALSE(read_post("Content-Length: 3\r\nA: b\r\ncontent-length: 4\r\n"));
}

TEST(HttpHead, RefusesAContentLengthThatIsNotAllDigits) {
  for (const char* length :
       {"", "+3", "-3", "3,3", "3 3", "0x3", "3.0", "1e1", "3;a", "3_0", "\"3\"", "a",
        "1000000000000000000", "18446744073709551619", "\xd9\xa3"}) {
    EXPECT_FALSE(read_post("Content-Length: " + std::string(length) + "\r\n")) << length;
  }
  EXPECT_EQ(read_post("Content-Length: 999999999999999999\r\n")->head.body_bytes,
            999'999'999'999'999'999U);
}

// aiohttp answers 400 to each of these, or reads on in a way of its own.
TEST(HttpHead, RefusesWhatLeavesTheEndInDoubt) {
  for (const char* header :
       {"Transfer-Encoding: chunked\r\n", "transfer-encoding: identity\r\n",
        "Upgrade: websocket\r\n", "UPGRADE: h2c\r\n", "Connection: upgrade\r\n",
        "Connection: keep-alive, close\r\n", "Connection: \r\n", "Connection: TE\r\n",
        "Connection: close\r\nConnection: keep-alive\r\n", "Proxy-Connection: close\r\n",
        "Sec-WebSocket-Key1: a\r\n", "Host: a\r\n", "User-Agent: a\r\nUser-Agent: a\r\n",
        "Content-Type: a/b\r\nContent-Type: a/b\r\n", "ETag: a\r\netag: a\r\n"}) {
    EXPECT_TRUE(is_refused(header)) << header;
  }
  EXPECT_FALSE(read("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n"));  // no Host
}

TEST(HttpHead, RefusesABodyWhereNoneIsExpected) {
  for (const char* method : {"GET", "HEAD"}) {
    const std::string start = std::string(method) + " /a HTTP/1.1\r\nHost: a\r\nContent-Length: ";
    EXPECT_FALSE(read(start + "1\r\n\r\n"));
    EXPECT_TRUE(read(start + "0\r\n\r\n"));
  }
}

TEST(HttpHead, ClosingConnectionsIsForThePlainLane) {
  const auto got = read_post("Content-Length: 3\r\nConnection: Close\r\n");
  ASSERT_TRUE(got);
  EXPECT_TRUE(got->head.close);
  EXPECT_FALSE(got->head.ordinary);
}

TEST(HttpHead, WhatAsksForSomethingSpecialIsNotOrdinary) {
  EXPECT_TRUE(is_ordinary(""));
  for (const char* header :
       {"Content-Encoding: gzip\r\n", "content-encoding: identity\r\n", "Expect: 100-continue\r\n",
        "TE: trailers\r\n", "Trailer: A\r\n", "Proxy-Authorization: a\r\n", "PROXY-X: a\r\n",
        "Sec-Fetch-Mode: cors\r\n", "sec-x: a\r\n", "HTTP2-Settings: a\r\n",
        "Content-Type: Multipart/form-data; boundary=a\r\n",
        "Accept-Encoding: gzip\r\nAccept-Encoding: identity\r\n",
        "Inference-Header-Content-Length: 1\r\nInference-Header-Content-Length: 1\r\n",
        "Inference-Header-Content-Length: \r\n", "Inference-Header-Content-Length: +1\r\n",
        "Inference-Header-Content-Length: 1a\r\n",
        "Inference-Header-Content-Length: 1000000000000000000\r\n"}) {
    EXPECT_FALSE(is_ordinary(header)) << header;
  }
  for (const char* header :
       {"Accept: a\r\nAccept: b\r\n", "Cookie: a\r\n", "X-Proxy-A: b\r\n", "secure: a\r\n",
        "Content-Type: application/multipart/\r\n", "content_length: 9\r\n",
        "Content-Length-: 9\r\n", "Inference-Header-Content-Length: 999999999999999999\r\n",
        "Inference-Header-Content-Length: 0\r\n", "traceparent: 00-a-b-01\r\n"}) {
    EXPECT_TRUE(is_ordinary(header)) << header;
  }
  EXPECT_FALSE(read_post("")->head.ordinary);  // no Content-Length
}

TEST(HttpHead, OnlyPathsThatMeanThemselvesAreOrdinary) {
  const auto ordinary = [](std::string_view target) {
    const auto got =
        read("POST " + std::string(target) + " HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    EXPECT_TRUE(got) << target;
    EXPECT_EQ(got->target, target);
    return got->head.ordinary;
  };
  for (const char* target :
       {"/", "/v2/models/A_b-c.9/versions/1/infer", "/a/", "/...", "/.a/..b"}) {
    EXPECT_TRUE(ordinary(target)) << target;
  }
  for (const char* target : {"//", "//a", "/a//b", "/a//", "/.", "/..", "/./a", "/../a", "/a/.",
                             "/a/..", "/a/../b", "/a?b", "/a#b", "/a%2e", "/a~", "/a;b", "/a\\b"}) {
    EXPECT_FALSE(ordinary(target)) << target;
  }
}

TEST(HttpHead, CompressionIsWhateverIsNotIdentity) {
  for (const char* value : {"gzip", "*", "br", "identity, gzip", "gzip;q=0", "identity;q=1", ","}) {
    EXPECT_TRUE(
        read_post("Accept-Encoding: " + std::string(value) + "\r\n")->head.accepts_compression)
        << value;
  }
  for (const char* value : {"", " ", "identity", "Identity"}) {
    EXPECT_FALSE(
        read_post("Accept-Encoding: " + std::string(value) + "\r\n")->head.accepts_compression)
        << value;
  }
}

TEST(HttpHead, SizesAreLimited) {
  const auto with_headers = [](std::size_t more) {
    std::string headers;
    while (more-- > 0) headers += "A: b\r\n";
    return read_post(headers).has_value();
  };
  EXPECT_TRUE(with_headers(kMaxHeaders - 1));  // and Host
  EXPECT_FALSE(with_headers(kMaxHeaders));
  const auto with_bytes = [](std::size_t size) {
    const std::size_t rest = kStart.size() + std::strlen("A: \r\n\r\n");
    return read_post("A: " + std::string(size - rest, 'x') + "\r\n").has_value();
  };
  EXPECT_TRUE(with_bytes(kMaxHeadBytes));
  EXPECT_FALSE(with_bytes(kMaxHeadBytes + 1));
  EXPECT_FALSE(read("GET /" + std::string(1'000'000, 'a')));
}

// Mutations of good heads: nothing is read out of bounds, and what is accepted is whole, needs all
// of its bytes and means the same whatever follows it.
TEST(HttpHead, MutatedHeadsAreReadWithinBoundsAndNeedEveryByte) {
  std::mt19937_64 random = seeded_random();
  const std::string seed_text =
      std::string(kStart) + "Content-Length: 31\r\nAccept-Encoding: gzip\r\n" +
      "Inference-Header-Content-Length: 12\r\nConnection: keep-alive\r\nUser-Agent: a b\r\n\r\n";
  using std::string_view_literals::operator""sv;
  const std::string_view alphabet = " \t\r\n:\0/.,;-aB09\"%\x7f\xff"sv;
  int accepted = 0;
  for (int i = 0; i < 50'000; ++i) {
    const std::string text = mutated(seed_text, alphabet, random);
    const auto got = read(text);
    if (!got) continue;
    ++accepted;
    const std::string head = text.substr(0, got->head.head_bytes);
    EXPECT_TRUE(head.ends_with("\r\n\r\n"));
    EXPECT_EQ(head.find("\r\n\r\n"), head.size() - 4);
    EXPECT_FALSE(read(head.substr(0, head.size() - 1)));
    EXPECT_FALSE(read(head.substr(0, random() % head.size())));
    const auto again = read(head + "GET / HTTP/1.1\r\n\r\n");
    ASSERT_TRUE(again) << head;
    EXPECT_EQ(again->target, got->target);
    EXPECT_EQ(again->head.head_bytes, got->head.head_bytes);
    EXPECT_EQ(again->head.body_bytes, got->head.body_bytes);
    EXPECT_EQ(again->head.header_length, got->head.header_length);
    EXPECT_EQ(again->head.ordinary, got->head.ordinary);
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace pyserve
