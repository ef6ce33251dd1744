#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/checked.h"
#include "base/dtype.h"
#include "base/json_numbers.h"
#include "mutate.h"
#include "seed.h"
#include "wire/oip_request.h"

namespace pyserve {
namespace {

using std::string_view_literals::operator""sv;

// A request with the text that it views: copied to the heap, exactly as long as it is, so that
// AddressSanitizer sees any byte too far.
struct Parsed {
  std::unique_ptr<char[]> text;
  bool accepted = false;
  OipRequest request;
};

Parsed parse(std::string_view json) {
  Parsed parsed{std::make_unique<char[]>(json.size()), false, {}};
  char* const text = parsed.text.get();
  std::memcpy(text, json.data(), json.size());
  parsed.accepted = parse_oip_request({text, json.size()}, parsed.request);
  if (!parsed.accepted) return parsed;
  const auto within = [&](std::string_view view) {
    EXPECT_TRUE(view.empty() ||
                (view.data() >= text && view.data() + view.size() <= text + json.size()));
  };
  within(parsed.request.id);
  for (const OipInput& input : parsed.request.inputs) {
    within(input.name);
    within(input.datatype);
    within(input.data);
    EXPECT_NE(input.data.empty(), !input.binary_size);
    EXPECT_TRUE(input.data.empty() || (input.data.front() == '[' && input.data.back() == ']'));
  }
  for (const OipOutput& output : parsed.request.outputs.value_or(std::vector<OipOutput>())) {
    within(output.name);
  }
  return parsed;
}

bool accepts(std::string_view json) { return parse(json).accepted; }

std::string with_input(std::string_view input) {
  return R"({"inputs":[)" + std::string(input) + "]}";
}

std::string with_shape(std::string_view shape) {
  return with_input(R"({"name":"x","datatype":"FP32","data":[1],"shape":)" + std::string(shape) +
                    "}");
}

// A good request with `more` after its inputs.
std::string with_more(std::string_view more) {
  return R"({"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1.5]}])" +
         std::string(more) + "}";
}

// Whether the input's numbers can be read, as the lane does before it believes them.
bool numbers_are_good(const OipInput& input) {
  const auto dtype = parse_dtype(input.datatype);
  const auto count = checked_elements(input.shape);
  if (!dtype || !count || *count > input.data.size()) return false;
  std::vector<std::byte> numbers(*count * dtype_size(*dtype));
  return parse_json_numbers(input.data, *dtype, numbers.data(), *count).ok();
}

bool all_numbers_are_good(const OipRequest& request) {
  return std::all_of(request.inputs.begin(), request.inputs.end(), [](const OipInput& input) {
    return input.binary_size || numbers_are_good(input);
  });
}

// The request as text again, in one certain form.
std::string written(const OipRequest& request) {
  std::string text = "{";
  if (!request.id.empty()) text += R"("id":")" + std::string(request.id) + "\",";
  text += R"("parameters":{"timeout":)" + std::to_string(request.timeout_us) + R"(,"priority":)" +
          std::to_string(request.priority);
  text += request.binary_default ? R"(,"binary_data_output":true},)" : "},";
  text += "\"inputs\":[";
  for (const OipInput& input : request.inputs) {
    if (text.back() == '}') text += ',';
    text += R"({"name":")" + std::string(input.name) + R"(","datatype":")" +
            std::string(input.datatype) + R"(","shape":[)";
    for (const std::int64_t size : input.shape) {
      if (text.back() != '[') text += ',';
      text += std::to_string(size);
    }
    text += input.binary_size ? R"(],"parameters":{"binary_data_size":)" +
                                    std::to_string(*input.binary_size) + "}}"
                              : R"(],"data":)" + std::string(input.data) + "}";
  }
  text += ']';
  if (request.outputs) {
    text += R"(,"outputs":[)";
    for (const OipOutput& output : *request.outputs) {
      if (text.back() == '}') text += ',';
      text += R"({"name":")" + std::string(output.name) + '"';
      text += output.binary ? R"(,"parameters":{"binary_data":true}})" : "}";
    }
    text += ']';
  }
  return text + "}";
}

