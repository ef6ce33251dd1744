#include "engine/invariance.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "engine/probe.h"
#include "engine/samples.h"

namespace pyserve {
namespace {

// The interpreter profiles the first run of a shape and optimises on the second, which may compute
// in another order than those that follow.
constexpr int kSettlingRuns = 2;

// All bytes of one row of every output.
std::string bits_of(const Values& outputs, std::int64_t row) {
  std::string bits;
  for (const Value& value : outputs) {
    if (value.is_strings()) {
      bits += value.strings->at(static_cast<std::size_t>(row));
      bits += '\0';
    } else {
      const at::Tensor one = value.tensor.select(0, row).contiguous();
      bits += std::string_view(static_cast<const char*>(one.const_data_ptr()), one.nbytes());
    }
  }
  return bits;
}

bool have_rows(const Values& outputs, std::int64_t rows) {
  return std::ranges::all_of(outputs, [rows](const Value& value) {
    return value.rows() == rows && (value.is_strings() || value.tensor.dim() > 0);
  });
}

// Batches of one size and length, and the bits that each of the rows has in them.
class Trial {
 public:
  Trial(const Executable& executable, const Padding& padding, const BatchShape& shape,
        std::vector<Values> rows, DeviceStream& stream)
      : executable_(executable),
        padding_(padding),
        shape_(shape),
        rows_(std::move(rows)),
        stream_(stream) {}

  // One text of bits for each row; nothing where they change from run to run.
  std::optional<std::vector<std::string>> bits() {
    for (int run = 0; run < kSettlingRuns; ++run) {
      this->run(0, 1);
    }
    bool same = true;
    for (std::size_t first = 0; same && first < rows_.size(); ++first) {
      // Among all others, at every place in turn; and among copies of itself.
      same = agrees(first, 1) && agrees(first, 0);
    }
    return same ? std::optional(seen_) : std::nullopt;
  }

 private:
  std::size_t at(std::size_t first, std::size_t step, std::size_t place) const {
    return (first + step * place) % rows_.size();
  }

  Values run(std::size_t first, std::size_t step) const {
    std::vector<Values> batch;
    for (std::size_t place = 0; place < static_cast<std::size_t>(shape_.rows); ++place) {
      batch.push_back(rows_[at(first, step, place)]);
    }
    return run_as(shape_, executable_, padding_, batch, stream_).values;
  }

  bool agrees(std::size_t first, std::size_t step) {
    const Values outputs = run(first, step);
    if (!have_rows(outputs, shape_.rows)) {
      return false;
    }
    seen_.resize(rows_.size());
    for (std::int64_t place = 0; place < shape_.rows; ++place) {
      std::string& seen = seen_[at(first, step, static_cast<std::size_t>(place))];
      std::string bits = bits_of(outputs, place);
      if (seen.empty()) {
        seen = std::move(bits);
      } else if (seen != bits) {
        return false;
      }
    }
    return true;
  }

  const Executable& executable_;
  const Padding& padding_;
  const BatchShape shape_;
  const std::vector<Values> rows_;
  DeviceStream& stream_;
  std::vector<std::string> seen_;
};

}  // namespace

const TensorSpec* varying_input(const Signature& signature) {
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    const TensorSpec& spec = signature.inputs[i];
    const Padding::Length* const padded = signature.padding.input(i);
    for (std::size_t dim = 0; spec.shape.has_value() && dim < spec.shape->size(); ++dim) {
      if ((*spec.shape)[dim] < 0 && (padded == nullptr || padded->dim != dim + 1)) {
        return &spec;
      }
    }
  }
  return nullptr;
}

std::vector<std::int64_t> invariant_sizes(const Executable& executable, const Padding& padding,
                                          const std::vector<std::int64_t>& candidates,
                                          const std::vector<Values>& rows, DeviceStream& stream) {
  std::vector<std::int64_t> lengths = padding.buckets();
  if (lengths.empty()) {
    lengths.push_back(0);
  }
  struct Agreeing {
    std::vector<std::string> bits;  // of all rows at all lengths
    std::vector<std::int64_t> sizes;
  };
  std::vector<Agreeing> groups;
  for (const std::int64_t size : candidates) {
    std::optional<std::vector<std::string>> all{std::in_place};
    for (const std::int64_t length : lengths) {
      std::vector<Values> sized;
      for (const Values& row : rows) {
        sized.push_back(with_length(padding, row, length));
      }
      Trial trial(executable, padding, {.rows = size, .length = length}, std::move(sized), stream);
      const std::optional<std::vector<std::string>> bits = trial.bits();
      if (!bits.has_value()) {
        all.reset();
        break;
      }
      all->insert(all->end(), bits->begin(), bits->end());
    }
    if (!all.has_value()) {
      continue;
    }
    const auto same = std::ranges::find(groups, *all, &Agreeing::bits);
    if (same == groups.end()) {
      groups.push_back({.bits = std::move(*all), .sizes = {size}});
    } else {
      same->sizes.push_back(size);
    }
  }
  // The later of equals has the larger sizes.
  std::vector<std::int64_t> best;
  for (Agreeing& group : groups) {
    if (group.sizes.size() > best.size() ||
        (group.sizes.size() == best.size() && !best.empty() && group.sizes.back() > best.back())) {
      best = std::move(group.sizes);
    }
  }
  return best;
}

}  // namespace pyserve
