// fault.h - what an exception from a run says about the device, beside the request.
#pragma once

#include <exception>
#include <string_view>

namespace pyserve {

enum class Fault {
  kModel,        // this input, or this model: whatever else runs is not touched
  kOutOfMemory,  // so many rows did not fit; fewer may
  kDeviceLost,   // a sticky error: nothing of this process will run on that device again
};

// Whether a text that torch, CUDA or its libraries raised says that memory was short.
bool says_out_of_memory(std::string_view text);

// kModel or kOutOfMemory.  Whether a device is lost is not told by a text, which a model may raise
// too, but by asking the device (DeviceStream::lost).
Fault fault_of(const std::exception& error);

}  // namespace pyserve
