/* rekeyctl keys ... */
#include "keys_internal.h"

#include <rekey/vault/provider.h>

#include <bson/bson.h>
#include <rekey/base/clock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Longer than the default of keys.instance_lease_ms, after which the dead hold up nothing. */
#define PROMOTION_WAIT_US 30000000u
#define PROMOTION_POLL_US 50000u
#define PROMOTION_QUIET_US 2000000u /* a rotation that lasts longer says what it waits for */

static enum rk_ctl_exit print_keys(const struct rk_key_record *records, size_t n)
{
    static const char *const headers[] = {"ID", "NAME", "STATE", "KEK", "CREATED", "ACTIVATED"};
    struct rk_ctl_table *table = NULL;
    struct rk_error err;
    if (n == 0) {
        (void)printf("no keys yet: `rekeyctl keys rotate` makes the first one\n");
        return RK_CTL_OK;
    }
    enum rk_status status = rk_ctl_table_new(headers, 6, &table);
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        char id[16];
        char created[RK_CTL_TIME_LEN];
        char activated[RK_CTL_TIME_LEN];
        (void)snprintf(id, sizeof id, "%u", records[i].id);
        const char *const cells[] = {
            id,
            records[i].name,
            rk_key_state_name(records[i].state),
            records[i].wrapped.kek,
            rk_ctl_time(records[i].created_at_ms, created),
            rk_ctl_time(records[i].activated_at_ms, activated),
        };
        status = rk_ctl_table_row(table, cells);
    }
    if (status == RK_OK) {
        rk_ctl_table_print(table);
    } else {
        (void)rk_error_set(&err, status, "cannot print the keys: %s", rk_status_name(status));
    }
    rk_ctl_table_free(table);
    return status == RK_OK ? RK_CTL_OK : rk_ctl_fail(&err);
}

