/*
 * An immutable set of loaded keys, shared by reference. Whoever loads keys builds a new set and
 * swaps it in; whoever uses one keeps its reference for the length of one message or batch.
 */
#ifndef REKEY_CRYPTO_KEYSET_H
#define REKEY_CRYPTO_KEYSET_H

#include <rekey/crypto/data_key.h>

/* A key that the application used before Rekey, found by the name that the policy gives. */
struct rk_legacy_key {
    const char *name;
    const uint8_t *key; /* 32 bytes, secure memory */
};

struct rk_keyset;

/* All data keys are referenced (not taken), legacy names and keys copied. current_id is the id of
 * the key for writes, 0 when none. RK_EINVAL when an id or name appears twice or current_id is not
 * among the keys. */
RK_MUST_CHECK enum rk_status rk_keyset_new(struct rk_data_key *const *keys, size_t n_keys,
                                           uint32_t current_id, const struct rk_legacy_key *legacy,
                                           size_t n_legacy, struct rk_keyset **out,
                                           struct rk_error *err);
/* Before the set is shared: key id exists, but could not be loaded. */
void rk_keyset_set_missing(struct rk_keyset *set, uint32_t id);
/* A key that exists and is not in the set, or 0: values may lie under it that nobody here can make
 * or open. */
uint32_t rk_keyset_missing(const struct rk_keyset *set);
struct rk_keyset *rk_keyset_ref(struct rk_keyset *set);
void rk_keyset_unref(struct rk_keyset *set);

/* The key for writes, or NULL. Borrowed, as are all below: valid while the set is referenced. */
const struct rk_data_key *rk_keyset_current(const struct rk_keyset *set);
const struct rk_data_key *rk_keyset_find(const struct rk_keyset *set, uint32_t id);
size_t rk_keyset_count(const struct rk_keyset *set);
/* i < count; the current key first, the others by falling id. */
const struct rk_data_key *rk_keyset_at(const struct rk_keyset *set, size_t i);
/* 32 key bytes, or NULL when no legacy key has that name. */
const uint8_t *rk_keyset_legacy(const struct rk_keyset *set, const char *name);

#endif
