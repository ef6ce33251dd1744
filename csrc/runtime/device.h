// device.h - one source for CPU and CUDA: device, stream and event through c10's device-generic
// classes, which compile against a CPU wheel.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <memory>
#include <optional>
#include <string_view>

#include "tensor/staging.h"
#include "tensor/value.h"

namespace pyserve {

// "auto" (the first GPU if one is visible, else the CPU), "cpu", "cuda", "cuda:N".
// Throws std::invalid_argument for anything else and for a device that is not there.
c10::Device parse_device(std::string_view text);

// The stream of one instance.  On the CPU everything here does nothing.
class DeviceStream {
 public:
  explicit DeviceStream(const c10::Device& device);
  ~DeviceStream();
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;

  // Makes the stream current on the calling thread, for the thread's life.
  void make_current();
  // Waits for what was put on the stream, by an event rather than a device-wide synchronise.
  void synchronize();
  // Waits for every stream of the device: what one thread put there is whole for all others.
  void synchronize_device();

  // For collate(): the memory that batches pass through.  Null on the CPU.
  Staging* staging() noexcept;
  // `outputs` on the host, in memory of their own, once all that was put on the stream is done.
  Values fetch(Values outputs);

  // After something has failed: waits for the stream, and says whether the device can be used no
  // more.  A sticky error of CUDA is such: every call fails from then on, in the whole process,
  // whatever it is asked for; other errors are forgotten once they are told.
  bool lost() noexcept;

  const c10::Device& device() const noexcept { return device_; }

 private:
  struct Parts;
  const c10::Device device_;
  std::unique_ptr<Parts> parts_;  // null on the CPU
};

}  // namespace pyserve
