/*
 * The registry of wrapped data keys: collection <state db>.keys, one document a key:
 *
 *   { _id: int64 key id (1 and up), name: "..." (absent: "default"), state: "pending" | "current" |
 *     "retiring" | "retired" | "destroyed", mode: "envelope" (default) | "transit" (it stays with
 *     the provider), kek: "...", wrapped: BinData, createdAt: Date, activatedAt: Date,
 *     encryptions: int64 (absent: not counted),
 *     quietAt, retiredAt, destroyedAt: Date, by keys/life.h }
 *
 * Data keys have names, and the keys of one name are versions of it: what follows is true for each
 * name by itself. Ids are unique over all names, and every new key has the next one: an insert that
 * finds its id taken has seen an old state of the registry, and starts again.
 *
 * A new key is pending: instances load it, search for values under it, and do not write under it
 * yet. Once every living instance (instances.h) has loaded it, whoever notices makes it current. So
 * no instance meets, or fails to find, a value under a key that it does not have.
 *
 * The current key is the one with the highest id whose state is "current"; readers count every
 * lower one as retiring, so that a crash between the two writes of a promotion leaves no doubt.
 * Writes use majority write concern, reads majority read concern. Every change is recorded in
 * <state db>.audit. Blocking; a registry belongs to one thread.
 */
#ifndef REKEY_KEYS_REGISTRY_H
#define REKEY_KEYS_REGISTRY_H

#include <rekey/crypto/keyset.h>
#include <rekey/keys/provider.h>

/* Only ever forward: life.h has the steps behind RETIRING. */
enum rk_key_state {
    RK_KEY_PENDING,   /* made; not written under yet */
    RK_KEY_CURRENT,   /* new values are written under it */
    RK_KEY_RETIRING,  /* read, and being swept away */
    RK_KEY_RETIRED,   /* a full scan found nothing under it */
    RK_KEY_DESTROYED, /* the wrapped key is gone; the record stays, so that the id never returns */
};

struct rk_key_record {
    uint32_t id;
    char name[RK_KEY_NAME_SIZE];
    enum rk_key_state state;
    struct rk_wrapped_key wrapped;
    int64_t created_at_ms;
    int64_t activated_at_ms;
    uint64_t encryptions; /* at most so many, if they are counted; else 0 */
    int64_t quiet_at_ms;  /* 0, as all that did not happen yet */
    int64_t retired_at_ms;
    int64_t destroyed_at_ms;
};

struct rk_registry;

/* client_pool: a mongoc_client_pool_t *, borrowed. state_db: name of the state database. */
RK_MUST_CHECK enum rk_status rk_registry_new(void *client_pool, const char *state_db,
                                             struct rk_registry **out, struct rk_error *err);
void rk_registry_free(struct rk_registry *registry);

/* All records by rising id; *records is malloc'ed for the caller. */
RK_MUST_CHECK enum rk_status rk_registry_list(struct rk_registry *registry,
                                              struct rk_key_record **records, size_t *n,
                                              struct rk_error *err);
/* May a key be called so? [A-Za-z0-9_.-]{1,64}, or that, ':' and what belongs to one tenant. */
bool rk_key_name_valid(const char *name);

/*
 * Makes a new pending key of this name; current at once when there was none. RK_ESTATE while
 * another one is pending; safe against concurrent rotations, of which one fails so. actor goes to
 * the audit log.
 */
RK_MUST_CHECK enum rk_status rk_registry_rotate(struct rk_registry *registry,
                                                const struct rk_provider *provider,
                                                const char *name, const char *actor,
                                                struct rk_key_record *made, struct rk_error *err);

/*
 * Makes the pending key current, and the former one retiring, if every living instance has loaded
 * it. RK_ESTATE when not: the message names one that has not. RK_OK as well when somebody else did
 * it.
 */
RK_MUST_CHECK enum rk_status rk_registry_promote(struct rk_registry *registry,
                                                 const struct rk_key_record *key, const char *actor,
                                                 struct rk_error *err);

/* Makes the first key of this name, which is current at once; RK_ESTATE when it has one, also one
 * just made. */
RK_MUST_CHECK enum rk_status rk_registry_create_first(struct rk_registry *registry,
                                                      const struct rk_provider *provider,
                                                      const char *name, const char *actor,
                                                      struct rk_key_record *made,
                                                      struct rk_error *err);

/*
 * Wraps every data key anew that is not under the provider's newest key-encryption key; no data
 * changes. *rewrapped counts them, also when a later one failed; to be run again then.
 */
RK_MUST_CHECK enum rk_status rk_registry_rewrap(struct rk_registry *registry,
                                                const struct rk_provider *provider,
                                                const char *actor, uint32_t *rewrapped,
                                                struct rk_error *err);

const char *rk_key_state_name(enum rk_key_state state);

#endif
