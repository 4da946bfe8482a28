#include "loader_internal.h"

#include <rekey/base/clock.h>
#include <rekey/keys/instances.h>
#include <rekey/log/log.h>

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    uint32_t id;
    enum rk_key_state state;
    struct rk_data_key *key; /* NULL: is not wanted, or does not unwrap, see failure */
    bool wanted;             /* somebody asked for it, although it is retired */
    bool loaded;             /* in the set that is in use */
    bool written;            /* current in the set that is in use: values are written under it */
    bool to_be_written;      /* current in the set that was built last */
    bool announced;          /* as written */
    struct rk_error failure;
    uint64_t retry_at_us;
};

struct rk_key_loader {
    struct rk_registry *registry;
    struct rk_provider provider;
    uint64_t retry_interval_us;
    bool create_first_key;

    const struct rk_legacy_key *legacy; /* the provider's */
    size_t n_legacy;
    bool legacy_loaded;

    struct entry *entries; /* every id that the registry ever listed, by rising id */
    size_t n_entries;
    uint32_t current_id; /* in the registry; 0: none */
    uint32_t missing_id; /* in the registry, but does not unwrap; 0: none */
    uint32_t pending_id; /* the same */
    bool published;      /* a keyset was handed out */
    bool reachable;      /* the registry, at the last look */

    char *instance; /* NULL: not announced */
    uint32_t lease_ms;
    uint64_t announce_at_us; /* when the next heartbeat is due */
    bool announced;          /* the last set */
};

enum rk_status rk_key_loader_new(const struct rk_key_service_config *config,
                                 struct rk_key_loader **out, struct rk_error *err)
{
    struct rk_key_loader *loader = calloc(1, sizeof *loader);
    if (loader == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    loader->provider = config->provider;
    loader->retry_interval_us = (uint64_t)config->negative_cache_ms * 1000u;
    loader->create_first_key = config->create_first_key;
    loader->lease_ms = config->instance_lease_ms;
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
        rk_instances_leave(loader->registry, loader->instance);
    }
    for (size_t i = 0; i < loader->n_entries; i++) {
        rk_data_key_unref(loader->entries[i].key);
    }
    free(loader->entries);
    free(loader->instance);
    rk_registry_free(loader->registry);
    free(loader);
}

/* The entry of id; added in its place when there is none. NULL: out of memory. */
static struct entry *entry_of(struct rk_key_loader *loader, uint32_t id)
{
    size_t at = loader->n_entries;
    while (at > 0 && loader->entries[at - 1].id > id) {
        at--;
    }
    if (at > 0 && loader->entries[at - 1].id == id) {
        return &loader->entries[at - 1];
    }
    struct entry *grown =
        realloc(loader->entries, (loader->n_entries + 1) * sizeof *loader->entries);
    if (grown == NULL) {
        return NULL;
    }
    loader->entries = grown;
    memmove(&grown[at + 1], &grown[at], (loader->n_entries - at) * sizeof *grown);
    grown[at] = (struct entry){.id = id};
    loader->n_entries++;
    return &grown[at];
}

static void unwrap(struct rk_key_loader *loader, struct entry *entry,
                   const struct rk_key_record *record)
{
    uint8_t root[RK_DATA_KEY_LEN];
    struct rk_error why = {.status = RK_OK};
    /* Not the time of activation: a pending key has none, and must give the same values later. */
    int64_t created_at_s = record->created_at_ms / 1000;
    if (created_at_s < 0 || created_at_s > UINT32_MAX) {
        created_at_s = 0; /* any constant of the key will do */
    }
    enum rk_status status = loader->provider.ops->unwrap(loader->provider.self, record->id,
                                                         &record->wrapped, root, &why);
    if (status == RK_OK) {
        status = rk_data_key_new(record->id, root, (uint32_t)created_at_s, &entry->key, &why);
    }
    OPENSSL_cleanse(root, sizeof root);
    if (status == RK_OK) {
        rk_log(RK_LOG_INFO, "key_loaded", RK_I("key_id", record->id),
               RK_S("kek", record->wrapped.kek));
        return;
    }
    if (strcmp(entry->failure.message, why.message) != 0) {
        rk_log(RK_LOG_ERROR, "key_unwrap_failed", RK_I("key_id", record->id),
               RK_S("reason", why.message));
    }
    entry->failure = why;
    entry->retry_at_us = rk_clock_mono_us() + loader->retry_interval_us;
}

