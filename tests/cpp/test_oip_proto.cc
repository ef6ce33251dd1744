#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "mutate.h"
#include "seed.h"
#include "wire/oip_proto.h"

namespace pyserve {
namespace {

using std::string_literals::operator""s;

// A request with the bytes that it views: copied to the heap, exactly as long as they are, so that
// AddressSanitizer sees any byte too far.
struct Parsed {
  std::unique_ptr<char[]> bytes;
  bool accepted = false;
  ProtoRequest request;
};

Parsed parse(std::string_view message) {
  Parsed parsed{std::make_unique<char[]>(message.size()), false, {}};
  char* const bytes = parsed.bytes.get();
  std::memcpy(bytes, message.data(), message.size());
  parsed.accepted = parse_infer_request({bytes, message.size()}, parsed.request);
  if (!parsed.accepted) return parsed;
  const auto within = [&](std::string_view view) {
    EXPECT_TRUE(view.empty() ||
                (view.data() >= bytes && view.data() + view.size() <= bytes + message.size()));
  };
  within(parsed.request.model);
  within(parsed.request.version);
  within(parsed.request.id);
  for (const ProtoInput& input : parsed.request.inputs) {
    within(input.name);
    within(input.datatype);
    within(input.data);
  }
  if (parsed.request.outputs) {
    for (const OipOutput& output : *parsed.request.outputs) within(output.name);
  }
  return parsed;
}

bool accepts(std::string_view message) { return parse(message).accepted; }

std::string varint(std::uint64_t value) {
  std::string text;
  for (; value >= 0x80; value >>= 7) text += static_cast<char>(value | 0x80);
  return text + static_cast<char>(value);
}

// A field that has a length.
std::string field(unsigned number, std::string_view content) {
  return static_cast<char>(number << 3 | 2) + varint(content.size()) + std::string(content);
}

std::string packed(const std::vector<std::uint64_t>& sizes) {
  std::string text;
  for (const std::uint64_t size : sizes) text += varint(size);
  return text;
}

std::string input(std::string_view name, std::string_view datatype,
                  const std::vector<std::uint64_t>& shape) {
  return field(1, name) + field(2, datatype) +
         (shape.empty() ? std::string() : field(3, packed(shape)));
}

// A parameter whose value is the field of InferParameter in `choice`.
std::string parameter(std::string_view key, std::string_view choice) {
  return field(4, field(1, key) + field(2, choice));
}

std::string int64_param(std::uint64_t value) { return '\x10' + varint(value); }
std::string uint64_param(std::uint64_t value) { return '\x28' + varint(value); }

const std::string kInput = field(5, input("x", "FP32", {1, 4}));
const std::string kContents = field(7, "0123456789abcdef");
const std::string kGood = field(1, "affine") + kInput + kContents;

// A good request whose only input is `content`.
std::string with_input(std::string_view content) {
  return field(1, "m") + field(5, content) + field(7, "");
}

// The request as bytes again, in one certain form.
std::string written(const ProtoRequest& request) {
  std::string text;
  if (!request.model.empty()) text += field(1, request.model);
  if (!request.version.empty()) text += field(2, request.version);
  if (!request.id.empty()) text += field(3, request.id);
  if (request.timeout_us != 0) {
    text += parameter("timeout", int64_param(static_cast<std::uint64_t>(request.timeout_us)));
  }
  if (request.priority != 0) text += parameter("priority", uint64_param(request.priority));
  for (const ProtoInput& one : request.inputs) {
    text += field(5, input(one.name, one.datatype, {one.shape.begin(), one.shape.end()}));
  }
  if (request.outputs) {
    for (const OipOutput& one : *request.outputs) text += field(6, field(1, one.name));
  }
  for (const ProtoInput& one : request.inputs) text += field(7, one.data);
  return text;
}

TEST(OipProto, ReadsWhatClientsSend) {
  const Parsed got = parse(field(1, "pair") + field(2, "3") + field(3, "größe") +
                           field(5, input("a", "INT64", {1, 300})) +
                           field(5, input("b", "BYTES", {})) + field(6, field(1, "y")) +
                           field(6, field(1, "z")) + field(7, "12345678") + field(7, ""));
  ASSERT_TRUE(got.accepted);
  const ProtoRequest& request = got.request;
  EXPECT_EQ(request.model, "pair");
  EXPECT_EQ(request.version, "3");
  EXPECT_EQ(request.id, "größe");
  ASSERT_EQ(request.inputs.size(), 2U);
  EXPECT_EQ(request.inputs[0].name, "a");
  EXPECT_EQ(request.inputs[0].datatype, "INT64");
  EXPECT_EQ(request.inputs[0].shape, (std::vector<std::int64_t>{1, 300}));
  EXPECT_EQ(request.inputs[0].data, "12345678");
  EXPECT_EQ(request.inputs[1].name, "b");
  EXPECT_TRUE(request.inputs[1].shape.empty());
  EXPECT_EQ(request.inputs[1].data, "");
  ASSERT_TRUE(request.outputs);
  ASSERT_EQ(request.outputs->size(), 2U);
  EXPECT_EQ(request.outputs->at(1).name, "z");
  EXPECT_TRUE(request.outputs->at(1).binary);
}

TEST(OipProto, FieldsComeInAnyOrder) {
  const Parsed got = parse(kContents + field(6, field(1, "y")) + kInput + field(1, "affine"));
  ASSERT_TRUE(got.accepted);
  EXPECT_EQ(got.request.model, "affine");
  EXPECT_EQ(got.request.inputs[0].data.size(), 16U);
}

TEST(OipProto, NothingOfTheLastRequestIsLeft) {
  ProtoRequest request;
  const std::string first =
      field(1, "m") + field(2, "1") + field(3, "id") + parameter("timeout", int64_param(7)) +
      parameter("priority", int64_param(3)) + field(5, input("a", "INT64", {1, 2, 3})) +
      field(5, input("b", "INT8", {4})) + field(6, field(1, "y")) + field(7, "") + field(7, "1");
  ASSERT_TRUE(parse_infer_request(first, request));
  ASSERT_TRUE(parse_infer_request(kGood, request));
  EXPECT_EQ(written(request), kGood);
}

TEST(OipProto, AShapeMayBePackedOrNotOrBoth) {
  const std::string name = field(1, "x") + field(2, "FP32");
  const std::string loose = "\x18\x02\x18\x80\x01"s;
  const Parsed got = parse(with_input(name + loose + field(3, packed({5, 6})) + "\x18\x07"s));
  ASSERT_TRUE(got.accepted);
  EXPECT_EQ(got.request.inputs[0].shape, (std::vector<std::int64_t>{2, 128, 5, 6, 7}));
  const std::vector<std::uint64_t> most(kMaxOipDimensions, 1);
  const std::string full = name + field(3, packed(most));
  EXPECT_TRUE(accepts(with_input(full)));
  EXPECT_FALSE(accepts(with_input(full + "\x18\x01"s)));
  EXPECT_FALSE(accepts(with_input(name + field(3, packed(most) + varint(1)))));
}

TEST(OipProto, IntegersAreShortAndNotTooLarge) {
  const auto accepts_size = [](std::string_view size) {
    return accepts(with_input(field(1, "x") + field(2, "FP32") + field(3, size)));
  };
  EXPECT_TRUE(accepts_size(varint((std::uint64_t{1} << 62) - 1)));
  EXPECT_FALSE(accepts_size(varint(std::uint64_t{1} << 62)));
  EXPECT_FALSE(accepts_size(varint(~std::uint64_t{0})));  // -1
  EXPECT_FALSE(accepts_size("\x80\x00"s));                // 0 in two bytes
  EXPECT_FALSE(accepts_size("\x80"s));
  EXPECT_FALSE(accepts_size(std::string(20, '\x80')));
}

TEST(OipProto, LengthsThatLieAreRefused) {
  for (const std::uint64_t length :
       {std::uint64_t{17}, std::uint64_t{1} << 31, std::uint64_t{1} << 61, ~std::uint64_t{0}}) {
    EXPECT_FALSE(accepts(field(1, "m") + kInput + "\x3a" + varint(length) + "0123456789abcdef"));
    EXPECT_FALSE(accepts(field(1, "m") + kContents + "\x2a" + varint(length) + "x"));
    EXPECT_FALSE(accepts(with_input("\x0a" + varint(length) + "x")));
  }
}

TEST(OipProto, WhatIsUnusualIsLeftToProtobuf) {
  ASSERT_TRUE(accepts(kGood));
  const std::string odd = field(1, "odd") + field(2, "\x10\x01");
  const std::string name = input("x", "FP32", {1, 4});
  for (const std::string& message : {
           ""s,
           field(1, "m"),
           field(1, "m") + kInput,
           field(1, "m") + kContents,
           kGood + kContents,
           kGood + kInput + kContents,  // the same name twice
           kGood + field(1, "n"),
           kGood + field(2, "1") + field(2, "1"),
           kGood + field(3, "a") + field(3, "b"),
           kGood + field(4, odd),
           kGood + parameter("timeout", int64_param(1)) + field(4, odd),
           kGood + field(6, ""),
           kGood + field(6, field(1, "")),
           kGood + field(6, field(1, "y") + field(1, "y")),
           kGood + field(6, field(1, "y") + field(2, odd)),
           kGood + field(6, field(1, "y")) + field(6, field(1, "y")),
           kGood + field(8, "x"),
           kGood + field(15, "x"),
           kGood + "\x08\x01"s,       // a name that is a number
           kGood + "\x0b\x0c"s,       // a group
           kGood + "\x3d\0\0\0\0"s,   // contents of four bytes
           kGood + "\x00\x00"s,       // field 0
           kGood + "\x82\x01\x01x"s,  // field 16
           kGood + "\x8a\x00\x01x"s,  // field 1 in two bytes
           kGood + "\x0a"s,           // a tag and no more
           field(1, "\xff") + kInput + kContents,
           field(3, "\xc0\x80") + kInput + kContents,
           with_input(""),
           with_input(field(1, "x")),
           with_input(field(2, "FP32")),
           with_input(field(1, "") + field(2, "FP32")),
           with_input(field(1, std::string(257, 'x')) + field(2, "FP32")),
           with_input(field(1, "\xed\xa0\x80") + field(2, "FP32")),
           with_input(name + field(1, "x")),
           with_input(name + field(2, "FP32")),
           with_input(name + field(4, odd)),
           with_input(name + field(5, "")),
           with_input(name + field(6, "")),
       }) {
    EXPECT_FALSE(accepts(message));
  }
}

TEST(OipProto, ReadsTimeoutAndPriority) {
  const Parsed got = parse(parameter("priority", uint64_param(1)) + kGood +
                           parameter("timeout", int64_param(250'000)));
  ASSERT_TRUE(got.accepted);
  EXPECT_EQ(got.request.priority, 1);
  EXPECT_EQ(got.request.timeout_us, 250'000);
  const std::uint64_t most = (std::uint64_t{1} << 62) - 1;
  const Parsed long_one = parse(kGood + parameter("timeout", uint64_param(most)));
  ASSERT_TRUE(long_one.accepted);
  EXPECT_EQ(long_one.request.timeout_us, static_cast<std::int64_t>(most));
  const Parsed none =
      parse(kGood + parameter("timeout", int64_param(0)) + parameter("priority", int64_param(0)));
  ASSERT_TRUE(none.accepted);
  EXPECT_EQ(none.request.timeout_us, 0);
  EXPECT_EQ(none.request.priority, 0);
}

TEST(OipProto, ATimeoutOrPriorityThatIsNotPlainlyOneIsLeftToProtobuf) {
  const std::string one = int64_param(1);
  for (const std::string& value : {
           ""s,                                   // of no kind
           "\x08\x01"s,                           // bool_param
           field(3, "1"),                         // string_param
           "\x21\0\0\0\0\0\0\xf0\x3f"s,           // double_param
           int64_param(~std::uint64_t{0}),        // -1
           uint64_param(std::uint64_t{1} << 62),  // more than is read here
           uint64_param(~std::uint64_t{0}),       // 2^64 - 1
           one + one,
           one + uint64_param(1),  // the last would count
           one + field(15, "x"),
           "\x10\x81\x00"s,  // 1 in two bytes
           "\x10"s,
       }) {
    EXPECT_FALSE(accepts(kGood + parameter("timeout", value)));
    EXPECT_FALSE(accepts(kGood + parameter("priority", value)));
  }
  for (const std::string& entry : {
           field(1, "timeout"),                                  // no value
           field(2, one),                                        // no key
           field(2, one) + field(1, "timeout"),                  // in another order
           field(1, "timeout") + field(2, one) + field(2, one),  // two values
           field(1, "timeout") + field(2, one) + field(3, "x"),  // something else
           field(1, "timeou") + field(2, one),
           field(1, "") + field(2, one),
           ""s,
       }) {
    EXPECT_FALSE(accepts(kGood + field(4, entry)));
  }
  EXPECT_FALSE(accepts(kGood + parameter("priority", uint64_param(4))));
  EXPECT_FALSE(accepts(kGood + parameter("priority", uint64_param(257))));
  EXPECT_FALSE(accepts(kGood + parameter("timeout", one) + parameter("timeout", one)));
  EXPECT_FALSE(accepts(kGood + parameter("priority", one) + parameter("priority", one)));
}

TEST(OipProto, TensorsAreCounted) {
  const auto many = [](std::size_t inputs, std::size_t outputs) {
    std::string message = field(1, "m");
    for (std::size_t i = 0; i < inputs; ++i) {
      message += field(5, input(std::to_string(i), "INT8", {0})) + field(7, "");
    }
    for (std::size_t i = 0; i < outputs; ++i) message += field(6, field(1, std::to_string(i)));
    return message;
  };
  EXPECT_TRUE(accepts(many(kMaxOipTensors, kMaxOipTensors)));
  EXPECT_FALSE(accepts(many(kMaxOipTensors + 1, 1)));
  EXPECT_FALSE(accepts(many(1, kMaxOipTensors + 1)));
}

TEST(OipProto, WritesAnswers) {
  const std::vector<std::int64_t> shape = {1, 300};
  const std::string data(600, 'd');
  const std::string seven = "7";
  const auto bytes = [](const std::string& text) { return std::as_bytes(std::span(text)); };
  const std::vector<OipAnswerOutput> outputs = {
      {.name = "y", .dtype = Dtype::kFp16, .shape = shape, .data = bytes(data), .binary = true},
      {.name = "s", .dtype = Dtype::kInt8, .shape = {}, .data = bytes(seven), .binary = true},
      {.name = "e", .dtype = Dtype::kInt8, .shape = {}, .data = {}, .binary = true}};
  const OipAnswer answer{.model = "m", .version = "1", .id = "a", .outputs = outputs};
  std::string written(infer_response_bytes(answer), '?');
  write_infer_response(answer, written.data());
  EXPECT_EQ(written, field(1, "m") + field(2, "1") + field(3, "a") +
                         field(5, input("y", "FP16", {1, 300})) + field(5, input("s", "INT8", {})) +
                         field(5, input("e", "INT8", {})) + field(6, data) + field(6, "7") +
                         field(6, ""));
  const OipAnswer bare{.model = "m", .version = "1", .outputs = {}};
  EXPECT_EQ(infer_response_bytes(bare), 6U);
}

// Whatever is accepted is one certain request, which says the same when it is written again.
TEST(OipProto, FaultsNeverLeadAstray) {
  auto random = seeded_random();
  const std::string full =
      field(1, "model") + field(2, "1") + field(3, "id") + parameter("timeout", int64_param(300)) +
      parameter("priority", uint64_param(2)) + field(5, input("first", "FP32", {1, 4})) +
      field(5, input("second", "INT64", {2, 2, 130})) + field(6, field(1, "y")) +
      field(6, field(1, "z")) + kContents + field(7, std::string(200, 'x'));
  ASSERT_TRUE(accepts(full));
  const std::string alphabet =
      "\x00\x01\x02\x08\x0a\x10\x12\x18\x1a\x22\x2a\x32\x3a\x7f\x80\xffxy"s;
  int accepted = 0;
  for (int i = 0; i < 50'000; ++i) {
    const Parsed got = parse(mutated(full, alphabet, random));
    if (!got.accepted) continue;
    ++accepted;
    const std::string again = written(got.request);
    const Parsed second = parse(again);
    ASSERT_TRUE(second.accepted);
    ASSERT_EQ(written(second.request), again);
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace pyserve
