// tally.h - what stress_base counts.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <numeric>

#include "complaints.h"

namespace pyserve {

// One thread's tally, added up when all have ended.
struct Tally {
  std::uint64_t admitted = 0;
  std::uint64_t refused = 0;
  std::array<std::uint64_t, 4> won{};      // by outcome
  std::array<std::uint64_t, 4> settled{};  // by outcome; the reader's
  std::uint64_t wake_ups = 0;              // the reader's
  std::uint64_t batches = 0;               // the instances'

  void add(const Tally& other) {
    admitted += other.admitted;
    refused += other.refused;
    for (std::size_t i = 0; i < won.size(); ++i) {
      won[i] += other.won[i];
      settled[i] += other.settled[i];
    }
    wake_ups += other.wake_ups;
    batches += other.batches;
  }

  // Every admitted request was won once and settled once, with the same outcome.
  void check(Complaints& complaints) const {
    if (won != settled) {
      complaints.add("winners and settled requests differ in number");
    }
    if (std::accumulate(settled.begin(), settled.end(), std::uint64_t{0}) != admitted ||
        settled[0] != 0) {
      complaints.add("not every admitted request was settled");
    }
  }

  void print() const {
    const auto line = [](const char* name, std::uint64_t value) {
      std::printf("%-10s %12llu\n", name, static_cast<unsigned long long>(value));
    };
    line("admitted", admitted);
    line("refused", refused);
    line("completed", settled[1]);
    line("cancelled", settled[2]);
    line("expired", settled[3]);
    line("batches", batches);
    line("wake-ups", wake_ups);
  }
};

}  // namespace pyserve
