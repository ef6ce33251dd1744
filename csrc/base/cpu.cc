#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "base/clock.h"

namespace pyserve {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSpace = " \t\r\n";

// These files are a line or two; a missing one reads as nothing.
std::optional<std::string> read_text(const fs::path& path) {
  std::ifstream file(path);
  if (!file) {
    return std::nullopt;
  }
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Takes the first word off `text`.
std::string_view next_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  const std::string_view word = text.substr(0, text.find_first_of(kSpace));
  text.remove_prefix(word.size());
  return word;
}

std::optional<std::int64_t> parse_integer(std::string_view word) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc{} || end != word.data() + word.size()) {
    return std::nullopt;
  }
  return value;
}

std::optional<double> quota_cpus(std::optional<std::int64_t> quota,
                                 std::optional<std::int64_t> period) {
  if (!quota || !period || *quota <= 0 || *period <= 0) {
    return std::nullopt;  // "max" and v1's -1 mean unlimited
  }
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

std::optional<double> quota_v2(const fs::path& cgroup) {
  const std::optional<std::string> text = read_text(cgroup / "cpu.max");
  return text ? parse_cpu_max(*text) : std::nullopt;
}

std::optional<std::int64_t> read_integer(const fs::path& path) {
  const std::optional<std::string> text = read_text(path);
  if (!text) {
    return std::nullopt;
  }
  std::string_view rest = *text;
  return parse_integer(next_word(rest));
}

std::optional<double> quota_v1(const fs::path& cgroup) {
  return quota_cpus(read_integer(cgroup / "cpu.cfs_quota_us"),
                    read_integer(cgroup / "cpu.cfs_period_us"));
}

std::optional<double> lesser(std::optional<double> a, std::optional<double> b) {
  return a && b ? std::min(*a, *b) : (a ? a : b);
}

// The least quota from `mount`/`path` up to `mount`: a parent's limit holds for its
// children.  In a container `path` may be the host's, which is not there; the mount
// itself then is the container's own cgroup.
template <class Quota>
std::optional<double> least_quota(const fs::path& mount, std::string_view path, Quota quota) {
  std::optional<double> least = quota(mount);
  fs::path cgroup = mount;
  for (const fs::path& part : fs::path(path).relative_path()) {
    if (part == "..") {
      break;  // outside this cgroup namespace: only the mount can be read
    }
    cgroup /= part;
    least = lesser(least, quota(cgroup));
  }
  return least;
}

bool lists(std::string_view controllers, std::string_view name) {
  while (!controllers.empty()) {
    const std::size_t comma = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, comma) == name) {
      return true;
    }
    controllers.remove_prefix(std::min(comma + 1, controllers.size()));
  }
  return false;
}

// One line of /proc/self/cgroup: "hierarchy:controllers:path".  Hierarchy 0 without
// controllers is v2.
std::optional<double> line_quota(const fs::path& mounts, std::string_view line) {
  const std::size_t first = line.find(':');
  const std::size_t second = first == line.npos ? first : line.find(':', first + 1);
  if (second == line.npos) {
    return std::nullopt;
  }
  const std::string_view controllers = line.substr(first + 1, second - first - 1);
  const std::string_view path = line.substr(second + 1);
  if (controllers.empty()) {
    return lesser(least_quota(mounts, path, quota_v2),
                  least_quota(mounts / "unified", path, quota_v2));
  }
  if (lists(controllers, "cpu")) {
    return lesser(least_quota(mounts / controllers, path, quota_v1),
                  least_quota(mounts / "cpu", path, quota_v1));
  }
  return std::nullopt;
}

}  // namespace

int available_cpus() { return limit_cpus(affinity_cpus(), cgroup_cpu_quota("/")); }

int affinity_cpus() {
  // A machine with more CPUs than the mask has room for answers EINVAL.
  for (std::size_t cpus = CPU_SETSIZE; cpus <= std::size_t{1} << 20; cpus *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> mask(
        CPU_ALLOC(cpus), [](cpu_set_t* set) { CPU_FREE(set); });
    if (!mask) {
      break;
    }
    const std::size_t bytes = CPU_ALLOC_SIZE(cpus);
    if (sched_getaffinity(0, bytes, mask.get()) == 0) {
      return std::max(1, CPU_COUNT_S(bytes, mask.get()));
    }
    if (errno != EINVAL) {
      break;
    }
  }
  return 1;
}

std::optional<double> cgroup_cpu_quota(const fs::path& root) {
  const std::optional<std::string> table = read_text(root / "proc/self/cgroup");
  if (!table) {
    return std::nullopt;
  }
  std::optional<double> least;
  std::string_view rest = *table;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    least = lesser(least, line_quota(root / "sys/fs/cgroup", rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return least;
}

std::optional<double> parse_cpu_max(std::string_view text) {
  const std::optional<std::int64_t> quota = parse_integer(next_word(text));
  const std::optional<std::int64_t> period = parse_integer(next_word(text));
  return quota_cpus(quota, period);
}

int limit_cpus(int affinity, std::optional<double> quota) noexcept {
  if (!quota || *quota >= affinity) {
    return std::max(1, affinity);
  }
  return std::max(1, static_cast<int>(std::ceil(*quota)));
}

void name_this_thread(std::string_view name) noexcept {
  std::array<char, 16> text{};
  name.copy(text.data(), text.size() - 1);
  pthread_setname_np(pthread_self(), text.data());
}

void set_this_thread_timer_slack(Nanos slack_ns) noexcept {
  prctl(PR_SET_TIMERSLACK, static_cast<unsigned long>(std::max(slack_ns, Nanos{1})));  // 0 resets
}

}  // namespace pyserve
