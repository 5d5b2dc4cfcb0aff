/* Sleep by the real monotonic clock. libfaketime 0.9.10 changes the deadline of clock_nanosleep(CLOCK_MONOTONIC,
 * TIMER_ABSTIME), which Python's time.sleep uses, although FAKETIME_DONT_FAKE_MONOTONIC is set: it returns at once, or
 * with EINVAL. Preload this before libfaketime. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *request, struct timespec *left) {
  int before = errno;
  int failed = syscall(SYS_clock_nanosleep, clock, flags, request, left) ? errno : 0;
  errno = before;
  return failed;
}