// These texts are tritonclient's own.
TEST(OipRequest, ReadsWhatTritonclientSends) {
  auto got = parse(
      R"({"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":)"
      R"({"binary_data_size":16}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]})");
  ASSERT_TRUE(got.accepted);
  ASSERT_EQ(got.request.inputs.size(), 1U);
  EXPECT_EQ(got.request.inputs[0].name, "x");
  EXPECT_EQ(got.request.inputs[0].datatype, "FP32");
  EXPECT_EQ(got.request.inputs[0].shape, (std::vector<std::int64_t>{1, 4}));
  EXPECT_EQ(got.request.inputs[0].binary_size, 16U);
  EXPECT_EQ(got.request.inputs[0].data, "");
  ASSERT_TRUE(got.request.outputs);
  ASSERT_EQ(got.request.outputs->size(), 1U);
  EXPECT_EQ(got.request.outputs->front().name, "y");
  EXPECT_TRUE(got.request.outputs->front().binary);
  EXPECT_FALSE(got.request.binary_default);

  got = parse(R"({"id":"abc","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":)"
              R"([0.0,0.0,0.0,0.0]}],"parameters":{"binary_data_output":true}})");
  ASSERT_TRUE(got.accepted);
  EXPECT_EQ(got.request.id, "abc");
  EXPECT_EQ(got.request.inputs[0].data, "[0.0,0.0,0.0,0.0]");
  EXPECT_FALSE(got.request.inputs[0].binary_size);
  EXPECT_FALSE(got.request.outputs);
  EXPECT_TRUE(got.request.binary_default);
}

TEST(OipRequest, KeysComeInAnyOrderWithAnyWhiteSpace) {
  const auto got = parse(
      " {\r\n\t\"outputs\" : [ { \"parameters\" : { \"binary_data\" : false } , \"name\" : \"y\" } "
      ", {\"name\":\"z\"} ] , \"inputs\":[ { \"data\" : [ [ 1 , 2 ] , [ 3 , 4 ] ] , \"shape\" : [ "
      "2 "
      ", 2 ] , \"datatype\" : \"INT8\" , \"name\" : \"a b\" } , { \"parameters\" : { } , \"shape\" "
      ": [ ] , \"datatype\" : \"BOOL\", \"name\" : \"x\", \"data\" : [ true ] } ] , \"parameters\" "
      ": { } , \"id\" : \"\" }\n ");
  ASSERT_TRUE(got.accepted);
  ASSERT_EQ(got.request.inputs.size(), 2U);
  EXPECT_EQ(got.request.inputs[0].name, "a b");
  EXPECT_EQ(got.request.inputs[0].data, "[ [ 1 , 2 ] , [ 3 , 4 ] ]");
  EXPECT_EQ(got.request.inputs[1].data, "[ true ]");
  EXPECT_TRUE(got.request.inputs[1].shape.empty());
  ASSERT_EQ(got.request.outputs->size(), 2U);
  EXPECT_FALSE(got.request.outputs->at(0).binary);
  EXPECT_TRUE(all_numbers_are_good(got.request));
}

TEST(OipRequest, AnArrayEndsAtItsOwnBracket) {
  for (const char* data : {"[]", "[ ]", "[1]", "[[1],[2]]", "[[[[1]]]]", "[1, 2\n,3 ]", "[[],[]]",
                           "[[1,[2]] ,\t[3]]", "[true]"}) {
    for (const std::string_view rest : {""sv, " "sv, R"(,"name":"x")"sv, R"( , "name" :"x" )"sv}) {
      const bool named = rest.find("name") != std::string_view::npos;
      const std::string text =
          R"({"id":"]}","inputs":[{)" + std::string(named ? "" : R"("name":"x",)") +
          R"("shape":[1],"datatype":"FP32","data":)" + data + std::string(rest) +
          R"(} ,{"name":"z","datatype":"FP32","shape":[2],"data":[[5],[6]]}])" +
          R"( ,"outputs":[{"name":"y"}]})";
      const auto got = parse(text);
      ASSERT_TRUE(got.accepted) << text;
      EXPECT_EQ(got.request.inputs[0].data, data) << text;
      EXPECT_EQ(got.request.inputs[1].data, "[[5],[6]]");
    }
  }
}

