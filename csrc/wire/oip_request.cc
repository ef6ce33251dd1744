#include "wire/oip_request.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "wire/names.h"

namespace pyserve {
namespace {

constexpr bool is_space(char c) noexcept { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

// The array of numbers that starts at `p`, by the rule in the header; empty where there is none.
std::string_view cut_array(const char* p, const char* end) noexcept {
  if (p == end || *p != '[') return {};
  const auto* quote =
      static_cast<const char*>(std::memchr(p, '"', static_cast<std::size_t>(end - p)));
  // Between the array's last number and the next quote, valid JSON has only these.  Of the braces
  // among them the first closes the input, and what stands before it is its array.
  const char* stop = quote != nullptr ? quote : end;
  const char* last = stop;
  for (; is_space(last[-1]) || last[-1] == ']' || last[-1] == '}' || last[-1] == '{' ||
         last[-1] == ',';
       --last) {
    if (last[-1] == '}') stop = last - 1;
  }
  while (stop[-1] != ']') {
    if (--stop == p) return {};
  }
  return {p, static_cast<std::size_t>(stop - p)};
}

// The members of an object that were read: each may come once.
template <class Key>
class Once {
 public:
  bool first(Key key) noexcept {
    const unsigned bit = 1U << static_cast<unsigned>(key);
    const bool is_first = (seen_ & bit) == 0;
    seen_ |= bit;
    return is_first;
  }
  [[nodiscard]] bool seen(Key key) const noexcept {
    return (seen_ & (1U << static_cast<unsigned>(key))) != 0;
  }

 private:
  unsigned seen_ = 0;
};

// Reads JSON from left to right.  Each function skips white space, then reads one thing; false, or
// nothing, where something else stands, and then the whole request is given up.
class Reader {
 public:
  explicit Reader(std::string_view json) : p_(json.data()), end_(p_ + json.size()) {}

  // Whether `c` comes next; it is read only if so.
  bool take(char c) noexcept {
    skip_space();
    if (p_ == end_ || *p_ != c) return false;
    ++p_;
    return true;
  }

  bool at_end() noexcept {
    skip_space();
    return p_ == end_;
  }

  // A string that is its own value.
  bool text(std::string_view& out) noexcept {
    if (!take('"')) return false;
    const char* const first = p_;
    while (p_ != end_ && *p_ != '"') {
      if (*p_ < ' ' || *p_ > '~' || *p_ == '\\') return false;
      ++p_;
    }
    if (p_ == end_) return false;
    out = {first, static_cast<std::size_t>(p_ - first)};
    ++p_;
    return true;
  }

  // Bounded, for names are compared with each other.
  bool name(std::string_view& out) noexcept {
    constexpr std::size_t kMaxChars = 256;
    return text(out) && !out.empty() && out.size() <= kMaxChars;
  }

  // An integer within [0, 2^62), in digits alone.
  bool integer(std::int64_t& out) noexcept {
    constexpr std::int64_t kEnd = std::int64_t{1} << 62;
    skip_space();
    const char* const first = p_;
    out = 0;
    for (; p_ != end_ && is_digit(*p_); ++p_) {
      if (out >= kEnd / 10) {
        if (out > kEnd / 10 || *p_ - '0' >= kEnd % 10) return false;
      }
      out = out * 10 + (*p_ - '0');
    }
    return p_ != first && (*first != '0' || p_ - first == 1);
  }

  bool priority(std::uint8_t& out) noexcept {
    std::int64_t number = 0;
    if (!integer(number) || number > kMaxOipPriority) return false;
    out = static_cast<std::uint8_t>(number);
    return true;
  }

  bool boolean(bool& out) noexcept {
    skip_space();
    const std::string_view rest(p_, static_cast<std::size_t>(end_ - p_));
    out = rest.starts_with("true");
    if (!out && !rest.starts_with("false")) return false;
    p_ += out ? 4 : 5;
    return true;
  }

  bool array_text(std::string_view& out) noexcept {
    skip_space();
    out = cut_array(p_, end_);
    p_ += out.size();
    return !out.empty();
  }

  // An object; `member(key)` reads the value of each.
  template <class Member>
  bool object(Member&& member) {
    if (!take('{')) return false;
    if (take('}')) return true;
    std::string_view key;
    do {
      if (!text(key) || !take(':') || !member(key)) return false;
    } while (take(','));
    return take('}');
  }

  // An array of `limit` elements at most; `element()` reads each.
  template <class Element>
  bool array(std::size_t limit, Element&& element) {
    if (!take('[')) return false;
    if (take(']')) return true;
    do {
      if (limit-- == 0 || !element()) return false;
    } while (take(','));
    return take(']');
  }

 private:
  void skip_space() noexcept {
    while (p_ != end_ && is_space(*p_)) ++p_;
  }

  const char* p_;
  const char* end_;
};

// An object with one key that we know, `key`; `value()` reads it.  Or none.
template <class Value>
bool read_parameters(Reader& in, std::string_view key, Value&& value) {
  bool seen = false;
  return in.object([&](std::string_view given) {
    if (given != key || seen) return false;
    seen = true;
    return value();
  });
}

bool read_input(Reader& in, OipInput& input) {
  enum class Key : std::uint8_t { kName, kDatatype, kShape, kData, kParameters };
  Once<Key> keys;
  input.binary_size.reset();
  input.data = {};
  input.shape.clear();
  const auto read_shape = [&] {
    return in.array(kMaxOipDimensions, [&] { return in.integer(input.shape.emplace_back()); });
  };
  const auto read_size = [&] {
    std::int64_t size = 0;
    if (!in.integer(size)) return false;
    input.binary_size = static_cast<std::size_t>(size);
    return true;
  };
  const bool whole = in.object([&](std::string_view key) {
    if (key == "name") return keys.first(Key::kName) && in.name(input.name);
    if (key == "datatype") return keys.first(Key::kDatatype) && in.name(input.datatype);
    if (key == "shape") return keys.first(Key::kShape) && read_shape();
    if (key == "data") return keys.first(Key::kData) && in.array_text(input.data);
    return key == "parameters" && keys.first(Key::kParameters) &&
           read_parameters(in, "binary_data_size", read_size);
  });
  return whole && keys.seen(Key::kName) && keys.seen(Key::kDatatype) && keys.seen(Key::kShape) &&
         keys.seen(Key::kData) != input.binary_size.has_value();
}

bool read_inputs(Reader& in, std::vector<OipInput>& inputs) {
  // Those of the last request are written over, so that their shapes keep their memory.
  std::size_t count = 0;
  const bool whole = in.array(kMaxOipTensors, [&] {
    if (count == inputs.size()) inputs.emplace_back();
    return read_input(in, inputs[count++]);
  });
  if (!whole || count == 0) return false;
  inputs.resize(count);
  return names_differ(inputs);
}

bool read_output(Reader& in, OipOutput& output) {
  enum class Key : std::uint8_t { kName, kParameters };
  Once<Key> keys;
  const auto read_binary = [&] { return in.boolean(output.binary); };
  const bool whole = in.object([&](std::string_view key) {
    if (key == "name") return keys.first(Key::kName) && in.name(output.name);
    return key == "parameters" && keys.first(Key::kParameters) &&
           read_parameters(in, "binary_data", read_binary);
  });
  return whole && keys.seen(Key::kName);
}

// Empty means the same as absent to Python; nobody sends it, so it is left to Python.
bool read_outputs(Reader& in, std::vector<OipOutput>& outputs) {
  return in.array(kMaxOipTensors, [&] { return read_output(in, outputs.emplace_back()); }) &&
         !outputs.empty() && names_differ(outputs);
}

bool read_request_parameters(Reader& in, OipRequest& out) {
  enum class Key : std::uint8_t { kBinary, kTimeout, kPriority };
  Once<Key> keys;
  return in.object([&](std::string_view key) {
    if (key == "binary_data_output") {
      return keys.first(Key::kBinary) && in.boolean(out.binary_default);
    }
    if (key == "timeout") return keys.first(Key::kTimeout) && in.integer(out.timeout_us);
    return key == "priority" && keys.first(Key::kPriority) && in.priority(out.priority);
  });
}

}  // namespace

bool parse_oip_request(std::string_view json, OipRequest& out) {
  enum class Key : std::uint8_t { kId, kInputs, kOutputs, kParameters };
  Once<Key> keys;
  Reader in(json);
  out.id = {};
  out.binary_default = false;
  out.timeout_us = 0;
  out.priority = 0;
  if (out.outputs) out.outputs->clear();
  const auto list_outputs = [&] {
    return read_outputs(in, out.outputs ? *out.outputs : out.outputs.emplace());
  };
  const bool whole = in.object([&](std::string_view key) {
    if (key == "inputs") return keys.first(Key::kInputs) && read_inputs(in, out.inputs);
    if (key == "outputs") return keys.first(Key::kOutputs) && list_outputs();
    if (key == "id") return keys.first(Key::kId) && in.text(out.id);
    return key == "parameters" && keys.first(Key::kParameters) && read_request_parameters(in, out);
  });
  if (!keys.seen(Key::kOutputs)) out.outputs.reset();
  return whole && keys.seen(Key::kInputs) && in.at_end();
}

}  // namespace pyserve
