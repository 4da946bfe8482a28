#include "item.h"

#include "base64.h"

#include <rekey/log/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_BYTES_MAX (1u << 30)

/* ---- what is sent */

bool rk_item_put_text(struct rk_buf *out, const char *text)
{
    return rk_buf_append(out, text, strlen(text)) == RK_OK;
}

/* "mount/key:v3" is the key "mount/key" in its version 3; without a version, 0. */
static unsigned version_of(const char *key)
{
    const char *version = strstr(key, ":v");
    return version != NULL ? (unsigned)strtoul(version + 2, NULL, 10) : 0;
}

bool rk_item_put(struct rk_buf *out, const struct rk_remote_value *value)
{
    char text[64];
    bool ok = rk_item_put_text(out, value->op == RK_REMOTE_SEAL ? "{\"plaintext\":\""
                                                                : "{\"ciphertext\":\"");
    if (value->op == RK_REMOTE_SEAL) {
        ok = ok && rk_base64_encode(value->in, value->in_len, out) == RK_OK;
        (void)snprintf(text, sizeof text, "\",\"key_version\":%u", version_of(value->key));
        ok = ok && rk_item_put_text(out, text);
    } else if (value->op == RK_REMOTE_OPEN) {
        (void)snprintf(text, sizeof text, "vault:v%u:", (unsigned)rk_load_u32(value->in));
        ok = ok && rk_item_put_text(out, text) &&
             rk_base64_encode(value->in + 4, value->in_len - 4, out) == RK_OK &&
             rk_item_put_text(out, "\"");
    } else { /* nothing in it but letters, digits, '+', '/', '=' and ':' */
        ok = ok && rk_buf_append(out, value->in, value->in_len) == RK_OK &&
             rk_item_put_text(out, "\"");
    }
    if (value->aad_len > 0) {
        ok = ok && rk_item_put_text(out, ",\"associated_data\":\"") &&
             rk_base64_encode(value->aad, value->aad_len, out) == RK_OK &&
             rk_item_put_text(out, "\"");
    }
    return ok && rk_item_put_text(out, "}");
}

/* ---- what comes back */

/* Errors that tell of the ciphertext itself; any other may pass. */
static bool is_final(const char *reason)
{
    static const char *const finals[] = {"invalid ciphertext", "unable to decrypt",
                                         "disallowed by policy", "message authentication failed"};
    for (size_t i = 0; i < sizeof finals / sizeof finals[0]; i++) {
        if (strstr(reason, finals[i]) != NULL) {
            return true;
        }
    }
    return false;
}

static enum rk_status take_sealed(struct rk_remote *remote, size_t i,
                                  const struct rk_remote_value *value, const json_t *result,
                                  const char **why)
{
    char head[32];
    const json_t *text = json_object_get(result, "ciphertext");
    size_t len = json_string_length(text);
    unsigned version = version_of(value->key);
    int head_len = snprintf(head, sizeof head, "vault:v%u:", version);
    *why = "vault: encrypt: the answer is no ciphertext of the version that was asked for";
    if (head_len < 0 || len < (size_t)head_len ||
        strncmp(json_string_value(text), head, (size_t)head_len) != 0) {
        return RK_EINVAL;
    }
    struct rk_buf sealed;
    rk_buf_init(&sealed, VALUE_BYTES_MAX);
    enum rk_status status = rk_buf_append_u32(&sealed, version);
    if (status == RK_OK) {
        status =
            rk_base64_decode(json_string_value(text) + head_len, len - (size_t)head_len, &sealed);
    }
    if (status == RK_OK && sealed.len != value->in_len + RK_REMOTE_OVERHEAD) {
        *why = "vault: encrypt: the key is of a type that Rekey cannot use; make one of type "
               "aes256-gcm96";
        status = RK_EINVAL;
    }
    if (status == RK_OK) {
        status = rk_remote_put(remote, i, sealed.data, sealed.len);
        *why = "vault: encrypt: the message's values outgrew the limit";
    }
    rk_buf_deinit(&sealed);
    return status;
}

static enum rk_status take_opened(struct rk_remote *remote, size_t i, const json_t *result,
                                  const char **why)
{
    const json_t *text = json_object_get(result, "plaintext");
    struct rk_buf plain;
    if (!json_is_string(text)) {
        *why = "vault: decrypt: an item of the answer holds no plaintext";
        return RK_EINVAL;
    }
    rk_buf_init(&plain, VALUE_BYTES_MAX);
    enum rk_status status =
        rk_base64_decode(json_string_value(text), json_string_length(text), &plain);
    *why = "vault: decrypt: an item of the answer is no base64";
    if (status == RK_OK) {
        status = rk_remote_put(remote, i, plain.data, plain.len);
        *why = "vault: decrypt: the message's values outgrew the limit";
    }
    rk_buf_cleanse(&plain);
    rk_buf_deinit(&plain);
    return status;
}

enum rk_status rk_item_take(struct rk_remote *remote, size_t i, const json_t *result,
                            const char **why)
{
    struct rk_remote_value value;
    const char *reason = json_string_value(json_object_get(result, "error"));
    (void)rk_remote_at(remote, i, &value);
    if (reason == NULL || reason[0] == '\0') {
        return value.op == RK_REMOTE_SEAL ? take_sealed(remote, i, &value, result, why)
                                          : take_opened(remote, i, result, why);
    }
    rk_log(RK_LOG_WARN, "vault_item_failed", RK_S("key", value.key), RK_S("reason", reason));
    if (value.op != RK_REMOTE_SEAL && is_final(reason)) {
        rk_remote_refuse(remote, i);
        return RK_OK;
    }
    *why = reason;
    return RK_EIO;
}