// Whether such an array is refused at once or by the reader of its numbers is all the same.
TEST(OipRequest, AnArrayThatIsNotOfNumbersIsNeverBelieved) {
  for (const char* data :
       {"",
        "1",
        "\"x\"",
        "null",
        "{}",
        "[",
        "]",
        "[1",
        "1]",
        "[1]]",
        "[[1]",
        "[1],[2]",
        "[1],2",
        "[1],[2],\"a\":[3]",
        "[\"a\"]",
        "[[1],\"a\"]",
        "[\"]\"]",
        "[1,{}]",
        "[{\"a\":[1]}]",
        "[1}",
        "[1]}]",
        "[1],\"name\":\"y\"",
        "[1],\"data\":[1]",
        "[1] [1]",
        "[1]\"\"",
        "[1,]",
        "[,1]",
        "[NaN]",
        "[1]},{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]"}) {
    const auto got = parse(with_input(R"({"name":"x","shape":[1],"datatype":"FP32","data":)" +
                                      std::string(data) + "}"));
    EXPECT_FALSE(got.accepted && all_numbers_are_good(got.request)) << data;
  }
  for (const std::size_t depth : {64, 65}) {
    const auto got =
        parse(with_input(R"({"name":"x","shape":[1],"datatype":"FP32","data":)" +
                         std::string(depth, '[') + "1" + std::string(depth, ']') + "}"));
    EXPECT_EQ(got.accepted && all_numbers_are_good(got.request), depth == 64);
  }
}

TEST(OipRequest, LongArraysAreCutWhole) {
  std::string data = "[";
  for (int row = 0; row < 1000; ++row) {
    data += row == 0 ? "[" : ",[";
    for (int i = 0; i < 20; ++i) data += (i == 0 ? "0." : ",0.") + std::to_string(row * 20 + i);
    data += "]";
  }
  data += "]";
  const auto got =
      parse(with_input(R"({"name":"x","shape":[1000,20],"datatype":"FP32","data":)" + data + "}"));
  ASSERT_TRUE(got.accepted);
  EXPECT_EQ(got.request.inputs[0].data, data);
  EXPECT_TRUE(all_numbers_are_good(got.request));
}

TEST(OipRequest, ShapesAreNonNegativeIntegersInDigits) {
  for (const char* shape : {"[]", "[0]", "[1,2]", "[4611686018427387903]"}) {
    EXPECT_TRUE(accepts(with_shape(shape))) << shape;
  }
  EXPECT_EQ(parse(with_shape("[4611686018427387903,0]")).request.inputs[0].shape,
            (std::vector<std::int64_t>{4611686018427387903, 0}));
  for (const char* shape : {"[-1]",
                            "[-0]",
                            "[01]",
                            "[00]",
                            "[1.0]",
                            "[1e0]",
                            "[+1]",
                            "[1,]",
                            "[,1]",
                            "[1 2]",
                            "[[1]]",
                            "[true]",
                            "[null]",
                            "[\"1\"]",
                            "[4611686018427387904]",
                            "[9223372036854775808]",
                            "[46116860184273879030]",
                            "[18446744073709551617]",
                            "1",
                            "null",
                            "{}",
                            "[1",
                            "1]",
                            "[0x1]",
                            "[]1",
                            ""}) {
    EXPECT_FALSE(accepts(with_shape(shape))) << shape;
  }
  const auto repeated = [](std::size_t rank) {
    std::string shape = "[1";
    while (--rank > 0) shape += ",1";
    return shape + "]";
  };
  EXPECT_TRUE(accepts(with_shape(repeated(kMaxOipDimensions))));
  EXPECT_FALSE(accepts(with_shape(repeated(kMaxOipDimensions + 1))));
}

