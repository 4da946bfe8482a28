#include "entries_internal.h"

#include <rekey/log/log.h>

#include <stdlib.h>
#include <string.h>

enum rk_status rk_key_loader_new(const struct rk_key_service_config *config,
                                 struct rk_readers *readers, struct rk_key_loader **out,
                                 struct rk_error *err)
{
    struct rk_key_loader *loader = calloc(1, sizeof *loader);
    if (loader == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    loader->provider = config->provider;
    loader->retry_interval_us = (uint64_t)config->negative_cache_ms * 1000u;
    loader->create_first_key = config->create_first_key;
    loader->create_tenant_keys = config->create_tenant_keys;
    loader->tenants_max = config->tenants_max;
    loader->lease_ms = config->instance_lease_ms;
    loader->cursor_grace_ms = config->cursor_grace_ms;
    loader->readers = readers;
    loader->newcomers = (struct rk_newcomers){
        .readers = readers, .grace_us = (uint64_t)config->cursor_grace_ms * 1000u};
    if (config->instance != NULL && (loader->instance = strdup(config->instance)) == NULL) {
        free(loader);
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    enum rk_status status =
        rk_registry_new(config->client_pool, config->state_db, &loader->registry, err);
    if (status != RK_OK) {
        free(loader->instance);
        free(loader);
        return status;
    }
    *out = loader;
    return RK_OK;
}

void rk_key_loader_free(struct rk_key_loader *loader)
{
    if (loader == NULL) {
        return;
    }
    if (loader->announce_at_us != 0 && loader->reachable) { /* else it would wait for a time-out */
        rk_key_presence_leave(loader);
    }
    for (size_t i = 0; i < loader->n_entries; i++) {
        rk_data_key_unref(loader->entries[i].key);
        free(loader->entries[i].name);
    }
    rk_newcomers_deinit(&loader->newcomers);
    free(loader->entries);
    free(loader->instance);
    rk_registry_free(loader->registry);
    free(loader);
}

/*
 * A current key that does not unwrap leaves its name without one: writes fail until it does. Going
 * on under the former key would undo the rotation in silence.
 */
static enum rk_status build(struct rk_key_loader *loader, struct rk_keyset **set,
                            struct rk_error *err)
{
    struct rk_keyset_key *keys = calloc(loader->n_entries + 1, sizeof *keys);
    if (keys == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < loader->n_entries; i++) {
        const struct rk_key_entry *entry = &loader->entries[i];
        keys[i] =
            (struct rk_keyset_key){entry->id, rk_key_entry_role(entry), entry->name, entry->key};
    }
    enum rk_status status =
        rk_keyset_new(keys, loader->n_entries, loader->legacy, loader->n_legacy, set, err);
    for (size_t i = 0; i < loader->n_entries && status == RK_OK; i++) {
        loader->entries[i].to_be_written = keys[i].role == RK_KEY_WRITES && keys[i].key != NULL;
    }
    free(keys);
    return status;
}

/* RK_OK as well when another instance was faster. */
static enum rk_status create_first(struct rk_key_loader *loader, const char *name,
                                   struct rk_error *err)
{
    struct rk_key_record made;
    enum rk_status status =
        rk_registry_create_first(loader->registry, &loader->provider, name, "rekeyd", &made, err);
    if (status == RK_OK) {
        rk_log(RK_LOG_INFO, "first_key_created", RK_S("name", made.name), RK_I("key_id", made.id));
    }
    return status == RK_ESTATE ? RK_OK : status;
}

/* Lists the registry, and makes its first key where that is wanted. */
static enum rk_status read_registry(struct rk_key_loader *loader, struct rk_key_record **records,
                                    size_t *n, struct rk_error *err)
{
    enum rk_status status = rk_registry_list(loader->registry, records, n, err);
    if (status != RK_OK || *n > 0) {
        return status;
    }
    if (loader->n_entries > 0) {
        /* Somebody emptied the registry. A fresh key under an id that is in use already would
         * make a mess of it; the keys in memory can still serve and be written back. */
        return rk_error_set(err, RK_ESTATE,
                            "the key registry is empty although %zu keys were loaded from it: "
                            "restore it from a backup before this process ends",
                            loader->n_entries);
    }
    if (!loader->create_first_key) {
        return RK_OK;
    }
    status = create_first(loader, RK_KEY_NAME_DEFAULT, err);
    if (status != RK_OK) {
        return status;
    }
    free(*records);
    *records = NULL;
    return rk_registry_list(loader->registry, records, n, err);
}

enum rk_status rk_key_loader_refresh(struct rk_key_loader *loader, struct rk_keyset **set,
                                     struct rk_error *err)
{
    struct rk_key_record *records = NULL;
    size_t n = 0;
    bool changed = !loader->published;
    enum rk_status status = RK_OK;
    *set = NULL;
    if (!loader->legacy_loaded) {
        status = loader->provider.ops->legacy(loader->provider.self, &loader->legacy,
                                              &loader->n_legacy, err);
        if (status != RK_OK) {
            return status;
        }
        loader->legacy_loaded = true;
    }
    uint64_t beat_us = loader->beat_us;
    status = read_registry(loader, &records, &n, err);
    loader->reachable = status == RK_OK;
    loader->known_us = status == RK_OK ? beat_us : loader->known_us;
    if (status == RK_OK) {
        status = rk_key_entries_take(loader, records, n, &changed, err);
    }
    if (status == RK_OK && changed) {
        status = build(loader, set, err);
        loader->published = status == RK_OK;
    }
    free(records);
    return status;
}

void rk_key_loader_forget_set(struct rk_key_loader *loader)
{
    loader->published = false;
}

bool rk_key_loader_want(struct rk_key_loader *loader, uint32_t key_id)
{
    for (size_t i = 0; i < loader->n_entries; i++) {
        struct rk_key_entry *entry = &loader->entries[i];
        if (entry->id == key_id && entry->state == RK_KEY_RETIRED && !entry->wanted) {
            rk_counter_add(&loader->figures.retired_needed, 1);
            rk_log(RK_LOG_WARN, "retired_key_needed", RK_I("key_id", key_id),
                   RK_S("reason", "a value under it was met, although a scan had found none"));
            entry->wanted = true;
            return true;
        }
    }
    return false;
}

bool rk_key_loader_has_pending(const struct rk_key_loader *loader, const char *name)
{
    for (size_t i = loader->n_entries; i > 0; i--) {
        const struct rk_key_entry *entry = &loader->entries[i - 1];
        if (entry->state == RK_KEY_PENDING && strcmp(entry->name, name) == 0) {
            return true;
        }
    }
    return false;
}

bool rk_key_loader_next_current(const struct rk_key_loader *loader, size_t *at,
                                struct rk_current_key *out)
{
    while (*at < loader->n_entries) {
        const struct rk_key_entry *entry = &loader->entries[(*at)++];
        if (rk_key_entry_role(entry) == RK_KEY_WRITES) {
            *out = (struct rk_current_key){.id = entry->id,
                                           .name = entry->name,
                                           .key = entry->key,
                                           .in_use = entry->written,
                                           .activated_at_ms = entry->activated_at_ms,
                                           .encryptions = entry->encryptions};
            return true;
        }
    }
    return false;
}

struct rk_registry *rk_key_loader_registry(struct rk_key_loader *loader)
{
    return loader->registry;
}

const struct rk_provider *rk_key_loader_provider(const struct rk_key_loader *loader)
{
    return &loader->provider;
}

const char *rk_key_loader_instance(const struct rk_key_loader *loader)
{
    return loader->instance;
}

void rk_key_loader_promote(struct rk_key_loader *loader)
{
    for (size_t i = 0; i < loader->n_entries && loader->instance != NULL; i++) {
        const struct rk_key_entry *entry = &loader->entries[i];
        struct rk_key_record key = {.id = entry->id};
        struct rk_error err;
        if (!entry->listed || entry->state != RK_KEY_PENDING) {
            continue;
        }
        memcpy(key.name, entry->name, strlen(entry->name) + 1);
        enum rk_status status = rk_registry_promote(loader->registry, &key, "rekeyd", &err);
        if (status != RK_OK && status != RK_ESTATE) {
            rk_log(RK_LOG_WARN, "key_promotion_failed", RK_I("key_id", entry->id),
                   RK_S("reason", err.message));
        }
    }
}

static bool knows_name(const struct rk_key_loader *loader, const char *name)
{
    for (size_t i = 0; i < loader->n_entries; i++) {
        if (strcmp(loader->entries[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static size_t count_tenants(const struct rk_key_loader *loader)
{
    size_t n = 0;
    for (size_t i = 0; i < loader->n_entries; i++) {
        const struct rk_key_entry *entry = &loader->entries[i];
        n += entry->first && strchr(entry->name, ':') != NULL ? 1 : 0;
    }
    return n;
}

bool rk_key_loader_create(struct rk_key_loader *loader, const char *name, struct rk_error *failure)
{
    bool tenant = strchr(name, ':') != NULL;
    if (knows_name(loader, name) ||
        !(tenant ? loader->create_tenant_keys : loader->create_first_key)) {
        return false;
    }
    if (tenant && count_tenants(loader) >= loader->tenants_max) {
        (void)rk_error_set(failure, RK_ELIMIT,
                           "%u tenants have keys already, as many as keys.tenants_max allows; make "
                           "\"%s\" one with rekeyctl keys rotate",
                           loader->tenants_max, name);
        return false;
    }
    return create_first(loader, name, failure) == RK_OK;
}

static bool is_asked(const struct rk_key_entry *entry, uint32_t key_id, const char *name)
{
    return key_id != 0
               ? entry->id == key_id
               : entry->state == RK_KEY_CURRENT && entry->listed && strcmp(entry->name, name) == 0;
}

void rk_key_loader_why_not(const struct rk_key_loader *loader, uint32_t key_id, const char *name,
                           struct rk_error *err)
{
    for (size_t i = 0; i < loader->n_entries; i++) {
        const struct rk_key_entry *entry = &loader->entries[i];
        if (is_asked(entry, key_id, name) && entry->key == NULL) {
            *err = entry->failure;
            return;
        }
    }
    if (key_id != 0) {
        (void)rk_error_set(err, RK_ENOENT, "the key registry has no key %u", key_id);
    } else if (strcmp(name, RK_KEY_NAME_DEFAULT) == 0) {
        (void)rk_error_set(err, RK_ENOENT,
                           "there is no current key: make one with `rekeyctl keys rotate`");
    } else {
        (void)rk_error_set(err, RK_ENOENT,
                           "\"%s\" has no current key: make one with `rekeyctl keys rotate %s`",
                           name, name);
    }
}
