#include "engine/probe.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/nan_to_num.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <utility>

#include "engine/samples.h"
#include "tensor/collate.h"

namespace pyserve {
namespace {

double tolerance(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return 1e-7;
    case at::kHalf:
      return 1e-2;
    case at::kBFloat16:
      return 5e-2;
    default:
      return 1e-4;
  }
}

bool agree(const Value& expected, const Value& got) {
  if (expected.is_strings() || got.is_strings()) {
    return expected.is_strings() && got.is_strings() && *expected.strings == *got.strings;
  }
  const at::Tensor& a = expected.tensor;
  const at::Tensor& b = got.tensor;
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) {
    return false;
  }
  if (!a.is_floating_point()) {
    return at::equal(a, b);
  }
  // An infinity must not become the magnitude that others are forgiven by.
  const at::Tensor wide = at::nan_to_num(a.to(at::kDouble), 0.0, 0.0, 0.0);
  const double largest = wide.numel() == 0 ? 0.0 : wide.abs().max().item<double>();
  const double limit = tolerance(a.scalar_type());
  return at::allclose(a.to(at::kDouble), b.to(at::kDouble), limit, limit * largest,
                      /*equal_nan=*/true);
}

std::string output_name(const Signature& signature, const RunResult& result, std::size_t index) {
  return index < signature.outputs.size() ? signature.outputs[index].name : result.names[index];
}

Values batch_of(const BatchShape& shape, const Padding& padding, const std::vector<Values>& rows,
                DeviceStream& stream) {
  std::vector<const Values*> requests;
  requests.reserve(rows.size());
  for (const Values& row : rows) {
    requests.push_back(&row);
  }
  return collate(requests, padding, shape, stream.device(), stream.staging());
}

BatchShape usual_shape(const Padding& padding, const std::vector<Values>& rows) {
  return padding.fit(rows.front(), static_cast<std::int64_t>(rows.size()));
}

// Which output has not one row for each row of the batch; "" if all have.
std::string rows_note(const Signature& signature, const RunResult& result, std::int64_t rows) {
  for (std::size_t i = 0; i < result.values.size(); ++i) {
    if (result.values[i].rows() != rows) {
      return "output \"" + output_name(signature, result, i) + "\" has " +
             std::to_string(result.values[i].rows()) + " rows for a batch of " +
             std::to_string(rows);
    }
  }
  return "";
}

// What row `index`, which came with `inputs`, has of the outputs of a run.
Values row_of(const Padding& padding, const Values& outputs, std::int64_t index,
              const Values& inputs) {
  Values row = split(outputs, index, 1);
  padding.cut(row, padding.length(inputs));
  return row;
}

}  // namespace

RunResult run_as(const BatchShape& shape, const Executable& executable, const Padding& padding,
                 const std::vector<Values>& rows, DeviceStream& stream) {
  const c10::InferenceMode inference;
  RunResult result = executable.run(batch_of(shape, padding, rows, stream));
  result.values = stream.fetch(std::move(result.values));
  return result;
}

RunResult run_together(const Executable& executable, const Padding& padding,
                       const std::vector<Values>& rows, DeviceStream& stream) {
  return run_as(usual_shape(padding, rows), executable, padding, rows, stream);
}

std::string prepare(const Executable& executable, const Padding& padding,
                    const std::vector<Values>& rows, DeviceStream& stream) {
  const c10::InferenceMode inference;
  std::string note =
      executable.prepare(batch_of(usual_shape(padding, rows), padding, rows, stream));
  stream.synchronize();
  return note;
}

Nanos shortest_run(const Executable& executable, const Padding& padding,
                   const std::vector<Values>& rows, DeviceStream& stream, const Clock& clock) {
  constexpr int kRuns = 8;
  constexpr int kLeastRuns = 2;
  constexpr Nanos kBudget = 200'000'000;  // a slow model need not be timed as often
  Nanos shortest = kNever;
  const Nanos begin = clock.now();
  Nanos now = begin;
  for (int run = 0; run < kLeastRuns || (run < kRuns && now - begin < kBudget); ++run) {
    const Nanos start = now;
    run_together(executable, padding, rows, stream);
    now = clock.now();
    shortest = std::min(shortest, now - start);
  }
  return shortest;
}

int first_difference(const Values& expected, const Values& got) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (i >= got.size() || !agree(expected[i], got[i])) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

