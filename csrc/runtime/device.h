// device.h - one source for CPU and CUDA: device, stream and event through c10's device-generic
// classes, which compile against a CPU wheel.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <memory>
#include <optional>
#include <string_view>

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

  const c10::Device& device() const noexcept { return device_; }

 private:
  struct Parts;
  const c10::Device device_;
  std::unique_ptr<Parts> parts_;  // null on the CPU
};

}  // namespace pyserve
