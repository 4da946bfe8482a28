/*
 * The keyring provider: key-encryption keys and legacy keys from a local file (see provider.h).
 * What stays in memory are derived keys and legacy keys, all of it secure memory.
 */
#include "keyring_internal.h"

#include <rekey/base/bytes.h>

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define WRAPPED_LEN (RK_SIV_TAG_LEN + RK_DATA_KEY_LEN)
#define WRAP_LABEL "rekey wrap v1"

static void keyring_free(void *self)
{
    struct keyring *ring = self;
    if (ring == NULL) {
        return;
    }
    for (size_t i = 0; i < ring->n_keks; i++) {
        free(ring->keks[i].name);
        rk_data_key_unref(ring->keks[i].key);
    }
    for (size_t i = 0; i < ring->n_legacy; i++) {
        free((char *)(uintptr_t)ring->legacy[i].name);
        OPENSSL_secure_clear_free((uint8_t *)(uintptr_t)ring->legacy[i].key, RK_DATA_KEY_LEN);
    }
    free(ring->keks);
    free(ring->legacy);
    rk_aead_free(ring->aead);
    free(ring);
}

#define AAD_LEN (sizeof WRAP_LABEL - 1 + 4)

/* A wrapped key moved to another id's record must not unwrap there. */
static void wrap_aad(uint32_t key_id, uint8_t aad[AAD_LEN])
{
    memcpy(aad, WRAP_LABEL, sizeof WRAP_LABEL - 1);
    rk_store_u32(aad + sizeof WRAP_LABEL - 1, key_id);
}

static enum rk_status wrap(struct keyring *ring, uint32_t key_id,
                           const uint8_t root[RK_DATA_KEY_LEN], struct rk_wrapped_key *wrapped,
                           struct rk_error *err)
{
    const struct kek *kek = &ring->keks[ring->n_keks - 1];
    uint8_t aad[AAD_LEN];
    wrap_aad(key_id, aad);
    enum rk_status status =
        rk_aead_siv_seal(ring->aead, kek->key, aad, sizeof aad, root, RK_DATA_KEY_LEN,
                         wrapped->data, wrapped->data + RK_SIV_TAG_LEN);
    if (status != RK_OK) {
        return rk_error_set(err, status, "cannot wrap data key %u with kek %s", key_id, kek->name);
    }
    wrapped->len = WRAPPED_LEN;
    (void)snprintf(wrapped->kek, sizeof wrapped->kek, "%s", kek->name);
    return RK_OK;
}

static enum rk_status keyring_generate(void *self, uint32_t key_id, uint8_t root[RK_DATA_KEY_LEN],
                                       struct rk_wrapped_key *wrapped, struct rk_error *err)
{
    if (RAND_priv_bytes(root, RK_DATA_KEY_LEN) != 1) {
        return rk_error_set(err, RK_EIO, "the random number generator failed");
    }
    enum rk_status status = wrap(self, key_id, root, wrapped, err);
    if (status != RK_OK) {
        OPENSSL_cleanse(root, RK_DATA_KEY_LEN);
    }
    return status;
}

static enum rk_status keyring_unwrap(void *self, uint32_t key_id,
                                     const struct rk_wrapped_key *wrapped,
                                     uint8_t root[RK_DATA_KEY_LEN], struct rk_error *err)
{
    struct keyring *ring = self;
    uint8_t aad[AAD_LEN];
    if (wrapped->len != WRAPPED_LEN) {
        return rk_error_set(err, RK_EINVAL,
                            "data key %u: its record holds no wrapped key of %u bytes", key_id,
                            WRAPPED_LEN);
    }
    const struct kek *kek = rk_keyring_find(ring, wrapped->kek);
    if (kek == NULL) {
        return rk_error_set(err, RK_ENOKEY,
                            "data key %u is wrapped with kek %s, which the keyring lacks", key_id,
                            wrapped->kek);
    }
    wrap_aad(key_id, aad);
    enum rk_status status = rk_aead_siv_open(ring->aead, kek->key, aad, sizeof aad, wrapped->data,
                                             wrapped->data + RK_SIV_TAG_LEN, RK_DATA_KEY_LEN, root);
    if (status != RK_OK) {
        OPENSSL_cleanse(root, RK_DATA_KEY_LEN);
        return rk_error_set(err, status,
                            "data key %u does not unwrap with kek %s: the keyring holds another "
                            "kek under that name, or the record was altered",
                            key_id, wrapped->kek);
    }
    return RK_OK;
}

