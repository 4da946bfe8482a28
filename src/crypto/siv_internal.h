/*
 * AES-256-SIV (RFC 5297) over OpenSSL's AES-ECB and AES-CTR, with the key schedules of one key.
 *
 * OpenSSL 3.0 has the mode itself, but its context must be re-keyed for every value (it keeps a
 * stale tag otherwise), which takes six times as long as the cipher itself needs for a small
 * value, and it fails silently on empty plaintext. Here the key schedules stay, and every length
 * works. Tests compare it with OpenSSL's mode value by value.
 */
#ifndef REKEY_CRYPTO_SIV_INTERNAL_H
#define REKEY_CRYPTO_SIV_INTERNAL_H

#include "block_internal.h"

#include <openssl/evp.h>
#include <rekey/base/status.h>
#include <rekey/crypto/aead.h>

struct rk_siv {
    EVP_CIPHER_CTX *ecb;           /* K1, for S2V */
    EVP_CIPHER_CTX *ctr;           /* K2 */
    uint8_t cmac_k1[RK_BLOCK_LEN]; /* RFC 4493's subkeys */
    uint8_t cmac_k2[RK_BLOCK_LEN];
    uint8_t cmac_zero[RK_BLOCK_LEN]; /* where every S2V starts */
};

RK_MUST_CHECK enum rk_status rk_siv_init(struct rk_siv *siv);
void rk_siv_deinit(struct rk_siv *siv);
/* As if no key had been set. */
void rk_siv_forget(struct rk_siv *siv);

RK_MUST_CHECK enum rk_status rk_siv_set_key(struct rk_siv *siv, const EVP_CIPHER *ecb,
                                            const EVP_CIPHER *ctr,
                                            const uint8_t key[RK_SIV_KEY_LEN]);

/* As rk_aead_siv_seal and rk_aead_siv_open. */
RK_MUST_CHECK enum rk_status rk_siv_seal(struct rk_siv *siv, const uint8_t *aad, size_t aad_len,
                                         const uint8_t *in, size_t len, uint8_t tag[RK_SIV_TAG_LEN],
                                         uint8_t *out);
RK_MUST_CHECK enum rk_status rk_siv_open(struct rk_siv *siv, const uint8_t *aad, size_t aad_len,
                                         const uint8_t tag[RK_SIV_TAG_LEN], const uint8_t *in,
                                         size_t len, uint8_t *out);

#endif
