#include <rekey/vault/provider.h>

#include "legacy.h"
#include "transit.h"
#include "trim.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <rekey/base/bytes.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_LABEL "rekey key check v1"
#define CHECK_LEN 16u
#define REMOTE_LABEL "rekey key of the provider v1" /* and the id: as long as a key */

struct provider {
    const struct rk_config_vault *config;
    struct rk_legacy_key *legacy; /* NULL: not loaded yet */
    struct rk_vault_client *client;
    struct rk_transit transit;
};

static void provider_free(void *self)
{
    struct provider *provider = self;
    rk_vault_client_stop(provider->client);
    rk_vault_legacy_free(provider->legacy, provider->config->legacy_count);
    free(provider);
}

static enum rk_status key_check(uint32_t key_id, const uint8_t root[RK_DATA_KEY_LEN],
                                uint8_t out[CHECK_LEN], struct rk_error *err)
{
    uint8_t text[sizeof CHECK_LABEL - 1 + 4];
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    memcpy(text, CHECK_LABEL, sizeof CHECK_LABEL - 1);
    rk_store_u32(text + sizeof CHECK_LABEL - 1, key_id);
    if (HMAC(EVP_sha256(), root, RK_DATA_KEY_LEN, text, sizeof text, mac, &len) == NULL) {
        return rk_error_set(err, RK_EIO, "data key %u: HMAC failed", key_id);
    }
    memcpy(out, mac, CHECK_LEN);
    return RK_OK;
}

static enum rk_status fill(const struct provider *provider, uint32_t key_id,
                           const struct rk_transit_text *text, struct rk_wrapped_key *wrapped,
                           struct rk_error *err)
{
    if (text->len > sizeof wrapped->data - CHECK_LEN) {
        return rk_error_set(err, RK_ELIMIT,
                            "data key %u: Vault's ciphertext of %zu bytes is too "
                            "long",
                            key_id, text->len);
    }
    memcpy(wrapped->data + CHECK_LEN, text->bytes, text->len);
    wrapped->len = CHECK_LEN + text->len;
    int n = snprintf(wrapped->kek, sizeof wrapped->kek, "%s/%s:v%u", provider->transit.mount,
                     provider->transit.key, text->version);
    return n > 0 && (size_t)n < sizeof wrapped->kek
               ? RK_OK
               : rk_error_set(err, RK_ELIMIT, "keys.vault.key: name too long");
}

static void remote_text(uint32_t key_id, uint8_t text[RK_DATA_KEY_LEN])
{
    _Static_assert(sizeof REMOTE_LABEL - 1 + 4 == RK_DATA_KEY_LEN, "label and id");
    memcpy(text, REMOTE_LABEL, sizeof REMOTE_LABEL - 1);
    rk_store_u32(text + sizeof REMOTE_LABEL - 1, key_id);
}

static enum rk_status generate_remote(const struct provider *provider, uint32_t key_id,
                                      struct rk_wrapped_key *wrapped, struct rk_error *err)
{
    struct rk_transit_text text;
    uint8_t plain[RK_DATA_KEY_LEN];
    remote_text(key_id, plain);
    enum rk_status status = rk_transit_rotate(&provider->transit, err);
    if (status == RK_OK) {
        status = rk_transit_encrypt(&provider->transit, plain, &text, err);
    }
    if (status == RK_OK) {
        memset(wrapped->data, 0, CHECK_LEN);
        wrapped->remote = true;
        status = fill(provider, key_id, &text, wrapped, err);
    }
    return status;
}

