#include <gtest/gtest.h>

#include <bit>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/json_numbers.h"
#include "base/status.h"
#include "seed.h"

namespace pyserve {
namespace {

template <class T>
struct Parsed {
  Status status;
  std::vector<T> values;
};

// The text is copied to the heap, exactly as long as it is: AddressSanitizer sees any byte too far.
template <class T>
Parsed<T> parse(Dtype dtype, std::string_view json, std::size_t count) {
  const auto text = std::make_unique<char[]>(json.size());
  std::memcpy(text.get(), json.data(), json.size());
  Parsed<T> parsed{{}, std::vector<T>(count)};
  EXPECT_EQ(sizeof(T), dtype_size(dtype));
  parsed.status = parse_json_numbers({text.get(), json.size()}, dtype,
                                     reinterpret_cast<std::byte*>(parsed.values.data()), count);
  return parsed;
}

Status parse_floats(std::string_view json, std::size_t count) {
  return parse<float>(Dtype::kFp32, json, count).status;
}

template <class T>
T parse_one(Dtype dtype, std::string_view number) {
  const Parsed<T> parsed = parse<T>(dtype, "[" + std::string(number) + "]", 1);
  EXPECT_TRUE(parsed.status.ok()) << number << ": " << parsed.status.message;
  return parsed.values[0];
}

template <class T>
std::string error_of(Dtype dtype, std::string_view number) {
  const Status status = parse<T>(dtype, "[" + std::string(number) + "]", 1).status;
  EXPECT_EQ(status.code, Code::kInvalidInput) << number;
  return status.message;
}

template <class T>
std::string format(Dtype dtype, const std::vector<T>& values) {
  std::string out;
  const Status status = format_json_numbers(
      dtype, reinterpret_cast<const std::byte*>(values.data()), values.size(), out);
  EXPECT_TRUE(status.ok()) << status.message;
  return out;
}

TEST(Dtype, NamesReadBackAsThemselves) {
  for (const Dtype dtype : kAllDtypes) EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
  EXPECT_EQ(parse_dtype("fp32"), std::nullopt);
  EXPECT_EQ(parse_dtype(""), std::nullopt);
}

TEST(JsonNumbers, ArraysAreReadFlatNestedOrMixed) {
  const std::vector<float> expected = {1, 2, 3, 4};
  for (const char* json : {"[1,2,3,4]", "[[1,2],[3,4]]", "[[1,2],3,[[4]]]",
                           " [ [ 1 , 2 ]\n,\t[ 3 ,\r4 ] ] ", "[[],1,2,[[],[3]],4,[]]"}) {
    const auto parsed = parse<float>(Dtype::kFp32, json, 4);
    EXPECT_TRUE(parsed.status.ok()) << json << ": " << parsed.status.message;
    EXPECT_EQ(parsed.values, expected) << json;
  }
  EXPECT_TRUE(parse_floats("[]", 0).ok());
  EXPECT_TRUE(parse_floats("[[],[ ]]", 0).ok());
}

TEST(JsonNumbers, WhatIsNoJsonArrayOfNumbersIsRefused) {
  for (const char* json : {"",           " ",           "1",
                           "[",          "]",           "[1",
                           "[1,",        "[1,]",        "[,1]",
                           "[1,,2]",     "[1 2]",       "[[1]",
                           "[1]]",       "[1],[2]",     "[1] x",
                           "[1]x",       "[01]",        "[+1]",
                           "[.5]",       "[5.]",        "[1.e5]",
                           "[1e]",       "[1e+]",       "[-]",
                           "[--1]",      "[0x10]",      "[1_000]",
                           "[NaN]",      "[nan]",       "[inf]",
                           "[Infinity]", "[-Infinity]", "[1f]",
                           "[\"1\"]",    "[true]",      "[null]",
                           "[{}]",       "[1}",         "{\"a\":1}",
                           "[1,[2,]]",   "[[1][2]]",    "[1/**/]",
                           "[1.2.3]",    "[1e5.5]",     "[00]",
                           "[-01]",      "[\xff]",      "[1\xc2\xa0]",
                           "[ ]]",       "[[[]]",       "\xef\xbb\xbf[1]"}) {
    for (const std::size_t count : {0, 1, 2}) {
      const Status status = parse_floats(json, count);
      EXPECT_EQ(status.code, Code::kInvalidInput) << json;
      EXPECT_FALSE(status.message.empty());
    }
  }
}

TEST(JsonNumbers, EveryCutOfAGoodTextIsRefused) {
  const std::string json = "[[1.5e3,-0.25],[12345678.12345678, 1E-5]]";
  ASSERT_TRUE(parse_floats(json, 4).ok());
  for (std::size_t size = 0; size < json.size(); ++size) {
    EXPECT_FALSE(parse_floats(json.substr(0, size), 4).ok()) << json.substr(0, size);
  }
}

TEST(JsonNumbers, TheNumberOfElementsMustAgree) {
  EXPECT_EQ(parse_floats("[1,2,3]", 4).message, "expected 4 numbers, got 3");
  EXPECT_EQ(parse_floats("[1,2,3]", 2).message, "expected 2 numbers, got more");
  EXPECT_EQ(parse_floats("[[],[]]", 1).message, "expected 1 numbers, got 0");
}

TEST(JsonNumbers, NestingIsLimitedAndDoesNotRecurse) {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + "1" + std::string(depth, ']');
  };
  EXPECT_TRUE(parse_floats(nested(kMaxJsonDepth), 1).ok());
  EXPECT_FALSE(parse_floats(nested(kMaxJsonDepth + 1), 1).ok());
  EXPECT_FALSE(parse_floats(nested(250'000), 1).ok());
  EXPECT_FALSE(parse_floats(std::string(250'000, '['), 1).ok());
}

TEST(JsonNumbers, FloatsAtTheEdgesAreRoundedToNearest) {
  for (const char* number : {"0",
                             "-0",
                             "0.0",
                             "-0e5",
                             "0e999999999999999999",
                             "1",
                             "-1.5",
                             "0.1",
                             "3.4028235e38",
                             "3.4028235677973362e38",
                             "1.1754943508222875e-38",
                             "1.1754942106924411e-38",
                             "1.401298464324817e-45",
                             "7.006492321624085e-46",
                             "7.006492321624086e-46",
                             "1e-46",
                             "1e-400",
                             "-1e-400",
                             "1e-99999999999999999999",
                             "16777217",
                             "16777219",
                             "16777217.0000000000000001",
                             "9007199254740993",
                             "0.000000000000000000000000000000000000011754943508222875",
                             "123456789012345678901234567890",
                             "1.00000005960464477539062500000000000000000001",
                             "1.00000005960464477539062499999999999999999999",
                             "8.5e-5",
                             "9999999999999999999",
                             "18446744073709551615",
                             "18446744073709551616",
                             "0.3333333333333333148296162562473909"}) {
    const auto bits = std::bit_cast<std::uint32_t>(parse_one<float>(Dtype::kFp32, number));
    EXPECT_EQ(bits, std::bit_cast<std::uint32_t>(std::strtof(number, nullptr))) << number;
    const auto wide = std::bit_cast<std::uint64_t>(parse_one<double>(Dtype::kFp64, number));
    EXPECT_EQ(wide, std::bit_cast<std::uint64_t>(std::strtod(number, nullptr))) << number;
  }
  const std::string zeros(5000, '0');
  EXPECT_EQ(parse_one<float>(Dtype::kFp32, "0." + zeros + "1e5001"), 1.0F);
  EXPECT_EQ(parse_one<float>(Dtype::kFp32, "1" + zeros + "e-5000"), 1.0F);
  EXPECT_EQ(parse_one<float>(Dtype::kFp32, "0." + zeros + "1"), 0.0F);
  EXPECT_EQ(parse_one<float>(Dtype::kFp32, "0." + zeros), 0.0F);
}

// Numbers of every length, many of them next to the midpoint of two floats, against strtof.
TEST(JsonNumbers, FloatsAgreeWithTheLibrarysOnRandomNumbers) {
  std::mt19937_64 random = seeded_random();
  for (int i = 0; i < 100'000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    const auto low = std::bit_cast<float>(bits & 0x7F7FFFFFU);
    const float high = std::nextafter(low, std::numeric_limits<float>::infinity());
    const double midpoint = (static_cast<double>(low) + static_cast<double>(high)) / 2;
    const double value = i % 2 == 0 ? midpoint : static_cast<double>(low) * 1.0000001;
    char text[128];
    const int precision = static_cast<int>(random() % 25);
    if (std::snprintf(text, sizeof text, "%s%.*e", i % 3 == 0 ? "-" : "", precision, value) < 0) {
      FAIL();
    }
    const float expected = std::strtof(text, nullptr);
    if (std::isinf(expected)) continue;
    const auto got = parse_one<float>(Dtype::kFp32, text);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(got), std::bit_cast<std::uint32_t>(expected)) << text;
    const auto wide = parse_one<double>(Dtype::kFp64, text);
    ASSERT_EQ(wide, std::strtod(text, nullptr)) << text;
  }
}

TEST(JsonNumbers, FloatsOutOfRangeAreNamedAndCutShort) {
  EXPECT_EQ(parse_floats("[1,[2,1e39]]", 3).message,
            "element 2 is \"1e39\", out of range for FP32");
  for (const char* number : {"3.4028236e38", "-1e99999999999999999999", "1e400"}) {
    EXPECT_NE(error_of<float>(Dtype::kFp32, number), "");
  }
  EXPECT_NE(error_of<double>(Dtype::kFp64, "1e309"), "");
  EXPECT_NE(error_of<double>(Dtype::kFp64, "1.8e308"), "");
  const std::string message = error_of<float>(Dtype::kFp32, std::string(1000, '9'));
  EXPECT_LT(message.size(), 100U);
  EXPECT_NE(message.find("..."), std::string::npos);
  EXPECT_EQ(error_of<float>(Dtype::kFp32, "\xff\n\x01"), "element 0 is \"?\", expected a number");
}

template <class T>
void expect_integer_range(Dtype dtype, const char* below, const char* above) {
  using Limits = std::numeric_limits<T>;
  EXPECT_EQ(parse_one<T>(dtype, std::to_string(Limits::min())), Limits::min());
  EXPECT_EQ(parse_one<T>(dtype, std::to_string(Limits::max())), Limits::max());
  EXPECT_EQ(parse_one<T>(dtype, "-0"), 0);
  EXPECT_EQ(parse_one<T>(dtype, "7"), 7);
  for (const char* number : {below, above, "99999999999999999999", "-99999999999999999999",
                             "184467440737095516160", "-9223372036854775809"}) {
    EXPECT_NE(error_of<T>(dtype, number).find("out of range"), std::string::npos) << number;
  }
  for (const char* number : {"1.0", "1e2", "0.5", "1E0"}) {
    EXPECT_NE(error_of<T>(dtype, number).find("expected an integer"), std::string::npos) << number;
  }
  for (const char* number : {"007", "true", "", "-", "+1", "1-"}) error_of<T>(dtype, number);
}

TEST(JsonNumbers, IntegersAreExactAndWithinTheirRange) {
  expect_integer_range<std::uint8_t>(Dtype::kUint8, "-1", "256");
  expect_integer_range<std::uint16_t>(Dtype::kUint16, "-1", "65536");
  expect_integer_range<std::uint32_t>(Dtype::kUint32, "-1", "4294967296");
  expect_integer_range<std::uint64_t>(Dtype::kUint64, "-1", "18446744073709551616");
  expect_integer_range<std::int8_t>(Dtype::kInt8, "-129", "128");
  expect_integer_range<std::int16_t>(Dtype::kInt16, "-32769", "32768");
  expect_integer_range<std::int32_t>(Dtype::kInt32, "-2147483649", "2147483648");
  expect_integer_range<std::int64_t>(Dtype::kInt64, "-9223372036854775809", "9223372036854775808");
  EXPECT_EQ(parse_one<std::int64_t>(Dtype::kInt64, "9007199254740993"), 9007199254740993);
}

TEST(JsonNumbers, BooleansAreWordsOrBits) {
  const auto parsed = parse<std::uint8_t>(Dtype::kBool, "[true,false,[1,0]]", 4);
  EXPECT_TRUE(parsed.status.ok());
  EXPECT_EQ(parsed.values, (std::vector<std::uint8_t>{1, 0, 1, 0}));
  for (const char* word :
       {"2", "-1", "10", "1.0", "True", "truex", "tru", "\"true\"", "null", "01"}) {
    error_of<std::uint8_t>(Dtype::kBool, word);
  }
}

TEST(JsonNumbers, NarrowFloatsRoundToNearestEven) {
  const auto half = [](std::string_view n) { return parse_one<std::uint16_t>(Dtype::kFp16, n); };
  EXPECT_EQ(half("1"), 0x3C00);
  EXPECT_EQ(half("-2"), 0xC000);
  EXPECT_EQ(half("65504"), 0x7BFF);
  EXPECT_EQ(half("65519.99"), 0x7BFF);
  EXPECT_EQ(half("2049"), 0x6800);  // a tie, down to even
  EXPECT_EQ(half("2051"), 0x6802);  // a tie, up to even
  EXPECT_EQ(half("5.960464477539063e-8"), 0x0001);
  EXPECT_EQ(half("2.980232238769531e-8"), 0x0000);
  EXPECT_EQ(half("2.9802322387695316e-8"), 0x0001);
  EXPECT_EQ(half("6.1035156e-5"), 0x0400);
  EXPECT_EQ(half("6.09755516e-5"), 0x03FF);
  EXPECT_EQ(half("-1e-300"), 0x8000);
  EXPECT_NE(error_of<std::uint16_t>(Dtype::kFp16, "65520"), "");
  const auto bfloat = [](std::string_view n) { return parse_one<std::uint16_t>(Dtype::kBf16, n); };
  EXPECT_EQ(bfloat("1"), 0x3F80);
  EXPECT_EQ(bfloat("1.00390625"), 0x3F80);  // a tie, down to even
  EXPECT_EQ(bfloat("1.01171875"), 0x3F82);  // a tie, up to even
  EXPECT_EQ(bfloat("3.3895e38"), 0x7F7F);
  EXPECT_EQ(bfloat("1e-40"), 0x0001);
  EXPECT_NE(error_of<std::uint16_t>(Dtype::kBf16, "3.4e38"), "");
}

TEST(JsonNumbers, EveryNarrowFloatSurvivesTheRoundTrip) {
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16}) {
    const std::uint16_t infinity = dtype == Dtype::kFp16 ? 0x7C00 : 0x7F80;
    std::vector<std::uint16_t> values;
    for (std::uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
      if ((bits & infinity) != infinity) values.push_back(static_cast<std::uint16_t>(bits));
    }
    const auto parsed = parse<std::uint16_t>(dtype, format(dtype, values), values.size());
    EXPECT_TRUE(parsed.status.ok()) << parsed.status.message;
    EXPECT_EQ(parsed.values, values);
  }
}

TEST(JsonNumbers, FormattingIsShortAndKeepsFloatsFloats) {
  EXPECT_EQ(format<float>(Dtype::kFp32, {1, 2.5, 0.1F, -0.0F, 1e-5F, 16777216}),
            "[1.0,2.5,0.1,-0.0,1e-05,16777216.0]");
  EXPECT_EQ(format<double>(Dtype::kFp64, {0.1, 1e300}), "[0.1,1e+300]");
  EXPECT_EQ(format<std::int64_t>(Dtype::kInt64, {std::numeric_limits<std::int64_t>::min(), 7}),
            "[-9223372036854775808,7]");
  EXPECT_EQ(format<std::uint8_t>(Dtype::kUint8, {0, 255}), "[0,255]");
  EXPECT_EQ(format<std::uint8_t>(Dtype::kBool, {0, 1}), "[false,true]");
  EXPECT_EQ(format<float>(Dtype::kFp32, {}), "[]");
}

TEST(JsonNumbers, FormattedFloatsReadBackBitForBit) {
  std::mt19937_64 random = seeded_random();
  std::vector<float> floats;
  std::vector<double> doubles;
  while (floats.size() < 50'000) {
    const std::uint64_t bits = random();
    const auto narrow = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    const auto wide = std::bit_cast<double>(bits);
    if (std::isfinite(narrow)) floats.push_back(narrow);
    if (std::isfinite(wide)) doubles.push_back(wide);
  }
  const auto parsed = parse<float>(Dtype::kFp32, format(Dtype::kFp32, floats), floats.size());
  EXPECT_EQ(0, std::memcmp(parsed.values.data(), floats.data(), floats.size() * sizeof(float)));
  const auto wide = parse<double>(Dtype::kFp64, format(Dtype::kFp64, doubles), doubles.size());
  EXPECT_EQ(0, std::memcmp(wide.values.data(), doubles.data(), doubles.size() * sizeof(double)));
}

TEST(JsonNumbers, UnalignedBuffersAreRead) {
  std::vector<std::byte> storage(1 + (2 * sizeof(double)));
  std::string out;
  ASSERT_TRUE(parse_json_numbers("[1.5,-2]", Dtype::kFp64, storage.data() + 1, 2).ok());
  ASSERT_TRUE(format_json_numbers(Dtype::kFp64, storage.data() + 1, 2, out).ok());
  EXPECT_EQ(out, "[1.5,-2.0]");
}

TEST(JsonNumbers, WhatJsonCannotCarryIsAnErrorThatSaysWhatToDo) {
  std::string out;
  const float values[] = {1, std::numeric_limits<float>::quiet_NaN()};
  const Status status =
      format_json_numbers(Dtype::kFp32, reinterpret_cast<const std::byte*>(values), 2, out);
  EXPECT_EQ(status.code, Code::kInvalidInput);
  EXPECT_EQ(status.message, "element 1 is NaN, which JSON cannot carry: ask for binary data");
  for (const std::uint16_t bits : {0x7C00, 0xFC00, 0x7E00}) {
    const auto* const data = reinterpret_cast<const std::byte*>(&bits);
    EXPECT_FALSE(format_json_numbers(Dtype::kFp16, data, 1, out).ok());
  }
  EXPECT_FALSE(format_json_numbers(Dtype::kBytes, nullptr, 0, out).ok());
  EXPECT_FALSE(parse_json_numbers("[]", Dtype::kBytes, nullptr, 0).ok());
}

// Mutations of a good text: whatever comes, the answer is a status and no byte is out of bounds.
TEST(JsonNumbers, MutatedTextsNeverReachOutOfBounds) {
  std::mt19937_64 random = seeded_random();
  const std::string seed_text = "[[1.25e-3,-17,0.123456789012345678],[true,0,-0.5E+7]]";
  const std::string alphabet = "[]{},.-+eE0123456789 tfn\"\xff";
  for (int i = 0; i < 20'000; ++i) {
    std::string text = seed_text;
    for (std::uint64_t edits = random() % 4; edits-- > 0;) {
      text[random() % text.size()] = alphabet[random() % alphabet.size()];
    }
    text.resize(random() % 8 == 0 ? random() % text.size() : text.size());
    for (const Dtype dtype : kAllDtypes) {
      const std::size_t count = random() % 8;
      const auto out = std::make_unique<std::byte[]>(count * dtype_size(dtype));
      const auto copy = std::make_unique<char[]>(text.size());
      std::memcpy(copy.get(), text.data(), text.size());
      const Status status = parse_json_numbers({copy.get(), text.size()}, dtype, out.get(), count);
      EXPECT_NE(status.ok(), !status.message.empty());
    }
  }
}

}  // namespace
}  // namespace pyserve
