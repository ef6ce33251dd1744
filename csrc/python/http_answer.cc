#include "python/http_answer.h"

#include <cstddef>
#include <span>
#include <vector>

#include "tensor/borrow.h"
#include "tensor/signature.h"

namespace pyserve::python {
namespace {

// What an answer's parts point into; reused, guarded by the GIL.
struct Scratch {
  std::vector<OipAnswerOutput> parts;
  std::vector<std::vector<std::int64_t>> shapes;
  std::vector<std::vector<std::byte>> strings;
  std::string out;
};

Strings strings_of(const Strings& all, const BatchPart& part) {
  return part.whole ? all : Strings(all.begin() + part.begin, all.begin() + part.begin + part.rows);
}

}  // namespace

Status write_http_answer(const HttpPlan& plan, const ModelVersion& version, const Values& outputs,
                         const BatchPart& part, const OipAnswerTiming& timing,
                         const AnswerManner& manner, std::string_view& out) {
  static Scratch scratch;
  const std::size_t count = plan.outputs.size();
  scratch.parts.clear();
  scratch.strings.clear();
  scratch.strings.reserve(count);
  if (scratch.shapes.size() < count) {
    scratch.shapes.resize(count);
  }
  for (std::size_t i = 0; i < count; ++i) {
    const WantedOutput& wanted = plan.outputs[i];
    const Value& value = outputs[wanted.index];
    std::vector<std::int64_t>& shape = scratch.shapes[i];
    if (value.is_strings()) {
      const Strings strings = strings_of(*value.strings, part);
      shape.assign(1, static_cast<std::int64_t>(strings.size()));
      scratch.strings.push_back(encode_strings(strings));
      scratch.parts.push_back({.name = wanted.name,
                               .dtype = Dtype::kBytes,
                               .shape = shape,
                               .data = scratch.strings.back(),
                               .binary = wanted.binary});
      continue;
    }
    const at::Tensor& tensor = value.tensor;
    const auto sizes = tensor.sizes();
    shape.assign(sizes.begin(), sizes.end());
    std::span data(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes());
    if (!part.whole) {
      const std::size_t row = data.size() / static_cast<std::size_t>(shape.front());
      data = data.subspan(row * static_cast<std::size_t>(part.begin),
                          row * static_cast<std::size_t>(part.rows));
      shape.front() = part.rows;
    }
    scratch.parts.push_back({.name = wanted.name,
                             .dtype = dtype_of(tensor.scalar_type()).value(),
                             .shape = shape,
                             .data = data,
                             .binary = wanted.binary});
  }
  scratch.out.clear();
  constexpr std::size_t kKeptBytes = 1 << 20;  // the largest need not be held for ever
  if (scratch.out.capacity() > kKeptBytes) {
    scratch.out.shrink_to_fit();
  }
  const Status status = write_oip_answer({.model = version.name(),
                                          .version = version.number(),
                                          .id = plan.id,
                                          .outputs = scratch.parts,
                                          .timing = timing,
                                          .close = manner.close,
                                          .fields = manner.fields},
                                         scratch.out);
  out = scratch.out;
  return status;
}

}  // namespace pyserve::python
