/*
 * What the lines of a keyring file say. Messages name lines and key names, never what stands in a
 * line.
 */
#include "keyring_internal.h"

#include <openssl/crypto.h>
#include <rekey/keys/secret_file.h>
#include <stdlib.h>
#include <string.h>

#define NAME_LEN_MAX (sizeof((struct rk_wrapped_key *)0)->kek - 1)
/* A data key object needs an id; that of a key-encryption key is never stored anywhere. */
#define KEK_OBJECT_ID 1u

struct token {
    const char *text;
    size_t len;
};

const struct kek *rk_keyring_find(const struct keyring *ring, const char *name)
{
    for (size_t i = 0; i < ring->n_keks; i++) {
        if (strcmp(ring->keks[i].name, name) == 0) {
            return &ring->keks[i];
        }
    }
    return NULL;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool parse_hex(const struct token *hex, uint8_t out[RK_DATA_KEY_LEN])
{
    if (hex->len != 2u * RK_DATA_KEY_LEN) {
        return false;
    }
    for (size_t i = 0; i < RK_DATA_KEY_LEN; i++) {
        int high = hex_digit(hex->text[2 * i]);
        int low = hex_digit(hex->text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool name_ok(const struct token *name)
{
    if (name->len == 0 || name->len > NAME_LEN_MAX) {
        return false;
    }
    for (size_t i = 0; i < name->len; i++) {
        char c = name->text[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              c == '-' || c == '_' || c == '.')) {
            return false;
        }
    }
    return true;
}

static bool token_is(const struct token *token, const char *word)
{
    return token->len == strlen(word) && memcmp(token->text, word, token->len) == 0;
}

/* Takes the next word off *rest; empty at the end of the line. */
static struct token next_token(struct token *rest)
{
    while (rest->len > 0 && (*rest->text == ' ' || *rest->text == '\t' || *rest->text == '\r')) {
        rest->text++;
        rest->len--;
    }
    struct token token = {rest->text, 0};
    while (rest->len > 0 && *rest->text != ' ' && *rest->text != '\t' && *rest->text != '\r') {
        rest->text++;
        rest->len--;
        token.len++;
    }
    return token;
}

static enum rk_status add_kek(struct keyring *ring, const char *name, const uint8_t *bytes,
                              struct rk_error *err)
{
    if (rk_keyring_find(ring, name) != NULL) {
        return rk_error_set(err, RK_EINVAL, "a second kek named %s", name);
    }
    struct kek *kek = &ring->keks[ring->n_keks];
    enum rk_status status = rk_data_key_new(KEK_OBJECT_ID, bytes, 0, &kek->key, err);
    if (status != RK_OK) {
        return status;
    }
    kek->name = strdup(name);
    ring->n_keks++; /* even without a name: keyring_free then releases the key */
    return kek->name != NULL ? RK_OK : rk_error_set(err, RK_ENOMEM, "out of memory");
}

static enum rk_status add_legacy(struct keyring *ring, const char *name, const uint8_t *bytes,
                                 struct rk_error *err)
{
    for (size_t i = 0; i < ring->n_legacy; i++) {
        if (strcmp(ring->legacy[i].name, name) == 0) {
            return rk_error_set(err, RK_EINVAL, "a second legacy key named %s", name);
        }
    }
    char *copy = strdup(name);
    uint8_t *key = OPENSSL_secure_malloc(RK_DATA_KEY_LEN);
    if (copy == NULL || key == NULL) {
        free(copy);
        OPENSSL_secure_free(key);
        return rk_error_set(err, RK_ENOMEM, "out of secure memory");
    }
    memcpy(key, bytes, RK_DATA_KEY_LEN);
    ring->legacy[ring->n_legacy++] = (struct rk_legacy_key){.name = copy, .key = key};
    return RK_OK;
}

static enum rk_status parse_line(struct keyring *ring, struct token line, struct rk_error *err)
{
    struct token kind = next_token(&line);
    if (kind.len == 0 || kind.text[0] == '#') {
        return RK_OK;
    }
    struct token name = next_token(&line);
    struct token hex = next_token(&line);
    bool is_kek = token_is(&kind, "kek");
    uint8_t bytes[RK_DATA_KEY_LEN];
    char name_z[NAME_LEN_MAX + 1];

    if ((!is_kek && !token_is(&kind, "legacy")) || next_token(&line).len != 0) {
        return rk_error_set(err, RK_EINVAL, "expected `kek NAME HEX64` or `legacy NAME HEX64`");
    }
    if (!name_ok(&name)) {
        return rk_error_set(err, RK_EINVAL,
                            "a name is 1 to %zu letters, digits, dots, dashes and underscores",
                            NAME_LEN_MAX);
    }
    if (ring->n_keks + ring->n_legacy == RK_KEYRING_ENTRIES_MAX) {
        return rk_error_set(err, RK_ELIMIT, "more than %u keys", RK_KEYRING_ENTRIES_MAX);
    }
    memcpy(name_z, name.text, name.len);
    name_z[name.len] = '\0';
    if (!parse_hex(&hex, bytes)) {
        OPENSSL_cleanse(bytes, sizeof bytes);
        return rk_error_set(err, RK_EINVAL, "the key of %s is not 64 hexadecimal digits", name_z);
    }
    enum rk_status status =
        is_kek ? add_kek(ring, name_z, bytes, err) : add_legacy(ring, name_z, bytes, err);
    OPENSSL_cleanse(bytes, sizeof bytes);
    return status;
}

static enum rk_status parse_file(struct keyring *ring, const char *path, const char *text,
                                 size_t len, struct rk_error *err)
{
    unsigned number = 0;
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        struct token line = {text, newline != NULL ? (size_t)(newline - text) : len};
        struct rk_error why;
        enum rk_status status = parse_line(ring, line, &why);
        number++;
        if (status != RK_OK) {
            return rk_error_set(err, status, "%s:%u: %s", path, number, why.message);
        }
        size_t used = line.len + (newline != NULL ? 1 : 0);
        text += used;
        len -= used;
    }
    if (ring->n_keks == 0) {
        return rk_error_set(err, RK_EINVAL,
                            "%s: no key-encryption key: add a line `kek NAME HEX64`", path);
    }
    return RK_OK;
}

enum rk_status rk_keyring_read(struct keyring *ring, const char *path, struct rk_error *err)
{
    struct rk_secret_file file;
    enum rk_status status = rk_secret_file_read(path, &file, err);
    if (status == RK_OK) {
        status = parse_file(ring, path, file.text, file.len, err);
        rk_secret_file_free(&file);
    }
    return status;
}
