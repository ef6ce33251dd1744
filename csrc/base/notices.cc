#include "base/notices.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

namespace pyserve {

Notices::Notices() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) {
    throw std::system_error(errno, std::generic_category(), "eventfd");
  }
}

Notices::~Notices() { ::close(fd_); }

void Notices::post(NoticeKind kind, std::string text) {
  const std::scoped_lock lock(mutex_);
  if (waiting_.size() < kMost) {
    waiting_.push_back({.kind = kind, .text = std::move(text)});
  }
  const std::uint64_t one = 1;
  // It can fail only where the counter is full: then it is readable already.
  static_cast<void>(!::write(fd_, &one, sizeof one));
}

std::vector<Notice> Notices::take() {
  const std::scoped_lock lock(mutex_);
  std::uint64_t count = 0;
  static_cast<void>(!::read(fd_, &count, sizeof count));
  return std::exchange(waiting_, {});
}

Notices& process_notices() {
  static Notices notices;
  return notices;
}

}  // namespace pyserve
