// seed.h - random tests that can be repeated: the seed is printed, and taken from
// PYSERVE_TEST_SEED when that is set.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>

namespace pyserve {

// One seed per process, printed once.
inline std::uint64_t test_seed() {
  static const std::uint64_t seed = [] {
    const char* const given = std::getenv("PYSERVE_TEST_SEED");
    const std::uint64_t value = given != nullptr ? std::stoull(given) : std::random_device{}();
    std::cout << "PYSERVE_TEST_SEED=" << value << "\n" << std::flush;
    return value;
  }();
  return seed;
}

// A generator for one test or thread: `stream` keeps those apart.
inline std::mt19937_64 seeded_random(std::uint64_t stream = 0) {
  return std::mt19937_64(test_seed() + stream * 0x9E3779B97F4A7C15U);
}

}  // namespace pyserve
