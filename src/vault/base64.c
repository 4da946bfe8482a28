#include "base64.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#define BASE64_LEN 44u /* of 32 bytes, with one '=' */

bool rk_base64_key(const char *text, size_t len, uint8_t key[RK_DATA_KEY_LEN])
{
    uint8_t decoded[BASE64_LEN / 4 * 3];
    bool ok =
        len == BASE64_LEN && text[BASE64_LEN - 2] != '=' && text[BASE64_LEN - 1] == '=' &&
        EVP_DecodeBlock(decoded, (const unsigned char *)text, (int)len) == (int)sizeof decoded;
    if (ok) {
        memcpy(key, decoded, RK_DATA_KEY_LEN);
    }
    OPENSSL_cleanse(decoded, sizeof decoded);
    return ok;
}

enum rk_status rk_base64_encode(const uint8_t *data, size_t len, struct rk_buf *out)
{
    size_t size = (len + 2) / 3 * 4;
    if (len > INT_MAX / 2) {
        return RK_ELIMIT;
    }
    enum rk_status status = rk_buf_reserve(out, size + 1); /* OpenSSL closes it with a NUL */
    if (status == RK_OK) {
        (void)EVP_EncodeBlock(out->data + out->len, data, (int)len);
        out->len += size;
    }
    return status;
}

enum rk_status rk_base64_decode(const char *text, size_t len, struct rk_buf *out)
{
    if (len % 4 != 0 || len > INT_MAX) {
        return RK_EINVAL;
    }
    enum rk_status status = rk_buf_reserve(out, len / 4 * 3 + 1);
    if (status != RK_OK || len == 0) {
        return status;
    }
    size_t padding = text[len - 1] != '=' ? 0 : text[len - 2] != '=' ? 1 : 2;
    int size = EVP_DecodeBlock(out->data + out->len, (const unsigned char *)text, (int)len);
    if (size < 0 || memchr(text, '=', len - padding) != NULL) {
        return RK_EINVAL;
    }
    out->len += (size_t)size - padding; /* OpenSSL counts what the padding stands for */
    return RK_OK;
}
