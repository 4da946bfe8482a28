/*
 * Readers for values encrypted before Rekey. Everything here is foreign: lengths are checked
 * against the bytes at hand before they are used.
 */
#include "aead_internal.h"
#include "legacy_internal.h"

#include <openssl/crypto.h>
#include <rekey/bson/walk.h>
#include <rekey/crypto/envelope.h>
#include <string.h>

#define VALUE_HEAD_LEN 5u /* length, and a subtype or closing NUL */
#define SUBTYPE_OLD_BINARY 0x02u
#define SUBTYPE_CSFLE 0x06u

/* What stands in a value, before its encoding is undone. */
struct payload {
    const uint8_t *data;
    size_t len;     /* of data */
    size_t raw_len; /* of the bytes that data encodes */
};

/* 0-63, or -1 outside both alphabets of RFC 4648 (section 4, section 5). */
static int base64_digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    if (c == '+' || c == '-') {
        return 62;
    }
    return c == '/' || c == '_' ? 63 : -1;
}

/*
 * Strict: one alphabet throughout, padding whole or left out, no whitespace, unused bits 0, so
 * that a plaintext is hardly ever taken for ciphertext. Trims the padding from payload->len and
 * finds raw_len.
 */
static bool base64_check(struct payload *payload)
{
    const uint8_t *text = payload->data;
    size_t len = payload->len;
    if (len > 0 && len % 4 == 0 && text[len - 1] == '=') {
        len -= text[len - 2] == '=' ? 2 : 1;
    }
    if (len % 4 == 1) {
        return false;
    }
    bool standard = false;
    bool url_safe = false;
    for (size_t i = 0; i < len; i++) {
        if (base64_digit(text[i]) < 0) {
            return false;
        }
        standard |= text[i] == '+' || text[i] == '/';
        url_safe |= text[i] == '-' || text[i] == '_';
    }
    unsigned unused = len % 4 == 2 ? 0x0F : len % 4 == 3 ? 0x03 : 0;
    if ((standard && url_safe) || (unused != 0 && (base64_digit(text[len - 1]) & (int)unused))) {
        return false;
    }
    payload->len = len;
    payload->raw_len = len / 4 * 3 + (len % 4 == 0 ? 0 : len % 4 - 1);
    return true;
}

/* The first n (<= raw_len) bytes of a checked payload. */
static void base64_decode(const struct payload *payload, uint8_t *out, size_t n)
{
    uint32_t bits = 0;
    unsigned have = 0;
    for (const uint8_t *p = payload->data; n > 0; p++) {
        bits = bits << 6 | (uint32_t)base64_digit(*p);
        have += 6;
        if (have >= 8) {
            have -= 8;
            *out++ = (uint8_t)(bits >> have);
            n--;
        }
    }
}

static bool payload_binary(const struct rk_legacy_format *format, const uint8_t *value,
                           size_t value_len, struct payload *payload)
{
    uint8_t subtype = value[4];
    *payload = (struct payload){.data = value + 5, .len = value_len - 5};
    if (subtype == RK_ENVELOPE_SUBTYPE || subtype == SUBTYPE_CSFLE ||
        (format->iv_fixed && subtype != 0)) {
        return false;
    }
    if (subtype == SUBTYPE_OLD_BINARY) {
        /* This subtype repeats its length inside; drivers hide that from the application. */
        if (payload->len < 4 || rk_load_u32(payload->data) != payload->len - 4) {
            return false;
        }
        payload->data += 4;
        payload->len -= 4;
    }
    payload->raw_len = payload->len;
    return true;
}

static bool payload_of(const struct rk_legacy_format *format, uint8_t bson_type,
                       const uint8_t *value, size_t value_len, struct payload *payload)
{
    uint32_t size = 0;
    if (!rk_bson_value_size(bson_type, value, value_len, &size) || size != value_len) {
        return false;
    }
    if (format->encoding == RK_LEGACY_BINARY) {
        return bson_type == RK_BSON_BINARY && payload_binary(format, value, value_len, payload);
    }
    if (format->encoding != RK_LEGACY_BASE64 || bson_type != RK_BSON_STRING) {
        return false;
    }
    *payload = (struct payload){.data = value + 4, .len = value_len - 5};
    return base64_check(payload);
}

static void payload_decode(const struct rk_legacy_format *format, const struct payload *payload,
                           uint8_t *out, size_t n)
{
    if (format->encoding == RK_LEGACY_BASE64) {
        base64_decode(payload, out, n);
    } else if (n > 0) {
        memcpy(out, payload->data, n);
    }
}

static size_t stored_iv_len(const struct rk_legacy_format *format)
{
    if (format->iv_fixed && format->iv_implied) {
        return 0;
    }
    return format->cipher == RK_LEGACY_AES_256_CBC ? RK_CBC_IV_LEN : RK_GCM_NONCE_LEN;
}

/* Version bytes, a fixed iv, and length; finds the payload. */
static bool match(const struct rk_legacy_format *format, uint8_t bson_type, const uint8_t *value,
                  size_t value_len, struct payload *payload)
{
    uint8_t head[RK_LEGACY_PREFIX_MAX + RK_LEGACY_IV_MAX];
    size_t iv_len = stored_iv_len(format);
    size_t head_len = format->prefix_len + iv_len;
    if (format->prefix_len > RK_LEGACY_PREFIX_MAX ||
        !payload_of(format, bson_type, value, value_len, payload) || payload->raw_len < head_len) {
        return false;
    }
    size_t rest = payload->raw_len - head_len;
    if (format->cipher == RK_LEGACY_AES_256_CBC) {
        if (rest < 16 || rest % 16 != 0) {
            return false;
        }
    } else if (format->cipher != RK_LEGACY_AES_256_GCM || rest < RK_GCM_TAG_LEN) {
        return false;
    }
    payload_decode(format, payload, head, head_len);
    return memcmp(head, format->prefix, format->prefix_len) == 0 &&
           (!format->iv_fixed || memcmp(head + format->prefix_len, format->iv, iv_len) == 0);
}

