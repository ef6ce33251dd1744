#include "wire/oip_answer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/dtype.h"
#include "base/json_numbers.h"
#include "base/status.h"

namespace pyserve {
namespace {

template <std::integral Int>
void append_integer(Int value, std::string& out) {
  std::array<char, 24> digits;
  out.append(digits.data(), std::to_chars(digits.begin(), digits.end(), value).ptr);
}

// Milliseconds as "%.3f" writes them.
void append_milliseconds(std::int64_t nanoseconds, std::string& out) {
  constexpr std::int64_t kExact = 1'000'000'000'000'000;
  constexpr std::int64_t kMicro = 1'000;
  std::array<char, 40> text;
  if (nanoseconds >= 0 && nanoseconds < kExact && nanoseconds % kMicro != kMicro / 2) {
    // No tie: whole microseconds round as the quotient does.
    const std::int64_t micros = (nanoseconds + kMicro / 2) / kMicro;
    char* end = std::to_chars(text.begin(), text.end(), micros / kMicro).ptr;
    const auto rest = static_cast<int>(micros % kMicro);
    *end++ = '.';
    *end++ = static_cast<char>('0' + rest / 100);
    *end++ = static_cast<char>('0' + rest / 10 % 10);
    *end++ = static_cast<char>('0' + rest % 10);
    out.append(text.data(), end);
    return;
  }
  constexpr double kNanosPerMilli = 1e6;
  const double milliseconds = static_cast<double>(nanoseconds) / kNanosPerMilli;
  out.append(
      text.data(),
      std::to_chars(text.begin(), text.end(), milliseconds, std::chars_format::fixed, 3).ptr);
}

// ---- the body's JSON ---------------------------------------------------------------------------

void append_strings(std::initializer_list<std::string_view> pieces, std::string& out) {
  for (const std::string_view piece : pieces) out += piece;
}

// An error about one output, in the words of pyserve/wire/tensors.py.
Status about(std::string_view name, const Status& status) {
  constexpr std::size_t kMaxShownChars = 64;
  std::string message = "output \"";
  message += name.substr(0, kMaxShownChars);
  message += name.size() > kMaxShownChars ? "…\": " : "\": ";
  return {.code = status.code, .message = std::move(message) + status.message};
}

Status append_output(const OipAnswerOutput& output, std::string& out) {
  append_strings({R"({"name":")", output.name, R"(","datatype":")", dtype_name(output.dtype),
                  R"(","shape":[)"},
                 out);
  for (std::size_t i = 0; i < output.shape.size(); ++i) {
    if (i != 0) out += ',';
    append_integer(output.shape[i], out);
  }
  if (output.binary) {
    out += R"(],"parameters":{"binary_data_size":)";
    append_integer(output.data.size(), out);
    out += "}}";
    return {};
  }
  out += R"(],"data":)";
  const std::size_t item = std::max<std::size_t>(dtype_size(output.dtype), 1);
  const Status status =
      format_json_numbers(output.dtype, output.data.data(), output.data.size() / item, out);
  if (!status.ok()) return about(output.name, status);
  out += '}';
  return {};
}

Status append_json(const OipAnswer& answer, std::string& out) {
  append_strings(
      {R"({"model_name":")", answer.model, R"(","model_version":")", answer.version, R"(",)"}, out);
  if (!answer.id.empty()) append_strings({R"("id":")", answer.id, R"(",)"}, out);
  out += R"("outputs":[)";
  for (std::size_t i = 0; i < answer.outputs.size(); ++i) {
    if (i != 0) out += ',';
    if (Status status = append_output(answer.outputs[i], out); !status.ok()) return status;
  }
  out += "]}";
  return {};
}

// ---- the head ----------------------------------------------------------------------------------

// The Date header, made once a second.
std::string_view date_line() {
  thread_local std::time_t made_for = -1;
  thread_local std::string line;
  if (const std::time_t now = std::time(nullptr); now != made_for) {
    line = "Date: ";
    append_http_date(now, line);
    line += "\r\n";
    made_for = now;
  }
  return line;
}

void append_two_digits(int value, std::string& out) {
  out += static_cast<char>('0' + value / 10);
  out += static_cast<char>('0' + value % 10);
}

}  // namespace

void append_server_timing(const OipAnswerTiming& timing, std::string& out) {
  out += "parse;dur=";
  append_milliseconds(timing.parse_ns, out);
  out += ", queue;dur=";
  append_milliseconds(timing.queue_ns, out);
  out += ", batch;desc=";
  append_integer(timing.batch_size, out);
  out += ", copy-in;dur=";
  append_milliseconds(timing.copy_in_ns, out);
  out += ", compute;dur=";
  append_milliseconds(timing.compute_ns, out);
  out += ", copy-out;dur=";
  append_milliseconds(timing.copy_out_ns, out);
}

void append_http_date(std::int64_t seconds, std::string& out) {
  // Not strftime: its names are the locale's.
  constexpr std::array<std::string_view, 7> kDays = {"Sun, ", "Mon, ", "Tue, ", "Wed, ",
                                                     "Thu, ", "Fri, ", "Sat, "};
  constexpr std::array<std::string_view, 12> kMonths = {" Jan ", " Feb ", " Mar ", " Apr ",
                                                        " May ", " Jun ", " Jul ", " Aug ",
                                                        " Sep ", " Oct ", " Nov ", " Dec "};
  const std::time_t instant = seconds;
  std::tm utc{};
  gmtime_r(&instant, &utc);
  out += kDays[static_cast<std::size_t>(utc.tm_wday)];
  append_two_digits(utc.tm_mday, out);
  out += kMonths[static_cast<std::size_t>(utc.tm_mon)];
  append_integer(utc.tm_year + 1900, out);
  out += ' ';
  append_two_digits(utc.tm_hour, out);
  out += ':';
  append_two_digits(utc.tm_min, out);
  out += ':';
  append_two_digits(utc.tm_sec, out);
  out += " GMT";
}

Status write_oip_answer(const OipAnswer& answer, std::string& out) {
  // The head says how long the JSON is, so that is made first; one small copy, or, where it is
  // large, little beside the making of its numbers.
  thread_local std::string json;
  json.clear();
  if (Status status = append_json(answer, json); !status.ok()) return status;

  bool binary = false;
  std::size_t body_bytes = json.size();
  for (const OipAnswerOutput& output : answer.outputs) {
    binary |= output.binary;
    body_bytes += output.binary ? output.data.size() : 0;
  }
  constexpr std::size_t kHeadBytes = 512;  // more than any head has
  out.reserve(out.size() + kHeadBytes + body_bytes);
  out += "HTTP/1.1 200 OK\r\nContent-Length: ";
  append_integer(body_bytes, out);
  if (binary) {
    out += "\r\nContent-Type: application/octet-stream\r\nInference-Header-Content-Length: ";
    append_integer(json.size(), out);
    out += "\r\n";
  } else {
    out += "\r\nContent-Type: application/json\r\n";
  }
  out += "Server-Timing: ";
  append_server_timing(answer.timing, out);
  out += "\r\n";
  out += answer.fields;
  if (answer.close) out += "Connection: close\r\n";
  out += date_line();
  out += "\r\n";
  out += json;
  for (const OipAnswerOutput& output : answer.outputs) {
    if (output.binary) {
      out.append(reinterpret_cast<const char*>(output.data.data()), output.data.size());
    }
  }

  constexpr std::size_t kKeptBytes = 1 << 20;  // a thread need not hold the largest for ever
  if (json.capacity() > kKeptBytes) std::string().swap(json);
  return {};
}

}  // namespace pyserve
