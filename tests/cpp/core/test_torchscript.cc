#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/probe.h"
#include "runtime/device.h"
#include "runtime/fault.h"
#include "runtime/torchscript.h"
#include "script_model.h"
#include "values.h"

namespace pyserve {
namespace {

std::unique_ptr<Executable> load(const std::string& source,
                                 const ScriptFile::Parameters& parameters = {}) {
  const ScriptFile file(source, parameters);
  return load_torchscript(file.path(), parse_device("cpu"));
}

std::string load_complaint(const std::string& path) {
  try {
    load_torchscript(path, parse_device("cpu"));
  } catch (const std::runtime_error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find("/tmp"), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "it was loaded";
  return "";
}

// As an instance runs it.
RunResult run(const Executable& executable, const Values& inputs) {
  DeviceStream stream(parse_device("cpu"));
  return run_together(executable, Padding(), {inputs}, stream);
}

std::string run_complaint(const Executable& executable, const Values& inputs) {
  try {
    run(executable, inputs);
  } catch (const std::exception& error) {
    return failure_text(error);
  }
  ADD_FAILURE() << "it ran";
  return "";
}

TEST(TorchScript, RunsATensorThrough) {
  const auto executable =
      load("def forward(self, x):\n  return x + self.weight", {{"weight", filled({2}, 10).tensor}});
  const RunResult result = run(*executable, {filled({1, 2}, 1)});
  EXPECT_EQ(floats_of(result.values[0]), (std::vector<float>{11, 11}));
  EXPECT_EQ(result.form, OutputForm::kSingle);
  EXPECT_EQ(result.names, std::vector<std::string>{"output_0"});
}

TEST(TorchScript, ArgumentsAreNamedByTheForwardMethod) {
  const auto executable = load(
      "def forward(self, image, mask: Optional[Tensor] = None, scale: float = 2.0):\n"
      "  return image * scale");
  const std::vector<TensorSpec>& arguments = executable->arguments();
  ASSERT_EQ(arguments.size(), 3U);
  EXPECT_EQ(arguments[0].name, "image");
  EXPECT_FALSE(arguments[0].optional);
  EXPECT_EQ(arguments[1].name, "mask");
  EXPECT_TRUE(arguments[1].optional);
  EXPECT_TRUE(arguments[2].optional);
  EXPECT_FALSE(arguments[0].dtype.has_value());
}

TEST(TorchScript, AnInputLeftOutTakesItsDefault) {
  const auto executable = load(
      "def forward(self, x, y: Optional[Tensor] = None, scale: float = 2.0):\n"
      "  if y is None:\n"
      "    return x * scale\n"
      "  return x + y");
  EXPECT_EQ(floats_of(run(*executable, {filled({1}, 5), Value(), Value()}).values[0]),
            std::vector<float>{10});
  EXPECT_EQ(floats_of(run(*executable, {filled({1}, 5), filled({1}, 7), Value()}).values[0]),
            std::vector<float>{12});
}

TEST(TorchScript, ATupleIsNumberedUnlessTheSignatureNamesIt) {
  const auto executable = load("def forward(self, x):\n  return (x, x * 2)");
  RunResult result = run(*executable, {filled({1}, 1)});
  EXPECT_EQ(result.form, OutputForm::kTuple);
  EXPECT_EQ(result.names, (std::vector<std::string>{"output_0", "output_1"}));
  executable->set_outputs({{.name = "same"}, {.name = "twice"}});
  result = run(*executable, {filled({1}, 1)});
  EXPECT_EQ(result.names, (std::vector<std::string>{"same", "twice"}));
  EXPECT_EQ(floats_of(result.values[1]), std::vector<float>{2});
}

TEST(TorchScript, AListOfTensorsIsATuple) {
  const RunResult result =
      run(*load("def forward(self, x):\n  return [x, x * 2, x * 3]"), {filled({1}, 1)});
  EXPECT_EQ(result.form, OutputForm::kTuple);
  EXPECT_EQ(result.values.size(), 3U);
  EXPECT_EQ(result.names[2], "output_2");
}

TEST(TorchScript, ANamedTupleNamesItsFields) {
  const auto executable =
      load("def forward(self, x):\n  return Scores(logits=x * 2, label=x.argmax(1))");
  RunResult result = run(*executable, {floats({1, 3}, {1, 3, 2})});
  EXPECT_EQ(result.form, OutputForm::kTuple);
  EXPECT_EQ(result.names, (std::vector<std::string>{"logits", "label"}));
  EXPECT_EQ(result.values[1].tensor.item<std::int64_t>(), 1);
  executable->set_outputs({{.name = "a"}, {.name = "b"}});
  EXPECT_EQ(run(*executable, {floats({1, 3}, {1, 3, 2})}).names,
            (std::vector<std::string>{"a", "b"}));
}

TEST(TorchScript, ADictBringsItsKeysAndTheSignatureItsOrder) {
  const auto executable = load("def forward(self, x):\n  return {'b': x, 'a': x * 2}");
  RunResult result = run(*executable, {filled({1}, 1)});
  EXPECT_EQ(result.form, OutputForm::kDict);
  EXPECT_EQ(result.names, (std::vector<std::string>{"b", "a"}));
  executable->set_outputs({{.name = "a"}, {.name = "b"}});
  result = run(*executable, {filled({1}, 1)});
  EXPECT_EQ(result.names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(floats_of(result.values[0]), std::vector<float>{2});
}

TEST(TorchScript, ADictThatIsNotWhatItsSignatureDeclaresFails) {
  const auto executable = load("def forward(self, x):\n  return {'b': x, 'a': x * 2}");
  executable->set_outputs({{.name = "a"}});
  EXPECT_EQ(run_complaint(*executable, {filled({1}, 1)}),
            "the model returned output \"b\", which its signature does not declare");
  executable->set_outputs({{.name = "a"}, {.name = "c"}});
  EXPECT_EQ(run_complaint(*executable, {filled({1}, 1)}), "the model did not return output \"c\"");
}

TEST(TorchScript, StringsGoInAndOut) {
  const auto executable = load(
      "def forward(self, words: List[str]):\n"
      "  out: List[str] = []\n"
      "  for w in words:\n"
      "    if w != 'skip':\n"
      "      out.append(w + '!')\n"
      "  return out");
  EXPECT_EQ(*run(*executable, {Value(Strings{"a", "b"})}).values[0].strings, (Strings{"a!", "b!"}));
  EXPECT_EQ(*run(*executable, {Value(Strings{"skip"})}).values[0].strings, Strings{});
}

TEST(TorchScript, AStringArgumentTakesAListOfOne) {
  const auto executable = load("def forward(self, word: str):\n  return word + '!'");
  EXPECT_EQ(*run(*executable, {Value(Strings{"a"})}).values[0].strings, Strings{"a!"});
}

TEST(TorchScript, AnOutputThatCannotBeServedIsNamed) {
  EXPECT_EQ(run_complaint(*load("def forward(self, x):\n  return (x, 3)"), {filled({1}, 1)}),
            "output \"output_1\" is a Int, expected a tensor or a list of strings");
  EXPECT_EQ(run_complaint(*load("def forward(self, x):\n  return None"), {filled({1}, 1)}),
            "output \"output_0\" is a None, expected a tensor or a list of strings");
}

TEST(TorchScript, WhatTheModelRaisesIsOneLine) {
  const auto executable = load(
      "def forward(self, x):\n"
      "  assert bool(x.sum() >= 0), 'negative input'\n"
      "  return x");
  EXPECT_NO_THROW(run(*executable, {filled({1}, 1)}));
  const std::string text = run_complaint(*executable, {filled({1}, -1)});
  EXPECT_NE(text.find("negative input"), std::string::npos) << text;
  EXPECT_EQ(text.find("Traceback"), std::string::npos) << text;
  EXPECT_EQ(text.find("forward"), std::string::npos) << text;
}

TEST(TorchScript, WhatTorchRaisesSaysWhatWasWrong) {
  const std::string text =
      run_complaint(*load("def forward(self, x):\n  return torch.matmul(x, self.weight)",
                          {{"weight", filled({3, 2}, 1).tensor}}),
                    {filled({1, 4}, 1)});
  EXPECT_NE(text.find("1x4 and 3x2"), std::string::npos) << text;
  EXPECT_EQ(text.find('\n'), std::string::npos);
}

TEST(TorchScript, RunsInEvaluationMode) {
  const auto executable =
      load("def forward(self, x):\n  return torch.dropout(x, 0.5, self.training)");
  EXPECT_EQ(floats_of(run(*executable, {filled({4}, 1)}).values[0]), (std::vector<float>(4, 1)));
}

TEST(TorchScript, TheOptimisedFormComputesTheSame) {
  const auto executable = load(
      "def forward(self, x):\n"
      "  return torch.relu(torch.matmul(x, self.weight) + self.bias)",
      {{"weight", floats({2, 3}, {1, -2, 3, -4, 5, -6}).tensor},
       {"bias", floats({3}, {1, 1, 1}).tensor}});
  executable->set_outputs({{.name = "y"}});
  const auto optimized = executable->optimized();
  ASSERT_NE(optimized, nullptr);
  EXPECT_EQ(optimized->arguments().size(), 1U);
  const Values x{floats({2, 2}, {1, 2, 3, 4})};
  const RunResult expected = run(*executable, x);
  const RunResult got = run(*optimized, x);
  EXPECT_EQ(got.names, std::vector<std::string>{"y"});
  EXPECT_EQ(first_difference(expected.values, got.values), -1);
}

TEST(TorchScript, TheWeightsAreSharedByAllWhoRunIt) {
  const auto executable =
      load("def forward(self, x):\n  return self.weight", {{"weight", filled({2}, 10).tensor}});
  const RunResult one = run(*executable, {filled({1}, 1)});
  const RunResult other = run(*executable, {filled({1}, 1)});
  EXPECT_TRUE(one.values[0].tensor.storage().is_alias_of(other.values[0].tensor.storage()));
}

TEST(TorchScript, AFileThatIsNotThereIsOneLine) {
  EXPECT_NE(load_complaint("/tmp/pyserve/no/such/model.pt"), "");
}

TEST(TorchScript, AFileThatIsNoArchiveIsOneLine) {
  for (const std::string& bytes : {std::string(), std::string("hello"), std::string(4096, '\0')}) {
    const ScriptFile file = ScriptFile::of_bytes(bytes);
    EXPECT_TRUE(load_complaint(file.path())
                    .starts_with("not a TorchScript file that this torch can load: "));
  }
}

TEST(TorchScript, ATruncatedArchiveIsOneLine) {
  const std::string whole = ScriptFile("def forward(self, x):\n  return x + self.weight",
                                       {{"weight", filled({64}, 10).tensor}})
                                .bytes();
  for (const std::size_t part : {whole.size() / 4, whole.size() / 2, whole.size() - 1}) {
    const ScriptFile file = ScriptFile::of_bytes(whole.substr(0, part));
    EXPECT_NE(load_complaint(file.path()), "");
  }
}

TEST(TorchScript, AModuleWithoutForwardIsRefused) {
  const ScriptFile file("def other(self, x):\n  return x");
  EXPECT_NE(load_complaint(file.path()).find("the module has no forward method"),
            std::string::npos);
}

TEST(TorchScript, MemoryThatRanOutWithinTheInterpreterIsTold) {
  const auto executable = load("def forward(self, x):\n  return torch.empty([1 << 50]) + x");
  try {
    run(*executable, {filled({1, 2}, 1)});
    ADD_FAILURE() << "it ran";
  } catch (const std::exception& error) {
    EXPECT_EQ(fault_of(error), Fault::kOutOfMemory) << error.what();
    EXPECT_NE(failure_text(error).find("allocate"), std::string::npos) << failure_text(error);
  }
}

TEST(TorchScript, WhatAModelRaisesIsItsOwnWhateverItsTextSays) {
  const auto executable =
      load("def forward(self, x):\n  assert x.size(0) == 0, 'CUDA out of memory'\n  return x");
  try {
    run(*executable, {filled({1, 2}, 1)});
    ADD_FAILURE() << "it ran";
  } catch (const std::exception& error) {
    EXPECT_EQ(fault_of(error), Fault::kModel) << error.what();
  }
}

}  // namespace
}  // namespace pyserve
