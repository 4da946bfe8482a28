/*
 * The token's life. AppRole: log in, renew when 2/3 of the lease are over, log in anew when
 * renewing no longer brings the lease back to what was granted at first (its maximum is near). A
 * token from a file is renewed the same way and read anew where AppRole would log in: whoever
 * writes the file replaces it.
 *
 * While a new token is on its way the old one stays in use, until Vault refuses it.
 */
#include "client_internal.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <rekey/base/backoff.h>
#include <rekey/base/clock.h>
#include <rekey/keys/secret_file.h>
#include <rekey/log/log.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_US 1000000u

static const char *method_of(const struct rk_vault_client *client)
{
    return client->settings->auth == RK_CONFIG_VAULT_APPROLE ? "approle" : "token_file";
}

static void set_timer(struct rk_vault_client *client, uint64_t in_us)
{
    const struct timeval in = {.tv_sec = (time_t)(in_us / SECOND_US),
                               .tv_usec = (suseconds_t)(in_us % SECOND_US)};
    (void)event_add(client->login.timer, &in);
}

/* What lives for long: in the secure heap. NULL: no memory. */
static char *keep(const char *secret)
{
    size_t size = strlen(secret) + 1;
    char *copy = OPENSSL_secure_malloc(size);
    if (copy != NULL) {
        memcpy(copy, secret, size);
    }
    return copy;
}

static void drop(char **secret)
{
    if (*secret != NULL) {
        OPENSSL_secure_clear_free(*secret, strlen(*secret) + 1);
        *secret = NULL;
    }
}

static void drop_token(struct rk_vault_client *client)
{
    drop(&client->login.token);
    rk_counter_set(&client->counters.lease_ends_us, 0);
}

/* The lease counts from when it was asked for; answers are quick, and 2/3 leave room. */
static void set_lease(struct rk_login *login, struct rk_vault_client *client, uint32_t lease_s)
{
    login->expires_at_us = 0;
    rk_counter_set(&client->counters.lease_ends_us, UINT64_MAX);
    if (lease_s == 0) {
        (void)event_del(login->timer);
        return;
    }
    login->expires_at_us = rk_clock_mono_us() + (uint64_t)lease_s * SECOND_US;
    rk_counter_set(&client->counters.lease_ends_us, login->expires_at_us);
    set_timer(client, (uint64_t)lease_s * SECOND_US / 3 * 2);
}

static void failed(struct rk_vault_client *client, const struct rk_error *err)
{
    struct rk_login *login = &client->login;
    uint64_t pause_us =
        rk_backoff_jittered((uint64_t)client->settings->retry_backoff_max_ms * 1000u);
    login->busy = false;
    login->last_error = *err;
    if (client->stopping) {
        return;
    }
    if (!login->withheld) {
        rk_counter_add(&client->counters.login_failures, 1);
        rk_log(RK_LOG_ERROR, "vault_login_failed", RK_S("method", method_of(client)),
               RK_S("reason", err->message));
    }
    login->withheld = false;
    login->not_before_us = rk_clock_mono_us() + pause_us;
    if (login->token != NULL) {
        set_timer(client, pause_us); /* it still works: try again before it ends */
    } else {
        rk_client_token_settled(client, err);
    }
}

static void succeeded(struct rk_vault_client *client, const char *token, uint32_t lease_s)
{
    struct rk_login *login = &client->login;
    char *copy = keep(token);
    if (copy == NULL) {
        struct rk_error err;
        (void)rk_error_set(&err, RK_ENOMEM, "vault: out of memory");
        failed(client, &err);
        return;
    }
    drop(&login->token);
    login->token = copy;
    login->generation++;
    login->busy = false;
    login->granted_s = lease_s;
    login->not_before_us = 0;
    login->last_error.message[0] = '\0';
    set_lease(login, client, lease_s);
    rk_counter_add(&client->counters.logins, 1);
    rk_log(RK_LOG_INFO, "vault_login", RK_S("method", method_of(client)), RK_I("lease_s", lease_s));
    rk_client_token_settled(client, NULL);
}

