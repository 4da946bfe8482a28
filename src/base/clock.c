#include <rekey/base/clock.h>

#include <time.h>

static uint64_t microseconds(clockid_t clock)
{
    struct timespec ts;
    (void)clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

uint64_t rk_clock_mono_us(void)
{
    return microseconds(CLOCK_MONOTONIC);
}

uint64_t rk_clock_boot_us(void)
{
    return microseconds(CLOCK_BOOTTIME);
}

int64_t rk_clock_wall_ms(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}
