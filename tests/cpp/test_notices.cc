#include <gtest/gtest.h>
#include <poll.h>

#include <cstddef>
#include <string>
#include <vector>

#include "base/notices.h"

namespace pyserve {
namespace {

bool readable(const Notices& notices) {
  pollfd fd{.fd = notices.fileno(), .events = POLLIN, .revents = 0};
  return poll(&fd, 1, 0) == 1;
}

TEST(Notices, AreTakenOnceAndInOrder) {
  Notices notices;
  EXPECT_FALSE(readable(notices));
  notices.post(NoticeKind::kOutOfMemory, "first");
  notices.post(NoticeKind::kDeviceLost, "second");
  EXPECT_TRUE(readable(notices));
  const std::vector<Notice> taken = notices.take();
  ASSERT_EQ(taken.size(), 2U);
  EXPECT_EQ(taken[0].text, "first");
  EXPECT_EQ(notice_name(taken[0].kind), "out_of_memory");
  EXPECT_EQ(taken[1].text, "second");
  EXPECT_EQ(notice_name(taken[1].kind), "device_lost");
  EXPECT_FALSE(readable(notices));
  EXPECT_TRUE(notices.take().empty());
}

TEST(Notices, WhereNobodyTakesThemTheyDoNotPileUp) {
  Notices notices;
  for (std::size_t i = 0; i < 3 * Notices::kMost; ++i) {
    notices.post(NoticeKind::kOutOfMemory, std::to_string(i));
  }
  const std::vector<Notice> taken = notices.take();
  ASSERT_EQ(taken.size(), Notices::kMost);
  EXPECT_EQ(taken.front().text, "0");
}

}  // namespace
}  // namespace pyserve
