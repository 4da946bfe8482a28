/*
 * Legacy ciphertext again, to find it by: only of formats with a fixed iv, and never to be stored.
 */
#include "aead_internal.h"

#include <openssl/crypto.h>
#include <rekey/bson/walk.h>
#include <rekey/crypto/legacy.h>
#include <string.h>

#define HEAD_LEN 5u /* of a BSON binary: length and subtype */
#define FORM_URL_SAFE 1u
#define FORM_UNPADDED 2u
#define FORMS_MAX 4u

uint8_t rk_legacy_stored_type(const struct rk_legacy_format *format)
{
    return format->encoding == RK_LEGACY_BINARY ? RK_BSON_BINARY : RK_BSON_STRING;
}

/* The bytes that were encrypted. False: a value that the format does not hold. */
static bool plaintext_of(const struct rk_legacy_format *format, uint8_t bson_type,
                         const uint8_t *value, size_t value_len, const uint8_t **data, size_t *len)
{
    if (!format->iv_fixed || bson_type != format->bson_type || value_len < HEAD_LEN) {
        return false;
    }
    if (bson_type == RK_BSON_STRING) {
        *data = value + 4;
        *len = value_len - HEAD_LEN; /* 4 bytes of length, the closing NUL */
        return true;
    }
    *data = value + HEAD_LEN;
    *len = value_len - HEAD_LEN;
    return bson_type == RK_BSON_BINARY && value[4] == 0;
}

size_t rk_legacy_forms(const struct rk_legacy_format *format, uint8_t bson_type,
                       const uint8_t *value, size_t value_len)
{
    const uint8_t *data;
    size_t len;
    if (!plaintext_of(format, bson_type, value, value_len, &data, &len)) {
        return 0;
    }
    return format->encoding == RK_LEGACY_BINARY ? 1 : FORMS_MAX;
}

/* RFC 4648, sections 4 and 5. out has room for 4 characters of every 3 bytes begun. */
static size_t base64(const uint8_t *in, size_t len, size_t form, uint8_t *out)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const bool url_safe = (form & FORM_URL_SAFE) != 0;
    size_t n = 0;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t bits = (uint32_t)in[i] << 16;
        size_t have = len - i < 3 ? len - i : 3;
        bits |= have > 1 ? (uint32_t)in[i + 1] << 8 : 0;
        bits |= have > 2 ? in[i + 2] : 0u;
        for (size_t k = 0; k < 4; k++) {
            if (k > have) {
                if ((form & FORM_UNPADDED) == 0) {
                    out[n++] = '=';
                }
                continue;
            }
            char c = alphabet[bits >> (18 - 6 * k) & 63];
            if (url_safe && (c == '+' || c == '/')) {
                c = c == '+' ? '-' : '_';
            }
            out[n++] = (uint8_t)c;
        }
    }
    return n;
}

static enum rk_status encrypt(struct rk_aead *aead, const struct rk_legacy_format *format,
                              const uint8_t *key, const uint8_t *data, size_t len,
                              struct rk_buf *raw)
{
    bool cbc = format->cipher == RK_LEGACY_AES_256_CBC;
    size_t iv_len = cbc ? RK_CBC_IV_LEN : RK_GCM_NONCE_LEN;
    size_t sealed_len = cbc ? len / 16 * 16 + 16 : len + RK_GCM_TAG_LEN;
    enum rk_status status = rk_buf_append(raw, format->prefix, format->prefix_len);
    if (status == RK_OK && !format->iv_implied) {
        status = rk_buf_append(raw, format->iv, iv_len);
    }
    if (status == RK_OK) {
        status = rk_buf_reserve(raw, sealed_len);
    }
    if (status != RK_OK) {
        return status;
    }
    uint8_t *out = raw->data + raw->len;
    status = cbc ? rk_aead_cbc_seal(aead, key, format->iv, data, len, out)
                 : rk_aead_gcm_seal(aead, key, format->iv, NULL, 0, data, len, out);
    raw->len += status == RK_OK ? sealed_len : 0;
    return status;
}

enum rk_status rk_legacy_seal(struct rk_aead *aead, const struct rk_keyset *keys,
                              const struct rk_legacy_format *format, size_t form, uint8_t bson_type,
                              const uint8_t *value, size_t value_len, struct rk_buf *out)
{
    const uint8_t *data = NULL;
    size_t len = 0;
    struct rk_buf raw;
    if (!plaintext_of(format, bson_type, value, value_len, &data, &len)) {
        return RK_EINVAL;
    }
    const uint8_t *key = rk_keyset_legacy(keys, format->key);
    if (key == NULL) {
        return RK_ENOKEY;
    }
    rk_buf_init(&raw, len + 64);
    enum rk_status status = encrypt(aead, format, key, data, len, &raw);
    if (status == RK_OK) {
        status = rk_buf_reserve(out, HEAD_LEN + (raw.len + 2) / 3 * 4);
    }
    if (status != RK_OK) {
        goto done;
    }
    uint8_t *head = out->data + out->len;
    if (format->encoding == RK_LEGACY_BINARY) {
        rk_store_u32(head, (uint32_t)raw.len);
        head[4] = 0;
        memcpy(head + HEAD_LEN, raw.data, raw.len);
        out->len += HEAD_LEN + raw.len;
    } else {
        size_t text_len = base64(raw.data, raw.len, form, head + 4);
        rk_store_u32(head, (uint32_t)text_len + 1);
        head[4 + text_len] = 0;
        out->len += HEAD_LEN + text_len;
    }

done:
    rk_buf_deinit(&raw);
    return status;
}
