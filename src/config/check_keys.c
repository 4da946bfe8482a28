#include "config_internal.h"

#include <rekey/base/hostport.h>
#include <stdio.h>
#include <string.h>

#define SCHEME "https://"

/* A name in a path of Vault's API: nothing that leads elsewhere. */
#define LEASES_MIN 100u /* before a key counts as used up */

static enum rk_status check_name(const char *key, const char *name,
                                 const struct rk_config_source *source, struct rk_error *err)
{
    size_t len = strlen(name);
    if (len == 0 || len > 60 || name[0] == '/' || name[len - 1] == '/' ||
        strstr(name, "..") != NULL || strstr(name, "//") != NULL ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/") != len) {
        return rk_config_refuse(source, err, key,
                                "must be a name of up to 60 letters, digits, dots, dashes, "
                                "underscores and inner slashes, not \"%.100s\"",
                                name);
    }
    return RK_OK;
}

static enum rk_status check_addresses(const struct rk_config_vault *vault,
                                      const struct rk_config_source *source, struct rk_error *err)
{
    struct rk_hostport at;
    char key[64];
    for (unsigned i = 0; i < vault->addresses_count; i++) {
        const char *address = vault->addresses[i];
        if (strncmp(address, SCHEME, strlen(SCHEME)) != 0 ||
            strchr(address + strlen(SCHEME), '/') != NULL || strchr(address, '@') != NULL ||
            !rk_hostport_parse(address + strlen(SCHEME), &at)) {
            (void)snprintf(key, sizeof key, "keys.vault.addresses[%u]", i);
            return rk_config_refuse(source, err, key,
                                    "must be https://host:port, without a path, not \"%.100s\"",
                                    address);
        }
    }
    for (unsigned i = 0; i < vault->redirect_hosts_count; i++) {
        if (!rk_hostport_parse(vault->redirect_hosts[i], &at)) {
            (void)snprintf(key, sizeof key, "keys.vault.redirect_hosts[%u]", i);
            return rk_config_refuse(source, err, key, "must be host:port, not \"%.100s\"",
                                    vault->redirect_hosts[i]);
        }
    }
    return RK_OK;
}

static enum rk_status check_auth(const struct rk_config_vault *vault,
                                 const struct rk_config_source *source, struct rk_error *err)
{
    if (vault->auth == RK_CONFIG_VAULT_TOKEN_FILE) {
        return vault->token_file != NULL
                   ? RK_OK
                   : rk_config_refuse(source, err, "keys.vault.token_file",
                                      "is required with keys.vault.auth: token_file");
    }
    if (vault->role_id == NULL) {
        return rk_config_refuse(source, err, "keys.vault.role_id",
                                "is required with keys.vault.auth: approle");
    }
    if ((vault->secret_id_file != NULL) == (vault->secret_id_env != NULL)) {
        return rk_config_refuse(source, err, "keys.vault.secret_id_file",
                                "or keys.vault.secret_id_env is required, one of them: the "
                                "secret_id itself does not belong in this file");
    }
    return check_name("keys.vault.auth_mount", vault->auth_mount, source, err);
}

static enum rk_status check_legacy(const struct rk_config_vault *vault,
                                   const struct rk_config_source *source, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    for (unsigned i = 0; i < vault->legacy_count && status == RK_OK; i++) {
        char key[64];
        (void)snprintf(key, sizeof key, "keys.vault.legacy[%u].path", i);
        status = check_name(key, vault->legacy[i].path, source, err);
        for (unsigned j = 0; j < i && status == RK_OK; j++) {
            if (strcmp(vault->legacy[i].name, vault->legacy[j].name) == 0) {
                (void)snprintf(key, sizeof key, "keys.vault.legacy[%u].name", i);
                status = rk_config_refuse(source, err, key, "is already that of entry %u", j);
            }
        }
    }
    return status;
}

static enum rk_status check_vault(const struct rk_config_vault *vault,
                                  const struct rk_config_source *source, struct rk_error *err)
{
    if (vault->addresses_count == 0) {
        return rk_config_refuse(source, err, "keys.vault.addresses",
                                "is required with keys.provider: vault");
    }
    if (vault->ca_file == NULL) {
        return rk_config_refuse(source, err, "keys.vault.ca_file",
                                "is required: only this authority's servers get Rekey's token");
    }
    if (strchr(vault->key, '/') != NULL) {
        return rk_config_refuse(source, err, "keys.vault.key", "must not hold a slash");
    }
    if (vault->retry_backoff_ms > vault->retry_backoff_max_ms) {
        return rk_config_refuse(source, err, "keys.vault.retry_backoff_ms",
                                "must not pass keys.vault.retry_backoff_max_ms (%u), not %u",
                                vault->retry_backoff_max_ms, vault->retry_backoff_ms);
    }
    enum rk_status status = check_addresses(vault, source, err);
    if (status == RK_OK) {
        status = check_name("keys.vault.transit_mount", vault->transit_mount, source, err);
    }
    if (status == RK_OK) {
        status = check_name("keys.vault.key", vault->key, source, err);
    }
    if (status == RK_OK) {
        status = check_legacy(vault, source, err);
    }
    return status == RK_OK ? check_auth(vault, source, err) : status;
}

enum rk_status rk_config_check_keys(const struct rk_config_keys *keys,
                                    const struct rk_config_source *source, struct rk_error *err)
{
    if (keys->rotate_after_encryptions != 0 &&
        keys->encryption_lease > keys->rotate_after_encryptions / LEASES_MIN) {
        return rk_config_refuse(source, err, "keys.encryption_lease",
                                "must be at most a hundredth of keys.rotate_after_encryptions "
                                "(%u), not %u: each instance counts so many ahead",
                                keys->rotate_after_encryptions, keys->encryption_lease);
    }
    return keys->provider == RK_CONFIG_VAULT ? check_vault(&keys->vault, source, err) : RK_OK;
}
