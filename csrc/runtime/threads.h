// threads.h - how many threads one forward may use, set for the calling thread alone.
#pragma once

namespace pyserve {

// at::set_num_threads() would also change the process's default and MKL's global setting, under
// the feet of a Python program that uses torch itself.
void set_intraop_threads(int count);

// The same for a scope: a trial run on a caller's thread must not take more than an instance would,
// nor leave the caller's setting changed.
class IntraopThreads {
 public:
  explicit IntraopThreads(int count);
  ~IntraopThreads();
  IntraopThreads(const IntraopThreads&) = delete;
  IntraopThreads& operator=(const IntraopThreads&) = delete;

 private:
  const int before_;
};

}  // namespace pyserve
