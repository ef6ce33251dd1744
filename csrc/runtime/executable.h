// executable.h - the seam between the engine and a model format: a loaded file that runs.
//
// Nothing above this header knows which format it is.
//
// Thread safety: constant after load; run() from several instances at once.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <string>
#include <vector>

#include "tensor/signature.h"
#include "tensor/value.h"

namespace pyserve {

// How a model hands its outputs back; an in-process caller gets the same form.
enum class OutputForm : std::uint8_t { kSingle, kTuple, kDict };

struct RunResult {
  Values values;                   // in the signature's order where it is known
  std::vector<std::string> names;  // parallel to values; empty where the signature names them
  OutputForm form = OutputForm::kSingle;
};

class Executable {
 public:
  Executable() = default;
  Executable(const Executable&) = delete;
  Executable& operator=(const Executable&) = delete;
  virtual ~Executable() = default;

  // What the file itself says: input names (and which may be left out), nothing of dtypes.
  virtual const std::vector<TensorSpec>& arguments() const = 0;

  // The names that outputs are to be found under, once the signature is known.
  virtual void set_outputs(const std::vector<TensorSpec>& outputs) = 0;

  // Runs on the calling thread and its current stream.  Throws what the model throws.  The outputs
  // are good until the thread's next run.
  virtual RunResult run(const Values& inputs) const = 0;

  // A chance to prepare for inputs of exactly these shapes and dtypes, on the calling thread and
  // its current stream, which run() is later called from; they have been run there before.  Returns
  // a note where something stood in the way, which costs speed and nothing else.
  virtual std::string prepare(const Values& /*inputs*/) const { return ""; }

  // A form of the same model that should run faster and may differ in rounding; null when the
  // format has none.  The caller compares before it uses it.
  virtual std::unique_ptr<Executable> optimized() const = 0;
};

// Loads by the platform's name ("torchscript").  Throws std::runtime_error with one line, without
// paths, that says what is wrong with the file.
std::unique_ptr<Executable> load_executable(const std::string& platform, const std::string& path,
                                            const c10::Device& device);

// One line of an exception's text: what happened, without the traceback, C++ frames and paths.
std::string failure_text(const std::exception& error);

}  // namespace pyserve
