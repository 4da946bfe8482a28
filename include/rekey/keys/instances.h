/*
 * The instances of rekeyd that are alive, which data keys each has loaded, and which of these it
 * writes under: collection <state db>.instances, one document an instance:
 *
 *   { _id: "host:pid:random", at: Date (the server's), leaseMs: int64, keys: [int64 key ids],
 *     writes: [int64 key ids] }
 *
 * An instance counts as alive until leaseMs after its last heartbeat. A new key becomes current
 * when every living instance has loaded it (registry.h), so an instance announces itself before it
 * reads the registry for the first time. Majority writes and reads. Blocking.
 */
#ifndef REKEY_KEYS_INSTANCES_H
#define REKEY_KEYS_INSTANCES_H

#include <rekey/base/status.h>
#include <stddef.h>

struct rk_registry;

struct rk_heartbeat {
    const char *instance;
    uint32_t lease_ms;
    const uint32_t *key_ids;
    size_t n_keys;
    const uint32_t *written_ids;
    size_t n_written;
};

RK_MUST_CHECK enum rk_status rk_instances_beat(struct rk_registry *registry,
                                               const struct rk_heartbeat *heartbeat,
                                               struct rk_error *err);
/* A clean end; that it fails costs a later rotation the rest of the lease. */
void rk_instances_leave(struct rk_registry *registry, const char *instance);

/* How many living instances lack key_id. name, of size bytes, gets one of them. */
RK_MUST_CHECK enum rk_status rk_instances_without(struct rk_registry *registry, uint32_t key_id,
                                                  size_t *n, char *name, size_t size,
                                                  struct rk_error *err);

#endif
