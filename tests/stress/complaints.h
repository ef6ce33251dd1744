// complaints.h - what a stress run found wrong.

#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <string_view>

namespace pyserve {

// What went wrong, and how often; the first few are printed as they happen.
class Complaints {
 public:
  void add(std::string_view what) noexcept {
    if (count_.fetch_add(1, std::memory_order_relaxed) < 10) {
      std::fprintf(stderr, "complaint: %.*s\n", static_cast<int>(what.size()), what.data());
    }
  }
  [[nodiscard]] std::uint64_t count() const noexcept {
    return count_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> count_{0};
};

}  // namespace pyserve
