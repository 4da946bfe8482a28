/*
 * Pending keys that are in use here, and that this instance does not announce as loaded yet:
 * whoever reads without them must be through first, or be outdated (rekey/keys/readers.h). The key
 * service's thread.
 */
#ifndef REKEY_KEYS_NEWCOMERS_INTERNAL_H
#define REKEY_KEYS_NEWCOMERS_INTERNAL_H

#include "readers_internal.h"

struct rk_newcomer {
    uint32_t id;
    uint64_t epoch;    /* it came with this one */
    uint64_t until_us; /* it waits no longer */
};

struct rk_newcomers {
    struct rk_readers *readers;
    uint64_t grace_us;
    struct rk_newcomer *list;
    size_t n;
    size_t waiting_for; /* readers, at the last look */
};

void rk_newcomers_deinit(struct rk_newcomers *newcomers);
/* A pending key came into use. */
RK_MUST_CHECK enum rk_status rk_newcomers_add(struct rk_newcomers *newcomers, uint32_t id,
                                              uint64_t epoch);
/* May it be announced? Also asked of keys that are none of them. pending: as the registry says; a
 * key that is not waits for nobody. */
bool rk_newcomers_settled(struct rk_newcomers *newcomers, uint32_t id, bool pending);

#endif
