#include "runtime/device.h"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "tensor/collate.h"

namespace pyserve {
namespace {

int cuda_count() {
  if (!c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)) {
    return 0;  // a CPU build of torch
  }
  return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).deviceCount();
}

}  // namespace

c10::Device parse_device(std::string_view text) {
  const int gpus = cuda_count();
  if (text == "auto") {
    return gpus > 0 ? c10::Device(c10::DeviceType::CUDA, 0) : c10::Device(c10::DeviceType::CPU);
  }
  if (text == "cpu") {
    return {c10::DeviceType::CPU};
  }
  int index = 0;
  if (text.starts_with("cuda:") && text.size() > 5 && text.size() <= 8 &&
      text.find_first_not_of("0123456789", 5) == std::string_view::npos) {
    index = std::stoi(std::string(text.substr(5)));
  } else if (text != "cuda") {
    throw std::invalid_argument("unknown device \"" + std::string(text) +
                                "\", expected auto, cpu, cuda or cuda:N");
  }
  if (index >= gpus) {
    throw std::invalid_argument("device " + std::string(text) + " is not there: " +
                                std::to_string(gpus) + " CUDA devices are visible");
  }
  return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)};
}

struct DeviceStream::Parts {
  explicit Parts(const c10::Device& device)
      : stream(c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device)),
        event(device.type()),
        staging(/*pinned=*/true) {}

  c10::Stream stream;
  c10::Event event;
  Staging staging;
  std::optional<c10::StreamGuard> guard;
};

DeviceStream::DeviceStream(const c10::Device& device)
    : device_(device), parts_(device.is_cpu() ? nullptr : std::make_unique<Parts>(device)) {}

DeviceStream::~DeviceStream() = default;

void DeviceStream::make_current() {
  if (parts_ != nullptr) {
    parts_->guard.emplace(parts_->stream);
  }
}

void DeviceStream::synchronize() {
  if (parts_ != nullptr) {
    parts_->event.record(parts_->stream);
    parts_->event.synchronize();
  }
}

void DeviceStream::synchronize_device() {
  if (parts_ != nullptr) {
    c10::impl::VirtualGuardImpl(device_.type()).synchronizeDevice(device_.index());
  }
}

Staging* DeviceStream::staging() noexcept { return parts_ != nullptr ? &parts_->staging : nullptr; }

Values DeviceStream::fetch(Values outputs) {
  if (parts_ == nullptr) {
    return to_host(std::move(outputs));
  }
  outputs = to_host(std::move(outputs), &parts_->staging);
  synchronize();
  own_memory(outputs);
  return outputs;
}

bool DeviceStream::lost() noexcept {
  if (parts_ == nullptr) {
    return false;
  }
  // Twice: the first call may be told of an error that another one has left behind.
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      parts_->stream.synchronize();
      return false;
    } catch (const std::exception&) {
      continue;
    }
  }
  parts_->staging.abandon();
  return true;
}

}  // namespace pyserve