BatchingProof prove_batching(const Executable& executable, const Signature& signature,
                             const std::vector<Values>& rows, DeviceStream& stream) {
  const Padding& padding = signature.padding;
  try {
    const auto count = static_cast<std::int64_t>(rows.size());
    const BatchShape shape = padding.fit(rows.front(), count);
    const RunResult together = run_as(shape, executable, padding, rows, stream);
    if (std::string note = rows_note(signature, together, shape.rows); !note.empty()) {
      return {.note = std::move(note)};
    }
    for (std::int64_t row = 0; row < count; ++row) {
      const Values& inputs = rows[static_cast<std::size_t>(row)];
      const RunResult alone = run_together(executable, padding, {inputs}, stream);
      if (std::string note = rows_note(signature, alone, padding.rows_for(1)); !note.empty()) {
        return {.note = std::move(note)};
      }
      const int different =
          first_difference(split(alone.values, 0, 1), split(together.values, row, 1));
      if (different >= 0) {
        return {.note = "output \"" +
                        output_name(signature, together, static_cast<std::size_t>(different)) +
                        "\" mixes rows: a row's values change with the rows it is batched with"};
      }
    }
  } catch (const std::exception& error) {
    return {.note = "a trial run of sample rows failed: " + failure_text(error)};
  }
  return {.proven = true};
}

BatchingProof prove_lengths(const Executable& executable, const Signature& signature,
                            const std::vector<Values>& rows, DeviceStream& stream) {
  const Padding& padding = signature.padding;
  std::int64_t shorter = 0;
  for (const std::int64_t bucket : padding.buckets()) {
    // One that fills its bucket, and one that does not.
    const std::int64_t part = (shorter + bucket + 1) / 2;
    shorter = bucket;
    std::vector<Values> trial;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      trial.push_back(with_length(padding, rows[i], i == 0 ? part : bucket));
    }
    const BatchShape padded{.rows = padding.rows_for(std::ssize(trial)), .length = bucket};
    const RunResult together = run_as(padded, executable, padding, trial, stream);
    if (std::string note = rows_note(signature, together, padded.rows); !note.empty()) {
      return {.note = std::move(note)};
    }
    if (Status status = padding.check_outputs(together.values, bucket); !status.ok()) {
      return {.note = std::move(status.message)};
    }
    const BatchShape as_it_is{.rows = padding.rows_for(1), .length = part};
    RunResult alone;
    try {
      alone = run_as(as_it_is, executable, padding, {trial.front()}, stream);
    } catch (const std::exception& error) {
      return {.proven = true,
              .note = "the model does not run at length " + std::to_string(part) +
                      ", so padding could not be compared with it: " + failure_text(error)};
    }
    const int different = first_difference(row_of(padding, alone.values, 0, trial.front()),
                                           row_of(padding, together.values, 0, trial.front()));
    if (different >= 0) {
      return {.note = "output \"" +
                      output_name(signature, together, static_cast<std::size_t>(different)) +
                      "\" of a row of length " + std::to_string(part) +
                      " changes when the row is padded to " + std::to_string(bucket)};
    }
  }
  return {.proven = true};
}

std::unique_ptr<Executable> agreeing_optimized(const Executable& plain, const Padding& padding,
                                               const std::vector<Values>& rows, bool batched,
                                               DeviceStream& stream, std::string& note) {
  try {
    std::unique_ptr<Executable> optimized = plain.optimized();
    if (optimized == nullptr) {
      return nullptr;
    }
    std::vector<std::vector<Values>> trials;
    for (const Values& row : rows) {
      trials.push_back({row});
    }
    if (batched && rows.size() > 1) {
      trials.push_back(rows);
    }
    for (const std::vector<Values>& trial : trials) {
      const Values expected = run_together(plain, padding, trial, stream).values;
      // Twice: the first run of a form may still be on its way through the interpreter's profiler.
      for (int run = 0; run < 2; ++run) {
        if (first_difference(expected, run_together(*optimized, padding, trial, stream).values) >=
            0) {
          note = "the optimised form's outputs differ from the plain module's: serving it plain";
          return nullptr;
        }
      }
    }
    return optimized;
  } catch (const std::exception& error) {
    note = "the module could not be optimised for inference: " + failure_text(error);
    return nullptr;
  }
}

}  // namespace pyserve
