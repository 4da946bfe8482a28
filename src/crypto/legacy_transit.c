/*
 * Values that an application had Vault's transit engine encrypt: "vault:v<version>:<base64>". Their
 * key never left Vault, so they are opened there (remote.h).
 */
#include "legacy_internal.h"

#include <rekey/bson/walk.h>
#include <string.h>

#define HEAD "vault:v"
#define HEAD_LEN (sizeof HEAD - 1)
#define VERSION_DIGITS_MAX 10u
#define BASE64_LEN_MIN 40u /* nonce 12 and tag 16 of an empty value */

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool rk_legacy_transit_matches(const struct rk_legacy_format *format, uint8_t bson_type,
                               const uint8_t *value, size_t value_len)
{
    uint32_t size = 0;
    if (format->encoding != RK_LEGACY_BASE64 || bson_type != RK_BSON_STRING ||
        !rk_bson_value_size(bson_type, value, value_len, &size) || size != value_len) {
        return false;
    }
    const char *text = (const char *)value + 4;
    size_t len = value_len - 5;
    if (strlen(text) != len || len < HEAD_LEN || memcmp(text, HEAD, HEAD_LEN) != 0) {
        return false;
    }
    text += HEAD_LEN;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > VERSION_DIGITS_MAX || text[0] == '0' || text[digits] != ':') {
        return false;
    }
    text += digits + 1;
    size_t body = strspn(text, base64_digits);
    size_t padding = strspn(text + body, "=");
    return text[body + padding] == '\0' && padding <= 2 && (body + padding) % 4 == 0 &&
           body + padding >= BASE64_LEN_MIN;
}

enum rk_status rk_legacy_transit_open(struct rk_remote *remote,
                                      const struct rk_legacy_format *format, const uint8_t *value,
                                      size_t value_len, struct rk_buf *out)
{
    if (remote == NULL) {
        return RK_ENOKEY;
    }
    const struct rk_remote_value question = {
        .op = RK_REMOTE_OPEN_TEXT,
        .key = format->key,
        .in = value + 4,
        .in_len = value_len - 5,
    };
    enum rk_remote_answer answer;
    const uint8_t *plain;
    size_t len;
    enum rk_status status = rk_remote_ask(remote, &question, &answer, &plain, &len);
    if (status != RK_OK) {
        return status;
    }
    if (answer == RK_REMOTE_REFUSED) {
        return RK_EAUTH;
    }
    return rk_legacy_put(format->bson_type, plain, answer == RK_REMOTE_DONE ? len : 0, out);
}
