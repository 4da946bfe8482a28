/*
 * A data key: 32 random bytes from which the key of each algorithm is derived with HKDF-SHA256
 * (RFC 5869; info strings "rekey xaes-256-gcm v1" and "rekey aes-256-siv v1"), so that one
 * wrapped secret serves both and neither algorithm ever sees the other's key.
 *
 * Immutable (but for a count) and reference-counted; safe to share between threads. Secret bytes
 * live in OPENSSL_secure_malloc memory and are cleansed by the last unref.
 */
#ifndef REKEY_CRYPTO_DATA_KEY_H
#define REKEY_CRYPTO_DATA_KEY_H

#include <rekey/base/status.h>
#include <stddef.h>
#include <stdint.h>

#define RK_DATA_KEY_LEN 32u
#define RK_XAES_KEY_LEN 32u
#define RK_SIV_KEY_LEN 64u

struct rk_data_key;

/* id must not be 0. activated_at_s: seconds since 1970 UTC; the time that deterministic
 * envelopes under this key carry. root is copied; the caller cleanses its own copy. */
RK_MUST_CHECK enum rk_status rk_data_key_new(uint32_t id, const uint8_t root[RK_DATA_KEY_LEN],
                                             uint32_t activated_at_s, struct rk_data_key **out,
                                             struct rk_error *err);
/* A key that stays with its provider, which seals and opens values under it (remote.h). name is the
 * provider's, "transit/rekey:v3", at most RK_REMOTE_NAME_MAX bytes. It has no bytes here. */
#define RK_REMOTE_NAME_MAX 127u
RK_MUST_CHECK enum rk_status rk_data_key_new_remote(uint32_t id, const char *name,
                                                    uint32_t activated_at_s,
                                                    struct rk_data_key **out, struct rk_error *err);
struct rk_data_key *rk_data_key_ref(struct rk_data_key *key);
void rk_data_key_unref(struct rk_data_key *key); /* NULL is fine */

/* Takes leave to seal n values, which counts them: any thread. */
void rk_data_key_claim(const struct rk_data_key *key, uint32_t n);
/* Never less than what was sealed under this key by this process. */
uint64_t rk_data_key_claimed(const struct rk_data_key *key);

uint32_t rk_data_key_id(const struct rk_data_key *key);
uint32_t rk_data_key_activated_at_s(const struct rk_data_key *key);
/* The provider's name of it; NULL: its bytes are here. */
const char *rk_data_key_remote(const struct rk_data_key *key);
const uint8_t *rk_data_key_xaes(const struct rk_data_key *key); /* RK_XAES_KEY_LEN bytes */
const uint8_t *rk_data_key_siv(const struct rk_data_key *key);  /* RK_SIV_KEY_LEN bytes */
/* XAES's K1 (the doubled encryption of the zero block), 16 bytes, computed once per key. */
const uint8_t *rk_data_key_xaes_k1(const struct rk_data_key *key);

#endif
