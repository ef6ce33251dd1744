// slow_clock.c - a steady clock that runs slower than time, for a server under callgrind.
//
// Valgrind makes a program some fifty times slower.  What a server measures at load (is this model
// light enough to run at once?) and for how long it spins would come out differently, and so would
// what it does.  Preloaded, this slows its clock down as much.

#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { kSlower = 50 };

static const long long kSecond = 1000000000LL;
static long long start;

static long long nanoseconds(const struct timespec* time) {
  return time->tv_sec * kSecond + time->tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  start = nanoseconds(&now);
}

int clock_gettime(clockid_t id, struct timespec* out) {
  const long result = syscall(SYS_clock_gettime, id, out);
  if (result == 0 && id == CLOCK_MONOTONIC) {
    const long long slow = start + (nanoseconds(out) - start) / kSlower;
    out->tv_sec = slow / kSecond;
    out->tv_nsec = slow % kSecond;
  }
  return (int)result;
}
