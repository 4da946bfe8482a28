/*
 * A key provider keeps key-encryption keys and wraps data keys with them. Providers are chosen by
 * configuration through this ops table: `keyring` (a local file) and `vault` (rekey/vault).
 *
 * Calls block and run on the key service's thread or in rekeyctl, never on a worker.
 */
#ifndef REKEY_KEYS_PROVIDER_H
#define REKEY_KEYS_PROVIDER_H

#include <rekey/base/metrics.h>
#include <rekey/crypto/data_key.h>
#include <rekey/crypto/legacy.h>
#include <rekey/crypto/remote.h>
#include <stdbool.h>

#define RK_WRAPPED_MAX 512u

/* A data key as it lies in rekey.keys. */
struct rk_wrapped_key {
    char kek[128]; /* name (and version) of the key-encryption key, in the provider's own terms */
    bool remote;   /* it stays with the provider: data proves that the provider has it, and holds no
                      key */
    uint8_t data[RK_WRAPPED_MAX];
    size_t len;
};

/* What trim has to spare. */
struct rk_needed_key {
    uint32_t id;
    const char *kek;
    bool remote; /* its values, not only itself, are encrypted by the provider */
};

/* Called exactly once, on a thread of the provider's (on the caller's when it is refused at once).
 * message is for people, and valid during the call. */
typedef void rk_provider_answered_fn(void *arg, enum rk_status status, const char *message);

struct rk_provider_ops {
    const char *name;
    /* Makes a fresh random data key; root receives its 32 bytes (zeros for a remote one). key_id is
     * bound into the wrap. */
    enum rk_status (*generate)(void *self, uint32_t key_id, uint8_t root[RK_DATA_KEY_LEN],
                               struct rk_wrapped_key *wrapped, struct rk_error *err);
    enum rk_status (*unwrap)(void *self, uint32_t key_id, const struct rk_wrapped_key *wrapped,
                             uint8_t root[RK_DATA_KEY_LEN], struct rk_error *err);
    /* The same data key under the newest key-encryption key. RK_ESTATE: it is already. */
    enum rk_status (*rewrap)(void *self, uint32_t key_id, const struct rk_wrapped_key *old,
                             struct rk_wrapped_key *wrapped, struct rk_error *err);
    /*
     * Has the provider refuse to unwrap what was wrapped with the key-encryption key past, or a
     * former version of it: copies of a destroyed key in backups. note says what is so now.
     * RK_ESTATE: a needed key would suffer, or there is no newer version; the message says what to
     * do first. NULL: the provider cannot.
     */
    enum rk_status (*trim)(void *self, const char *past, const struct rk_needed_key *needed,
                           size_t n, char *note, size_t size, struct rk_error *err);
    /*
     * Answers what was promised in remote, which is the provider's until it calls back. RK_OK:
     * every question has an answer. Else some have none: RK_EIO and RK_ETIMEOUT may pass, others
     * will not. Any thread, does not block. NULL: no value of this provider is sealed outside.
     */
    void (*answer)(void *self, struct rk_remote *remote, rk_provider_answered_fn *fn, void *arg);
    /* All keys for legacy readers; *keys is the provider's, valid until free. */
    enum rk_status (*legacy)(void *self, const struct rk_legacy_key **keys, size_t *n_keys,
                             struct rk_error *err);
    /* Waits until it can be asked, with a limit of its own. */
    enum rk_status (*ready)(void *self, struct rk_error *err);
    /* Does it answer at present? Any thread, never blocks. */
    bool (*available)(void *self);
    /* Writes its figures; NULL: it has none. Any thread. */
    void (*metrics)(void *self, struct rk_metrics *m);
    void (*free)(void *self);
};

struct rk_provider {
    const struct rk_provider_ops *ops;
    void *self;
};

/*
 * The keyring file: lines `kek NAME HEX64`, `legacy NAME HEX64`, comments with #; at most 64 KiB
 * and 256 keys. The last kek wraps, all of them unwrap. Refused unless it is a regular file
 * (symbolic links are followed) owned by this user or root, with no access for group and others.
 *
 * A data key is wrapped with AES-256-SIV (tag 16 | ciphertext 32), whose key comes from the kek as
 * in data_key.h; associated data: "rekey wrap v1" and the key id, 4 bytes little-endian.
 */
RK_MUST_CHECK enum rk_status rk_keyring_open(const char *path, struct rk_provider *out,
                                             struct rk_error *err);
/* Creates a keyring with one fresh kek; fails when the file exists. */
RK_MUST_CHECK enum rk_status rk_keyring_create(const char *path, struct rk_error *err);

#endif
