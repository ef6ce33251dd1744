// gathered.h - a batch that its submitter gathers and runs himself, on his own thread.
//
// Where a model takes a few microseconds for a batch, to hand its requests to another thread and
// take them back costs more than to run them.  Such requests never become a `Request`: whoever
// gathers them holds their bytes, collates the rows and writes the answers; the engine runs and
// counts them (ModelVersion::run_gathered).
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "batching/request.h"
#include "tensor/value.h"

namespace pyserve {

struct GatheredRequest {
  std::int64_t rows = 1;
  Nanos arrival = 0;
};

// What became of a gathered batch.
struct Gathered {
  Nanos formed = 0;  // when it began to be collated; set by the submitter
  Values outputs;    // of all rows
  Timing timing;     // but for each request's time in the queue
};

}  // namespace pyserve
