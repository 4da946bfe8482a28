#include "transit.h"

#include "base64.h"

#include <stdlib.h>
#include <string.h>

#define PATH_MAX_LEN 300

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
    const json_t *text = json_object_get(json_object_get(answer, "data"), "plaintext");
    if (!json_is_string(text) ||
        !rk_base64_key(json_string_value(text), json_string_length(text), root)) {
        return rk_error_set(err, RK_EINVAL, "vault: the answer holds no key of %u bytes",
                            RK_DATA_KEY_LEN);
    }
    return RK_OK;
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

enum rk_status rk_transit_rotate(const struct rk_transit *transit, struct rk_error *err)
{
    char path[PATH_MAX_LEN];
    json_t *answer = NULL;
    (void)snprintf(path, sizeof path, "%s/keys/%s/rotate", transit->mount, transit->key);
    enum rk_status status = rk_vault_call(transit->client, path, json_object(), &answer, err);
    json_decref(answer);
    return status;
}

enum rk_status rk_transit_encrypt(const struct rk_transit *transit,
                                  const uint8_t plain[RK_DATA_KEY_LEN],
                                  struct rk_transit_text *text, struct rk_error *err)
{
    struct rk_buf encoded;
    json_t *answer = NULL;
    rk_buf_init(&encoded, 2u * RK_DATA_KEY_LEN);
    enum rk_status status = rk_base64_encode(plain, RK_DATA_KEY_LEN, &encoded);
    if (status == RK_OK) {
        status = call(transit, "encrypt",
                      json_pack("{s:s%}", "plaintext", encoded.data, encoded.len), &answer, err);
    } else {
        (void)rk_error_set(err, status, "vault: out of memory");
    }
    if (status == RK_OK) {
        status = take_ciphertext(answer, text, err);
    }
    json_decref(answer);
    rk_buf_cleanse(&encoded);
    rk_buf_deinit(&encoded);
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