static enum rk_ctl_exit print_keys_json(const struct rk_key_record *records, size_t n)
{
    bson_t doc = BSON_INITIALIZER;
    bson_t keys;
    BSON_APPEND_ARRAY_BEGIN(&doc, "keys", &keys);
    for (size_t i = 0; i < n; i++) {
        bson_t key;
        char index[16];
        const char *name = NULL;
        char when[RK_CTL_TIME_LEN];
        size_t len = bson_uint32_to_string((uint32_t)i, &name, index, sizeof index);
        bson_append_document_begin(&keys, name, (int)len, &key);
        BSON_APPEND_INT64(&key, "id", (int64_t)records[i].id);
        BSON_APPEND_UTF8(&key, "name", records[i].name);
        BSON_APPEND_UTF8(&key, "state", rk_key_state_name(records[i].state));
        BSON_APPEND_UTF8(&key, "kek", records[i].wrapped.kek);
        BSON_APPEND_UTF8(&key, "createdAt", rk_ctl_time(records[i].created_at_ms, when));
        BSON_APPEND_UTF8(&key, "activatedAt", rk_ctl_time(records[i].activated_at_ms, when));
        bson_append_document_end(&keys, &key);
    }
    bson_append_array_end(&doc, &keys);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_ctl_exit run_list(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    struct rk_registry *registry = NULL;
    struct rk_key_record *records = NULL;
    size_t n = 0;
    enum rk_ctl_exit code;
    if (argc > 1) {
        return rk_ctl_usage("keys list takes no argument, got %s", argv[1]);
    }
    if (rk_registry_new(ctl->client_pool, ctl->config->upstream.state_db, &registry, &err) !=
            RK_OK ||
        rk_registry_list(registry, &records, &n, &err) != RK_OK) {
        code = rk_ctl_fail(&err);
    } else {
        code = ctl->json ? print_keys_json(records, n) : print_keys(records, n);
    }
    free(records);
    rk_registry_free(registry);
    return code;
}

static enum rk_ctl_exit print_rotated(const struct rk_ctl *ctl, const struct rk_key_record *made)
{
    if (!ctl->json) {
        (void)printf("key %u is the current one of \"%s\"; running instances write under it within "
                     "%u ms\n",
                     made->id, made->name, ctl->config->keys.refresh_interval_ms);
        return RK_CTL_OK;
    }
    bson_t doc = BSON_INITIALIZER;
    BSON_APPEND_INT64(&doc, "keyId", (int64_t)made->id);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_ctl_exit print_rewrapped(const struct rk_ctl *ctl, uint32_t n)
{
    if (!ctl->json) {
        (void)printf("%u data keys wrapped anew\n", n);
        return RK_CTL_OK;
    }
    bson_t doc = BSON_INITIALIZER;
    BSON_APPEND_INT64(&doc, "rewrapped", (int64_t)n);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

/* A change of the registry that needs the provider; arg is what it is told, and what it tells. */
typedef enum rk_status change_fn(struct rk_registry *registry, const struct rk_provider *provider,
                                 const char *actor, void *arg, struct rk_error *err);

static enum rk_status change(struct rk_ctl *ctl, change_fn *fn, void *arg, struct rk_error *err)
{
    struct rk_registry *registry = NULL;
    struct rk_provider provider;
    enum rk_status status = rk_provider_open(&ctl->config->keys, &provider, err);
    if (status != RK_OK) {
        return status;
    }
    status = rk_registry_new(ctl->client_pool, ctl->config->upstream.state_db, &registry, err);
    if (status == RK_OK) {
        status = fn(registry, &provider, ctl->actor, arg, err);
    }
    rk_registry_free(registry);
    provider.ops->free(provider.self);
    return status;
}

/* A new key, and the wait until it is current. Instances make it so themselves, should this end. */
struct rotation {
    const char *name;
    struct rk_key_record made;
};

static enum rk_status rotate(struct rk_registry *registry, const struct rk_provider *provider,
                             const char *actor, void *arg, struct rk_error *err)
{
    struct rotation *rotation = arg;
    struct rk_key_record *made = &rotation->made;
    enum rk_status status =
        rk_registry_rotate(registry, provider, rotation->name, actor, made, err);
    if (status != RK_OK || made->state == RK_KEY_CURRENT) {
        return status;
    }
    uint64_t started_us = rk_clock_mono_us();
    uint64_t waited_us = 0;
    struct rk_error said = {.message = ""};
    while ((status = rk_registry_promote(registry, made, actor, err)) == RK_ESTATE &&
           waited_us < PROMOTION_WAIT_US) {
        if (waited_us > PROMOTION_QUIET_US && strcmp(said.message, err->message) != 0) {
            said = *err;
            (void)fprintf(stderr, "rekeyctl: %s\n", said.message);
        }
        (void)usleep(PROMOTION_POLL_US);
        waited_us = rk_clock_mono_us() - started_us;
    }
    return status;
}

static enum rk_ctl_exit run_rotate(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    struct rotation rotation = {.name = argc > 1 ? argv[1] : RK_KEY_NAME_DEFAULT};
    if (argc > 2) {
        return rk_ctl_usage("keys rotate takes one name, got %s", argv[2]);
    }
    if (!rk_key_name_valid(rotation.name)) {
        return rk_ctl_usage("\"%s\" is no name for a key", rotation.name);
    }
    return change(ctl, rotate, &rotation, &err) == RK_OK ? print_rotated(ctl, &rotation.made)
                                                         : rk_ctl_fail(&err);
}

static enum rk_status rewrap(struct rk_registry *registry, const struct rk_provider *provider,
                             const char *actor, void *arg, struct rk_error *err)
{
    return rk_registry_rewrap(registry, provider, actor, arg, err);
}

static enum rk_ctl_exit run_rewrap(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    uint32_t n = 0;
    if (argc > 1) {
        return rk_ctl_usage("keys rewrap takes no argument, got %s", argv[1]);
    }
    return change(ctl, rewrap, &n, &err) == RK_OK ? print_rewrapped(ctl, n) : rk_ctl_fail(&err);
}

static enum rk_ctl_exit run_init(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    const char *path = argc == 2 ? argv[1] : NULL;
    if (argc > 2) {
        return rk_ctl_usage("keys init takes one file");
    }
    if (path == NULL) {
        enum rk_ctl_exit code = rk_ctl_load_config(ctl);
        if (code != RK_CTL_OK) {
            return code;
        }
        path = ctl->config->keys.keyring_file;
    }
    if (rk_keyring_create(path, &err) != RK_OK) {
        return rk_ctl_fail(&err);
    }
    if (!ctl->json) {
        (void)printf("%s: made, with a fresh key-encryption key; keep a backup, without it the "
                     "data is lost\n",
                     path);
        return RK_CTL_OK;
    }
    bson_t doc = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&doc, "path", path);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

const struct rk_ctl_command rk_ctl_key_commands[] = {
    {.group = "keys",
     .name = "init",
     .args = "[FILE]",
     .help = "make a keyring file with a fresh key-encryption key (default: keys.keyring_file)",
     .needs = RK_CTL_NEEDS_NOTHING,
     .run = run_init},
    {.group = "keys",
     .name = "list",
     .args = "",
     .help = "show the data keys and their states",
     .needs = RK_CTL_NEEDS_SERVER,
     .run = run_list},
    {.group = "keys",
     .name = "rotate",
     .args = "[NAME]",
     .help = "make a new current data key (default: of the name default); the former one becomes "
             "retiring",
     .needs = RK_CTL_NEEDS_SERVER,
     .run = run_rotate},
    {.group = "keys",
     .name = "status",
     .args = "[ID|NAME] [--count]",
     .help = "show where keys stand: who has them, what needs them, what comes next and hinders "
             "it; --count: count that first",
     .needs = RK_CTL_NEEDS_SERVER,
     .run = rk_ctl_run_keys_status},
    {.group = "keys",
     .name = "retire",
     .args = "ID|NAME [--wait] [--gone] [--everywhere] [--restart]",
     .help = "prove by a full scan that nothing needs a retiring key any more",
     .needs = RK_CTL_NEEDS_SERVER,
     .run = rk_ctl_run_keys_retire},
    {.group = "keys",
     .name = "destroy",
     .args = "ID|NAME [--confirm NAME] [--shred [--count N]] [--everywhere] [--restart]",
     .help = "delete a retired key for ever, after another scan; --shred: with what needs it",
     .needs = RK_CTL_NEEDS_SERVER,
     .run = rk_ctl_run_keys_destroy},
    {.group = "keys",
     .name = "rewrap",
     .args = "",
     .help = "wrap all data keys with the newest key-encryption key; no data changes",
     .needs = RK_CTL_NEEDS_SERVER,
     .run = run_rewrap},
    {.name = NULL},
};
