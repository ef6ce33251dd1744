#include "runtime/executable.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <new>
#include <stdexcept>
#include <string_view>

#include "base/text.h"
#include "runtime/torchscript.h"

namespace pyserve {
namespace {

constexpr std::size_t kMaxText = 512;

// TorchScript appends what was raised after its own traceback, as "<kind>Error: text".
std::string_view after_traceback(std::string_view text) {
  const std::size_t traceback = text.find("Traceback of TorchScript");
  if (traceback == std::string_view::npos) {
    return text;
  }
  constexpr std::array<std::string_view, 2> kMarks{"Error: ", "Exception: "};
  std::size_t start = 0;
  for (const std::string_view mark : kMarks) {
    const std::size_t at = text.rfind(mark);
    if (at != std::string_view::npos && at > traceback) {
      const std::size_t line = text.rfind('\n', at) + 1;
      start = std::max(start, line);
    }
  }
  return start > 0 ? text.substr(start) : std::string_view("the model raised an error");
}

bool is_path(std::string_view word) {
  return word.find('/') != std::string_view::npos && word.size() > 1;
}

}  // namespace

std::string failure_text(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return "not enough memory";
  }
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string_view text = after_traceback(
      torch_error != nullptr ? torch_error->what_without_backtrace() : error.what());
  text = text.substr(0, text.find("Exception raised from"));
  std::string line;
  while (!text.empty() && line.size() < kMaxText) {
    const std::size_t start = text.find_first_not_of(" \t\r\n");
    if (start == std::string_view::npos) {
      break;
    }
    const std::size_t end = std::min(text.find_first_of(" \t\r\n", start), text.size());
    const std::string_view word = text.substr(start, end - start);
    line += line.empty() ? "" : " ";
    line += is_path(word) ? std::string_view("<path>") : word;
    text.remove_prefix(end);
  }
  return line.empty() ? "the model raised an error without a text" : utf8_text(line, kMaxText);
}

std::unique_ptr<Executable> load_executable(const std::string& platform, const std::string& path,
                                            const c10::Device& device) {
  if (platform == "torchscript") {
    return load_torchscript(path, device);
  }
  throw std::runtime_error("platform \"" + platform + "\" is not supported, expected torchscript");
}

}  // namespace pyserve
