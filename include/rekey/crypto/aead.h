/*
 * The two authenticated ciphers of Rekey, over OpenSSL 3.0:
 *   XAES-256-GCM  (C2SP, c2sp.org/XAES-256-GCM): 192-bit random nonce, 2^80 values per key
 *   AES-256-SIV   (RFC 5297): deterministic, two S2V inputs: the associated data, the plaintext
 *
 * struct rk_aead holds the EVP contexts, the key schedules of the last few data keys (with a
 * reference to each, until others take their place or the aead is freed) and a batch of random
 * bytes; it belongs to one thread, and must not be used on both sides of a fork: parent and child
 * would draw the same nonces.
 *
 * All lengths may be 0 (the pointer may then be NULL, but for out of a seal, which takes the
 * tag). RK_ELIMIT above 1 GiB; RK_ENOMEM when OpenSSL fails for a reason of its own.
 */
#ifndef REKEY_CRYPTO_AEAD_H
#define REKEY_CRYPTO_AEAD_H

#include <rekey/base/buf.h>
#include <rekey/crypto/data_key.h>
#include <rekey/crypto/keyset.h>
#include <rekey/crypto/remote.h>

#define RK_XAES_NONCE_LEN 24u
#define RK_XAES_TAG_LEN 16u
#define RK_SIV_TAG_LEN 16u

struct rk_aead;

RK_MUST_CHECK enum rk_status rk_aead_new(struct rk_aead **out, struct rk_error *err);
void rk_aead_free(struct rk_aead *aead);
/* Releases and cleanses what it holds of keys that are not among these (NULL: of all). */
void rk_aead_forget(struct rk_aead *aead, const struct rk_keyset *keys);

/* Where values whose key lies elsewhere are asked for (remote.h), until it is set anew; borrowed.
 * NULL, as at first: nobody can be asked, and they fail with RK_ENOKEY. */
void rk_aead_set_remote(struct rk_aead *aead, struct rk_remote *remote);
struct rk_remote *rk_aead_remote(const struct rk_aead *aead); /* NULL is fine */

/* len random bytes (len <= 64) from the batch; used bytes are cleansed. RK_EIO when OpenSSL's
 * generator cannot be seeded. */
RK_MUST_CHECK enum rk_status rk_aead_random(struct rk_aead *aead, uint8_t *out, size_t len);

/* out receives len ciphertext bytes, then the 16-byte tag; out may not overlap in. */
RK_MUST_CHECK enum rk_status rk_aead_xaes_seal(struct rk_aead *aead, const struct rk_data_key *key,
                                               const uint8_t nonce[RK_XAES_NONCE_LEN],
                                               const uint8_t *aad, size_t aad_len,
                                               const uint8_t *in, size_t len, uint8_t *out);
/* in is len ciphertext bytes, then the tag. RK_EAUTH (and out cleansed) when it does not verify. */
RK_MUST_CHECK enum rk_status rk_aead_xaes_open(struct rk_aead *aead, const struct rk_data_key *key,
                                               const uint8_t nonce[RK_XAES_NONCE_LEN],
                                               const uint8_t *aad, size_t aad_len,
                                               const uint8_t *in, size_t len, uint8_t *out);

/* tag receives the synthetic IV, out the len ciphertext bytes; out may not overlap in. */
RK_MUST_CHECK enum rk_status rk_aead_siv_seal(struct rk_aead *aead, const struct rk_data_key *key,
                                              const uint8_t *aad, size_t aad_len, const uint8_t *in,
                                              size_t len, uint8_t tag[RK_SIV_TAG_LEN],
                                              uint8_t *out);
RK_MUST_CHECK enum rk_status rk_aead_siv_open(struct rk_aead *aead, const struct rk_data_key *key,
                                              const uint8_t *aad, size_t aad_len,
                                              const uint8_t tag[RK_SIV_TAG_LEN], const uint8_t *in,
                                              size_t len, uint8_t *out);

#endif
