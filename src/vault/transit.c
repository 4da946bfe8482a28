#include "transit.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define PATH_MAX_LEN 300
#define BASE64_LEN 44u /* of a data key */

static enum rk_status call(const struct rk_transit *transit, const char *operation, json_t *body,
                           json_t **answer, struct rk_error *err)
{
    char path[PATH_MAX_LEN];
    (void)snprintf(path, sizeof path, "%s/%s/%s", transit->mount, operation, transit->key);
    return rk_vault_call(transit->client, path, body, answer, err);
}

static enum rk_status take_plaintext(const json_t *answer, uint8_t root[RK_DATA_KEY_LEN],
                                     struct rk_error *err)
{
    uint8_t decoded[BASE64_LEN / 4 * 3];
    const json_t *text = json_object_get(json_object_get(answer, "data"), "plaintext");
    const char *base64 = json_string_value(text);
    bool ok = base64 != NULL && json_string_length(text) == BASE64_LEN &&
              base64[BASE64_LEN - 2] != '=' && base64[BASE64_LEN - 1] == '=' &&
              EVP_DecodeBlock(decoded, (const unsigned char *)base64, (int)BASE64_LEN) ==
                  (int)sizeof decoded;
    if (ok) {
        memcpy(root, decoded, RK_DATA_KEY_LEN);
    }
    OPENSSL_cleanse(decoded, sizeof decoded);
    return ok ? RK_OK
              : rk_error_set(err, RK_EINVAL, "vault: the answer holds no key of %u bytes",
                             RK_DATA_KEY_LEN);
}

static enum rk_status take_ciphertext(const json_t *answer, struct rk_transit_text *out,
                                      struct rk_error *err)
{
    static const char head[] = "vault:v";
    const json_t *text = json_object_get(json_object_get(answer, "data"), "ciphertext");
    size_t len = json_string_length(text);
    unsigned long version = 0;
    char *end = NULL;
    if (len > sizeof head && len < sizeof out->bytes &&
        strncmp(json_string_value(text), head, sizeof head - 1) == 0) {
        version = strtoul(json_string_value(text) + sizeof head - 1, &end, 10);
    }
    if (end == NULL || *end != ':' || version == 0 || version > UINT32_MAX) {
        return rk_error_set(err, RK_EINVAL, "vault: the answer holds no ciphertext");
    }
    memcpy(out->bytes, json_string_value(text), len + 1);
    out->len = len;
    out->version = (unsigned)version;
    return RK_OK;
}

enum rk_status rk_transit_data_key(const struct rk_transit *transit, uint8_t root[RK_DATA_KEY_LEN],
                                   struct rk_transit_text *wrapped, struct rk_error *err)
{
    json_t *answer = NULL;
    enum rk_status status =
        call(transit, "datakey/plaintext", json_pack("{s:i}", "bits", (int)RK_DATA_KEY_LEN * 8),
             &answer, err);
    if (status == RK_OK) {
        status = take_ciphertext(answer, wrapped, err);
    }
    if (status == RK_OK) {
        status = take_plaintext(answer, root, err);
    }
    json_decref(answer);
    return status;
}

enum rk_status rk_transit_decrypt(const struct rk_transit *transit,
                                  const struct rk_transit_text *wrapped,
                                  uint8_t root[RK_DATA_KEY_LEN], struct rk_error *err)
{
    json_t *answer = NULL;
    enum rk_status status =
        call(transit, "decrypt", json_pack("{s:s%}", "ciphertext", wrapped->bytes, wrapped->len),
             &answer, err);
    if (status == RK_OK) {
        status = take_plaintext(answer, root, err);
    }
    json_decref(answer);
    return status;
}

enum rk_status rk_transit_rewrap(const struct rk_transit *transit, struct rk_transit_text *text,
                                 struct rk_error *err)
{
    json_t *answer = NULL;
    enum rk_status status = call(
        transit, "rewrap", json_pack("{s:s%}", "ciphertext", text->bytes, text->len), &answer, err);
    if (status == RK_OK) {
        status = take_ciphertext(answer, text, err);
    }
    json_decref(answer);
    return status;
}
