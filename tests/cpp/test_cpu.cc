#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/cpu.h"
#include "threads.h"

namespace pyserve {
namespace {

namespace fs = std::filesystem;

TEST(Cpu, ReadsTheQuotaOfCgroupV2AsCpus) {
  EXPECT_EQ(parse_cpu_max("150000 100000\n"), 1.5);
  EXPECT_EQ(parse_cpu_max("50000 100000"), 0.5);
  EXPECT_EQ(parse_cpu_max("max 100000\n"), std::nullopt);
}

TEST(Cpu, TakesAQuotaThatMakesNoSenseForNone) {
  for (const std::string_view text : {"", "\n", "100000", "100000 0", "-1 100000", "0 100000",
                                      "12x 100000", "1e5 100000", "99999999999999999999 1"}) {
    EXPECT_EQ(parse_cpu_max(text), std::nullopt) << text;
  }
}

TEST(Cpu, TheLesserLimitHoldsRoundedUpAndAtLeastOne) {
  EXPECT_EQ(limit_cpus(8, std::nullopt), 8);
  EXPECT_EQ(limit_cpus(8, 2.0), 2);
  EXPECT_EQ(limit_cpus(8, 2.01), 3);
  EXPECT_EQ(limit_cpus(8, 0.1), 1);
  EXPECT_EQ(limit_cpus(2, 6.5), 2);
  EXPECT_EQ(limit_cpus(2, 1e300), 2);
  EXPECT_EQ(limit_cpus(0, std::nullopt), 1);
}

// A pretended "/" with the files that a test puts there.
class CgroupFiles : public testing::Test {
 protected:
  CgroupFiles() {
    std::string name = (fs::temp_directory_path() / "pyserve-cgroup-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw std::runtime_error("mkdtemp");
    }
    root_ = name;
  }
  ~CgroupFiles() override { fs::remove_all(root_); }

  void put(const fs::path& path, std::string_view text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  [[nodiscard]] std::optional<double> quota() const { return cgroup_cpu_quota(root_); }

 private:
  fs::path root_;
};

TEST_F(CgroupFiles, NoneMeanNoQuota) { EXPECT_EQ(quota(), std::nullopt); }

TEST_F(CgroupFiles, V2QuotaOfAContainersOwnNamespaceIsFound) {
  put("proc/self/cgroup", "0::/\n");
  put("sys/fs/cgroup/cpu.max", "200000 100000\n");
  EXPECT_EQ(quota(), 2.0);
}

TEST_F(CgroupFiles, V2TheLeastQuotaOnThePathHolds) {
  put("proc/self/cgroup", "0::/system.slice/pyserve.service\n");
  put("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n");
  put("sys/fs/cgroup/system.slice/pyserve.service/cpu.max", "300000 100000\n");
  EXPECT_EQ(quota(), 1.5);
  put("sys/fs/cgroup/system.slice/cpu.max", "max 100000\n");
  EXPECT_EQ(quota(), 3.0);
}

TEST_F(CgroupFiles, V2QuotaOfAnotherGroupIsNotOurs) {
  put("proc/self/cgroup", "0::/a\n");
  put("sys/fs/cgroup/a/cpu.max", "max 100000\n");
  put("sys/fs/cgroup/b/cpu.max", "100000 100000\n");
  EXPECT_EQ(quota(), std::nullopt);
}

TEST_F(CgroupFiles, V2PathOutsideTheNamespaceFallsBackToTheMount) {
  put("proc/self/cgroup", "0::/../../elsewhere\n");
  put("sys/fs/cgroup/cpu.max", "400000 100000\n");
  EXPECT_EQ(quota(), 4.0);
}

TEST_F(CgroupFiles, V1QuotaIsFoundUnderItsControllersName) {
  put("proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/app\n0::/\n");
  put("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "250000\n");
  put("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), 2.5);
}

TEST_F(CgroupFiles, V1QuotaOfAContainerWhosePathIsTheHostsIsFoundAtTheMount) {
  put("proc/self/cgroup", "4:cpuacct,cpu:/docker/0123abcd\n");
  put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
  put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), 1.0);
}

TEST_F(CgroupFiles, V1MinusOneMeansNoQuota) {
  put("proc/self/cgroup", "1:cpu:/\n");
  put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), std::nullopt);
}

TEST_F(CgroupFiles, ControllersThatOnlyBeginLikeCpuSayNothing) {
  put("proc/self/cgroup", "3:cpuset:/\n2:cpuacct:/\n");
  put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
  put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), std::nullopt);
}

TEST_F(CgroupFiles, HybridV2UnderUnifiedIsRead) {
  put("proc/self/cgroup", "1:cpu:/\n0::/app\n");
  put("sys/fs/cgroup/unified/app/cpu.max", "100000 100000\n");
  EXPECT_EQ(quota(), 1.0);
}

TEST_F(CgroupFiles, LinesThatMakeNoSenseAreSkipped) {
  put("proc/self/cgroup", "\nnonsense\n7:half\n0::/\n");
  put("sys/fs/cgroup/cpu.max", "100000 100000\n");
  EXPECT_EQ(quota(), 1.0);
}

TEST(Cpu, AvailableIsAtLeastOneAndNoMoreThanTheAffinityMask) {
  EXPECT_GE(available_cpus(), 1);
  EXPECT_LE(available_cpus(), affinity_cpus());
}

TEST(Cpu, AThreadBoundToOneCpuHasOne) {
  run_together(1, [](std::size_t) {
    cpu_set_t mask;
    ASSERT_EQ(sched_getaffinity(0, sizeof(mask), &mask), 0);
    int first = 0;
    while (!CPU_ISSET(first, &mask)) {
      ++first;
    }
    CPU_ZERO(&mask);
    CPU_SET(first, &mask);
    ASSERT_EQ(sched_setaffinity(0, sizeof(mask), &mask), 0);
    EXPECT_EQ(affinity_cpus(), 1);
    EXPECT_EQ(available_cpus(), 1);
  });
}

std::string name_after_naming(std::string_view name) {
  std::string result;
  run_together(1, [&](std::size_t) {
    name_this_thread(name);
    std::array<char, 64> text{};
    EXPECT_EQ(pthread_getname_np(pthread_self(), text.data(), text.size()), 0);
    result = text.data();
  });
  return result;
}

TEST(Cpu, NamesAThreadAndCutsALongName) {
  EXPECT_EQ(name_after_naming("digits/1#0"), "digits/1#0");
  EXPECT_EQ(name_after_naming("0123456789abcdefgh"), "0123456789abcde");
  EXPECT_EQ(name_after_naming(""), "");
}

TEST(Cpu, SetsTheTimerSlackOfThisThread) {
  run_together(1, [](std::size_t) {
    set_this_thread_timer_slack(1'234);
    EXPECT_EQ(prctl(PR_GET_TIMERSLACK), 1'234);
    set_this_thread_timer_slack(0);  // 0 would mean the default: the finest is meant
    EXPECT_EQ(prctl(PR_GET_TIMERSLACK), 1);
  });
}

}  // namespace
}  // namespace pyserve
