// probe.h - what is tried before a version may serve: does the faster form compute the same,
// and does a row keep its outputs whatever rows it is batched with?
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "runtime/device.h"
#include "runtime/executable.h"
#include "tensor/signature.h"

namespace pyserve {

// One run of `rows` (each one request) as one batch, filled up as a server would; outputs on the
// host, with what was filled up.
RunResult run_together(const Executable& executable, const Padding& padding,
                       const std::vector<Values>& rows, DeviceStream& stream);

// Lets the executable prepare for batches of that shape, on this thread and stream.
std::string prepare(const Executable& executable, const Padding& padding,
                    const std::vector<Values>& rows, DeviceStream& stream);
// The same, filled up to `shape`.
RunResult run_as(const BatchShape& shape, const Executable& executable, const Padding& padding,
                 const std::vector<Values>& rows, DeviceStream& stream);

// The shortest of a few runs of `rows` as one batch, once it is warm.
Nanos shortest_run(const Executable& executable, const Padding& padding,
                   const std::vector<Values>& rows, DeviceStream& stream, const Clock& clock);

// Where two runs of the same rows differ by more than rounding (relative to the output's largest
// magnitude: 1e-4 for FP32, 5e-2 for BF16, nothing for integers), the first such output's index;
// -1 where they agree.
int first_difference(const Values& expected, const Values& got);

struct BatchingProof {
  bool proven = false;
  std::string note;  // why not, naming the output
};

// Runs `rows` alone and together and compares every output row.
BatchingProof prove_batching(const Executable& executable, const Signature& signature,
                             const std::vector<Values>& rows, DeviceStream& stream);

// Runs rows of several lengths padded to each bucket, and compares every output row with what the
// row alone, not padded, has.  `note`: why there is nothing to compare with, where the model takes
// no such length; the proof then stands.
BatchingProof prove_lengths(const Executable& executable, const Signature& signature,
                            const std::vector<Values>& rows, DeviceStream& stream);

// The optimised form where it exists and agrees with `plain` on `rows`, else null.
std::unique_ptr<Executable> agreeing_optimized(const Executable& plain, const Padding& padding,
                                               const std::vector<Values>& rows, bool batched,
                                               DeviceStream& stream, std::string& note);

}  // namespace pyserve