TEST(OipRequest, RefusesInputsThatAreNotPlain) {
  for (const char* input :
       {R"({"datatype":"FP32","shape":[1],"data":[1]})",                  // no name
        R"({"name":"x","shape":[1],"data":[1]})",                         // no datatype
        R"({"name":"x","datatype":"FP32","data":[1]})",                   // no shape
        R"({"name":"x","datatype":"FP32","shape":[1]})",                  // no data
        R"({"name":"x","datatype":"FP32","shape":[1],"parameters":{}})",  // nor here
        R"({"name":"","datatype":"FP32","shape":[1],"data":[1]})",
        R"({"name":"x","datatype":"","shape":[1],"data":[1]})",
        R"({"name":"x","name":"x","datatype":"FP32","shape":[1],"data":[1]})",
        R"({"name":"x","datatype":"FP32","datatype":"FP32","shape":[1],"data":[1]})",
        R"({"name":"x","datatype":"FP32","shape":[1],"shape":[1],"data":[1]})",
        R"({"name":"x","datatype":"FP32","shape":[1],"data":[1],"data":[1]})",
        R"({"name":"x","datatype":"FP32","shape":[1],"data":[1],"parameters":{},"parameters":{}})",
        R"({"name":"x","datatype":"FP32","shape":[1],"data":[1],"parameters":null})",
        R"({"name":"x","datatype":"FP32","shape":[1],"data":[1],"extra":1})",
        R"({"name":null,"datatype":"FP32","shape":[1],"data":[1]})",
        R"({"name":"a\u0062","datatype":"FP32","shape":[1],"data":[1]})",
        R"({"name":"a\\","datatype":"FP32","shape":[1],"data":[1]})",
        R"({"n\u0061me":"a","datatype":"FP32","shape":[1],"data":[1]})",
        R"({"Name":"a","datatype":"FP32","shape":[1],"data":[1]})",
        "{}",
        "null",
        "[]",
        "\"x\"",
        R"({"name":"x","datatype":"FP32","shape":[1],"data":[1],})"}) {
    EXPECT_FALSE(accepts(with_input(input))) << input;
  }
  for (const std::string_view name : {"\xc3\xa9"sv, "a\nb"sv, "\x7f"sv, "\0"sv, "\t"sv}) {
    EXPECT_FALSE(accepts(with_input(R"({"datatype":"FP32","shape":[1],"data":[1],"name":")" +
                                    std::string(name) + "\"}")));
  }
}

TEST(OipRequest, BinarySizesAreIntegersWithoutDataBesideThem) {
  const auto sized = [](std::string_view parameters, std::string_view more = "") {
    return with_input(R"({"name":"x","datatype":"FP32","shape":[1],"parameters":)" +
                      std::string(parameters) + std::string(more) + "}");
  };
  EXPECT_TRUE(accepts(sized(R"({"binary_data_size":4})")));
  EXPECT_EQ(parse(sized(R"({ "binary_data_size" : 0 })")).request.inputs[0].binary_size, 0U);
  EXPECT_FALSE(accepts(sized(R"({"binary_data_size":4})", R"(,"data":[1])")));
  for (const char* parameters :
       {R"({"binary_data_size":-1})", R"({"binary_data_size":04})", R"({"binary_data_size":4.0})",
        R"({"binary_data_size":"4"})", R"({"binary_data_size":null})",
        R"({"binary_data_size":4611686018427387904})", R"({"binary_data_size":true})",
        R"({"binary_data_size":4,"binary_data_size":4})", R"({"binary_data_size":4,"a":1})",
        R"({"shared_memory_region":"a"})", R"({"binary_data":true})", "[]", "4"}) {
    EXPECT_FALSE(accepts(sized(parameters))) << parameters;
  }
}

TEST(OipRequest, ReadsTimeoutAndPriority) {
  const Parsed got = parse(
      with_more(R"(,"parameters":{"priority":3, "timeout": 250000 ,"binary_data_output":true})"));
  ASSERT_TRUE(got.accepted);
  EXPECT_EQ(got.request.timeout_us, 250'000);
  EXPECT_EQ(got.request.priority, 3);
  EXPECT_TRUE(got.request.binary_default);
  for (const int priority : {0, 1, 2, 3}) {
    const std::string text = R"(,"parameters":{"priority":)" + std::to_string(priority) + "}";
    EXPECT_EQ(parse(with_more(text)).request.priority, priority);
  }
  const Parsed most = parse(with_more(R"(,"parameters":{"timeout":4611686018427387903})"));
  ASSERT_TRUE(most.accepted);
  EXPECT_EQ(most.request.timeout_us, (std::int64_t{1} << 62) - 1);
  const Parsed none = parse(with_more(R"(,"parameters":{"timeout":0})"));
  ASSERT_TRUE(none.accepted);
  EXPECT_EQ(none.request.timeout_us, 0);
}

TEST(OipRequest, ATimeoutOrPriorityThatIsNotPlainlyOneIsRefused) {
  for (const char* value :
       {"-1", "-0", "1.0", "1.5", "1e3", "1e300", "\"1\"", "true", "null", "[1]", "{}", "01", "+1",
        "", "4611686018427387904", "9223372036854775808", "18446744073709551616",
        "99999999999999999999999999"}) {
    for (const char* key : {"timeout", "priority"}) {
      const std::string text = R"(,"parameters":{")" + std::string(key) + "\":" + value + "}";
      EXPECT_FALSE(accepts(with_more(text))) << text;
    }
  }
  for (const char* more :
       {R"(,"parameters":{"priority":4})", R"(,"parameters":{"priority":255})",
        R"(,"parameters":{"priority":256})", R"(,"parameters":{"priority":257})",
        R"(,"parameters":{"timeout":1,"timeout":1})",
        R"(,"parameters":{"priority":1,"priority":1})", R"(,"parameters":{"Timeout":1})"}) {
    EXPECT_FALSE(accepts(with_more(more))) << more;
  }
}

