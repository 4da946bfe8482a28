/*
 * An immutable set of keys, shared by reference. Whoever loads keys builds a new set and swaps it
 * in; whoever uses one keeps its reference for the length of one message or batch.
 *
 * Data keys have names: the keys of one name are versions of it, of which at most one is written
 * under. An envelope holds the id of its key, which is unique over all names. The set knows every
 * key that the registry listed when it was read, also those that are not loaded.
 */
#ifndef REKEY_CRYPTO_KEYSET_H
#define REKEY_CRYPTO_KEYSET_H

#include <rekey/crypto/data_key.h>

#define RK_KEY_NAME_DEFAULT "default"
#define RK_KEY_NAME_SIZE 256u    /* with its NUL */
#define RK_KEY_BASE_NAME_MAX 64u /* without a tenant */

/* A key that the application used before Rekey, found by the name that the policy gives. */
struct rk_legacy_key {
    const char *name;
    const uint8_t *key; /* 32 bytes, secure memory */
};

enum rk_key_role {
    RK_KEY_WRITES, /* the current one of its name */
    RK_KEY_READS,  /* values may lie under it */
    RK_KEY_UNUSED, /* nothing lies under it: not yet, or not any more */
    RK_KEY_GONE,   /* destroyed: nobody can open what lies under it */
};

struct rk_keyset_key {
    uint32_t id;
    enum rk_key_role role;
    const char *name;
    struct rk_data_key *key; /* NULL: not loaded */
};

/* The keys of one name. */
struct rk_key_versions {
    const struct rk_data_key *current; /* the one for writes, or NULL */
    /* The loaded ones: the current one, then others by falling id, remote ones (data_key.h) last.
     */
    struct rk_data_key *const *keys;
    size_t n;
    uint32_t missing_id; /* values may lie under it, and it is not loaded; 0: none is missing */
};

struct rk_keyset;

/* All data keys are referenced (not taken), names and legacy keys copied. RK_EINVAL when an id or a
 * legacy name appears twice, or a name has two keys for writes. */
RK_MUST_CHECK enum rk_status rk_keyset_new(const struct rk_keyset_key *keys, size_t n_keys,
                                           const struct rk_legacy_key *legacy, size_t n_legacy,
                                           struct rk_keyset **out, struct rk_error *err);
struct rk_keyset *rk_keyset_ref(struct rk_keyset *set);
void rk_keyset_unref(struct rk_keyset *set);

/* All that these give is borrowed: valid while the set is referenced. */

/* Without a key of that name: nothing in it. */
struct rk_key_versions rk_keyset_versions(const struct rk_keyset *set, const char *name);
/* The key for writes under that name, or NULL. */
const struct rk_data_key *rk_keyset_current(const struct rk_keyset *set, const char *name);
/* A loaded key, or NULL. */
const struct rk_data_key *rk_keyset_find(const struct rk_keyset *set, uint32_t id);
/* What is known of a key, loaded or not; NULL: the registry did not list it. */
const struct rk_keyset_key *rk_keyset_known(const struct rk_keyset *set, uint32_t id);
/* The highest id that is known, 0 when none is. Ids only ever rise. */
uint32_t rk_keyset_newest(const struct rk_keyset *set);
/* 32 key bytes, or NULL when no legacy key has that name. */
const uint8_t *rk_keyset_legacy(const struct rk_keyset *set, const char *name);

#endif
