#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "tensor/borrow.h"
#include "values.h"

namespace pyserve {
namespace {

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& data) {
  return std::as_bytes(std::span(data));
}

std::vector<std::byte> bytes(std::string_view text) {
  const auto view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

struct Borrowed {
  Status status;
  Values inputs;
  std::int64_t rows = 0;
};

Borrowed borrow(const Signature& signature, const std::vector<WireTensor>& tensors) {
  Borrowed result;
  result.status = borrow_inputs(signature, tensors, result.inputs, result.rows);
  return result;
}

std::string complaint(const Signature& signature, const std::vector<WireTensor>& tensors) {
  const Borrowed borrowed = borrow(signature, tensors);
  EXPECT_EQ(borrowed.status.code, Code::kInvalidInput);
  return borrowed.status.message;
}

// One input "x" of unknown shape.
Signature of_dtype(Dtype dtype) { return {.inputs = {TensorSpec{.name = "x", .dtype = dtype}}}; }

Signature words(bool batched) {
  return {.inputs = {spec("words", Dtype::kBytes, batched ? Shape{1} : Shape{-1})},
          .batched = batched,
          .max_batch_size = batched ? 8 : 0};
}

class Borrow : public ::testing::Test {
 protected:
  const std::vector<float> six_{1, 2, 3, 4, 5, 6};
  const Signature signature_ = rows_signature(8);

  WireTensor x(Shape shape) const {
    return {.name = "x", .datatype = "FP32", .shape = std::move(shape), .data = bytes_of(six_)};
  }
};

TEST_F(Borrow, PointsIntoTheSendersBytes) {
  const Borrowed borrowed = borrow(signature_, {x({3, 2})});
  ASSERT_TRUE(borrowed.status.ok()) << borrowed.status.message;
  EXPECT_EQ(borrowed.rows, 3);
  EXPECT_EQ(borrowed.inputs[0].tensor.const_data_ptr(), six_.data());
  EXPECT_EQ(borrowed.inputs[0].tensor.sizes(), (Shape{3, 2}));
  EXPECT_EQ(floats_of(borrowed.inputs[0]), six_);
}

TEST_F(Borrow, CopiesBytesThatAreNotAlignedForTheirDtype) {
  std::vector<std::byte> moved(25);
  std::memcpy(moved.data() + 1, six_.data(), 24);
  WireTensor tensor = x({3, 2});
  tensor.data = std::span(moved).subspan(1);
  const Borrowed borrowed = borrow(signature_, {tensor});
  ASSERT_TRUE(borrowed.status.ok());
  EXPECT_EQ(floats_of(borrowed.inputs[0]), six_);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(borrowed.inputs[0].tensor.const_data_ptr()) % 4, 0U);
}

TEST_F(Borrow, PutsInputsInTheSignaturesOrder) {
  Signature signature = signature_;
  signature.inputs.push_back(spec("z", Dtype::kUint8, {1}));
  const std::vector<std::uint8_t> three{7, 8, 9};
  const WireTensor z{.name = "z", .datatype = "UINT8", .shape = {3, 1}, .data = bytes_of(three)};
  const Borrowed borrowed = borrow(signature, {z, x({3, 2})});
  ASSERT_TRUE(borrowed.status.ok()) << borrowed.status.message;
  EXPECT_EQ(borrowed.inputs[0].tensor.scalar_type(), at::kFloat);
  EXPECT_EQ(borrowed.inputs[1].tensor.scalar_type(), at::kByte);
}

TEST_F(Borrow, NamesWhatIsUnknownMissingOrGivenTwice) {
  WireTensor other = x({3, 2});
  other.name = "other";
  EXPECT_EQ(complaint(signature_, {other}), "input \"other\" is unknown, expected \"x\"");
  EXPECT_EQ(complaint(signature_, {}), "input \"x\" is missing");
  EXPECT_EQ(complaint(signature_, {x({3, 2}), x({3, 2})}), "input \"x\" is given twice");
  WireTensor alias = x({3, 2});
  alias.name = "INPUT__0";
  EXPECT_EQ(complaint(signature_, {x({3, 2}), alias}), "input \"INPUT__0\" is given twice");
}

TEST_F(Borrow, AMessageStaysUtf8WhereALongNameIsCut) {
  std::string umlauts = "x";  // so that the cut falls into the middle of one
  for (int i = 0; i < 200; ++i) {
    umlauts += "ü";
  }
  WireTensor tensor = x({3, 2});
  tensor.name = umlauts;
  const std::string unknown = complaint(signature_, {tensor});
  EXPECT_EQ(unknown, utf8_text(unknown, unknown.size()));
  tensor = x({3, 2});
  tensor.datatype = umlauts;
  const std::string datatype = complaint(signature_, {tensor});
  EXPECT_EQ(datatype, utf8_text(datatype, datatype.size()));
}

TEST_F(Borrow, RefusesAnotherDtype) {
  WireTensor tensor = x({3, 2});
  tensor.datatype = "FP64";
  EXPECT_EQ(complaint(signature_, {tensor}), "input \"x\" has datatype FP64, expected FP32");
  tensor.datatype = "float";
  EXPECT_EQ(complaint(signature_, {tensor}), "input \"x\" has the unknown datatype \"float\"");
}

TEST_F(Borrow, RefusesAnotherShape) {
  EXPECT_EQ(complaint(signature_, {x({6})}), "input \"x\" has shape [6], expected [-1, -1]");
}

TEST_F(Borrow, RefusesAnotherNumberOfBytes) {
  EXPECT_EQ(complaint(signature_, {x({3, 3})}),
            "input \"x\" has 24 bytes, expected 36 for shape [3, 3] of FP32");
  EXPECT_EQ(complaint(signature_, {x({1, 1})}),
            "input \"x\" has 24 bytes, expected 4 for shape [1, 1] of FP32");
}

TEST_F(Borrow, RefusesShapesThatOverflow) {
  const Signature any = of_dtype(Dtype::kFp32);
  for (const Shape& shape :
       {Shape{-1, 2}, Shape{kHuge, kHuge}, Shape{1LL << 32, 1LL << 32}, Shape{0, kHuge, kHuge},
        Shape{std::numeric_limits<std::int64_t>::min()}}) {
    EXPECT_EQ(complaint(any, {x(shape)}),
              "input \"x\" has shape " + shape_text(shape) +
                  ", which has a negative dimension or more elements than 64 bits count");
  }
  // The elements fit into 64 bits, their bytes do not.
  EXPECT_EQ(complaint(any, {x({kHuge})}), "input \"x\" has 24 bytes, expected too many for shape " +
                                              shape_text(Shape{kHuge}) + " of FP32");
  // It all fits, and nobody allocates 4 EiB to find out.
  EXPECT_EQ(complaint(any, {x({1LL << 60})}),
            "input \"x\" has 24 bytes, expected 4611686018427387904 for shape "
            "[1152921504606846976] of FP32");
}

TEST_F(Borrow, RefusesAThousandDimensions) {
  EXPECT_EQ(complaint(of_dtype(Dtype::kFp32), {x(Shape(100, 1))}),
            "input \"x\" has rank 100, expected at most 64");
}

TEST_F(Borrow, AcceptsAScalarAndAnEmptyTensorWhereTheShapeIsFree) {
  const Signature any = of_dtype(Dtype::kFp32);
  const std::vector<float> one{42};
  const Borrowed scalar =
      borrow(any, {{.name = "x", .datatype = "FP32", .shape = {}, .data = bytes_of(one)}});
  ASSERT_TRUE(scalar.status.ok()) << scalar.status.message;
  EXPECT_EQ(scalar.inputs[0].tensor.dim(), 0);
  const Borrowed empty =
      borrow(any, {{.name = "x", .datatype = "FP32", .shape = {0, 5}, .data = {}}});
  ASSERT_TRUE(empty.status.ok()) << empty.status.message;
  EXPECT_EQ(empty.inputs[0].tensor.sizes(), (Shape{0, 5}));
}

TEST_F(Borrow, RefusesNoRowsAndMoreThanTheBatchHolds) {
  EXPECT_EQ(complaint(signature_, {{.name = "x", .datatype = "FP32", .shape = {0, 2}}}),
            "the request has 0 rows, expected at least 1");
  Signature small = signature_;
  small.max_batch_size = 2;
  EXPECT_EQ(complaint(small, {x({3, 2})}),
            "the request has 3 rows, expected at most max_batch_size 2");
}

TEST_F(Borrow, ABoolIsZeroOrOne) {
  const Signature any = of_dtype(Dtype::kBool);
  const std::vector<std::uint8_t> good{0, 1, 1};
  const std::vector<std::uint8_t> bad{0, 1, 2};
  WireTensor tensor{.name = "x", .datatype = "BOOL", .shape = {3}, .data = bytes_of(good)};
  EXPECT_TRUE(borrow(any, {tensor}).status.ok());
  tensor.data = bytes_of(bad);
  EXPECT_EQ(complaint(any, {tensor}), "input \"x\" is BOOL and holds a byte other than 0 and 1");
}

TEST_F(Borrow, ReadsStrings) {
  const std::vector<std::byte> data = encode_strings({"hello", "", std::string("a\0b", 3)});
  const Borrowed borrowed =
      borrow(words(true), {{.name = "words", .datatype = "BYTES", .shape = {3, 1}, .data = data}});
  ASSERT_TRUE(borrowed.status.ok()) << borrowed.status.message;
  EXPECT_EQ(borrowed.rows, 3);
  EXPECT_EQ(*borrowed.inputs[0].strings, (Strings{"hello", "", std::string("a\0b", 3)}));
}

TEST_F(Borrow, AStringIsARow) {
  const std::vector<std::byte> six = encode_strings(Strings(6, "a"));
  WireTensor tensor{.name = "words", .datatype = "BYTES", .shape = {6}, .data = six};
  EXPECT_TRUE(borrow(words(true), {tensor}).status.ok());
  for (const Shape& shape : {Shape{2, 3}, Shape{1, 6}}) {
    tensor.shape = shape;
    EXPECT_EQ(complaint(words(true), {tensor}), "input \"words\" has shape " + shape_text(shape) +
                                                    ", expected [-1] or [-1, 1]: one string a row");
  }
  EXPECT_TRUE(borrow(words(false), {tensor}).status.ok());
  const std::vector<std::byte> one = encode_strings({"a"});
  tensor = {.name = "words", .datatype = "BYTES", .shape = {}, .data = one};
  EXPECT_FALSE(borrow(words(true), {tensor}).status.ok());
}

TEST_F(Borrow, FindsStringsThatLieAboutTheirLength) {
  WireTensor tensor{.name = "words", .datatype = "BYTES", .shape = {2}};
  const auto complaint_about = [&](std::string_view text) {
    const std::vector<std::byte> data = bytes(text);
    tensor.data = data;
    return complaint(words(true), {tensor});
  };
  using namespace std::string_view_literals;
  EXPECT_EQ(complaint_about(""sv), "input \"words\" has 0 bytes, too few for 2 BYTES elements");
  EXPECT_EQ(complaint_about("\1\0\0\0a\0\0\0"sv),
            "input \"words\" ends in the middle of BYTES element 1");
  EXPECT_EQ(complaint_about("\1\0\0\0a\377\377\377\377b"sv),
            "input \"words\": BYTES element 1 claims 4294967295 bytes, 1 are left");
  EXPECT_EQ(complaint_about("\1\0\0\0a\1\0\0\0bc"sv),
            "input \"words\" has 1 bytes after its last BYTES element");
  EXPECT_EQ(complaint_about("\5\0\0\0a\1\0\0"sv),
            "input \"words\": BYTES element 0 claims 5 bytes, 4 are left");
}

TEST_F(Borrow, ALyingShapeOfStringsAllocatesNothing) {
  const std::vector<std::byte> data = encode_strings({"a"});
  EXPECT_EQ(complaint(words(false),
                      {{.name = "words", .datatype = "BYTES", .shape = {1LL << 40}, .data = data}}),
            "input \"words\" has 5 bytes, too few for 1099511627776 BYTES elements");
}

TEST_F(Borrow, EveryDtypeArrivesAsItself) {
  const std::vector<std::byte> zeros(64);
  for (const Dtype dtype : kAllDtypes) {
    if (dtype == Dtype::kBytes) {
      continue;
    }
    const Borrowed borrowed =
        borrow(of_dtype(dtype), {{.name = "x",
                                  .datatype = dtype_name(dtype),
                                  .shape = {2},
                                  .data = std::span(zeros).first(2 * dtype_size(dtype))}});
    ASSERT_TRUE(borrowed.status.ok()) << borrowed.status.message;
    EXPECT_EQ(borrowed.inputs[0].tensor.scalar_type(), scalar_type(dtype));
  }
}

}  // namespace
}  // namespace pyserve