TEST(OipRequest, NoTimeoutOfTheLastRequestIsLeft) {
  OipRequest request;
  const std::string first = with_more(R"(,"parameters":{"timeout":5,"priority":1})");
  const std::string second = with_more("");
  ASSERT_TRUE(parse_oip_request(first, request));
  ASSERT_TRUE(parse_oip_request(second, request));
  EXPECT_EQ(request.timeout_us, 0);
  EXPECT_EQ(request.priority, 0);
}

TEST(OipRequest, RefusesWhatItDoesNotKnow) {
  ASSERT_TRUE(accepts(with_more("")));
  ASSERT_TRUE(accepts(with_more(R"(,"outputs":[{"name":"y"}])")));
  for (const char* more :
       {R"(,"parameters":{"sequence_id":1})",
        R"(,"parameters":{"timeout":1,"custom":1})",
        R"(,"parameters":{"binary_data_output":1})",
        R"(,"parameters":{"binary_data_output":null})",
        R"(,"parameters":{"binary_data_output":"true"})",
        R"(,"parameters":{"binary_data":true})",
        R"(,"parameters":{"binary_data_output":true,"binary_data_output":true})",
        R"(,"parameters":{},"parameters":{})",
        R"(,"parameters":null)",
        R"(,"parameters":[])",
        R"(,"id":null)",
        R"(,"id":1)",
        R"(,"id":"\n")",
        R"(,"id":"a","id":"a")",
        R"(,"extra":1)",
        R"(,"outputs":[])",
        R"(,"outputs":null)",
        R"(,"outputs":{})",
        R"(,"outputs":["y"])",
        R"(,"outputs":[{}])",
        R"(,"outputs":[{"name":""}])",
        R"(,"outputs":[{"name":"y","a":1}])",
        R"(,"outputs":[{"name":"y"},{"name":"y"}])",
        R"(,"outputs":[{"name":"y","name":"y"}])",
        R"(,"outputs":[{"name":"y","parameters":{"classification":1}}])",
        R"(,"outputs":[{"name":"y","parameters":{"binary_data":0}}])",
        R"(,"outputs":[{"name":"y","parameters":{"binary_data":truE}}])",
        R"(,"outputs":[{"name":"y","parameters":{"binary_data":true,"binary_data":true}}])",
        R"(,"outputs":[{"name":"y"}],"outputs":[{"name":"y"}])",
        R"(,"inputs":[])",
        ",",
        R"(,"a")",
        R"(,"parameters":{"binary_data_output":true})"
        R"(,"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1.5]}])"}) {
    EXPECT_FALSE(accepts(with_more(more))) << more;
  }
  const std::string good = with_more("");
  for (const std::string_view text :
       {""sv, " "sv, "{}"sv, "[]"sv, "null"sv, R"({"inputs":[]})"sv, R"({"inputs":null})"sv,
        R"({"inputs":{}})"sv, R"({"id":"a"})"sv}) {
    EXPECT_FALSE(accepts(text)) << text;
  }
  for (const std::string_view after :
       {"x"sv, "}"sv, "{}"sv, ","sv, "\0"sv, "\x0b"sv, "\xc2\xa0"sv}) {
    EXPECT_FALSE(accepts(good + std::string(after)));
    EXPECT_FALSE(accepts(std::string(after) + good));
  }
  EXPECT_FALSE(accepts("\xef\xbb\xbf" + good));
}

