/* The ciphers of rk_aead that only readers of legacy data use directly. */
#ifndef REKEY_CRYPTO_AEAD_INTERNAL_H
#define REKEY_CRYPTO_AEAD_INTERNAL_H

#include <rekey/crypto/aead.h>

#define RK_AES256_KEY_LEN 32u
#define RK_GCM_NONCE_LEN 12u
#define RK_GCM_TAG_LEN 16u
#define RK_CBC_IV_LEN 16u

/* out receives len ciphertext bytes, then the tag; it may not overlap in. */
RK_MUST_CHECK enum rk_status rk_aead_gcm_seal(struct rk_aead *aead,
                                              const uint8_t key[RK_AES256_KEY_LEN],
                                              const uint8_t nonce[RK_GCM_NONCE_LEN],
                                              const uint8_t *aad, size_t aad_len, const uint8_t *in,
                                              size_t len, uint8_t *out);
/* in is len ciphertext bytes, then the tag. RK_EAUTH (and out cleansed) when it does not verify. */
RK_MUST_CHECK enum rk_status rk_aead_gcm_open(struct rk_aead *aead,
                                              const uint8_t key[RK_AES256_KEY_LEN],
                                              const uint8_t nonce[RK_GCM_NONCE_LEN],
                                              const uint8_t *aad, size_t aad_len, const uint8_t *in,
                                              size_t len, uint8_t *out);

/* PKCS#7 padding: out receives len / 16 * 16 + 16 bytes; it may not overlap in. */
RK_MUST_CHECK enum rk_status rk_aead_cbc_seal(struct rk_aead *aead,
                                              const uint8_t key[RK_AES256_KEY_LEN],
                                              const uint8_t iv[RK_CBC_IV_LEN], const uint8_t *in,
                                              size_t len, uint8_t *out);
/* PKCS#7 padding; len a multiple of 16 and not 0. out has room for len + 16 bytes, of which
 * *out_len are plaintext. RK_EAUTH (and out cleansed) when the padding does not hold. */
RK_MUST_CHECK enum rk_status rk_aead_cbc_open(struct rk_aead *aead,
                                              const uint8_t key[RK_AES256_KEY_LEN],
                                              const uint8_t iv[RK_CBC_IV_LEN], const uint8_t *in,
                                              size_t len, uint8_t *out, size_t *out_len);

#endif
