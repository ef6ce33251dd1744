// notices.h - what the core has to tell whoever runs the process: rare, and never about one
// request.
//
// The core writes no log.  A server watches the descriptor, takes what is there and acts on it; in
// a process where nobody does, the newest are dropped once `kMost` wait.
//
// Thread safety: every member from any thread.  A mutex: posted only where something has just gone
// wrong, far from the path of a request.
#pragma once

#include <cstddef>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace pyserve {

enum class NoticeKind {
  kOutOfMemory,  // a version's batches are smaller from now on
  kDeviceLost,   // nothing of this process will run on that device again
};

[[nodiscard]] constexpr std::string_view notice_name(NoticeKind kind) noexcept {
  return kind == NoticeKind::kOutOfMemory ? "out_of_memory" : "device_lost";
}

struct Notice {
  NoticeKind kind;
  std::string text;
};

class Notices {
 public:
  static constexpr std::size_t kMost = 64;

  Notices();
  ~Notices();
  Notices(const Notices&) = delete;
  Notices& operator=(const Notices&) = delete;

  void post(NoticeKind kind, std::string text);
  // Everything that was posted since, oldest first.
  std::vector<Notice> take();
  // Readable while notices wait.
  [[nodiscard]] int fileno() const noexcept { return fd_; }

 private:
  const int fd_;
  std::mutex mutex_;
  std::vector<Notice> waiting_;
};

// Those of this process.
Notices& process_notices();

}  // namespace pyserve