static enum rk_status keyring_rewrap(void *self, uint32_t key_id, const struct rk_wrapped_key *old,
                                     struct rk_wrapped_key *wrapped, struct rk_error *err)
{
    struct keyring *ring = self;
    uint8_t root[RK_DATA_KEY_LEN];
    if (strcmp(old->kek, ring->keks[ring->n_keks - 1].name) == 0) {
        return rk_error_set(err, RK_ESTATE, "data key %u is wrapped with kek %s already", key_id,
                            old->kek);
    }
    enum rk_status status = keyring_unwrap(self, key_id, old, root, err);
    if (status == RK_OK) {
        status = wrap(ring, key_id, root, wrapped, err);
    }
    OPENSSL_cleanse(root, sizeof root);
    return status;
}

static enum rk_status keyring_legacy(void *self, const struct rk_legacy_key **keys, size_t *n_keys,
                                     struct rk_error *err)
{
    struct keyring *ring = self;
    (void)err;
    *keys = ring->legacy;
    *n_keys = ring->n_legacy;
    return RK_OK;
}

static enum rk_status keyring_ready(void *self, struct rk_error *err)
{
    (void)self;
    (void)err;
    return RK_OK;
}

static bool keyring_available(void *self)
{
    (void)self;
    return true;
}

static const struct rk_provider_ops keyring_ops = {
    .name = "keyring",
    .generate = keyring_generate,
    .unwrap = keyring_unwrap,
    .rewrap = keyring_rewrap,
    .legacy = keyring_legacy,
    .ready = keyring_ready,
    .available = keyring_available,
    .free = keyring_free,
};

enum rk_status rk_keyring_open(const char *path, struct rk_provider *out, struct rk_error *err)
{
    struct keyring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    enum rk_status status;
    ring->keks = calloc(RK_KEYRING_ENTRIES_MAX, sizeof *ring->keks);
    ring->legacy = calloc(RK_KEYRING_ENTRIES_MAX, sizeof *ring->legacy);
    if (ring->keks == NULL || ring->legacy == NULL) {
        status = rk_error_set(err, RK_ENOMEM, "out of memory");
        goto done;
    }
    status = rk_aead_new(&ring->aead, err);
    if (status == RK_OK) {
        status = rk_keyring_read(ring, path, err);
    }
done:
    if (status != RK_OK) {
        keyring_free(ring);
        return status;
    }
    *out = (struct rk_provider){.ops = &keyring_ops, .self = ring};
    return RK_OK;
}

static enum rk_status write_all(int fd, const char *path, const char *text, size_t len,
                                struct rk_error *err)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno != EINTR) {
            return rk_error_set(err, RK_EIO, "%s: %s", path, strerror(errno));
        }
        if (n > 0) {
            text += n;
            len -= (size_t)n;
        }
    }
    return RK_OK;
}

/* Formats without snprintf: its internal buffers would keep a copy of the key. */
static size_t format_keyring(char *out, const uint8_t kek[RK_DATA_KEY_LEN])
{
    static const char head[] = "# Rekey keyring. Whoever reads this file reads the data: keep it "
                               "0600, keep a backup.\n"
                               "kek kek-1 ";
    static const char digits[] = "0123456789abcdef";
    char *p = out;
    memcpy(p, head, sizeof head - 1);
    p += sizeof head - 1;
    for (size_t i = 0; i < RK_DATA_KEY_LEN; i++) {
        *p++ = digits[kek[i] >> 4];
        *p++ = digits[kek[i] & 15];
    }
    *p++ = '\n';
    return (size_t)(p - out);
}

enum rk_status rk_keyring_create(const char *path, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    uint8_t kek[RK_DATA_KEY_LEN];
    char text[256];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return rk_error_set(err, errno == EEXIST ? RK_ESTATE : RK_EIO, "%s: %s", path,
                            strerror(errno));
    }
    if (RAND_priv_bytes(kek, sizeof kek) != 1) {
        status = rk_error_set(err, RK_EIO, "the random number generator failed");
        goto done;
    }
    status = write_all(fd, path, text, format_keyring(text, kek), err);
    if (status == RK_OK && fsync(fd) != 0) {
        status = rk_error_set(err, RK_EIO, "%s: %s", path, strerror(errno));
    }
done:
    OPENSSL_cleanse(kek, sizeof kek);
    OPENSSL_cleanse(text, sizeof text);
    if (close(fd) != 0 && status == RK_OK) {
        status = rk_error_set(err, RK_EIO, "%s: %s", path, strerror(errno));
    }
    if (status != RK_OK) {
        (void)unlink(path);
    }
    return status;
}
