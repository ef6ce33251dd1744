#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"
#include "seed.h"
#include "wire/http_head.h"
#include "wire/oip_answer.h"

namespace pyserve {
namespace {

using std::string_view_literals::operator""sv;

constexpr OipAnswerTiming kTiming = {.parse_ns = 1'500,
                                     .queue_ns = 2'500'000,
                                     .batch_size = 8,
                                     .copy_in_ns = 0,
                                     .compute_ns = 1'234'567,
                                     .copy_out_ns = 999'500};
#define TIMING_LINE                                                                            \
  "Server-Timing: parse;dur=0.002, queue;dur=2.500, batch;desc=8, copy-in;dur=0.000, compute;" \
  "dur=1.235, copy-out;dur=1.000\r\n"

// One output with the memory that it views.
template <class T>
class Output {
 public:
  Output(std::string name, Dtype dtype, std::vector<std::int64_t> shape, std::vector<T> values,
         bool binary)
      : name_(std::move(name)),
        shape_(std::move(shape)),
        values_(std::move(values)),
        dtype_(dtype),
        binary_(binary) {}

  operator OipAnswerOutput() const {  // NOLINT(google-explicit-constructor)
    return {name_, dtype_, shape_, std::as_bytes(std::span(values_)), binary_};
  }

 private:
  std::string name_;
  std::vector<std::int64_t> shape_;
  std::vector<T> values_;
  Dtype dtype_;
  bool binary_;
};

// The answer, with "D" for the date.
std::string write(std::string_view model, std::string_view version, std::string_view id,
                  const std::vector<OipAnswerOutput>& outputs,
                  const OipAnswerTiming& timing = kTiming, bool close = false,
                  std::string_view fields = "") {
  std::string out;
  const Status status = write_oip_answer({model, version, id, outputs, timing, close, fields}, out);
  if (!status.ok()) {
    EXPECT_EQ(status.code, Code::kInvalidInput);
    return "error: " + status.message;
  }
  constexpr std::string_view kDate = "\r\nDate: ";
  constexpr std::size_t kDateChars = 29;
  const std::size_t at = out.find(kDate);
  EXPECT_NE(at, std::string::npos);
  return out.replace(at + kDate.size(), kDateChars, "D");
}

// The texts of this file that have a body or a message in them are what the plain lane's own
// functions made of the same values.
TEST(OipAnswer, NumbersAsJsonAreWhatPythonSends) {
  const Output<float> y("y", Dtype::kFp32, {2, 2}, {1, 2.5F, -0.0F, 1e-5F}, false);
  EXPECT_EQ(
      write("affine", "1", "", {y}),
      "HTTP/1.1 200 OK\r\nContent-Length: 128\r\nContent-Type: application/json\r\n" TIMING_LINE
      "Date: D\r\n\r\n"
      R"({"model_name":"affine","model_version":"1","outputs":[{"name":"y","datatype":"FP32",)"
      R"("shape":[2,2],"data":[1.0,2.5,-0.0,1e-05]}]})");
  const Output<std::uint16_t> odd("a b", Dtype::kFp16, {1}, {0x3C00}, false);
  EXPECT_EQ(
      write("a/<'&>~", "1", "</x>", {odd}),
      "HTTP/1.1 200 OK\r\nContent-Length: 126\r\nContent-Type: application/json\r\n" TIMING_LINE
      "Date: D\r\n\r\n"
      R"({"model_name":"a/<'&>~","model_version":"1","id":"</x>","outputs":[{"name":"a b",)"
      R"("datatype":"FP16","shape":[1],"data":[1.0]}]})");
}

TEST(OipAnswer, BinaryDataFollowsTheJsonInOrderAsPythonSendsIt) {
  const Output<float> y("y", Dtype::kFp32, {1, 2}, {1, 2}, true);
  const Output<std::int64_t> n("n", Dtype::kInt64, {}, {-7}, false);
  const Output<char> s("s", Dtype::kBytes, {1}, {2, 0, 0, 0, 'h', 'i'}, true);
  const Output<std::uint8_t> b("b", Dtype::kBool, {2}, {0, 1}, false);
  const Output<float> e("e", Dtype::kFp32, {0, 4}, {}, true);
  EXPECT_EQ(
      write("affine", "3", "r-7", {y, n, s, b, e}, kTiming, /*close=*/true),
      "HTTP/1.1 200 OK\r\nContent-Length: 440\r\nContent-Type: application/octet-stream\r\n"
      "Inference-Header-Content-Length: 426\r\n" TIMING_LINE
      "Connection: close\r\nDate: D\r\n\r\n"
      R"({"model_name":"affine","model_version":"3","id":"r-7","outputs":[{"name":"y",)"
      R"("datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}},{"name":"n",)"
      R"("datatype":"INT64","shape":[],"data":[-7]},{"name":"s","datatype":"BYTES","shape":[1],)"
      R"("parameters":{"binary_data_size":6}},{"name":"b","datatype":"BOOL","shape":[2],"data":)"
      R"([false,true]},{"name":"e","datatype":"FP32","shape":[0,4],"parameters":)"
      R"({"binary_data_size":0}}]})"
      "\x00\x00\x80?\x00\x00\x00@\x02\x00\x00\x00hi"sv);
}

TEST(OipAnswer, AnEmptyBinaryOutputIsStillBinary) {
  const Output<float> e("e", Dtype::kFp32, {0}, {}, true);
  EXPECT_NE(write("m", "1", "", {e}).find("application/octet-stream"), std::string::npos);
}

TEST(OipAnswer, NoOutputsAreAnEmptyList) {
  EXPECT_EQ(write("m", "1", "", {}, {}),
            "HTTP/1.1 200 OK\r\nContent-Length: 51\r\nContent-Type: application/json\r\n"
            "Server-Timing: parse;dur=0.000, queue;dur=0.000, batch;desc=0, copy-in;dur=0.000, "
            "compute;dur=0.000, copy-out;dur=0.000\r\nDate: D\r\n\r\n"
            R"({"model_name":"m","model_version":"1","outputs":[]})");
}

TEST(OipAnswer, WhatJsonCannotCarryIsAnErrorThatNamesTheOutput) {
  const auto message = [](std::string name, float value) {
    const Output<float> y(std::move(name), Dtype::kFp32, {2}, {1, value}, false);
    return write("m", "1", "", {y});
  };
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(message("y", std::numeric_limits<float>::quiet_NaN()),
            "error: output \"y\": element 1 is NaN, which JSON cannot carry: ask for binary data");
  const std::string long_name(64, 'y');
  EXPECT_EQ(message(long_name, kInfinity),
            "error: output \"" + long_name +
                "\": element 1 is inf, which JSON cannot carry: ask for binary data");
  EXPECT_EQ(message(long_name + "z", -kInfinity),
            "error: output \"" + long_name +
                "…\": element 1 is -inf, which JSON cannot carry: ask for binary data");
  const Output<char> s("s", Dtype::kBytes, {1}, {0, 0, 0, 0}, false);
  EXPECT_TRUE(write("m", "1", "", {s}).starts_with("error: output \"s\": "));
  // One that came to nothing leaves nothing behind for the next.
  EXPECT_EQ(write("m", "1", "", {}).find("element"), std::string::npos);
}

TEST(OipAnswer, DurationsAreMillisecondsAsPythonRoundsThem) {
  constexpr struct {
    std::int64_t ns;
    const char* text;
  } kCases[] = {{0, "0.000"},
                {499, "0.000"},
                {500, "0.001"},
                {1'500, "0.002"},
                {2'500, "0.003"},
                {4'500, "0.004"},
                {8'500, "0.009"},
                {999'499, "0.999"},
                {999'500, "1.000"},
                {1'000'500, "1.000"},
                {123'456'789, "123.457"},
                {1'000'000'000'000'500, "1000000000.000"},
                {std::int64_t{1} << 62, "4611686018427.388"},
                {-1, "-0.000"}};
  for (const auto& [ns, text] : kCases) {
    const std::string answer = write("m", "1", "", {}, {.queue_ns = ns});
    EXPECT_NE(answer.find("queue;dur=" + std::string(text) + ","), std::string::npos) << answer;
  }
  std::mt19937_64 random = seeded_random();
  for (int i = 0; i < 2'000; ++i) {
    const auto ns = static_cast<std::int64_t>((random() >> (random() % 60 + 4)) * 500);
    std::array<char, 64> text{};
    ASSERT_GT(std::snprintf(text.data(), text.size(), "copy-out;dur=%.3f\r\n",
                            static_cast<double>(ns) / 1e6),
              0);
    const std::string answer = write("m", "1", "", {}, {.copy_out_ns = ns});
    ASSERT_NE(answer.find(text.data()), std::string::npos) << ns << "\n" << answer;
  }
}

TEST(OipAnswer, DatesAreWrittenAsHttpHasThem) {
  const auto date = [](std::int64_t seconds) {
    std::string text = ">";
    append_http_date(seconds, text);
    return text;
  };
  EXPECT_EQ(date(784111777), ">Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(date(0), ">Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(date(951782400), ">Tue, 29 Feb 2000 00:00:00 GMT");
  EXPECT_EQ(date(4102444799), ">Thu, 31 Dec 2099 23:59:59 GMT");
}

TEST(OipAnswer, TheDateIsNow) {
  const auto date = [](std::time_t seconds) {
    std::string text = "\r\nDate: ";
    append_http_date(seconds, text);
    return text + "\r\n";
  };
  const std::time_t before = std::time(nullptr);
  std::string answer;
  ASSERT_TRUE(write_oip_answer({"m", "1", "", {}, kTiming, false}, answer).ok());
  const std::time_t after = std::time(nullptr);
  bool found = false;
  for (std::time_t now = before; now <= after; ++now) {
    found |= answer.find(date(now)) != std::string::npos;
  }
  EXPECT_TRUE(found) << answer;
}

TEST(OipAnswer, IsAppendedToWhatIsThere) {
  const Output<float> y("y", Dtype::kFp32, {1}, {1}, true);
  const std::vector<OipAnswerOutput> outputs = {y};
  std::string one;
  ASSERT_TRUE(write_oip_answer({"m", "1", "", outputs, kTiming, false}, one).ok());
  std::string two = "before";
  ASSERT_TRUE(write_oip_answer({"m", "1", "", outputs, kTiming, false}, two).ok());
  ASSERT_TRUE(write_oip_answer({"m", "1", "", outputs, kTiming, false}, two).ok());
  EXPECT_TRUE(two.starts_with("beforeHTTP/1.1 200 OK\r\n"));
  EXPECT_EQ(two.size(), std::strlen("before") + 2 * one.size());
}

// Answers of all kinds and sizes: the lengths in the head are those of what follows it.
TEST(OipAnswer, LengthsAgreeWithWhatFollows) {
  std::mt19937_64 random = seeded_random();
  for (int i = 0; i < 200; ++i) {
    std::vector<Output<float>> owned;
    std::size_t binary_bytes = 0;
    bool any_binary = false;
    for (std::uint64_t count = random() % 4; count-- > 0;) {
      const std::size_t size = i == 0 ? 400'000 : random() % 3000;
      const bool binary = random() % 2 == 0;
      std::vector<float> values(size);
      for (float& value : values) value = static_cast<float>(random() % 1000) / 7;
      binary_bytes += binary ? size * sizeof(float) : 0;
      any_binary |= binary;
      owned.emplace_back(std::string(1 + random() % 100, 'n'), Dtype::kFp32,
                         std::vector<std::int64_t>{static_cast<std::int64_t>(size)},
                         std::move(values), binary);
    }
    const std::vector<OipAnswerOutput> outputs(owned.begin(), owned.end());
    std::string answer;
    ASSERT_TRUE(write_oip_answer({"m", "1", "x", outputs, kTiming, false}, answer).ok());
    // Read as if it were a request, which has the same form after its first line.
    const std::string_view status = "HTTP/1.1 200 OK\r\n";
    ASSERT_TRUE(answer.starts_with(status));
    const std::string as_request = "POST / HTTP/1.1\r\nHost: a\r\n" + answer.substr(status.size());
    const auto head = parse_http_head(as_request);
    ASSERT_TRUE(head);
    EXPECT_EQ(head->head_bytes + head->body_bytes, as_request.size());
    EXPECT_EQ(head->header_length.has_value(), any_binary);
    const std::size_t json_bytes = head->header_length.value_or(head->body_bytes);
    EXPECT_EQ(json_bytes + binary_bytes, head->body_bytes);
    EXPECT_EQ(as_request.substr(head->head_bytes + json_bytes - 2, 2), "]}");
    EXPECT_EQ(head->ordinary, true);
  }
}

}  // namespace
}  // namespace pyserve
