#include "runtime/torchscript.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/jit_exception.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "runtime/fault.h"

namespace pyserve {
namespace {

std::vector<TensorSpec> arguments_of(const torch::jit::Module& module) {
  std::vector<TensorSpec> specs;
  const auto& arguments = module.get_method("forward").function().getSchema().arguments();
  for (std::size_t i = 1; i < arguments.size(); ++i) {  // 0 is self
    specs.push_back(
        {.name = arguments[i].name(), .optional = arguments[i].default_value().has_value()});
  }
  return specs;
}

Value to_value(const c10::IValue& value, const std::string& name) {
  if (value.isTensor()) {
    return Value(value.toTensor());
  }
  if (value.isString()) {
    return Value(Strings{value.toStringRef()});
  }
  if (value.isList() && value.toListRef().empty() == false && value.toListRef()[0].isString()) {
    Strings strings;
    for (const c10::IValue& item : value.toListRef()) {
      strings.push_back(item.toStringRef());
    }
    return Value(std::move(strings));
  }
  if (value.isList() &&
      value.type()->cast<c10::ListType>()->getElementType()->kind() == c10::TypeKind::StringType) {
    return Value(Strings{});
  }
  throw std::runtime_error("output \"" + name + "\" is a " + value.tagKind() +
                           ", expected a tensor or a list of strings");
}

std::vector<std::string> field_names(const c10::IValue& value) {
  std::vector<std::string> names;
  const auto type = value.type()->cast<c10::TupleType>();
  const auto schema = type == nullptr ? nullptr : type->schema();
  if (schema != nullptr) {
    for (const auto& field : schema->arguments()) {
      names.push_back(field.name());
    }
  }
  return names;
}

std::string default_name(std::size_t index) { return "output_" + std::to_string(index); }

class TorchScript final : public Executable {
 public:
  TorchScript(torch::jit::Module module, std::vector<TensorSpec> arguments,
              std::vector<std::string> output_names)
      : module_(std::move(module)),
        forward_(module_.get_method("forward")),
        arguments_(std::move(arguments)),
        output_names_(std::move(output_names)) {}

  const std::vector<TensorSpec>& arguments() const override { return arguments_; }

  void set_outputs(const std::vector<TensorSpec>& outputs) override {
    output_names_.clear();
    for (const TensorSpec& spec : outputs) {
      output_names_.push_back(spec.name);
    }
  }

  RunResult run(const Values& inputs) const override {
    const auto& parameters = forward_.function().getSchema().arguments();
    std::vector<c10::IValue> stack;
    stack.reserve(inputs.size() + 1);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      stack.push_back(argument(inputs[i], parameters[i + 1]));
    }
    try {
      return unpack(forward_(std::move(stack)));
    } catch (const torch::jit::JITException&) {
      throw;  // the model's own, whatever its text says
    } catch (const std::exception& error) {
      if (says_out_of_memory(error.what())) {
        // The interpreter has made a std::runtime_error of it.
        throw c10::OutOfMemoryError({__func__, __FILE__, __LINE__}, error.what());
      }
      throw;
    }
  }

  std::unique_ptr<Executable> optimized() const override {
    torch::jit::Module copy = module_.clone();
    copy = torch::jit::optimize_for_inference(copy);
    return std::make_unique<TorchScript>(std::move(copy), arguments_, output_names_);
  }

 private:
  static c10::IValue argument(const Value& value, const c10::Argument& parameter) {
    if (value.tensor.defined()) {
      return value.tensor;
    }
    if (value.is_strings()) {
      if (parameter.type()->kind() == c10::TypeKind::StringType) {
        return value.strings->at(0);
      }
      return c10::IValue(c10::List<std::string>(c10::ArrayRef<std::string>(*value.strings)));
    }
    return parameter.default_value().value_or(c10::IValue());
  }

  RunResult unpack(const c10::IValue& returned) const {
    if (returned.isTuple()) {
      return unpack_tuple(returned);
    }
    if (returned.isGenericDict()) {
      return unpack_dict(returned);
    }
    if (returned.isTensorList()) {
      RunResult result{.form = OutputForm::kTuple};
      for (const at::Tensor& tensor : returned.toTensorVector()) {
        result.names.push_back(name_of(result.values.size()));
        result.values.emplace_back(tensor);
      }
      return result;
    }
    RunResult result{.form = OutputForm::kSingle};
    result.names.push_back(name_of(0));
    result.values.push_back(to_value(returned, result.names.back()));
    return result;
  }

  RunResult unpack_tuple(const c10::IValue& returned) const {
    RunResult result{.form = OutputForm::kTuple};
    const std::vector<std::string> fields =
        output_names_.empty() ? field_names(returned) : std::vector<std::string>{};
    for (const c10::IValue& item : returned.toTupleRef().elements()) {
      const std::size_t i = result.values.size();
      result.names.push_back(i < fields.size() ? fields[i] : name_of(i));
      result.values.push_back(to_value(item, result.names.back()));
    }
    return result;
  }

  RunResult unpack_dict(const c10::IValue& returned) const {
    RunResult result{.form = OutputForm::kDict};
    const auto dict = returned.toGenericDict();
    if (output_names_.empty()) {
      for (const auto& entry : dict) {
        result.names.push_back(entry.key().toStringRef());
        result.values.push_back(to_value(entry.value(), result.names.back()));
      }
      return result;
    }
    if (dict.size() > output_names_.size()) {
      for (const auto& entry : dict) {
        if (std::ranges::find(output_names_, entry.key().toStringRef()) == output_names_.end()) {
          throw std::runtime_error("the model returned output \"" + entry.key().toStringRef() +
                                   "\", which its signature does not declare");
        }
      }
    }
    for (const std::string& name : output_names_) {
      const auto found = dict.find(name);
      if (found == dict.end()) {
        throw std::runtime_error("the model did not return output \"" + name + "\"");
      }
      result.names.push_back(name);
      result.values.push_back(to_value(found->value(), name));
    }
    return result;
  }

  std::string name_of(std::size_t index) const {
    return index < output_names_.size() ? output_names_[index] : default_name(index);
  }

  torch::jit::Module module_;
  torch::jit::Method forward_;
  std::vector<TensorSpec> arguments_;
  std::vector<std::string> output_names_;  // from the signature; empty when it has none
};

}  // namespace

std::unique_ptr<Executable> load_torchscript(const std::string& path, const c10::Device& device) {
  try {
    torch::jit::Module module = torch::jit::load(path, device);
    if (!module.find_method("forward").has_value()) {
      throw std::runtime_error("the module has no forward method");
    }
    std::vector<TensorSpec> arguments = arguments_of(module);
    module.eval();
    module = torch::jit::freeze(module);
    return std::make_unique<TorchScript>(std::move(module), std::move(arguments),
                                         std::vector<std::string>{});
  } catch (const std::exception& error) {
    throw std::runtime_error("not a TorchScript file that this torch can load: " +
                             failure_text(error));
  }
}

}  // namespace pyserve
