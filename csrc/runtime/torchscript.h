// torchscript.h - TorchScript modules as executables; the only file that says TorchScript.
#pragma once

#include <memory>
#include <string>

#include "runtime/executable.h"

namespace pyserve {

// Throws std::runtime_error when the file is no TorchScript archive or cannot be read.
std::unique_ptr<Executable> load_torchscript(const std::string& path, const c10::Device& device);

}  // namespace pyserve