static uint32_t seconds(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value <= 0 ? 0 : value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

/* ---- AppRole ------------------------------------------------------------------------------ */

static void on_approle(void *arg, enum rk_status status, const json_t *answer,
                       const struct rk_error *err)
{
    struct rk_vault_client *client = arg;
    const json_t *auth = json_object_get(answer, "auth");
    const char *token = json_string_value(json_object_get(auth, "client_token"));
    struct rk_error wrong;
    if (status != RK_OK) {
        if (status == RK_EINVAL || status == RK_EREFUSED) {
            client->login.refused_until_us =
                rk_clock_mono_us() + (uint64_t)client->settings->refused_login_pause_ms * 1000u;
        }
        failed(client, err);
    } else if (token == NULL || token[0] == '\0') {
        (void)rk_error_set(&wrong, RK_EIO, "vault: the answer to the login holds no token");
        failed(client, &wrong);
    } else {
        succeeded(client, token, seconds(auth, "lease_duration"));
    }
}

/* Text up to the first white space; editors end files with a newline. */
static json_t *word(const char *text)
{
    return json_stringn(text, strcspn(text, " \t\r\n"));
}

/* The environment can be read in /proc and is part of core dumps: it is moved from there. */
static enum rk_status take_environment(struct rk_vault_client *client, struct rk_error *err)
{
    struct rk_login *login = &client->login;
    const char *name = client->settings->secret_id_env;
    char *value = login->secret_id == NULL ? getenv(name) : NULL;
    if (value != NULL && value[0] != '\0') {
        login->secret_id = keep(value);
        OPENSSL_cleanse(value, strlen(value));
        (void)unsetenv(name);
        if (login->secret_id == NULL) {
            return rk_error_set(err, RK_ENOMEM, "vault: out of secure memory");
        }
    }
    return login->secret_id != NULL
               ? RK_OK
               : rk_error_set(err, RK_ENOENT,
                              "keys.vault.secret_id_env: the environment variable %s is not set",
                              name);
}

static enum rk_status secret_id(struct rk_vault_client *client, json_t **out, struct rk_error *err)
{
    const struct rk_config_vault *settings = client->settings;
    if (settings->secret_id_env != NULL) {
        enum rk_status status = take_environment(client, err);
        if (status != RK_OK) {
            return status;
        }
        *out = word(client->login.secret_id);
    } else {
        struct rk_secret_file file;
        enum rk_status status = rk_secret_file_read(settings->secret_id_file, &file, err);
        if (status != RK_OK) {
            return status;
        }
        *out = word(file.text);
        rk_secret_file_free(&file);
    }
    return *out != NULL ? RK_OK : rk_error_set(err, RK_EINVAL, "vault: the secret_id is no UTF-8");
}

/*
 * Vault locks a role out after some logins with a wrong secret_id (by default five, for a quarter
 * of an hour), and then refuses a right one, too. So one that it has refused is not sent again and
 * again, but a new one at once.
 */
static bool withhold(struct rk_login *login, const json_t *secret)
{
    uint8_t digest[sizeof login->secret_digest];
    (void)SHA256((const uint8_t *)json_string_value(secret), json_string_length(secret), digest);
    login->withheld = rk_clock_mono_us() < login->refused_until_us &&
                      memcmp(digest, login->secret_digest, sizeof digest) == 0;
    memcpy(login->secret_digest, digest, sizeof digest);
    return login->withheld;
}

static enum rk_status ask_approle(struct rk_vault_client *client, struct rk_error *err)
{
    const struct rk_config_vault *settings = client->settings;
    json_t *secret = NULL;
    char path[160];
    enum rk_status status = secret_id(client, &secret, err);
    if (status != RK_OK) {
        return status;
    }
    if (withhold(&client->login, secret)) {
        json_decref(secret);
        *err = client->login.last_error;
        return err->status;
    }
    json_t *body = json_pack("{s:s, s:o}", "role_id", settings->role_id, "secret_id", secret);
    if (body == NULL) {
        return rk_error_set(err, RK_ENOMEM, "vault: out of memory");
    }
    (void)snprintf(path, sizeof path, "auth/%s/login", settings->auth_mount);
    rk_client_ask(client, path, body, NULL, on_approle, client);
    return RK_OK;
}

/* ---- a token from a file ------------------------------------------------------------------ */

static void on_lookup(void *arg, enum rk_status status, const json_t *answer,
                      const struct rk_error *err)
{
    struct rk_vault_client *client = arg;
    char *token = client->login.candidate;
    client->login.candidate = NULL;
    if (status != RK_OK) {
        failed(client, err);
    } else {
        succeeded(client, token, seconds(json_object_get(answer, "data"), "ttl"));
    }
    drop(&token);
}

static enum rk_status ask_lookup(struct rk_vault_client *client, struct rk_error *err)
{
    struct rk_secret_file file;
    enum rk_status status = rk_secret_file_read(client->settings->token_file, &file, err);
    if (status != RK_OK) {
        return status;
    }
    file.text[strcspn(file.text, " \t\r\n")] = '\0';
    bool empty = file.text[0] == '\0';
    char *token = keep(file.text);
    rk_secret_file_free(&file);
    if (empty || token == NULL) {
        drop(&token);
        return rk_error_set(err, empty ? RK_EINVAL : RK_ENOMEM, "%s: %s",
                            client->settings->token_file, empty ? "is empty" : "out of memory");
    }
    drop(&client->login.candidate);
    client->login.candidate = token;
    rk_client_ask(client, "auth/token/lookup-self", NULL, token, on_lookup, client);
    return RK_OK;
}

/* ---- the token's life --------------------------------------------------------------------- */

static void ask(struct rk_vault_client *client)
{
    struct rk_error err;
    client->login.busy = true;
    enum rk_status status = client->settings->auth == RK_CONFIG_VAULT_APPROLE
                                ? ask_approle(client, &err)
                                : ask_lookup(client, &err);
    if (status != RK_OK) {
        failed(client, &err);
    }
}

void rk_login_begin(struct rk_vault_client *client)
{
    struct rk_login *login = &client->login;
    if (login->busy) {
        return;
    }
    if (rk_clock_mono_us() < login->not_before_us) {
        const struct rk_error err = login->last_error;
        rk_client_token_settled(client, &err);
        return;
    }
    ask(client);
}

void rk_login_refused(struct rk_vault_client *client, unsigned generation, bool fresh)
{
    struct rk_login *login = &client->login;
    uint64_t now_us = rk_clock_mono_us();
    if (fresh) {
        login->kept_until_us = now_us + (uint64_t)client->settings->refused_login_pause_ms * 1000u;
    } else if (login->generation == generation && login->token != NULL &&
               now_us >= login->kept_until_us) {
        rk_log(RK_LOG_WARN, "vault_token_refused", RK_S("method", method_of(client)));
        rk_counter_add(&client->counters.tokens_refused, 1);
        drop_token(client);
    }
}

static void on_renewed(void *arg, enum rk_status status, const json_t *answer,
                       const struct rk_error *err)
{
    struct rk_vault_client *client = arg;
    struct rk_login *login = &client->login;
    uint32_t lease_s = seconds(json_object_get(answer, "auth"), "lease_duration");
    login->busy = false;
    if (client->stopping) {
        return;
    }
    if (status == RK_OK && login->token != NULL && lease_s >= login->granted_s / 10 * 9) {
        rk_counter_add(&client->counters.renewals, 1);
        rk_log(RK_LOG_INFO, "vault_token_renewed", RK_I("lease_s", lease_s));
        set_lease(login, client, lease_s);
        return;
    }
    if (status != RK_OK) {
        rk_counter_add(&client->counters.renewal_failures, 1);
        rk_log(RK_LOG_WARN, "vault_renewal_failed", RK_S("reason", err->message));
    }
    ask(client);
}

void rk_login_on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct rk_vault_client *client = arg;
    struct rk_login *login = &client->login;
    (void)fd;
    (void)what;
    if (login->busy || login->token == NULL) {
        return;
    }
    if (rk_clock_mono_us() >= login->expires_at_us) {
        drop_token(client);
        ask(client);
        return;
    }
    login->busy = true;
    rk_client_ask(client, "auth/token/renew-self", json_object(), login->token, on_renewed, client);
}

enum rk_status rk_login_check(struct rk_vault_client *client, struct rk_error *err)
{
    const struct rk_config_vault *settings = client->settings;
    struct rk_secret_file file = {.text = NULL};
    json_t *secret = NULL;
    enum rk_status status = settings->auth == RK_CONFIG_VAULT_APPROLE
                                ? secret_id(client, &secret, err)
                                : rk_secret_file_read(settings->token_file, &file, err);
    json_decref(secret);
    rk_secret_file_free(&file);
    return status;
}

void rk_login_deinit(struct rk_login *login)
{
    drop(&login->token);
    drop(&login->candidate);
    drop(&login->secret_id);
    if (login->timer != NULL) {
        event_free(login->timer);
    }
}
