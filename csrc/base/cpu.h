// cpu.h - how many CPUs this process may use, and the names of its threads.
//
// The machine's CPU count is wrong in a container: the affinity mask and the cgroup's
// quota both limit it, and more threads than that only take turns.

#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

#include "base/clock.h"

namespace pyserve {

// What the affinity mask and the cgroup's CPU quota leave, rounded up; at least 1.
// Reads a few files: call it while setting up.
[[nodiscard]] int available_cpus();

// The parts of it, for tests.

// CPUs in this thread's affinity mask; at least 1.
[[nodiscard]] int affinity_cpus();

// CPUs' worth of time that the cgroups (v1 or v2) of this process grant, the least of
// those on the path from its own to the root; nothing if unlimited or unknown.  `root`
// stands for "/": proc/self/cgroup and sys/fs/cgroup are read below it.
[[nodiscard]] std::optional<double> cgroup_cpu_quota(const std::filesystem::path& root);

// The contents of a v2 "cpu.max" ("150000 100000", "max 100000") as CPUs.
[[nodiscard]] std::optional<double> parse_cpu_max(std::string_view text);

// The lesser of the two, rounded up, at least 1.
[[nodiscard]] int limit_cpus(int affinity, std::optional<double> quota) noexcept;

// As seen in top and gdb; cut to the 15 bytes that Linux keeps.
void name_this_thread(std::string_view name) noexcept;

// How late the kernel may end this thread's timed sleeps, to merge wake-ups: 50 us by
// default, too coarse for a queue delay of 100 us.
void set_this_thread_timer_slack(Nanos slack_ns) noexcept;

}  // namespace pyserve