TEST(OipRequest, TensorsAreLimitedInNumberAndTheirNamesInLength) {
  const auto request = [](int inputs, int outputs) {
    std::string text = R"({"inputs":[)";
    for (int i = 0; i < inputs; ++i) {
      text += i == 0 ? "" : ",";
      text +=
          R"({"name":"x)" + std::to_string(i) + R"(","datatype":"FP32","shape":[1],"data":[1]})";
    }
    text += R"(],"outputs":[)";
    for (int i = 0; i < outputs; ++i) {
      text += (i == 0 ? R"({"name":"y)" : R"(,{"name":"y)") + std::to_string(i) + "\"}";
    }
    return text + "]}";
  };
  EXPECT_TRUE(accepts(request(64, 64)));
  EXPECT_FALSE(accepts(request(65, 1)));
  EXPECT_FALSE(accepts(request(1, 65)));
  const auto named = [](std::size_t size) {
    return with_input(R"({"datatype":"FP32","shape":[1],"data":[1],"name":")" +
                      std::string(size, 'x') + "\"}");
  };
  EXPECT_TRUE(accepts(named(256)));
  EXPECT_FALSE(accepts(named(257)));
}

TEST(OipRequest, RefusesInputsOfOneName) {
  const std::string input = R"({"name":"x","datatype":"FP32","shape":[1],"data":[1]})";
  EXPECT_FALSE(accepts(with_input(input + "," + input)));
}

TEST(OipRequest, EveryCutOfAGoodTextIsRefused) {
  const std::string good =
      with_more(R"(,"id":"a","parameters":{"binary_data_output":false},"outputs":[{"name":"y"}])");
  ASSERT_TRUE(accepts(good));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(accepts(std::string_view(good).substr(0, size))) << size;
  }
}

TEST(OipRequest, ARequestUsedAgainHoldsNothingOfTheLast) {
  const std::string full =
      R"({"id":"a","parameters":{"binary_data_output":true,"timeout":1},"outputs":[{"name":"y","parameters":)"
      R"({"binary_data":true}}],"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":)"
      R"({"binary_data_size":8}},{"name":"z","datatype":"FP32","shape":[1],"data":[1]}]})";
  const std::string plain = with_more("");
  const std::string listed = with_more(R"(,"outputs":[{"name":"y"}])");
  OipRequest request;
  ASSERT_TRUE(parse_oip_request(full, request));
  ASSERT_FALSE(parse_oip_request(full.substr(0, full.size() - 1), request));
  ASSERT_TRUE(parse_oip_request(listed, request));
  EXPECT_EQ(written(request), written(parse(listed).request));
  ASSERT_TRUE(parse_oip_request(full, request));
  ASSERT_TRUE(parse_oip_request(plain, request));
  EXPECT_EQ(written(request), written(parse(plain).request));
}

// Mutations of good texts: nothing is read out of bounds, views lie within the text, and what is
// accepted means the same when it is written again.
TEST(OipRequest, MutatedTextsAreReadWithinBoundsAndMeanTheSameWrittenAgain) {
  std::mt19937_64 random = seeded_random();
  const std::string_view seeds[] = {
      R"({"id":"a1","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1.5,-2],[3,4]]},)"
      R"({"name":"z","shape":[0],"datatype":"INT8","data":[]}],"outputs":[{"name":"y"}]})",
      R"({ "inputs" : [ { "name" : "x" , "shape" : [ 1 ] , "datatype" : "FP32" , "data" : [ 1 ] } ] })",
      R"({"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16)"
      R"(}}],"outputs":[{"name":"y","parameters":{"binary_data":true}},{"name":"z"}],"parameters":)"
      R"({"binary_data_output":true,"timeout":250000,"priority":1}})",
  };
  const std::string_view alphabet = "[]{}\",:0123456789 \n\\.-eEtnx\0\xff"sv;
  int accepted = 0;
  int good = 0;
  for (int i = 0; i < 50'000; ++i) {
    const std::string text = mutated(std::string(seeds[random() % 3]), alphabet, random);
    const auto got = parse(text);
    if (!got.accepted) continue;
    ++accepted;
    if (!all_numbers_are_good(got.request)) continue;
    ++good;
    const std::string again = written(got.request);
    const auto reread = parse(again);
    ASSERT_TRUE(reread.accepted) << text << "\n" << again;
    EXPECT_EQ(written(reread.request), again);
    EXPECT_TRUE(all_numbers_are_good(reread.request));
  }
  EXPECT_GT(accepted, 1000);
  EXPECT_GT(good, 1000);
}

}  // namespace
}  // namespace pyserve