static enum rk_status generate(void *self, uint32_t key_id, uint8_t root[RK_DATA_KEY_LEN],
                               struct rk_wrapped_key *wrapped, struct rk_error *err)
{
    struct provider *provider = self;
    struct rk_transit_text text;
    if (provider->config->mode == RK_CONFIG_VAULT_TRANSIT) {
        memset(root, 0, RK_DATA_KEY_LEN);
        return generate_remote(provider, key_id, wrapped, err);
    }
    enum rk_status status = rk_transit_data_key(&provider->transit, root, &text, err);
    if (status == RK_OK) {
        status = key_check(key_id, root, wrapped->data, err);
    }
    if (status == RK_OK) {
        status = fill(provider, key_id, &text, wrapped, err);
    }
    if (status != RK_OK) {
        OPENSSL_cleanse(root, RK_DATA_KEY_LEN);
    }
    return status;
}

/* Is it one of this provider's, under this key-encryption key? */
static enum rk_status take(const struct provider *provider, uint32_t key_id,
                           const struct rk_wrapped_key *wrapped, struct rk_transit_text *text,
                           struct rk_error *err)
{
    const char *mount = provider->transit.mount;
    const char *key = provider->transit.key;
    size_t mount_len = strlen(mount);
    size_t key_len = strlen(key);
    const char *kek = wrapped->kek;
    if (strncmp(kek, mount, mount_len) != 0 || kek[mount_len] != '/' ||
        strncmp(kek + mount_len + 1, key, key_len) != 0 ||
        strncmp(kek + mount_len + 1 + key_len, ":v", 2) != 0) {
        return rk_error_set(err, RK_ENOKEY,
                            "data key %u is wrapped with %s, but keys.vault names %s/%s", key_id,
                            kek, mount, key);
    }
    if (wrapped->len <= CHECK_LEN || wrapped->len - CHECK_LEN >= sizeof text->bytes) {
        return rk_error_set(err, RK_EINVAL, "data key %u: its record holds no key wrapped by Vault",
                            key_id);
    }
    text->len = wrapped->len - CHECK_LEN;
    memcpy(text->bytes, wrapped->data + CHECK_LEN, text->len);
    text->bytes[text->len] = '\0';
    return RK_OK;
}

/* Vault has opened text as root: is it the text of this id, under the version that kek names? */
static enum rk_status check_remote(uint32_t key_id, const struct rk_wrapped_key *wrapped,
                                   const struct rk_transit_text *text,
                                   uint8_t root[RK_DATA_KEY_LEN], struct rk_error *err)
{
    char head[32];
    uint8_t plain[RK_DATA_KEY_LEN];
    const char *version = strrchr(wrapped->kek, ':');
    remote_text(key_id, plain);
    int n = snprintf(head, sizeof head, "vault%.20s:", version != NULL ? version : "");
    bool same = memcmp(plain, root, RK_DATA_KEY_LEN) == 0 && n > 0 && (size_t)n < sizeof head &&
                strncmp(text->bytes, head, (size_t)n) == 0;
    memset(root, 0, RK_DATA_KEY_LEN);
    return same ? RK_OK
                : rk_error_set(err, RK_EAUTH,
                               "data key %u: its record is another one's, or was altered", key_id);
}

static enum rk_status unwrap(void *self, uint32_t key_id, const struct rk_wrapped_key *wrapped,
                             uint8_t root[RK_DATA_KEY_LEN], struct rk_error *err)
{
    struct provider *provider = self;
    struct rk_transit_text text;
    uint8_t check[CHECK_LEN];
    struct rk_error why;
    enum rk_status status = take(provider, key_id, wrapped, &text, err);
    if (status != RK_OK) {
        return status;
    }
    status = rk_transit_decrypt(&provider->transit, &text, root, &why);
    if (status != RK_OK) {
        return rk_error_set(err, status, "data key %u: %s", key_id, why.message);
    }
    if (wrapped->remote) {
        return check_remote(key_id, wrapped, &text, root, err);
    }
    status = key_check(key_id, root, check, err);
    if (status == RK_OK && CRYPTO_memcmp(check, wrapped->data, CHECK_LEN) != 0) {
        status = rk_error_set(
            err, RK_EAUTH, "data key %u: the wrapped key is another one's, or was altered", key_id);
    }
    if (status != RK_OK) {
        OPENSSL_cleanse(root, RK_DATA_KEY_LEN);
    }
    return status;
}

