#include "runtime/threads.h"

#include <ATen/Parallel.h>

// Torch's wheels carry both; a build with other libraries may lack either.
extern "C" {
void omp_set_num_threads(int count) __attribute__((weak));
int MKL_Set_Num_Threads_Local(int count) __attribute__((weak));
}

namespace pyserve {

void set_intraop_threads(int count) {
  at::get_num_threads();  // torch sets a new thread's count on first use: let it, then override
  if (omp_set_num_threads == nullptr) {
    at::set_num_threads(count);
    return;
  }
  omp_set_num_threads(count);
  if (MKL_Set_Num_Threads_Local != nullptr) {
    MKL_Set_Num_Threads_Local(count);
  }
}

IntraopThreads::IntraopThreads(int count) : before_(at::get_num_threads()) {
  set_intraop_threads(count);
}

IntraopThreads::~IntraopThreads() { set_intraop_threads(before_); }

}  // namespace pyserve
