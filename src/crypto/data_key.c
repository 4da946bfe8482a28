/*
 * Data keys: one root secret, and the key of each algorithm derived from it with HKDF-SHA256.
 * The whole struct lies in secure memory; it is immutable but for its reference count.
 */
#include "block_internal.h"
#include "data_key_internal.h"

#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <pthread.h>
#include <rekey/crypto/secure_scope.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#define XAES_INFO "rekey xaes-256-gcm v1"
#define SIV_INFO "rekey aes-256-siv v1"

struct rk_data_key {
    atomic_uint refs;
    _Atomic uint64_t claimed;
    uint32_t id;
    uint32_t activated_at_s;
    char remote[RK_REMOTE_NAME_MAX + 1]; /* empty: local */
    uint8_t xaes[RK_XAES_KEY_LEN];
    uint8_t xaes_k1[RK_BLOCK_LEN];
    uint8_t siv[RK_SIV_KEY_LEN];
};

/* XAES-256-GCM, c2sp.org/XAES-256-GCM: K1 is the doubled encryption of the zero block. */
static bool xaes_k1(const uint8_t key[RK_XAES_KEY_LEN], uint8_t k1[RK_BLOCK_LEN])
{
    static const uint8_t zero[RK_BLOCK_LEN];
    int len = 0;
    /* What OpenSSL keeps of fetched algorithms is for ever, and no secret: not within the scope. */
    EVP_CIPHER *ecb = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
    rk_secure_scope_begin();
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok = ctx != NULL && ecb != NULL && EVP_EncryptInit_ex(ctx, ecb, NULL, key, NULL) == 1 &&
              EVP_CIPHER_CTX_set_padding(ctx, 0) == 1 &&
              EVP_EncryptUpdate(ctx, k1, &len, zero, sizeof zero) == 1 && len == sizeof zero;
    if (ok) {
        rk_block_double(k1);
    }
    EVP_CIPHER_CTX_free(ctx);
    rk_secure_scope_end();
    EVP_CIPHER_free(ecb);
    return ok;
}

enum rk_status rk_data_key_new_raw(uint32_t id, const uint8_t xaes[RK_XAES_KEY_LEN],
                                   const uint8_t siv[RK_SIV_KEY_LEN], uint32_t activated_at_s,
                                   struct rk_data_key **out, struct rk_error *err)
{
    *out = NULL;
    if (id == 0) {
        return rk_error_set(err, RK_EINVAL, "a data key cannot have the id 0");
    }
    struct rk_data_key *key = OPENSSL_secure_zalloc(sizeof *key);
    if (key == NULL) {
        return rk_error_set(err, RK_ENOMEM, "no secure memory left for data key %u", id);
    }
    atomic_init(&key->refs, 1);
    key->id = id;
    key->activated_at_s = activated_at_s;
    memcpy(key->xaes, xaes, sizeof key->xaes);
    memcpy(key->siv, siv, sizeof key->siv);
    if (!xaes_k1(key->xaes, key->xaes_k1)) {
        rk_data_key_unref(key);
        return rk_error_set(err, RK_ENOMEM, "OpenSSL could not set up AES for data key %u", id);
    }
    *out = key;
    return RK_OK;
}

static bool derive(EVP_KDF *hkdf, const uint8_t root[RK_DATA_KEY_LEN], const char *info,
                   uint8_t *out, size_t len)
{
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(hkdf);
    /* OSSL_PARAM has no const; HKDF only reads what these point at. */
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)root, RK_DATA_KEY_LEN),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, strlen(info)),
        OSSL_PARAM_construct_end(),
    };
    bool ok = ctx != NULL && EVP_KDF_derive(ctx, out, len, params) == 1;
    EVP_KDF_CTX_free(ctx);
    return ok;
}

