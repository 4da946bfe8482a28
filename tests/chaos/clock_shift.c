/*
 * Moves the wall clock of one process (LD_PRELOAD): REKEY_CLOCK_SHIFT names a file of eight bytes,
 * the nanoseconds to add, which whoever starts the process may change at any time. The monotonic
 * clock is left alone, as it is where an operator or NTP sets the time.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000

typedef int clock_gettime_fn(clockid_t clock, struct timespec *ts);

static _Atomic int64_t no_shift;
static _Atomic int64_t *shift = &no_shift;
static clock_gettime_fn *real;

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("REKEY_CLOCK_SHIFT");
    real = (clock_gettime_fn *)dlsym(RTLD_NEXT, "clock_gettime");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);
        shift = mapped != MAP_FAILED ? mapped : &no_shift;
        (void)close(fd);
    }
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    if (real == NULL) {
        real = (clock_gettime_fn *)dlsym(RTLD_NEXT, "clock_gettime");
    }
    int result = real(clock, ts);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t by = atomic_load(shift);
        int64_t ns = ts->tv_nsec + by % NS_PER_S;
        ts->tv_sec += by / NS_PER_S + (ns >= NS_PER_S) - (ns < 0);
        ts->tv_nsec = ns >= NS_PER_S ? ns - NS_PER_S : ns < 0 ? ns + NS_PER_S : ns;
    }
    return result;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return result;
}

time_t time(time_t *out)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    if (out != NULL) {
        *out = ts.tv_sec;
    }
    return ts.tv_sec;
}
