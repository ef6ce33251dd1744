#include <gtest/gtest.h>

#include <cstddef>
#include <set>
#include <string_view>

#include "base/status.h"

namespace pyserve {
namespace {

TEST(Status, IsOkWithoutAMessageByDefault) {
  const Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.code, Code::kOk);
  EXPECT_EQ(status.message, "");
}

TEST(Status, EachFactoryCarriesItsCodeAndTheMessage) {
  const auto expect = [](const Status& status, Code code) {
    EXPECT_EQ(status.code, code);
    EXPECT_EQ(status.message, "why");
    EXPECT_FALSE(status.ok());
  };
  expect(invalid_input("why"), Code::kInvalidInput);
  expect(queue_full("why"), Code::kQueueFull);
  expect(cancelled("why"), Code::kCancelled);
  expect(model_failed("why"), Code::kModelFailed);
  expect(unavailable("why"), Code::kUnavailable);
  expect(deadline_exceeded("why"), Code::kDeadlineExceeded);
}

TEST(Status, EveryCodeIsListedAtItsNumber) {
  for (std::size_t i = 0; i < kAllCodes.size(); ++i) {
    EXPECT_EQ(static_cast<std::size_t>(kAllCodes[i]), i);
  }
}

TEST(Status, EveryCodeHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (const Code code : kAllCodes) {
    EXPECT_NE(code_name(code), "unknown");
    names.insert(code_name(code));
  }
  EXPECT_EQ(names.size(), kAllCodes.size());
  EXPECT_EQ(code_name(Code::kOk), "ok");
  EXPECT_EQ(code_name(Code::kDeadlineExceeded), "deadline_exceeded");
}

TEST(Status, ACodeThatDoesNotExistIsCalledUnknown) {
  EXPECT_EQ(code_name(static_cast<Code>(kAllCodes.size())), "unknown");
}

}  // namespace
}  // namespace pyserve
