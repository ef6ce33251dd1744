// operations.cc - the hot path's small parts, each run often enough to be counted by callgrind.
//
//   valgrind --tool=callgrind operations     a function `operation_*` is one part
//
// benchmarks/gate.py divides what it took by kTimes.  No torch: what costs no more than a few
// thousand instructions drowns in a model's.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/completion_queue.h"
#include "base/histogram.h"
#include "base/json_numbers.h"
#include "base/ring.h"
#include "wire/http_head.h"
#include "wire/oip_answer.h"
#include "wire/oip_request.h"

namespace pyserve {
namespace {

constexpr int kTimes = 1000;  // and in gate.py
constexpr std::size_t kBurst = 32;
constexpr std::size_t kNumbers = 256;

constexpr std::string_view kHead =
    "POST /v2/models/tiny/infer HTTP/1.1\r\n"
    "Host: 127.0.0.1:8000\r\n"
    "Content-Type: application/octet-stream\r\n"
    "Inference-Header-Content-Length: 156\r\n"
    "Content-Length: 220\r\n"
    "\r\n";

constexpr std::string_view kJson =
    R"({"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 16], "parameters": )"
    R"({"binary_data_size": 64}}], "parameters": {"binary_data_output": true}})";

// What is measured must neither fail nor be left out by the compiler.
void check(bool right, const char* what) {
  if (!right) {
    std::fprintf(stderr, "%s failed\n", what);
    std::abort();
  }
}

struct Item {
  CompletionNode<Item> completion;
};

}  // namespace

// Not in the unnamed namespace: callgrind's names are what gate.py looks for.

[[gnu::noinline]] void operation_http_head() {
  for (int i = 0; i < kTimes; ++i) {
    const auto head = parse_http_head(kHead);
    check(head.has_value() && head->ordinary && head->body_bytes == 220, "parse_http_head");
  }
}

[[gnu::noinline]] void operation_request_json() {
  OipRequest request;
  for (int i = 0; i < kTimes; ++i) {
    check(parse_oip_request(kJson, request) && request.inputs.size() == 1, "parse_oip_request");
  }
}

[[gnu::noinline]] void operation_answer() {
  const std::array<std::int64_t, 2> shape{1, 4};
  const std::array<float, 4> values{0.25F, 0.5F, 0.125F, 0.125F};
  const OipAnswerOutput output{.name = "logits",
                               .dtype = Dtype::kFp32,
                               .shape = shape,
                               .data = std::as_bytes(std::span(values)),
                               .binary = true};
  const OipAnswer answer{.model = "tiny",
                         .version = "1",
                         .id = "",
                         .outputs = std::span(&output, 1),
                         .timing = {.parse_ns = 3'217,
                                    .queue_ns = 1'048,
                                    .batch_size = 7,
                                    .copy_in_ns = 412,
                                    .compute_ns = 9'876,
                                    .copy_out_ns = 733},
                         .close = false};
  std::string out;
  for (int i = 0; i < kTimes; ++i) {
    out.clear();
    check(write_oip_answer(answer, out).ok() && out.size() > 200, "write_oip_answer");
  }
}

[[gnu::noinline]] void operation_json_numbers_parse() {
  std::string text = "[";
  for (std::size_t i = 0; i < kNumbers; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(static_cast<double>(i) * 0.7310585786300049 - 90);
  }
  text += "]";
  std::vector<std::byte> values(kNumbers * sizeof(float));
  for (int i = 0; i < kTimes; ++i) {
    check(parse_json_numbers(text, Dtype::kFp32, values.data(), kNumbers).ok(),
          "parse_json_numbers");
  }
}

[[gnu::noinline]] void operation_json_numbers_format() {
  std::vector<float> values;
  for (std::size_t i = 0; i < kNumbers; ++i) {
    values.push_back(static_cast<float>(i) * 0.7310585786300049F - 90);
  }
  const auto bytes = std::as_bytes(std::span(values));
  std::string out;
  for (int i = 0; i < kTimes; ++i) {
    out.clear();
    check(format_json_numbers(Dtype::kFp32, bytes.data(), kNumbers, out).ok(),
          "format_json_numbers");
  }
}

// A burst in, a burst out, as an event loop and an instance do it.
[[gnu::noinline]] void operation_ring() {
  Ring<std::shared_ptr<Item>> ring(1024);
  const auto item = std::make_shared<Item>();
  for (int i = 0; i < kTimes; ++i) {
    for (std::size_t n = 0; n < kBurst; ++n) {
      std::shared_ptr<Item> pushed = item;
      check(ring.try_push(pushed), "try_push");
    }
    std::shared_ptr<Item> popped;
    for (std::size_t n = 0; n < kBurst; ++n) {
      check(ring.try_pop(popped), "try_pop");
    }
  }
}

[[gnu::noinline]] void operation_completion_queue() {
  CompletionQueue<Item> queue;
  std::vector<std::shared_ptr<Item>> items(kBurst);
  for (auto& item : items) {
    item = std::make_shared<Item>();
  }
  for (int i = 0; i < kTimes; ++i) {
    std::vector<std::shared_ptr<Item>> burst = items;
    queue.push_all(burst);
    check(queue.drain([](const std::shared_ptr<Item>&) {}) == kBurst, "drain");
  }
}

[[gnu::noinline]] void operation_histogram() {
  Histogram histogram(kDurationBoundsNs);
  for (int i = 0; i < kTimes; ++i) {
    histogram.record(std::int64_t{12'345} * (i % 100));
  }
  check(histogram.snapshot().count == kTimes, "record");
}

}  // namespace pyserve

int main() {
  pyserve::operation_http_head();
  pyserve::operation_request_json();
  pyserve::operation_answer();
  pyserve::operation_json_numbers_parse();
  pyserve::operation_json_numbers_format();
  pyserve::operation_ring();
  pyserve::operation_completion_queue();
  pyserve::operation_histogram();
  return 0;
}
