// lane.h - what the express lanes of HTTP and gRPC share: a plain, whole inference request goes
// from the bytes that arrived to the core, and from its outputs to the bytes of the answer, without
// a Python object in between.
//
// They take what csrc/wire reads and the model's signature accepts; whatever is unusual or wrong is
// None here and goes by the plain lane, which knows what to say.  Everything here needs the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "batching/request.h"
#include "python/convert.h"
#include "python/requests.h"
#include "tensor/borrow.h"
#include "tensor/signature.h"
#include "wire/oip_answer.h"
#include "wire/oip_request.h"

namespace pyserve::python {

struct WantedOutput {
  std::size_t index;
  std::string name;
  bool binary;
};

// What comes back with a request of a lane, beside the token.
class LaneAttachment : public PyAttachment {
 public:
  using PyAttachment::PyAttachment;

  py::object text;  // the bytes that inputs point into
  std::string id;
  std::vector<WantedOutput> outputs;
  Nanos parse_ns = 0;
};

// The answer to a finished request, as views of it and of its attachment.
class LaneAnswer {
 public:
  LaneAnswer(const LaneAttachment& attachment, const Request& request, bool close);

  const OipAnswer& view() const { return answer_; }

 private:
  std::vector<OipAnswerOutput> parts_;
  std::vector<std::vector<std::byte>> strings_;
  std::vector<std::int64_t> counts_;  // of those
  OipAnswer answer_{};
};

// Whether a lane may take requests of a model: the rest knows too little of it.
bool lane_serves(const Signature& signature);

// Which outputs are wanted, and how: nothing asks for all.  False where only the plain lane can
// tell.
bool choose_outputs(const Signature& signature, const std::optional<std::vector<OipOutput>>& asked,
                    bool binary_default, std::vector<WantedOutput>& outputs);

// A request with the inputs `tensors`, which point into what `attachment` keeps; null where they
// are not plainly right.
RequestPtr lane_request(const Signature& signature, const std::vector<WireTensor>& tensors);

// By when and before whom a request is to be answered.
struct LaneTurn {
  Nanos started = 0;            // when its timeout began
  std::int64_t timeout_us = 0;  // its own; 0: none
  Nanos deadline_ns = 0;        // its caller's; 0: none
  std::uint8_t priority = 0;    // 0: the model's
};

// The instant that a timeout from `started` on stands for.
Nanos deadline_of(Nanos started, std::int64_t timeout_us);

// What the attachment answers, where the model is light and idle; else a Request that completes
// through the queue.  Raises what admission refuses.
py::object run_lane(const VersionPtr& version, const PyCompletionQueue& queue, RequestPtr request,
                    std::unique_ptr<LaneAttachment> attachment, const LaneTurn& turn);

}  // namespace pyserve::python
