/*
 * The two authenticated ciphers. The key schedules of the last few data keys stay in slots, so
 * that a sweep, which opens under an old key and seals under the current one, never re-keys;
 * what remains per value is one AES-GCM key for XAES (its own for each nonce) and none for SIV or
 * for the legacy CBC key that was used last. One thread.
 */
#include "aead_internal.h"
#include "block_internal.h"
#include "siv_internal.h"

#include <assert.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <rekey/crypto/secure_scope.h>
#include <string.h>

#define SLOTS 4u
#define RANDOM_BATCH 4096u
#define RANDOM_MAX 64u
#define CLAIM 64u /* values at a time, so that threads do not meet at the key for each */

struct slot {
    struct rk_data_key *key; /* referenced, so that no other key can come to have this address */
    EVP_CIPHER_CTX *xaes;    /* AES-ECB under the XAES key */
    struct rk_siv siv;
    unsigned claimed; /* values that may still be sealed */
};

struct rk_aead {
    EVP_CIPHER *ecb_cipher;
    EVP_CIPHER *ctr_cipher;
    EVP_CIPHER *gcm_cipher;
    EVP_CIPHER *cbc_cipher;
    EVP_CIPHER_CTX *gcm;
    EVP_CIPHER_CTX *cbc;
    uint8_t *cbc_key; /* what the schedule in cbc is of, in secure memory; meaningless unless: */
    bool cbc_keyed;
    struct slot slots[SLOTS];
    unsigned next_slot; /* the one to give up next */
    struct rk_remote *remote;
    size_t random_used;
    uint8_t random[RANDOM_BATCH];
};

static bool aead_init(struct rk_aead *aead)
{
    aead->random_used = RANDOM_BATCH;
    aead->ecb_cipher = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
    aead->ctr_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
    aead->gcm_cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    aead->cbc_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    rk_secure_scope_begin(); /* what was fetched is no secret, and stays for ever */
    aead->gcm = EVP_CIPHER_CTX_new();
    aead->cbc = EVP_CIPHER_CTX_new();
    aead->cbc_key = OPENSSL_zalloc(RK_AES256_KEY_LEN);
    bool ok = aead->ecb_cipher != NULL && aead->ctr_cipher != NULL && aead->gcm != NULL &&
              aead->cbc != NULL && aead->cbc_key != NULL && aead->gcm_cipher != NULL &&
              aead->cbc_cipher != NULL &&
              EVP_EncryptInit_ex(aead->gcm, aead->gcm_cipher, NULL, NULL, NULL) == 1 &&
              EVP_DecryptInit_ex(aead->cbc, aead->cbc_cipher, NULL, NULL, NULL) == 1;
    for (size_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &aead->slots[i];
        slot->xaes = EVP_CIPHER_CTX_new();
        ok = rk_siv_init(&slot->siv) == RK_OK && slot->xaes != NULL && ok;
    }
    rk_secure_scope_end();
    return ok;
}

enum rk_status rk_aead_new(struct rk_aead **out, struct rk_error *err)
{
    *out = NULL;
    struct rk_aead *aead = OPENSSL_zalloc(sizeof *aead);
    if (aead == NULL || !aead_init(aead)) {
        rk_aead_free(aead);
        return rk_error_set(err, RK_ENOMEM,
                            "OpenSSL has no memory for or does not offer AES-256 in GCM, CBC, CTR "
                            "and ECB mode; is a restricted provider configured?");
    }
    *out = aead;
    return RK_OK;
}

void rk_aead_free(struct rk_aead *aead)
{
    if (aead == NULL) {
        return;
    }
    for (size_t i = 0; i < SLOTS; i++) {
        rk_data_key_unref(aead->slots[i].key);
        EVP_CIPHER_CTX_free(aead->slots[i].xaes);
        rk_siv_deinit(&aead->slots[i].siv);
    }
    EVP_CIPHER_CTX_free(aead->gcm);
    EVP_CIPHER_CTX_free(aead->cbc);
    OPENSSL_clear_free(aead->cbc_key, RK_AES256_KEY_LEN);
    EVP_CIPHER_free(aead->ecb_cipher);
    EVP_CIPHER_free(aead->ctr_cipher);
    EVP_CIPHER_free(aead->gcm_cipher);
    EVP_CIPHER_free(aead->cbc_cipher);
    OPENSSL_clear_free(aead, sizeof *aead);
}

