/* The keyring in memory: what its file reader and its ops table share. */
#ifndef REKEY_KEYS_KEYRING_INTERNAL_H
#define REKEY_KEYS_KEYRING_INTERNAL_H

#include <rekey/crypto/aead.h>
#include <rekey/keys/provider.h>

#define RK_KEYRING_ENTRIES_MAX 256u /* of either kind */

struct kek {
    char *name;
    struct rk_data_key *key;
};

struct keyring {
    struct rk_aead *aead;
    struct kek *keks; /* in the order of the file: the last one wraps */
    size_t n_keks;
    struct rk_legacy_key *legacy;
    size_t n_legacy;
};

/* Adds the keys of the file at path, after checking who may read it. keks and legacy have room for
 * RK_KEYRING_ENTRIES_MAX entries each. On failure the caller frees what was added so far. */
RK_MUST_CHECK enum rk_status rk_keyring_read(struct keyring *ring, const char *path,
                                             struct rk_error *err);
/* The key-encryption key of that name, or NULL. */
const struct kek *rk_keyring_find(const struct keyring *ring, const char *name);

#endif
