/*
 * Readers for values that applications encrypted before Rekey. Only ever read: every write is a
 * current envelope.
 *
 *   [version bytes] | iv 16    | AES-256-CBC ciphertext, PKCS#7 padding
 *   [version bytes] | nonce 12 | AES-256-GCM ciphertext | tag 16
 *   "vault:v<version>:<base64>" of Vault's transit engine, which opens it (remote.h)
 *
 * stored as BSON binary (any subtype but the envelope's and CSFLE's) or as base64 text in a BSON
 * string (RFC 4648, the standard or the URL-safe alphabet, padding optional, nothing else).
 *
 * CBC authenticates nothing: an altered or wrongly keyed ciphertext is found by its padding and
 * UTF-8 only, and a binary plaintext under the wrong key passes once in 256 times.
 */
#ifndef REKEY_CRYPTO_LEGACY_H
#define REKEY_CRYPTO_LEGACY_H

#include <rekey/base/buf.h>
#include <rekey/crypto/aead.h>
#include <rekey/crypto/keyset.h>

#define RK_LEGACY_PREFIX_MAX 16u
#define RK_LEGACY_IV_MAX 16u

enum rk_legacy_cipher {
    RK_LEGACY_AES_256_CBC = 1,
    RK_LEGACY_AES_256_GCM = 2,
    RK_LEGACY_VAULT_TRANSIT = 3, /* encoding base64; key is "<mount>/<key>" */
};

enum rk_legacy_encoding {
    RK_LEGACY_BINARY = 1,
    RK_LEGACY_BASE64 = 2,
};

struct rk_legacy_format {
    enum rk_legacy_cipher cipher;
    enum rk_legacy_encoding encoding;
    uint8_t prefix[RK_LEGACY_PREFIX_MAX]; /* the version bytes, must match exactly */
    size_t prefix_len;
    bool iv_fixed;   /* every value was encrypted with iv: equal values have equal ciphertexts */
    bool iv_implied; /* it is then not stored in front of the ciphertext */
    uint8_t iv[RK_LEGACY_IV_MAX]; /* 16 bytes (CBC) or 12 (GCM) */
    char *key;         /* name of the legacy key in the keyset; owned by who owns the format */
    uint8_t bson_type; /* of the plaintext: RK_BSON_STRING (UTF-8 bytes) or RK_BSON_BINARY
                          (subtype 0); see rk_legacy_open */
};

/* Could this value be in this format? Checks BSON type, alphabet, length and version bytes; no key
 * needed. */
bool rk_legacy_matches(const struct rk_legacy_format *format, uint8_t bson_type,
                       const uint8_t *value, size_t value_len);

/*
 * Decrypts the BSON value and appends the plaintext to out as BSON value bytes of
 * format->bson_type. RK_EINVAL when it does not match the format (or the format is none),
 * RK_ENOKEY when the keyset lacks the key (or nobody can be asked), RK_EAUTH when tag, padding or
 * (for strings) UTF-8 do not hold; out is then as it was.
 */
RK_MUST_CHECK enum rk_status rk_legacy_open(struct rk_aead *aead, const struct rk_keyset *keys,
                                            const struct rk_legacy_format *format,
                                            uint8_t bson_type, const uint8_t *value,
                                            size_t value_len, struct rk_buf *out);

/*
 * A format with a fixed iv can be searched: the same plaintext is the same ciphertext again, in one
 * of a few spellings (base64 with either alphabet, with or without padding; a reader of such a
 * format takes BinData of subtype 0 only). rk_legacy_forms is their number for this value: 0 when
 * the iv is not fixed, or a value of this type was never written in the format.
 */
size_t rk_legacy_forms(const struct rk_legacy_format *format, uint8_t bson_type,
                       const uint8_t *value, size_t value_len);
/* The BSON type of what is stored. */
uint8_t rk_legacy_stored_type(const struct rk_legacy_format *format);
/* Appends spelling form < rk_legacy_forms as BSON value bytes of that type. RK_ENOKEY when the
 * keyset lacks the key; out is then as it was. */
RK_MUST_CHECK enum rk_status rk_legacy_seal(struct rk_aead *aead, const struct rk_keyset *keys,
                                            const struct rk_legacy_format *format, size_t form,
                                            uint8_t bson_type, const uint8_t *value,
                                            size_t value_len, struct rk_buf *out);

#endif
