#include "silence_internal.h"

#include <rekey/base/clock.h>
#include <stdlib.h>
#include <string.h>

#define FORGET_US (86400ull * 1000000u) /* nobody asks for it any more */

struct rk_last_beat {
    char *instance;
    int64_t at;
    uint64_t seen_us; /* first, by rk_clock_boot_us() */
};

void rk_silence_deinit(struct rk_silence *silence)
{
    for (size_t i = 0; i < silence->n; i++) {
        free(silence->list[i].instance);
    }
    free(silence->list);
    *silence = (struct rk_silence){0};
}

static void forget_old(struct rk_silence *silence, uint64_t now_us)
{
    for (size_t i = 0; i < silence->n;) {
        struct rk_last_beat *last = &silence->list[i];
        if (now_us - last->seen_us > FORGET_US) {
            free(last->instance);
            *last = silence->list[--silence->n];
        } else {
            i++;
        }
    }
}

/* NULL: out of memory. */
static struct rk_last_beat *find_or_add(struct rk_silence *silence, const char *instance,
                                        uint64_t now_us)
{
    for (size_t i = 0; i < silence->n; i++) {
        if (strcmp(silence->list[i].instance, instance) == 0) {
            return &silence->list[i];
        }
    }
    forget_old(silence, now_us);
    struct rk_last_beat *grown = realloc(silence->list, (silence->n + 1) * sizeof *silence->list);
    if (grown == NULL) {
        return NULL;
    }
    silence->list = grown;
    char *name = strdup(instance);
    if (name == NULL) {
        return NULL;
    }
    grown[silence->n] = (struct rk_last_beat){.instance = name, .seen_us = now_us};
    return &grown[silence->n++];
}

bool rk_silence_lasts(struct rk_silence *silence, const char *instance, int64_t beat_at,
                      uint64_t lasts_ms)
{
    uint64_t now_us = rk_clock_boot_us();
    struct rk_last_beat *last = find_or_add(silence, instance, now_us);
    if (last == NULL) {
        return false;
    }
    if (last->at != beat_at) {
        last->at = beat_at;
        last->seen_us = now_us;
    }
    return now_us - last->seen_us >= lasts_ms * 1000u;
}
