// http_plan.h - what one HTTP request asks for, read and checked against the model's signature.
//
// A client mostly sends the same head and the same JSON over and over, with other numbers behind
// them.  What was read of such a prefix holds for every request that begins with the same bytes and
// is as long, so a plan that depends on nothing else is kept and compared instead of read again.
//
// Everything here needs the GIL.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "python/lane.h"
#include "tensor/borrow.h"
#include "tensor/signature.h"
#include "tensor/value.h"
#include "wire/http_head.h"
#include "wire/oip_request.h"

namespace pyserve::python {

struct HttpTarget;

struct PlannedInput {
  c10::ScalarType type = c10::ScalarType::Undefined;
  std::vector<std::int64_t> shape;
  std::size_t offset = 0;  // in the body, where the plan may be used again
  std::size_t bytes = 0;
};

struct HttpPlan {
  std::string id;
  std::vector<WantedOutput> outputs;
  std::int64_t rows = 1;
  std::int64_t timeout_us = 0;       // 0: the model's
  std::uint8_t priority = 0;         // 0: the model's
  std::vector<PlannedInput> inputs;  // in the signature's order; empty unless all are numbers

  // For requests that begin with the same bytes; `prefix` is empty where there can be none.
  std::string prefix;
  std::size_t head_bytes = 0;
  std::size_t total_bytes = 0;
  std::weak_ptr<HttpTarget> target;
  std::uint64_t generation = 0;  // of the lane's targets

  bool covers(std::string_view text) const {
    return text.size() >= total_bytes && !prefix.empty() && text.starts_with(prefix);
  }
};

// The inputs of one request, with the memory behind those that were JSON.
struct HttpInputs {
  Values values;
  std::vector<std::unique_ptr<std::byte[]>> numbers;
};

class HttpReader {
 public:
  // The plan of a request with this head and body, and its inputs, which point into the body; null:
  // the plain lane's.
  std::shared_ptr<HttpPlan> read(const ModelVersion& version, const HttpHead& head,
                                 std::string_view body, HttpInputs& inputs);
  // Behind read(): makes its plan one that may be used again, if it is such.  `text` is the
  // request.
  void keep(const Signature& signature, const HttpHead& head, std::string_view text,
            const HttpInputs& inputs, HttpPlan& plan) const;

 private:
  bool read_body(const Signature& signature, const HttpHead& head, std::string_view body,
                 HttpPlan& plan, HttpInputs& inputs);

  // Their memory is reused.
  OipRequest asked_;
  std::vector<WireTensor> tensors_;
};

// The inputs of a request that `plan` covers, whose body begins at `body`; they point into it.
Values planned_inputs(const HttpPlan& plan, const std::byte* body);

// Whether requests of both plans may share a batch.
bool stackable(const HttpPlan& a, const HttpPlan& b);

}  // namespace pyserve::python