/* The schedules of the values that went before, legacy keys' among them: nobody says whose. */
static void forget_last_used(struct rk_aead *aead)
{
    static const uint8_t nothing[RK_AES256_KEY_LEN];
    OPENSSL_cleanse(aead->cbc_key, RK_AES256_KEY_LEN);
    aead->cbc_keyed = false;
    (void)EVP_DecryptInit_ex(aead->cbc, NULL, NULL, nothing, NULL); /* an AES key cannot fail */
    (void)EVP_EncryptInit_ex(aead->gcm, NULL, NULL, nothing, NULL);
}

void rk_aead_forget(struct rk_aead *aead, const struct rk_keyset *keys)
{
    for (size_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &aead->slots[i];
        if (slot->key != NULL &&
            (keys == NULL || rk_keyset_find(keys, rk_data_key_id(slot->key)) != slot->key)) {
            rk_data_key_unref(slot->key);
            slot->key = NULL;
            slot->claimed = 0;
            (void)EVP_CIPHER_CTX_reset(slot->xaes); /* cleanses; it cannot fail */
            rk_siv_forget(&slot->siv);
        }
    }
    forget_last_used(aead);
}

void rk_aead_set_remote(struct rk_aead *aead, struct rk_remote *remote)
{
    aead->remote = remote;
}

struct rk_remote *rk_aead_remote(const struct rk_aead *aead)
{
    return aead != NULL ? aead->remote : NULL;
}

enum rk_status rk_aead_random(struct rk_aead *aead, uint8_t *out, size_t len)
{
    assert(len <= RANDOM_MAX);
    if (len > RANDOM_BATCH - aead->random_used) {
        if (RAND_bytes(aead->random, RANDOM_BATCH) != 1) {
            aead->random_used = RANDOM_BATCH;
            return RK_EIO;
        }
        aead->random_used = 0;
    }
    uint8_t *from = aead->random + aead->random_used;
    memcpy(out, from, len);
    OPENSSL_cleanse(from, len);
    aead->random_used += len;
    return RK_OK;
}

/* The slot with key's schedules. */
static enum rk_status slot_get(struct rk_aead *aead, const struct rk_data_key *key,
                               struct slot **out)
{
    for (size_t i = 0; i < SLOTS; i++) {
        if (aead->slots[i].key == key) {
            *out = &aead->slots[i];
            return RK_OK;
        }
    }
    struct slot *slot = &aead->slots[aead->next_slot];
    aead->next_slot = (aead->next_slot + 1) % SLOTS;
    rk_data_key_unref(slot->key);
    slot->key = NULL;
    slot->claimed = 0;
    rk_secure_scope_begin();
    bool ok =
        EVP_EncryptInit_ex(slot->xaes, aead->ecb_cipher, NULL, rk_data_key_xaes(key), NULL) == 1 &&
        EVP_CIPHER_CTX_set_padding(slot->xaes, 0) == 1 &&
        rk_siv_set_key(&slot->siv, aead->ecb_cipher, aead->ctr_cipher, rk_data_key_siv(key)) ==
            RK_OK;
    rk_secure_scope_end();
    if (!ok) {
        return RK_ENOMEM;
    }
    /* The reference count is no part of what const promises. */
    slot->key = rk_data_key_ref((struct rk_data_key *)key);
    *out = slot;
    return RK_OK;
}

static void count_value(struct slot *slot)
{
    if (slot->claimed == 0) {
        rk_data_key_claim(slot->key, CLAIM);
        slot->claimed = CLAIM;
    }
    slot->claimed--;
}

/* EVP counts in int; leave it room for a block and a tag. */
static bool too_long(size_t aad_len, size_t len)
{
    return aad_len > INT_MAX / 2 || len > INT_MAX / 2;
}

static bool gcm_start(struct rk_aead *aead, int encrypt, const uint8_t key[RK_AES256_KEY_LEN],
                      const uint8_t nonce[RK_GCM_NONCE_LEN], const uint8_t *aad, size_t aad_len)
{
    int n = 0;
    return EVP_CipherInit_ex(aead->gcm, NULL, NULL, key, nonce, encrypt) == 1 &&
           (aad_len == 0 || EVP_CipherUpdate(aead->gcm, NULL, &n, aad, (int)aad_len) == 1);
}

