/*
 * The self-describing ciphertext that stands in place of a protected value: a BSON binary of
 * subtype 0x8E whose bytes are
 *
 *   magic 4 "RK\xE1\x1E" | version 1 | algorithm 1 | BSON type 1 | flags 1 |
 *   key id 4 | field id 4 | encrypted-at 4 (seconds since 1970 UTC) |        -- 20-byte header
 *   XAES-256-GCM: nonce 24 | ciphertext | tag 16
 *   AES-256-SIV:  SIV 16   | ciphertext
 *   flag 1, "sealed by the provider" (remote.h): version 4 | nonce 12 | ciphertext | tag 16
 *
 * Integers are little-endian but for the key id: mongod's indexes compare bytes, and a value that
 * is re-encrypted under a later key must move forward in them, not behind a cursor that is still to
 * come to it. The plaintext is the value's BSON bytes (without type and key), so every type
 * round-trips byte for byte. The whole header is authenticated. The field id (the first four bytes
 * of SHA-256 over the policy's logical field name) is in the header and not only in the associated
 * data, because a reader meets envelopes under other paths than the policy's ($project, views,
 * restores) and must still be able to open them. Deterministic envelopes carry the key's activation
 * time, or equal values would differ.
 */
#ifndef REKEY_CRYPTO_ENVELOPE_H
#define REKEY_CRYPTO_ENVELOPE_H

#include <rekey/crypto/aead.h>

#define RK_ENVELOPE_SUBTYPE 0x8Eu
#define RK_ENVELOPE_VERSION 1u
#define RK_ENVELOPE_HEADER_LEN 20u

enum rk_algorithm {
    RK_ALGORITHM_RANDOM = 1,        /* XAES-256-GCM */
    RK_ALGORITHM_DETERMINISTIC = 2, /* AES-256-SIV */
};

/* A view over one envelope; borrows the bytes it was parsed from. */
struct rk_envelope {
    enum rk_algorithm algorithm;
    bool remote; /* sealed by the provider; the algorithm is then RK_ALGORITHM_RANDOM */
    uint8_t bson_type;
    uint32_t key_id;
    uint32_t field_id;
    uint32_t encrypted_at_s;
    const uint8_t *data;
    size_t len;
};

/* True when data (the binary's payload) is a well-formed envelope of a known version. Says
 * nothing about its authenticity. */
bool rk_envelope_parse(const uint8_t *data, size_t len, struct rk_envelope *envelope);

/* The key that an envelope needs which may be damaged otherwise (data starts with the magic): false
 * when none can be told. *key_id is 0 for an unknown version of the format. */
bool rk_envelope_names_key(const uint8_t *data, size_t len, uint32_t *key_id);

/* Starts with subtype and magic, whatever follows: what claims to be an envelope but does not
 * parse is an error to its reader, never an ordinary value. */
bool rk_envelope_claims(uint8_t subtype, const uint8_t *data, size_t len);

/* First possible envelope (its subtype byte) in a run of BSON bytes, or NULL: a memmem for
 * subtype and magic, used to skip replies that hold none. False positives are possible. */
const uint8_t *rk_envelope_scan(const uint8_t *data, size_t len);

/* Size of the envelope under key of a plaintext of len bytes. */
size_t rk_envelope_size(const struct rk_data_key *key, enum rk_algorithm algorithm, size_t len);

/* Appends the envelope of a value to out. now_s is ignored for deterministic ones. RK_EINVAL for
 * null, undefined, min and max, and when value is not exactly one well-formed value of its type
 * (documents at most 200 deep): what could not be opened again is not sealed. Under a remote key
 * the envelope may be a placeholder of the right size (rk_remote_wanted of the aead's remote says
 * so); RK_ENOKEY without a remote, RK_ESTATE for a deterministic one: nobody seals those outside.
 */
RK_MUST_CHECK enum rk_status rk_envelope_seal(struct rk_aead *aead, const struct rk_data_key *key,
                                              enum rk_algorithm algorithm, uint32_t field_id,
                                              uint32_t now_s, uint8_t bson_type,
                                              const uint8_t *value, size_t len, struct rk_buf *out);

/*
 * Appends the plaintext value bytes to out. RK_ENOKEY when key is NULL or has another id,
 * RK_EAUTH when the envelope was altered or the plaintext is no well-formed value of the type
 * in its header (out is then as it was). Under a remote key the value may be a placeholder, as
 * above.
 */
RK_MUST_CHECK enum rk_status rk_envelope_open(struct rk_aead *aead, const struct rk_data_key *key,
                                              const struct rk_envelope *envelope,
                                              struct rk_buf *out);

/* The field id of a logical field name; 0 only when OpenSSL cannot hash. */
uint32_t rk_envelope_field_id(const char *name);

#endif
