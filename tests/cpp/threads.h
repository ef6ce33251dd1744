// threads.h - starting threads together, and waiting for what another thread does.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <latch>
#include <string>
#include <thread>
#include <vector>

namespace pyserve {

// Runs body(index) on `count` threads that start at the same moment; returns when all
// have ended.
template <class Body>
void run_together(std::size_t count, Body body) {
  std::latch start(static_cast<std::ptrdiff_t>(count));
  std::vector<std::jthread> threads;
  threads.reserve(count);
  for (std::size_t index = 0; index < count; ++index) {
    threads.emplace_back([&start, &body, index] {
      start.arrive_and_wait();
      body(index);
    });
  }
}

// How long a test waits for what must come: a bug fails it instead of hanging it.  A
// minute, or PYSERVE_TEST_PATIENCE_MS for a run in which failure is expected.
inline std::chrono::milliseconds test_patience() {
  static const std::chrono::milliseconds patience = [] {
    const char* const given = std::getenv("PYSERVE_TEST_PATIENCE_MS");
    return std::chrono::milliseconds(given != nullptr ? std::stoll(given) : 60'000);
  }();
  return patience;
}

// Yields until condition(); false only if it has not come true within that time.
template <class Condition>
[[nodiscard]] bool eventually(Condition condition) {
  const auto give_up = std::chrono::steady_clock::now() + test_patience();
  while (!condition()) {
    if (std::chrono::steady_clock::now() > give_up) {
      return false;
    }
    std::this_thread::yield();
  }
  return true;
}

// Whether the kernel has put this thread of ours to sleep.
inline bool asleep(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string stat;
  std::getline(file, stat);  // "TID (name) STATE ..."
  const std::size_t name_end = stat.rfind(") ");
  return name_end != std::string::npos && stat.substr(name_end + 2, 1) == "S";
}

}  // namespace pyserve
