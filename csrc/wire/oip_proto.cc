#include "wire/oip_proto.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/text.h"
#include "wire/names.h"

namespace pyserve {
namespace {

// What every field that we read begins with; their numbers are below 16.
constexpr std::uint8_t varint_tag(unsigned field) { return static_cast<std::uint8_t>(field << 3); }
constexpr std::uint8_t bytes_tag(unsigned field) {
  return static_cast<std::uint8_t>(field << 3 | 2);
}

// ---- reading -----------------------------------------------------------------------------------

bool is_text(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

// Reads fields from left to right.  False where something else stands, and then the whole request
// is given up.
class Reader {
 public:
  explicit Reader(std::string_view message) : rest_(message) {}

  [[nodiscard]] bool at_end() const noexcept { return rest_.empty(); }

  // A tag of one byte.
  std::uint8_t tag() noexcept {
    const auto byte = static_cast<std::uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return byte;
  }

  // An integer within [0, 2^62), in as few bytes as it needs.
  bool integer(std::uint64_t& out) noexcept {
    constexpr std::size_t kMaxBytes = 9;
    out = 0;
    const std::size_t most = std::min(rest_.size(), kMaxBytes);
    for (std::size_t i = 0; i < most; ++i) {
      const auto byte = static_cast<std::uint8_t>(rest_[i]);
      out |= std::uint64_t{byte & 0x7FU} << (7 * i);
      if (byte < 0x80) {
        rest_.remove_prefix(i + 1);
        return (byte != 0 || i == 0) && out < std::uint64_t{1} << 62;
      }
    }
    return false;
  }

  bool bytes(std::string_view& out) noexcept {
    std::uint64_t size = 0;
    if (!integer(size) || size > rest_.size()) return false;
    out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

  bool text(std::string_view& out) noexcept { return bytes(out) && is_text(out); }

  // Bounded, for names are compared with each other.
  bool name(std::string_view& out) noexcept {
    constexpr std::size_t kMaxBytes = 256;
    return bytes(out) && !out.empty() && out.size() <= kMaxBytes && is_text(out);
  }

 private:
  std::string_view rest_;
};

// The fields that were read and are not repeated: each may come once.
class Once {
 public:
  bool first(std::uint8_t tag) noexcept {
    const unsigned bit = 1U << (tag >> 3);
    const bool is_first = (seen_ & bit) == 0;
    seen_ |= bit;
    return is_first;
  }

 private:
  unsigned seen_ = 0;
};

bool read_size(Reader& in, std::vector<std::int64_t>& shape) {
  std::uint64_t size = 0;
  if (shape.size() == kMaxOipDimensions || !in.integer(size)) return false;
  shape.push_back(static_cast<std::int64_t>(size));
  return true;
}

bool read_packed(Reader& in, std::vector<std::int64_t>& shape) {
  std::string_view packed;
  if (!in.bytes(packed)) return false;
  Reader sizes(packed);
  while (!sizes.at_end()) {
    if (!read_size(sizes, shape)) return false;
  }
  return true;
}

bool read_input(std::string_view message, ProtoInput& input) {
  Reader in(message);
  Once once;
  input.name = input.datatype = input.data = {};
  input.shape.clear();
  while (!in.at_end()) {
    bool good = false;
    switch (const std::uint8_t tag = in.tag()) {
      case bytes_tag(1):
        good = once.first(tag) && in.name(input.name);
        break;
      case bytes_tag(2):
        good = once.first(tag) && in.name(input.datatype);
        break;
      case varint_tag(3):
        good = read_size(in, input.shape);
        break;
      case bytes_tag(3):
        good = read_packed(in, input.shape);
        break;
      default:
        break;
    }
    if (!good) return false;
  }
  return !input.name.empty() && !input.datatype.empty();
}

bool read_output(std::string_view message, OipOutput& output) {
  Reader in(message);
  output.binary = true;
  return !in.at_end() && in.tag() == bytes_tag(1) && in.name(output.name) && in.at_end();
}

// A parameter's value, where it is an integer: of the kinds int64_param and uint64_param.
bool read_integer_value(std::string_view message, std::uint64_t& value) {
  Reader in(message);
  if (in.at_end()) return false;
  const std::uint8_t tag = in.tag();
  return (tag == varint_tag(2) || tag == varint_tag(5)) && in.integer(value) && in.at_end();
}

// One entry of the map of parameters, key before value, as everybody writes it.
bool read_parameter(std::string_view message, Once& once, ProtoRequest& out) {
  Reader in(message);
  std::string_view key;
  std::string_view choice;
  std::uint64_t value = 0;
  if (in.at_end() || in.tag() != bytes_tag(1) || !in.bytes(key) || in.at_end() ||
      in.tag() != bytes_tag(2) || !in.bytes(choice) || !in.at_end() ||
      !read_integer_value(choice, value)) {
    return false;
  }
  if (key == "timeout") {
    out.timeout_us = static_cast<std::int64_t>(value);
    return once.first(varint_tag(1));
  }
  if (key != "priority" || value > kMaxOipPriority) return false;
  out.priority = static_cast<std::uint8_t>(value);
  return once.first(varint_tag(2));
}

// ---- writing -----------------------------------------------------------------------------------

std::size_t varint_bytes(std::uint64_t value) noexcept {
  std::size_t bytes = 1;
  for (; value >= 0x80; value >>= 7) ++bytes;
  return bytes;
}

// A field of `size` bytes, with its tag and length.
std::size_t field_bytes(std::size_t size) noexcept { return 1 + varint_bytes(size) + size; }

std::size_t text_bytes(std::string_view text) noexcept {
  return text.empty() ? 0 : field_bytes(text.size());
}

std::size_t packed_bytes(const OipAnswerOutput& output) noexcept {
  std::size_t bytes = 0;
  for (const std::int64_t size : output.shape) {
    bytes += varint_bytes(static_cast<std::uint64_t>(size));
  }
  return bytes;
}

std::size_t output_bytes(const OipAnswerOutput& output) noexcept {
  return text_bytes(output.name) + text_bytes(dtype_name(output.dtype)) +
         (output.shape.empty() ? 0 : field_bytes(packed_bytes(output)));
}

class Writer {
 public:
  explicit Writer(char* out) : out_(out) {}

  void varint(std::uint64_t value) noexcept {
    for (; value >= 0x80; value >>= 7) byte(static_cast<std::uint8_t>(value | 0x80));
    byte(static_cast<std::uint8_t>(value));
  }
  // What comes before the bytes of a field.
  void opening(unsigned field, std::size_t size) noexcept {
    byte(bytes_tag(field));
    varint(size);
  }
  void bytes(unsigned field, const void* data, std::size_t size) noexcept {
    opening(field, size);
    if (size != 0) std::memcpy(out_, data, size);
    out_ += size;
  }
  void text(unsigned field, std::string_view text) noexcept {
    if (!text.empty()) bytes(field, text.data(), text.size());
  }

 private:
  void byte(std::uint8_t value) noexcept { *out_++ = static_cast<char>(value); }

  char* out_;
};

}  // namespace

bool parse_infer_request(std::string_view message, ProtoRequest& out) {
  Reader in(message);
  Once once;
  Once parameters;
  out.model = out.version = out.id = {};
  out.timeout_us = 0;
  out.priority = 0;
  if (out.outputs) out.outputs->clear();
  // Inputs of the last request are written over, so that their shapes keep their memory.
  std::size_t inputs = 0;
  std::size_t contents = 0;
  std::array<std::string_view, kMaxOipTensors> raw;
  while (!in.at_end()) {
    bool good = false;
    std::string_view piece;
    switch (const std::uint8_t tag = in.tag()) {
      case bytes_tag(1):
        good = once.first(tag) && in.text(out.model);
        break;
      case bytes_tag(2):
        good = once.first(tag) && in.text(out.version);
        break;
      case bytes_tag(3):
        good = once.first(tag) && in.text(out.id);
        break;
      case bytes_tag(4):
        good = in.bytes(piece) && read_parameter(piece, parameters, out);
        break;
      case bytes_tag(5):
        if (inputs == out.inputs.size()) out.inputs.emplace_back();
        good = inputs < kMaxOipTensors && in.bytes(piece) && read_input(piece, out.inputs[inputs]);
        ++inputs;
        break;
      case bytes_tag(6):
        if (!out.outputs) out.outputs.emplace();
        good = out.outputs->size() < kMaxOipTensors && in.bytes(piece) &&
               read_output(piece, out.outputs->emplace_back());
        break;
      case bytes_tag(7):
        good = contents < kMaxOipTensors && in.bytes(raw[contents]);
        ++contents;
        break;
      default:
        break;
    }
    if (!good) return false;
  }
  if (inputs == 0 || inputs != contents) return false;
  out.inputs.resize(inputs);
  for (std::size_t i = 0; i < inputs; ++i) out.inputs[i].data = raw[i];
  if (out.outputs && out.outputs->empty()) out.outputs.reset();
  return names_differ(out.inputs) && (!out.outputs || names_differ(*out.outputs));
}

std::size_t infer_response_bytes(const OipAnswer& answer) noexcept {
  std::size_t bytes = text_bytes(answer.model) + text_bytes(answer.version) + text_bytes(answer.id);
  for (const OipAnswerOutput& output : answer.outputs) {
    bytes += field_bytes(output_bytes(output)) + field_bytes(output.data.size());
  }
  return bytes;
}

void write_infer_response(const OipAnswer& answer, char* out) noexcept {
  Writer writer(out);
  writer.text(1, answer.model);
  writer.text(2, answer.version);
  writer.text(3, answer.id);
  for (const OipAnswerOutput& output : answer.outputs) {
    writer.opening(5, output_bytes(output));
    writer.text(1, output.name);
    writer.text(2, dtype_name(output.dtype));
    if (!output.shape.empty()) {
      writer.opening(3, packed_bytes(output));
      for (const std::int64_t size : output.shape) writer.varint(static_cast<std::uint64_t>(size));
    }
  }
  for (const OipAnswerOutput& output : answer.outputs) {
    writer.bytes(6, output.data.data(), output.data.size());
  }
}

}  // namespace pyserve