/* OpenSSL keeps what it fetches for a first derivation, which is no secret: not in the scope. */
static void warm_up(void)
{
    static const uint8_t zero[RK_DATA_KEY_LEN];
    uint8_t out[RK_XAES_KEY_LEN];
    EVP_KDF *hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    (void)(hkdf != NULL && derive(hkdf, zero, XAES_INFO, out, sizeof out));
    EVP_KDF_free(hkdf);
}

static bool derive_all(const uint8_t root[RK_DATA_KEY_LEN], uint8_t xaes[RK_XAES_KEY_LEN],
                       uint8_t siv[RK_SIV_KEY_LEN])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, warm_up);
    EVP_KDF *hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    rk_secure_scope_begin();
    bool ok = hkdf != NULL && derive(hkdf, root, XAES_INFO, xaes, RK_XAES_KEY_LEN) &&
              derive(hkdf, root, SIV_INFO, siv, RK_SIV_KEY_LEN);
    rk_secure_scope_end();
    EVP_KDF_free(hkdf);
    return ok;
}

enum rk_status rk_data_key_new(uint32_t id, const uint8_t root[RK_DATA_KEY_LEN],
                               uint32_t activated_at_s, struct rk_data_key **out,
                               struct rk_error *err)
{
    *out = NULL;
    enum rk_status status;
    uint8_t xaes[RK_XAES_KEY_LEN];
    uint8_t siv[RK_SIV_KEY_LEN];
    if (!derive_all(root, xaes, siv)) {
        status = rk_error_set(err, RK_ENOMEM, "OpenSSL could not derive data key %u", id);
        goto done;
    }
    status = rk_data_key_new_raw(id, xaes, siv, activated_at_s, out, err);
done:
    OPENSSL_cleanse(xaes, sizeof xaes);
    OPENSSL_cleanse(siv, sizeof siv);
    return status;
}

enum rk_status rk_data_key_new_remote(uint32_t id, const char *name, uint32_t activated_at_s,
                                      struct rk_data_key **out, struct rk_error *err)
{
    static const uint8_t none[RK_SIV_KEY_LEN];
    size_t len = strlen(name);
    *out = NULL;
    if (len == 0 || len > RK_REMOTE_NAME_MAX) {
        return rk_error_set(err, RK_EINVAL, "data key %u: the provider's name for it is %s", id,
                            len == 0 ? "empty" : "too long");
    }
    enum rk_status status = rk_data_key_new_raw(id, none, none, activated_at_s, out, err);
    if (status == RK_OK) {
        memcpy((*out)->remote, name, len + 1);
    }
    return status;
}

struct rk_data_key *rk_data_key_ref(struct rk_data_key *key)
{
    unsigned before = atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    return key;
}

void rk_data_key_unref(struct rk_data_key *key)
{
    if (key != NULL && atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) == 1) {
        OPENSSL_secure_clear_free(key, sizeof *key);
    }
}

void rk_data_key_claim(const struct rk_data_key *key, uint32_t n)
{
    /* Neither the reference count nor this one is part of what const promises. */
    atomic_fetch_add_explicit(&((struct rk_data_key *)key)->claimed, n, memory_order_relaxed);
}

uint64_t rk_data_key_claimed(const struct rk_data_key *key)
{
    return atomic_load_explicit(&((struct rk_data_key *)key)->claimed, memory_order_relaxed);
}

uint32_t rk_data_key_id(const struct rk_data_key *key)
{
    return key->id;
}

uint32_t rk_data_key_activated_at_s(const struct rk_data_key *key)
{
    return key->activated_at_s;
}

const char *rk_data_key_remote(const struct rk_data_key *key)
{
    return key->remote[0] != '\0' ? key->remote : NULL;
}

const uint8_t *rk_data_key_xaes(const struct rk_data_key *key)
{
    return key->xaes;
}

const uint8_t *rk_data_key_siv(const struct rk_data_key *key)
{
    return key->siv;
}

const uint8_t *rk_data_key_xaes_k1(const struct rk_data_key *key)
{
    return key->xaes_k1;
}