/* What is destroyed must not be used any more, and what is retired is not needed. */
static bool drop(struct entry *entry)
{
    bool loaded = entry->key != NULL;
    if (loaded) {
        rk_log(RK_LOG_INFO, "key_dropped", RK_I("key_id", entry->id),
               RK_S("state", rk_key_state_name(entry->state)));
        rk_data_key_unref(entry->key);
        entry->key = NULL;
    }
    return loaded;
}

static void say_why_not(struct entry *entry)
{
    (void)(entry->state == RK_KEY_DESTROYED
               ? rk_error_set(&entry->failure, RK_ENOENT,
                              "data key %u was destroyed: nothing under it can be read any more",
                              entry->id)
               : rk_error_set(&entry->failure, RK_EIO,
                              "data key %u is retired and could not be loaded again", entry->id));
}

/* Takes over the record's state; true when its key has come or gone. */
static bool take_record(struct rk_key_loader *loader, struct entry *entry,
                        const struct rk_key_record *record)
{
    entry->state = record->state;
    if (record->state == RK_KEY_DESTROYED || (record->state == RK_KEY_RETIRED && !entry->wanted)) {
        say_why_not(entry);
        return drop(entry);
    }
    if (entry->key != NULL || rk_clock_mono_us() < entry->retry_at_us) {
        return false;
    }
    unwrap(loader, entry, record);
    return entry->key != NULL;
}

/* Nothing is stored under a pending key, nothing was found under a retired one, and nothing under a
 * destroyed one can be searched for. */
static bool may_hold_values(const struct entry *entry)
{
    return entry->state == RK_KEY_CURRENT || entry->state == RK_KEY_RETIRING ||
           (entry->state == RK_KEY_RETIRED && entry->wanted);
}

/* Brings the entries in line with the records. *changed is set when the keyset has to be rebuilt.
 */
static enum rk_status take_records(struct rk_key_loader *loader,
                                   const struct rk_key_record *records, size_t n, bool *changed,
                                   struct rk_error *err)
{
    uint32_t current_id = 0;
    uint32_t missing_id = 0;
    loader->pending_id = 0;
    for (size_t i = 0; i < n; i++) {
        struct entry *entry = entry_of(loader, records[i].id);
        if (entry == NULL) {
            return rk_error_set(err, RK_ENOMEM, "out of memory");
        }
        *changed = take_record(loader, entry, &records[i]) || *changed;
        if (entry->key == NULL && may_hold_values(entry)) {
            missing_id = records[i].id;
        }
        if (records[i].state == RK_KEY_CURRENT) {
            current_id = records[i].id;
        } else if (records[i].state == RK_KEY_PENDING) {
            loader->pending_id = records[i].id;
        }
    }
    *changed = *changed || missing_id != loader->missing_id;
    loader->missing_id = missing_id;
    if (current_id != loader->current_id) {
        rk_log(RK_LOG_INFO, "current_key_changed", RK_I("from", loader->current_id),
               RK_I("to", current_id));
        loader->current_id = current_id;
        *changed = true;
    }
    return RK_OK;
}

/*
 * A current key that does not unwrap leaves the set without a current key: writes fail until it
 * does. Going on under the former key would undo the rotation in silence.
 */