static enum rk_status rewrap(void *self, uint32_t key_id, const struct rk_wrapped_key *old,
                             struct rk_wrapped_key *wrapped, struct rk_error *err)
{
    struct provider *provider = self;
    struct rk_transit_text text;
    if (old->remote) {
        return rk_error_set(err, RK_ESTATE, "data key %u stays with Vault: nothing is wrapped",
                            key_id);
    }
    enum rk_status status = take(provider, key_id, old, &text, err);
    if (status == RK_OK) {
        status = rk_transit_rewrap(&provider->transit, &text, err);
    }
    if (status == RK_OK) {
        memcpy(wrapped->data, old->data, CHECK_LEN);
        status = fill(provider, key_id, &text, wrapped, err);
    }
    if (status == RK_OK && strcmp(old->kek, wrapped->kek) == 0) {
        return rk_error_set(err, RK_ESTATE, "data key %u is wrapped with %s already", key_id,
                            old->kek);
    }
    return status;
}

static void answer(void *self, struct rk_remote *remote, rk_provider_answered_fn *fn, void *arg)
{
    struct provider *provider = self;
    rk_vault_answer(provider->client, remote, fn, arg);
}

static enum rk_status legacy(void *self, const struct rk_legacy_key **keys, size_t *n_keys,
                             struct rk_error *err)
{
    struct provider *provider = self;
    enum rk_status status =
        provider->legacy == NULL
            ? rk_vault_legacy_load(provider->client, provider->config, &provider->legacy, err)
            : RK_OK;
    *keys = provider->legacy;
    *n_keys = provider->config->legacy_count;
    return status;
}

static enum rk_status ready(void *self, struct rk_error *err)
{
    struct provider *provider = self;
    return rk_vault_ready(provider->client, err);
}

static enum rk_status trim(void *self, const char *past, const struct rk_needed_key *needed,
                           size_t n, char *note, size_t size, struct rk_error *err)
{
    const struct provider *provider = self;
    return rk_transit_trim(&provider->transit, past, needed, n, note, size, err);
}

static bool available(void *self)
{
    const struct provider *provider = self;
    return rk_vault_state(provider->client) != RK_VAULT_UNAVAILABLE;
}

static void metrics(void *self, struct rk_metrics *m)
{
    const struct provider *provider = self;
    rk_vault_metrics(provider->client, m);
}

static const struct rk_provider_ops vault_ops = {
    .name = "vault",
    .generate = generate,
    .unwrap = unwrap,
    .rewrap = rewrap,
    .trim = trim,
    .answer = answer,
    .legacy = legacy,
    .ready = ready,
    .available = available,
    .metrics = metrics,
    .free = provider_free,
};

enum rk_status rk_vault_open(const struct rk_config_vault *config, struct rk_provider *out,
                             struct rk_error *err)
{
    struct provider *provider = calloc(1, sizeof *provider);
    if (provider == NULL) {
        return rk_error_set(err, RK_ENOMEM, "vault: out of memory");
    }
    provider->config = config;
    enum rk_status status = rk_vault_client_start(config, &provider->client, err);
    if (status != RK_OK) {
        free(provider);
        return status;
    }
    provider->transit = (struct rk_transit){
        .client = provider->client, .mount = config->transit_mount, .key = config->key};
    *out = (struct rk_provider){.ops = &vault_ops, .self = provider};
    return RK_OK;
}

enum rk_status rk_provider_open(const struct rk_config_keys *config, struct rk_provider *out,
                                struct rk_error *err)
{
    return config->provider == RK_CONFIG_VAULT ? rk_vault_open(&config->vault, out, err)
                                               : rk_keyring_open(config->keyring_file, out, err);
}
