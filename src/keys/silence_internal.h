/*
 * For how long others have been silent, by this process's own clock: mongod's, which their
 * heartbeats carry, may be set forward, and every instance would look dead at once. One thread.
 */
#ifndef REKEY_KEYS_SILENCE_INTERNAL_H
#define REKEY_KEYS_SILENCE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rk_silence {
    struct rk_last_beat *list;
    size_t n;
};

void rk_silence_deinit(struct rk_silence *silence);
/* An instance whose last heartbeat carries this time: has it been the last for lasts_ms, as far as
 * this process has seen? Without memory: no. */
bool rk_silence_lasts(struct rk_silence *silence, const char *instance, int64_t beat_at,
                      uint64_t lasts_ms);

#endif
