#include <rekey/base/backoff.h>

#include <unistd.h>

uint64_t rk_backoff_next(uint64_t pause, uint64_t first, uint64_t most)
{
    uint64_t next = pause == 0 ? first : pause <= UINT64_MAX / 2 ? pause * 2 : UINT64_MAX;
    return next < most ? next : most;
}

uint64_t rk_backoff_jittered(uint64_t pause)
{
    uint64_t half = pause / 2;
    uint64_t random = 0;
    if (getentropy(&random, sizeof random) != 0) {
        return pause;
    }
    return pause - random % (half + 1);
}