static enum rk_status build(struct rk_key_loader *loader, struct rk_keyset **set,
                            struct rk_error *err)
{
    size_t n = 0;
    uint32_t current_id = 0;
    struct rk_data_key **keys = calloc(loader->n_entries + 1, sizeof(struct rk_data_key *));
    if (keys == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < loader->n_entries; i++) {
        if (loader->entries[i].key == NULL) {
            continue;
        }
        keys[n++] = loader->entries[i].key;
        if (loader->entries[i].id == loader->current_id) {
            current_id = loader->current_id;
        }
    }
    enum rk_status status =
        rk_keyset_new(keys, n, current_id, loader->legacy, loader->n_legacy, set, err);
    free(keys);
    if (status != RK_OK) {
        return status;
    }
    rk_keyset_set_missing(*set, loader->missing_id);
    for (size_t i = 0; i < loader->n_entries; i++) {
        loader->entries[i].to_be_written = current_id != 0 && loader->entries[i].id == current_id;
    }
    return RK_OK;
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
    uint32_t id = 0;
    status = rk_registry_create_first(loader->registry, &loader->provider, "rekeyd", &id, err);
    if (status == RK_OK) {
        rk_log(RK_LOG_INFO, "first_key_created", RK_I("key_id", id));
    } else if (status != RK_ESTATE) { /* RK_ESTATE: another instance was faster, which is fine */
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
    status = read_registry(loader, &records, &n, err);
    loader->reachable = status == RK_OK;
    if (status == RK_OK) {
        status = take_records(loader, records, n, &changed, err);
    }
    if (status == RK_OK && changed) {
        status = build(loader, set, err);
        loader->published = status == RK_OK;
    }
    free(records);
    return status;
}

enum rk_status rk_key_loader_announce(struct rk_key_loader *loader, struct rk_error *err)
{
    uint64_t now_us = rk_clock_mono_us();
    if (loader->instance == NULL || (loader->announced && now_us < loader->announce_at_us)) {
        return RK_OK;
    }
    uint32_t *ids = calloc(2 * loader->n_entries + 1, sizeof *ids);
    if (ids == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    uint32_t *written = ids + loader->n_entries;
    struct rk_heartbeat heartbeat = {.instance = loader->instance,
                                     .lease_ms = loader->lease_ms,
                                     .key_ids = ids,
                                     .written_ids = written};
    for (size_t i = 0; i < loader->n_entries; i++) {
        const struct entry *entry = &loader->entries[i];
        if (entry->loaded) {
            ids[heartbeat.n_keys++] = entry->id;
        }
        if (entry->written || entry->to_be_written) {
            written[heartbeat.n_written++] = entry->id;
        }
    }
    enum rk_status status = rk_instances_beat(loader->registry, &heartbeat, err);
    if (status == RK_OK) {
        for (size_t i = 0; i < loader->n_entries; i++) {
            struct entry *entry = &loader->entries[i];
            entry->announced = entry->written || entry->to_be_written;
        }
        loader->announced = true;
        loader->announce_at_us = now_us + (uint64_t)loader->lease_ms * 1000u / 3;
    }
    free(ids);
    return status;
}

bool rk_key_loader_unannounced(struct rk_key_loader *loader)
{
    for (size_t i = 0; i < loader->n_entries && loader->instance != NULL; i++) {
        if (loader->entries[i].to_be_written && !loader->entries[i].announced) {
            loader->announced = false;
            return true;
        }
    }
    return false;
}

void rk_key_loader_forget_set(struct rk_key_loader *loader)
{
    loader->published = false;
}

void rk_key_loader_in_use(struct rk_key_loader *loader)
{
    for (size_t i = 0; i < loader->n_entries; i++) {
        struct entry *entry = &loader->entries[i];
        entry->loaded = entry->key != NULL;
        entry->written = entry->to_be_written;
    }
    loader->announced = false;
}

bool rk_key_loader_want(struct rk_key_loader *loader, uint32_t key_id)
{
    for (size_t i = 0; i < loader->n_entries; i++) {
        struct entry *entry = &loader->entries[i];
        if (entry->id == key_id && entry->state == RK_KEY_RETIRED && !entry->wanted) {
            rk_log(RK_LOG_WARN, "retired_key_needed", RK_I("key_id", key_id),
                   RK_S("reason", "a value under it was met, although a scan had found none"));
            entry->wanted = true;
            return true;
        }
    }
    return false;
}

void rk_key_loader_promote(struct rk_key_loader *loader)
{
    struct rk_error err;
    if (loader->instance == NULL || loader->pending_id == 0) {
        return;
    }
    enum rk_status status =
        rk_registry_promote(loader->registry, loader->pending_id, "rekeyd", &err);
    if (status != RK_OK && status != RK_ESTATE) {
        rk_log(RK_LOG_WARN, "key_promotion_failed", RK_I("key_id", loader->pending_id),
               RK_S("reason", err.message));
    }
}

enum rk_status rk_key_loader_why_not(const struct rk_key_loader *loader, uint32_t key_id,
                                     struct rk_error *err)
{
    if (key_id == 0 && loader->current_id == 0) {
        return rk_error_set(err, RK_ENOENT,
                            "there is no current key: make one with `rekeyctl keys rotate`");
    }
    uint32_t id = key_id == 0 ? loader->current_id : key_id;
    for (size_t i = 0; i < loader->n_entries; i++) {
        const struct entry *entry = &loader->entries[i];
        if (entry->id == id && entry->key == NULL) {
            return rk_error_set(err, entry->failure.status, "%s", entry->failure.message);
        }
    }
    return rk_error_set(err, RK_ENOENT, "the key registry has no key %u", id);
}
