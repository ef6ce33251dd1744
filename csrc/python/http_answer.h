// http_answer.h - the HTTP answer to one request, from the outputs of the batch that it was in.
//
// Everything here needs the GIL.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "engine/model_version.h"
#include "python/http_plan.h"
#include "tensor/value.h"
#include "wire/oip_answer.h"

namespace pyserve::python {

// Which part of a batch's outputs is one request's.
struct BatchPart {
  std::int64_t begin = 0;
  std::int64_t rows = 0;
  bool whole = true;  // all of it, whatever its shape
};

// How every answer of a server ends, and what more it says.
struct AnswerManner {
  std::string fields;  // header lines
  bool close = false;  // the connection
};

// Head and body, in memory that is good until the next call.
Status write_http_answer(const HttpPlan& plan, const ModelVersion& version, const Values& outputs,
                         const BatchPart& part, const OipAnswerTiming& timing,
                         const AnswerManner& manner, std::string_view& out);

}  // namespace pyserve::python
