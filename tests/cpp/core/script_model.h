// script_model.h - TorchScript files for tests, from source text.  Only script_model.cc includes
// torch's compiler: its headers are slow to read.

#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

namespace pyserve {

// A file in a directory of its own, both gone with the object.
class ScriptFile {
 public:
  using Parameters = std::vector<std::pair<std::string, at::Tensor>>;

  // `source`: the methods of a module with these parameters, such as
  // "def forward(self, x): return x + self.weight".  It may make a NamedTuple
  // Scores(logits, label), both tensors.
  explicit ScriptFile(const std::string& source, const Parameters& parameters = {});
  // Whatever bytes.
  static ScriptFile of_bytes(const std::string& bytes);

  ScriptFile(ScriptFile&& other) noexcept = default;
  ScriptFile(const ScriptFile&) = delete;
  ScriptFile& operator=(const ScriptFile&) = delete;
  ScriptFile& operator=(ScriptFile&&) = delete;
  ~ScriptFile();

  const std::string& path() const noexcept { return path_; }
  std::string bytes() const;

 private:
  ScriptFile();

  std::string path_;
};

}  // namespace pyserve
