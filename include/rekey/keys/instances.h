/*
 * The instances of rekeyd that are alive, which data keys each has loaded, and which of these it
 * writes under: collection <state db>.instances, one document an instance:
 *
 *   { _id: "host:pid:random", at: Date (the server's), leaseMs: int64, keys: [int64 key ids],
 *     writes: [int64 key ids], cursorsMs: int64, waitsFor: int64,
 *     open: {upTo: int64 key id, ids: [int64 cursor ids]} }
 *
 * An instance counts as alive until leaseMs after its last heartbeat. A new key becomes current
 * when every living instance has loaded it (registry.h), so an instance announces itself before it
 * reads the registry for the first time. Majority writes and reads. Blocking.
 *
 * "Loaded" means that nobody reads through the instance without the key any more (readers.h).
 * waitsFor says how many still do. mongod keeps cursors that were opened through an instance when
 * that is gone, and another instance may be asked to read on. So until cursorsMs after its last
 * heartbeat an instance holds rotations up although it is not alive, unless it left without open
 * cursors; and open tells the others of the cursors that must not be read any more once a key
 * behind upTo is current.
 */
#ifndef REKEY_KEYS_INSTANCES_H
#define REKEY_KEYS_INSTANCES_H

#include <rekey/base/status.h>
#include <stdbool.h>
#include <stddef.h>

struct rk_registry;

#define RK_OPEN_CURSORS_MAX 500000u /* a document takes so many */

/* Cursors whose queries compare with what lies under the keys up to up_to. */
struct rk_open_cursors {
    int64_t *ids;
    size_t n;
    uint32_t up_to;
};

struct rk_heartbeat {
    const char *instance;
    uint32_t lease_ms;
    uint32_t cursor_grace_ms;
    size_t waiting_for;
    struct rk_open_cursors outdated;
    const uint32_t *key_ids;
    size_t n_keys;
    const uint32_t *written_ids;
    size_t n_written;
};

RK_MUST_CHECK enum rk_status rk_instances_beat(struct rk_registry *registry,
                                               const struct rk_heartbeat *heartbeat,
                                               struct rk_error *err);
/* A clean end; that it fails costs a later rotation the rest of the time. */
RK_MUST_CHECK enum rk_status rk_instances_leave(struct rk_registry *registry, const char *instance,
                                                uint32_t cursor_grace_ms,
                                                const struct rk_open_cursors *open,
                                                struct rk_error *err);

/* How many instances hold key_id up: they lack it, and were not seen silent for as long as their
 * last heartbeat lasts (the lease, or the time that cursors are given), by this process's clock;
 * who looks for the first time has seen nothing yet. what, of size bytes, says of one of them which
 * and why. */
RK_MUST_CHECK enum rk_status rk_instances_without(struct rk_registry *registry, uint32_t key_id,
                                                  size_t *n, char *what, size_t size,
                                                  struct rk_error *err);

/* The cursors, of all instances, that must not be read any more when key_id is current; malloc'ed
 * for the caller, NULL when there are none. */
RK_MUST_CHECK enum rk_status rk_instances_outlived(struct rk_registry *registry, uint32_t key_id,
                                                   int64_t **ids, size_t *n, struct rk_error *err);

/* Calls fn with every living instance: its name and keys, valid during the call. */
typedef void rk_instance_fn(void *arg, const struct rk_heartbeat *heartbeat);
RK_MUST_CHECK enum rk_status rk_instances_living(struct rk_registry *registry, rk_instance_fn *fn,
                                                 void *arg, struct rk_error *err);

/*
 * How many living instances write under key_id, or do not say; with alive false, how many did when
 * they were last heard of and have not ended cleanly: one that only lost sight of the registry goes
 * on. what names one of them.
 */
RK_MUST_CHECK enum rk_status rk_instances_writing(struct rk_registry *registry, uint32_t key_id,
                                                  bool alive, size_t *n, char *what, size_t size,
                                                  struct rk_error *err);

#endif
