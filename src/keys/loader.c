#include "loader_internal.h"

#include "newcomers_internal.h"

#include <rekey/base/clock.h>
#include <rekey/keys/instances.h>
#include <rekey/log/log.h>

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    uint32_t id;
    char *name;
    bool first; /* of its name */
    enum rk_key_state state;
    bool listed;             /* in the registry, at the last look */
    struct rk_data_key *key; /* NULL: is not wanted, or does not unwrap, see failure */
    bool wanted;             /* somebody asked for it, although it is retired */
    bool current;            /* of its name, whether or not it could be loaded; for the log */
    bool loaded;             /* in the set that is in use */
    bool settled;            /* nobody reads without it any more: may be announced as loaded */
    uint64_t epoch;          /* readers.h: it came into use with this one; 0: it never was */
    bool written;            /* current in the set that is in use: values are written under it */
    bool to_be_written;      /* current in the set that was built last */
    bool announced;          /* as written */
    int64_t activated_at_ms;
    uint64_t encryptions;
    struct rk_error failure;
    uint64_t retry_at_us;
};

struct rk_key_loader {
    struct rk_registry *registry;
    struct rk_provider provider;
    uint64_t retry_interval_us;
    bool create_first_key;
    bool create_tenant_keys;
    uint32_t tenants_max;

    const struct rk_legacy_key *legacy; /* the provider's */
    size_t n_legacy;
    bool legacy_loaded;

    struct entry *entries; /* every id that the registry ever listed, by rising id */
    size_t n_entries;
    bool published; /* a keyset was handed out */
    bool reachable; /* the registry, at the last look */

    struct rk_readers *readers;
    struct rk_newcomers newcomers;
    uint32_t needed_id; /* the last in the registry that was waited for, and under which values may
                           lie */

    char *instance; /* NULL: not announced */
    uint32_t lease_ms;
    uint32_t cursor_grace_ms;
    uint64_t announce_at_us; /* when the next heartbeat is due */
    bool announced;          /* the last set */

    struct rk_key_figures figures;
};

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

/* The last key that whoever reads in epoch, or a later one, reads with. */
static uint32_t newest_of(const struct rk_key_loader *loader, uint64_t epoch)
{
    for (size_t i = 0; i < loader->n_entries; i++) {
        const struct entry *entry = &loader->entries[i];
        bool lies = entry->state == RK_KEY_PENDING || entry->state == RK_KEY_CURRENT ||
                    entry->state == RK_KEY_RETIRING;
        if (lies && (entry->epoch == 0 || entry->epoch > epoch)) {
            return entry->id - 1;
        }
    }
    return UINT32_MAX; /* of those that there are */
}

static void leave(struct rk_key_loader *loader)
{
    struct rk_open_cursors open = {.n = 0};
    struct rk_error err;
    open.ids = rk_readers_cursors(loader->readers, true, RK_OPEN_CURSORS_MAX, &open.n);
    uint32_t newest = newest_of(loader, rk_readers_oldest(loader->readers));
    uint32_t last = loader->n_entries > 0 ? loader->entries[loader->n_entries - 1].id : 0;
    open.up_to = newest < last ? newest : last;
    if (rk_instances_leave(loader->registry, loader->instance, loader->cursor_grace_ms, &open,
                           &err) != RK_OK) {
        rk_log(RK_LOG_WARN, "heartbeat_failed", RK_S("reason", err.message));
    }
    free(open.ids);
}

