#include "script_model.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/frontend/resolver.h>
#include <torch/csrc/jit/frontend/sugared_value.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>

namespace pyserve {
namespace {

// Knows Scores, and what torch's own resolver knows.
class WithScores final : public torch::jit::Resolver {
 public:
  explicit WithScores(const std::shared_ptr<torch::jit::CompilationUnit>& unit)
      : native_(torch::jit::nativeResolver()),
        scores_(c10::TupleType::createNamed(
            c10::QualifiedName("__torch__.Scores"), std::vector<std::string>{"logits", "label"},
            std::vector<c10::TypePtr>{c10::TensorType::get(), c10::TensorType::get()})) {
    unit->register_type(scores_);
  }

  std::shared_ptr<torch::jit::SugaredValue> resolveValue(
      const std::string& name, torch::jit::GraphFunction& function,
      const torch::jit::SourceRange& at) override {
    if (name == "Scores") {
      return std::make_shared<torch::jit::NamedTupleConstructor>(scores_);
    }
    return native_->resolveValue(name, function, at);
  }

  c10::TypePtr resolveType(const std::string& name, const torch::jit::SourceRange& at) override {
    return name == "Scores" ? scores_ : native_->resolveType(name, at);
  }

 private:
  std::shared_ptr<torch::jit::Resolver> native_;
  c10::TupleTypePtr scores_;
};

}  // namespace

ScriptFile::ScriptFile() {
  std::string directory = (std::filesystem::temp_directory_path() / "pyserve-XXXXXX").string();
  if (mkdtemp(directory.data()) == nullptr) {
    throw std::runtime_error("no temporary directory");
  }
  path_ = directory + "/model.pt";
}

ScriptFile::ScriptFile(const std::string& source, const Parameters& parameters) : ScriptFile() {
  torch::jit::Module module("__torch__.Model");
  for (const auto& [name, tensor] : parameters) {
    module.register_parameter(name, tensor, /*is_buffer=*/false);
  }
  // As a module is that nobody put into evaluation mode.
  module.register_attribute("training", c10::BoolType::get(), true);
  module.define(source + "\n", std::make_shared<WithScores>(module._ivalue()->compilation_unit()));
  module.save(path_);
}

ScriptFile ScriptFile::of_bytes(const std::string& bytes) {
  ScriptFile file;
  std::ofstream(file.path_, std::ios::binary) << bytes;
  return file;
}

ScriptFile::~ScriptFile() {
  if (!path_.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(std::filesystem::path(path_).parent_path(), ignored);
  }
}

std::string ScriptFile::bytes() const {
  std::ifstream file(path_, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace pyserve
