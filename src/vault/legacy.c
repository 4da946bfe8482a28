#include "legacy.h"

#include "base64.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* Version 2 of kv wraps the secret's fields in data.data, version 1 has them in data. */
static const json_t *field_of(const json_t *answer, const char *name)
{
    const json_t *data = json_object_get(answer, "data");
    const json_t *inner = json_object_get(data, "data");
    return json_object_get(json_is_object(inner) ? inner : data, name);
}

static bool decode_hex(const char *text, uint8_t key[RK_DATA_KEY_LEN])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 2u * RK_DATA_KEY_LEN; i++) {
        char low = (char)(text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 'a' : text[i]);
        const char *digit = memchr(digits, low, sizeof digits - 1);
        if (digit == NULL) {
            return false;
        }
        uint8_t value = (uint8_t)(digit - digits);
        key[i / 2] = (uint8_t)(i % 2 == 0 ? value << 4 : key[i / 2] | value);
    }
    return true;
}

static enum rk_status load(struct rk_vault_client *client,
                           const struct rk_config_vault_legacy *entry, uint8_t *key,
                           struct rk_error *err)
{
    json_t *answer = NULL;
    enum rk_status status = rk_vault_read(client, entry->path, &answer, err);
    if (status != RK_OK) {
        return status;
    }
    const json_t *field = field_of(answer, entry->field);
    const char *text = json_string_value(field);
    size_t len = json_string_length(field);
    if (!(len == 2u * RK_DATA_KEY_LEN && decode_hex(text, key)) &&
        !(text != NULL && rk_base64_key(text, len, key))) {
        status = rk_error_set(err, RK_EINVAL,
                              "vault: %s: the field %s of the legacy key %s is neither 64 "
                              "hexadecimal digits nor the base64 of 32 bytes",
                              entry->path, entry->field, entry->name);
    }
    json_decref(answer);
    return status;
}

enum rk_status rk_vault_legacy_load(struct rk_vault_client *client,
                                    const struct rk_config_vault *config,
                                    struct rk_legacy_key **out, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    struct rk_legacy_key *keys = calloc(config->legacy_count + 1u, sizeof *keys);
    if (keys == NULL) {
        return rk_error_set(err, RK_ENOMEM, "vault: out of memory");
    }
    for (unsigned i = 0; i < config->legacy_count && status == RK_OK; i++) {
        uint8_t *key = OPENSSL_secure_malloc(RK_DATA_KEY_LEN);
        keys[i] = (struct rk_legacy_key){.name = config->legacy[i].name, .key = key};
        status = key == NULL ? rk_error_set(err, RK_ENOMEM, "vault: out of secure memory")
                             : load(client, &config->legacy[i], key, err);
    }
    if (status != RK_OK) {
        rk_vault_legacy_free(keys, config->legacy_count);
        return status;
    }
    *out = keys;
    return RK_OK;
}

void rk_vault_legacy_free(struct rk_legacy_key *keys, size_t n)
{
    for (size_t i = 0; keys != NULL && i < n; i++) {
        OPENSSL_secure_clear_free((uint8_t *)(uintptr_t)keys[i].key, RK_DATA_KEY_LEN);
    }
    free(keys);
}