void rk_key_loader_free(struct rk_key_loader *loader)
{
    if (loader == NULL) {
        return;
    }
    if (loader->announce_at_us != 0 && loader->reachable) { /* else it would wait for a time-out */
        leave(loader);
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

/* The entry of the record; added in its place when there is none. NULL: out of memory. */
static struct entry *entry_of(struct rk_key_loader *loader, const struct rk_key_record *record)
{
    size_t low = 0;
    size_t high = loader->n_entries;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (loader->entries[middle].id < record->id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < loader->n_entries && loader->entries[low].id == record->id) {
        return &loader->entries[low];
    }
    char *name = strdup(record->name);
    struct entry *grown =
        realloc(loader->entries, (loader->n_entries + 1) * sizeof *loader->entries);
    if (grown != NULL) {
        loader->entries = grown;
    }
    if (name == NULL || grown == NULL) {
        free(name);
        return NULL;
    }
    bool first = true;
    for (size_t i = 0; i < low && first; i++) {
        first = strcmp(grown[i].name, name) != 0;
    }
    memmove(&grown[low + 1], &grown[low], (loader->n_entries - low) * sizeof *grown);
    grown[low] =
        (struct entry){.id = record->id, .name = name, .first = first, .state = RK_KEY_PENDING};
    loader->n_entries++;
    return &grown[low];
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
    uint64_t begun_us = rk_clock_mono_us();
    enum rk_status status = loader->provider.ops->unwrap(loader->provider.self, record->id,
                                                         &record->wrapped, root, &why);
    if (status == RK_OK && record->wrapped.remote) {
        status = rk_data_key_new_remote(record->id, record->wrapped.kek, (uint32_t)created_at_s,
                                        &entry->key, &why);
    } else if (status == RK_OK) {
        status = rk_data_key_new(record->id, root, (uint32_t)created_at_s, &entry->key, &why);
    }
    OPENSSL_cleanse(root, sizeof root);
    rk_counter_add(&loader->figures.load_us, rk_clock_mono_us() - begun_us);
    rk_counter_add(status == RK_OK ? &loader->figures.loads : &loader->figures.load_failures, 1);
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

static enum rk_key_role role_of(const struct entry *entry)
{
    switch (entry->state) {
    case RK_KEY_CURRENT:
        return entry->listed ? RK_KEY_WRITES : RK_KEY_READS;
    case RK_KEY_RETIRING:
        return RK_KEY_READS;
    case RK_KEY_RETIRED: /* nothing was found under it */
        return entry->wanted ? RK_KEY_READS : RK_KEY_UNUSED;
    case RK_KEY_DESTROYED:
        return RK_KEY_GONE;
    case RK_KEY_PENDING:
        break;
    }
    return RK_KEY_UNUSED;
}

/* Takes over the record; true when the keyset has to be rebuilt. */
static bool take_record(struct rk_key_loader *loader, struct entry *entry,
                        const struct rk_key_record *record)
{
    bool changed = entry->state != record->state || !entry->listed;
    entry->state = record->state;
    entry->listed = true;
    entry->activated_at_ms = record->activated_at_ms;
    entry->encryptions = record->encryptions;
    if (record->state == RK_KEY_DESTROYED || (record->state == RK_KEY_RETIRED && !entry->wanted)) {
        say_why_not(entry);
        return drop(entry) || changed;
    }
    if (entry->key != NULL || rk_clock_mono_us() < entry->retry_at_us) {
        return changed;
    }
    unwrap(loader, entry, record);
    return entry->key != NULL || changed;
}

struct rk_key_figures *rk_key_loader_figures(struct rk_key_loader *loader)
{
    return &loader->figures;
}

static void count_states(struct rk_key_loader *loader)
{
    uint64_t n[RK_KEY_DESTROYED + 1] = {0};
    for (size_t i = 0; i < loader->n_entries; i++) {
        n[loader->entries[i].state] += loader->entries[i].listed;
    }
    for (size_t i = 0; i <= RK_KEY_DESTROYED; i++) {
        rk_counter_set(&loader->figures.states[i], n[i]);
    }
}

/* Brings the entries in line with the records. *changed is set when the keyset has to be rebuilt.
 */
static enum rk_status take_records(struct rk_key_loader *loader,
                                   const struct rk_key_record *records, size_t n, bool *changed,
                                   struct rk_error *err)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        struct entry *entry = entry_of(loader, &records[i]);
        if (entry == NULL) {
            return rk_error_set(err, RK_ENOMEM, "out of memory");
        }
        *changed = take_record(loader, entry, &records[i]) || *changed;
        if (!entry->first && (entry->state == RK_KEY_CURRENT || entry->state == RK_KEY_RETIRING)) {
            loader->needed_id = entry->id;
        }
    }
    /* What is no longer listed stays as it is, but is not written under. Both rise by id. */
    for (size_t i = 0; i < loader->n_entries; i++) {
        struct entry *entry = &loader->entries[i];
        while (at < n && records[at].id < entry->id) {
            at++;
        }
        bool listed = at < n && records[at].id == entry->id;
        *changed = *changed || entry->listed != listed;
        entry->listed = listed;
    }
    return RK_OK;
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
        const struct entry *entry = &loader->entries[i];
        keys[i] = (struct rk_keyset_key){entry->id, role_of(entry), entry->name, entry->key};
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
    status = read_registry(loader, &records, &n, err);
    loader->reachable = status == RK_OK;
    if (status == RK_OK) {
        status = take_records(loader, records, n, &changed, err);
        count_states(loader);
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
                                     .cursor_grace_ms = loader->cursor_grace_ms,
                                     .waiting_for = loader->newcomers.waiting_for,
                                     .key_ids = ids,
                                     .written_ids = written};
    struct rk_open_cursors *outdated = &heartbeat.outdated;
    outdated->ids = rk_readers_cursors(loader->readers, false, RK_OPEN_CURSORS_MAX, &outdated->n);
    outdated->up_to = newest_of(loader, rk_readers_oldest(loader->readers));
    for (size_t i = 0; i < loader->n_entries; i++) {
        const struct entry *entry = &loader->entries[i];
        if (entry->loaded && entry->settled) {
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
    free(outdated->ids);
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

static void log_current(const struct rk_key_loader *loader, const struct entry *entry)
{
    uint32_t former = 0;
    for (const struct entry *other = loader->entries; other < entry; other++) {
        bool before = other->state == RK_KEY_CURRENT || other->state == RK_KEY_RETIRING;
        former = before && strcmp(other->name, entry->name) == 0 ? other->id : former;
    }
    rk_log(RK_LOG_INFO, "current_key_changed", RK_S("name", entry->name), RK_I("from", former),
           RK_I("to", entry->id));
}

/* Under a pending key lies nothing yet, under the first one of a name nothing that anybody could
 * miss. What came current already may have been missed. */
static void begin(struct rk_key_loader *loader, struct entry *entry, uint64_t epoch)
{
    entry->epoch = epoch;
    if (entry->state == RK_KEY_PENDING) {
        if (rk_newcomers_add(&loader->newcomers, entry->id, epoch) != RK_OK) {
            abort(); /* out of memory for 24 bytes: the key is in use already */
        }
    } else if (!entry->first) {
        rk_readers_outdate(loader->readers, epoch);
    }
}

void rk_key_loader_in_use(struct rk_key_loader *loader, uint64_t generation)
{
    uint64_t epoch = 0;
    for (size_t i = 0; i < loader->n_entries; i++) {
        struct entry *entry = &loader->entries[i];
        if (entry->key != NULL && !entry->loaded) {
            epoch = epoch != 0 ? epoch : rk_readers_advance(loader->readers, generation);
            begin(loader, entry, epoch);
        }
        bool current = role_of(entry) == RK_KEY_WRITES;
        if (current && !entry->current) {
            log_current(loader, entry);
        }
        entry->current = current;
        entry->loaded = entry->key != NULL;
        entry->written = entry->to_be_written;
    }
    loader->announced = false;
}

/* What other instances have given up must not be read to its end through this one. */
static enum rk_status learn_outlived(struct rk_key_loader *loader, struct rk_error *err)
{
    int64_t *ids = NULL;
    size_t n = 0;
    enum rk_status status =
        rk_instances_outlived(loader->registry, loader->needed_id, &ids, &n, err);
    if (status == RK_OK && rk_readers_set_outlived(loader->readers, ids, n) != RK_OK) {
        status = rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    free(ids);
    return status;
}

enum rk_status rk_key_loader_settle(struct rk_key_loader *loader, struct rk_error *err)
{
    size_t waited_for = loader->newcomers.waiting_for;
    loader->newcomers.waiting_for = 0;
    for (size_t i = 0; i < loader->n_entries; i++) {
        struct entry *entry = &loader->entries[i];
        bool was = entry->settled;
        entry->settled = entry->loaded && rk_newcomers_settled(&loader->newcomers, entry->id,
                                                               entry->state == RK_KEY_PENDING);
        loader->announced = loader->announced && was == entry->settled;
    }
    loader->announced = loader->announced && waited_for == loader->newcomers.waiting_for;
    return loader->instance != NULL ? learn_outlived(loader, err) : RK_OK;
}

bool rk_key_loader_want(struct rk_key_loader *loader, uint32_t key_id)
{
    for (size_t i = 0; i < loader->n_entries; i++) {
        struct entry *entry = &loader->entries[i];
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
        const struct entry *entry = &loader->entries[i - 1];
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
        const struct entry *entry = &loader->entries[(*at)++];
        if (role_of(entry) == RK_KEY_WRITES) {
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
        const struct entry *entry = &loader->entries[i];
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
        const struct entry *entry = &loader->entries[i];
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

static bool is_asked(const struct entry *entry, uint32_t key_id, const char *name)
{
    return key_id != 0
               ? entry->id == key_id
               : entry->state == RK_KEY_CURRENT && entry->listed && strcmp(entry->name, name) == 0;
}

void rk_key_loader_why_not(const struct rk_key_loader *loader, uint32_t key_id, const char *name,
                           struct rk_error *err)
{
    for (size_t i = 0; i < loader->n_entries; i++) {
        const struct entry *entry = &loader->entries[i];
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
