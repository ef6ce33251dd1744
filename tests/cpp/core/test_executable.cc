#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "base/text.h"
#include "runtime/device.h"
#include "runtime/executable.h"

namespace pyserve {
namespace {

std::string text_of(const std::string& what) { return failure_text(std::runtime_error(what)); }

TEST(FailureText, KeepsAPlainMessage) {
  EXPECT_EQ(text_of("shapes do not match: 3 and 4"), "shapes do not match: 3 and 4");
}

TEST(FailureText, IsOneLine) {
  EXPECT_EQ(text_of("  first\n\n  second\r\n\tthird  \n"), "first second third");
}

TEST(FailureText, LeavesOutPaths) {
  EXPECT_EQ(text_of("cannot open /home/someone/secret/model.pt for reading"),
            "cannot open <path> for reading");
  EXPECT_EQ(text_of("File \"code/__torch__/model.py\", line 3"), "File <path> line 3");
  EXPECT_EQ(text_of("a / b"), "a / b");
}

TEST(FailureText, SkipsTheTracebackOfTorchScript) {
  EXPECT_EQ(text_of("The following operation failed in the TorchScript interpreter.\n"
                    "Traceback of TorchScript (most recent call last):\n"
                    "  File \"<string>\", line 3, in forward\n"
                    "    def forward(self, x):\n"
                    "        raise ValueError(\"negative\")\n"
                    "        ~~~~~ <--- HERE\n"
                    "builtins.ValueError: negative\n"),
            "builtins.ValueError: negative");
  EXPECT_EQ(text_of("Traceback of TorchScript (most recent call last):\n"
                    "  File \"<string>\", line 3, in forward\n"),
            "the model raised an error");
}

TEST(FailureText, LeavesOutFramesOfCpp) {
  try {
    TORCH_CHECK(false, "bad shape");
  } catch (const c10::Error& error) {
    EXPECT_EQ(failure_text(error), "bad shape");
  }
  EXPECT_EQ(text_of("bad shape\nException raised from foo at /x/y.cpp:3 (most recent call first):"),
            "bad shape");
}

TEST(FailureText, IsNeverEmpty) {
  EXPECT_EQ(text_of(""), "the model raised an error without a text");
  EXPECT_EQ(text_of(" \n\t "), "the model raised an error without a text");
}

TEST(FailureText, IsShortAndUtf8) {
  EXPECT_EQ(text_of("unknown word \xFF\xFE"), "unknown word ??");
  std::string umlauts = "x";
  for (int i = 0; i < 10'000; ++i) {
    umlauts += "ü";
  }
  const std::string text = text_of(umlauts);
  EXPECT_LE(text.size(), 512U);
  EXPECT_GT(text.size(), 500U);
  EXPECT_EQ(text, utf8_text(text, text.size()));
}

TEST(LoadExecutable, NamesThePlatformThatItDoesNotKnow) {
  try {
    load_executable("onnx", "model.onnx", parse_device("cpu"));
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "platform \"onnx\" is not supported, expected torchscript");
  }
}

}  // namespace
}  // namespace pyserve
