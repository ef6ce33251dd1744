#include "base/completion_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace pyserve {
namespace {

int open_event_fd() {
  const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) {
    throw std::system_error(errno, std::generic_category(), "eventfd");
  }
  return fd;
}

}  // namespace

EventFd::EventFd() : fd_(open_event_fd()) {}

EventFd::~EventFd() { close(fd_); }

// The counter cannot come near its limit (2^64 - 2), so neither call can fail except
// reset() with EAGAIN, which says that it was reset already.
void EventFd::signal() noexcept { eventfd_write(fd_, 1); }

void EventFd::reset() noexcept {
  eventfd_t value = 0;
  eventfd_read(fd_, &value);
}

}  // namespace pyserve
