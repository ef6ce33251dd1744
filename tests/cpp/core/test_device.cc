#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "runtime/device.h"

namespace pyserve {
namespace {

std::string complaint(const char* text) {
  try {
    parse_device(text);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

TEST(Device, TheCpuIsAlwaysThere) {
  EXPECT_TRUE(parse_device("cpu").is_cpu());
  EXPECT_NO_THROW(parse_device("auto"));
}

TEST(Device, SaysWhatItExpected) {
  for (const auto* const text :
       {"", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:99999", "cpu:0", " cpu"}) {
    EXPECT_EQ(complaint(text),
              "unknown device \"" + std::string(text) + "\", expected auto, cpu, cuda or cuda:N");
  }
}

TEST(Device, ADeviceThatIsNotThereIsRefused) {
  EXPECT_NE(complaint("cuda:999").find("device cuda:999 is not there"), std::string::npos);
}

TEST(Device, AStreamOfTheCpuDoesNothing) {
  DeviceStream stream{c10::Device(c10::DeviceType::CPU)};
  EXPECT_TRUE(stream.device().is_cpu());
  EXPECT_NO_THROW(stream.make_current());
  EXPECT_NO_THROW(stream.synchronize());
}

}  // namespace
}  // namespace pyserve
