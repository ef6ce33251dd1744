// checked.h - arithmetic on sizes that come from outside: overflow is found, not wrapped.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace pyserve {

[[nodiscard]] constexpr std::optional<std::size_t> checked_mul(std::size_t a,
                                                               std::size_t b) noexcept {
  std::size_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    return std::nullopt;
  }
  return product;
}

[[nodiscard]] constexpr std::optional<std::size_t> checked_add(std::size_t a,
                                                               std::size_t b) noexcept {
  std::size_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) {
    return std::nullopt;
  }
  return sum;
}

// The number of elements of a tensor; 1 for rank 0.  Nothing if a dimension is
// negative or if the product of the dimensions that are not zero exceeds int64:
// torch computes strides from those even where an empty dimension makes the
// tensor empty, so [0, 2^62, 2^62] is refused rather than called 0.
[[nodiscard]] constexpr std::optional<std::size_t> checked_elements(
    std::span<const std::int64_t> dims) noexcept {
  std::int64_t product = 1;
  bool empty = false;
  for (const std::int64_t dim : dims) {
    if (dim < 0) {
      return std::nullopt;
    }
    if (dim == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(product, dim, &product)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : static_cast<std::size_t>(product);
}

}  // namespace pyserve