enum rk_status rk_aead_gcm_seal(struct rk_aead *aead, const uint8_t key[RK_AES256_KEY_LEN],
                                const uint8_t nonce[RK_GCM_NONCE_LEN], const uint8_t *aad,
                                size_t aad_len, const uint8_t *in, size_t len, uint8_t *out)
{
    int n = 0;
    if (too_long(aad_len, len)) {
        return RK_ELIMIT;
    }
    if (!gcm_start(aead, 1, key, nonce, aad, aad_len) ||
        (len > 0 && EVP_EncryptUpdate(aead->gcm, out, &n, in, (int)len) != 1) ||
        EVP_EncryptFinal_ex(aead->gcm, out + len, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(aead->gcm, EVP_CTRL_AEAD_GET_TAG, RK_GCM_TAG_LEN, out + len) != 1) {
        return RK_ENOMEM;
    }
    return RK_OK;
}

enum rk_status rk_aead_gcm_open(struct rk_aead *aead, const uint8_t key[RK_AES256_KEY_LEN],
                                const uint8_t nonce[RK_GCM_NONCE_LEN], const uint8_t *aad,
                                size_t aad_len, const uint8_t *in, size_t len, uint8_t *out)
{
    if (too_long(aad_len, len)) {
        return RK_ELIMIT;
    }
    int n = 0;
    uint8_t unused[RK_BLOCK_LEN]; /* GCM's final writes nothing, but wants somewhere to */
    enum rk_status status = RK_OK;
    if (!gcm_start(aead, 0, key, nonce, aad, aad_len) ||
        (len > 0 && EVP_DecryptUpdate(aead->gcm, out, &n, in, (int)len) != 1) ||
        EVP_CIPHER_CTX_ctrl(aead->gcm, EVP_CTRL_AEAD_SET_TAG, RK_GCM_TAG_LEN, (void *)(in + len)) !=
            1) {
        status = RK_ENOMEM;
    } else if (EVP_DecryptFinal_ex(aead->gcm, unused, &n) != 1) {
        status = RK_EAUTH;
    }
    if (status != RK_OK && len > 0) {
        OPENSSL_cleanse(out, len);
    }
    return status;
}

/* A whole legacy collection has one key: its schedule is worked out when the key or the direction
 * changes. */
static bool cbc_start(struct rk_aead *aead, int encrypt, const uint8_t key[RK_AES256_KEY_LEN],
                      const uint8_t iv[RK_CBC_IV_LEN])
{
    bool has_schedule = aead->cbc_keyed && EVP_CIPHER_CTX_is_encrypting(aead->cbc) == encrypt &&
                        CRYPTO_memcmp(aead->cbc_key, key, RK_AES256_KEY_LEN) == 0;
    aead->cbc_keyed = false;
    if (EVP_CipherInit_ex(aead->cbc, NULL, NULL, has_schedule ? NULL : key, iv, encrypt) != 1) {
        return false;
    }
    if (!has_schedule) {
        memcpy(aead->cbc_key, key, RK_AES256_KEY_LEN);
    }
    aead->cbc_keyed = true;
    return true;
}

enum rk_status rk_aead_cbc_seal(struct rk_aead *aead, const uint8_t key[RK_AES256_KEY_LEN],
                                const uint8_t iv[RK_CBC_IV_LEN], const uint8_t *in, size_t len,
                                uint8_t *out)
{
    int n = 0;
    int last = 0;
    if (too_long(0, len)) {
        return RK_ELIMIT;
    }
    return cbc_start(aead, 1, key, iv) &&
                   EVP_EncryptUpdate(aead->cbc, out, &n, in, (int)len) == 1 &&
                   EVP_EncryptFinal_ex(aead->cbc, out + n, &last) == 1
               ? RK_OK
               : RK_ENOMEM;
}

enum rk_status rk_aead_cbc_open(struct rk_aead *aead, const uint8_t key[RK_AES256_KEY_LEN],
                                const uint8_t iv[RK_CBC_IV_LEN], const uint8_t *in, size_t len,
                                uint8_t *out, size_t *out_len)
{
    if (too_long(0, len)) {
        return RK_ELIMIT;
    }
    int n = 0;
    int last = 0;
    enum rk_status status = RK_OK;
    *out_len = 0;
    if (!cbc_start(aead, 0, key, iv) || EVP_DecryptUpdate(aead->cbc, out, &n, in, (int)len) != 1) {
        status = RK_ENOMEM;
    } else if (EVP_DecryptFinal_ex(aead->cbc, out + n, &last) != 1) {
        status = RK_EAUTH;
    } else {
        *out_len = (size_t)(n + last);
    }
    if (status != RK_OK) {
        OPENSSL_cleanse(out, len);
    }
    return status;
}

/* The AES-256-GCM key of one nonce: two blocks of CMAC-based key derivation (C2SP). */
static enum rk_status xaes_derive(struct rk_aead *aead, const struct rk_data_key *key,
                                  const uint8_t nonce[RK_XAES_NONCE_LEN], bool seals,
                                  uint8_t derived[RK_AES256_KEY_LEN])
{
    struct slot *slot = NULL;
    enum rk_status status = slot_get(aead, key, &slot);
    if (status != RK_OK) {
        return status;
    }
    if (seals) {
        count_value(slot);
    }
    for (uint8_t i = 0; i < 2; i++) {
        uint8_t *block = derived + i * RK_BLOCK_LEN;
        const uint8_t label[4] = {0, (uint8_t)(i + 1), 'X', 0};
        memcpy(block, label, sizeof label);
        memcpy(block + sizeof label, nonce, RK_XAES_NONCE_LEN - RK_GCM_NONCE_LEN);
        rk_block_xor(block, rk_data_key_xaes_k1(key));
    }
    int n = 0;
    return EVP_EncryptUpdate(slot->xaes, derived, &n, derived, RK_AES256_KEY_LEN) == 1 ? RK_OK
                                                                                       : RK_ENOMEM;
}

enum rk_status rk_aead_xaes_seal(struct rk_aead *aead, const struct rk_data_key *key,
                                 const uint8_t nonce[RK_XAES_NONCE_LEN], const uint8_t *aad,
                                 size_t aad_len, const uint8_t *in, size_t len, uint8_t *out)
{
    if (too_long(aad_len, len)) {
        return RK_ELIMIT;
    }
    uint8_t derived[RK_AES256_KEY_LEN];
    enum rk_status status = xaes_derive(aead, key, nonce, true, derived);
    if (status == RK_OK) {
        status = rk_aead_gcm_seal(aead, derived, nonce + RK_XAES_NONCE_LEN - RK_GCM_NONCE_LEN, aad,
                                  aad_len, in, len, out);
    }
    OPENSSL_cleanse(derived, sizeof derived);
    return status;
}

enum rk_status rk_aead_xaes_open(struct rk_aead *aead, const struct rk_data_key *key,
                                 const uint8_t nonce[RK_XAES_NONCE_LEN], const uint8_t *aad,
                                 size_t aad_len, const uint8_t *in, size_t len, uint8_t *out)
{
    uint8_t derived[RK_AES256_KEY_LEN];
    enum rk_status status = xaes_derive(aead, key, nonce, false, derived);
    if (status == RK_OK) {
        status = rk_aead_gcm_open(aead, derived, nonce + RK_XAES_NONCE_LEN - RK_GCM_NONCE_LEN, aad,
                                  aad_len, in, len, out);
    }
    OPENSSL_cleanse(derived, sizeof derived);
    return status;
}

enum rk_status rk_aead_siv_seal(struct rk_aead *aead, const struct rk_data_key *key,
                                const uint8_t *aad, size_t aad_len, const uint8_t *in, size_t len,
                                uint8_t tag[RK_SIV_TAG_LEN], uint8_t *out)
{
    struct slot *slot = NULL;
    enum rk_status status = too_long(aad_len, len) ? RK_ELIMIT : slot_get(aead, key, &slot);
    if (status != RK_OK) {
        return status;
    }
    count_value(slot);
    return rk_siv_seal(&slot->siv, aad, aad_len, in, len, tag, out);
}

enum rk_status rk_aead_siv_open(struct rk_aead *aead, const struct rk_data_key *key,
                                const uint8_t *aad, size_t aad_len,
                                const uint8_t tag[RK_SIV_TAG_LEN], const uint8_t *in, size_t len,
                                uint8_t *out)
{
    struct slot *slot = NULL;
    enum rk_status status = too_long(aad_len, len) ? RK_ELIMIT : slot_get(aead, key, &slot);
    return status != RK_OK ? status : rk_siv_open(&slot->siv, aad, aad_len, tag, in, len, out);
}