bool rk_legacy_matches(const struct rk_legacy_format *format, uint8_t bson_type,
                       const uint8_t *value, size_t value_len)
{
    struct payload payload;
    if (format->cipher == RK_LEGACY_VAULT_TRANSIT) {
        return rk_legacy_transit_matches(format, bson_type, value, value_len);
    }
    return match(format, bson_type, value, value_len, &payload);
}

/* Well-formed UTF-8 as RFC 3629 has it: shortest forms, no surrogates, up to U+10FFFF. */
static bool is_utf8(const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;
    while (p != end) {
        uint8_t lead = *p++;
        if (lead < 0x80) {
            continue;
        }
        unsigned more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        if (lead < 0xC2 || lead > 0xF4 || (size_t)(end - p) < more) {
            return false;
        }
        /* Only the second byte has bounds of its own. */
        uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        for (; more > 0; more--, p++) {
            if (*p < low || *p > high) {
                return false;
            }
            low = 0x80;
            high = 0xBF;
        }
    }
    return true;
}

/* Where the plaintext of a value begins: behind the length, and the subtype of a binary. */
static size_t plain_offset(uint8_t bson_type)
{
    return bson_type == RK_BSON_STRING ? 4 : 5;
}

/* Completes a value of which len bytes of plaintext already stand behind out's end. */
static enum rk_status put_head(uint8_t bson_type, size_t len, struct rk_buf *out)
{
    uint8_t *head = out->data + out->len;
    uint8_t *plain = head + plain_offset(bson_type);
    if (bson_type == RK_BSON_STRING) {
        if (!is_utf8(plain, len)) {
            OPENSSL_cleanse(plain, len);
            return RK_EAUTH;
        }
        rk_store_u32(head, (uint32_t)len + 1);
        plain[len] = 0;
    } else {
        rk_store_u32(head, (uint32_t)len);
        head[4] = 0;
    }
    out->len += VALUE_HEAD_LEN + len;
    return RK_OK;
}

enum rk_status rk_legacy_put(uint8_t bson_type, const uint8_t *plain, size_t len,
                             struct rk_buf *out)
{
    enum rk_status status = rk_buf_reserve(out, VALUE_HEAD_LEN + len);
    if (status == RK_OK) {
        if (len > 0) {
            memcpy(out->data + out->len + plain_offset(bson_type), plain, len);
        }
        status = put_head(bson_type, len, out);
    }
    return status;
}

/*
 * raw: what follows the version bytes. CBC's padding check needs no constant time: whoever can
 * write ciphertexts into the database learns nothing here that decrypting reads would not tell
 * them anyway, and no stranger's ciphertext gets this far.
 */
static enum rk_status decrypt(struct rk_aead *aead, const struct rk_legacy_format *format,
                              const uint8_t *key, const uint8_t *raw, size_t len, uint8_t *out,
                              size_t *out_len)
{
    size_t iv_len = stored_iv_len(format);
    const uint8_t *iv = iv_len > 0 ? raw : format->iv;
    raw += iv_len;
    len -= iv_len;
    if (format->cipher == RK_LEGACY_AES_256_CBC) {
        return rk_aead_cbc_open(aead, key, iv, raw, len, out, out_len);
    }
    *out_len = len - RK_GCM_TAG_LEN;
    return rk_aead_gcm_open(aead, key, iv, NULL, 0, raw, *out_len, out);
}

enum rk_status rk_legacy_open(struct rk_aead *aead, const struct rk_keyset *keys,
                              const struct rk_legacy_format *format, uint8_t bson_type,
                              const uint8_t *value, size_t value_len, struct rk_buf *out)
{
    struct payload payload;
    if (format->bson_type != RK_BSON_STRING && format->bson_type != RK_BSON_BINARY) {
        return RK_EINVAL;
    }
    if (format->cipher == RK_LEGACY_VAULT_TRANSIT) {
        return rk_legacy_transit_matches(format, bson_type, value, value_len)
                   ? rk_legacy_transit_open(rk_aead_remote(aead), format, value, value_len, out)
                   : RK_EINVAL;
    }
    if (!match(format, bson_type, value, value_len, &payload)) {
        return RK_EINVAL;
    }
    const uint8_t *key = rk_keyset_legacy(keys, format->key);
    if (key == NULL) {
        return RK_ENOKEY;
    }
    /* Length, subtype or closing NUL, and a plaintext that is shorter than raw_len. */
    size_t need;
    if (!rk_add_size(payload.raw_len, VALUE_HEAD_LEN, &need)) {
        return RK_ELIMIT;
    }
    struct rk_buf raw;
    size_t len = 0;
    rk_buf_init(&raw, payload.raw_len);
    enum rk_status status = rk_buf_reserve(out, need);
    if (status == RK_OK) {
        status = rk_buf_reserve(&raw, payload.raw_len);
    }
    if (status == RK_OK) {
        uint8_t *plain = out->data + out->len + plain_offset(format->bson_type);
        payload_decode(format, &payload, raw.data, payload.raw_len);
        status = decrypt(aead, format, key, raw.data + format->prefix_len,
                         payload.raw_len - format->prefix_len, plain, &len);
    }
    if (status == RK_OK) {
        status = put_head(format->bson_type, len, out);
    }
    rk_buf_deinit(&raw);
    return status;
}
