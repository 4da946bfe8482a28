#include "entries_internal.h"

#include <rekey/base/clock.h>
#include <rekey/log/log.h>

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* The entry of the record; added in its place when there is none. NULL: out of memory. */
static struct rk_key_entry *entry_of(struct rk_key_loader *loader,
                                     const struct rk_key_record *record)
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
    struct rk_key_entry *grown =
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
    grown[low] = (struct rk_key_entry){
        .id = record->id, .name = name, .first = first, .state = RK_KEY_PENDING};
    loader->n_entries++;
    return &grown[low];
}

static void unwrap(struct rk_key_loader *loader, struct rk_key_entry *entry,
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
static bool drop(struct rk_key_entry *entry)
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

static void say_why_not(struct rk_key_entry *entry)
{
    (void)(entry->state == RK_KEY_DESTROYED
               ? rk_error_set(&entry->failure, RK_ENOENT,
                              "data key %u was destroyed: nothing under it can be read any more",
                              entry->id)
               : rk_error_set(&entry->failure, RK_EIO,
                              "data key %u is retired and could not be loaded again", entry->id));
}

enum rk_key_role rk_key_entry_role(const struct rk_key_entry *entry)
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
static bool take_record(struct rk_key_loader *loader, struct rk_key_entry *entry,
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

enum rk_status rk_key_entries_take(struct rk_key_loader *loader,
                                   const struct rk_key_record *records, size_t n, bool *changed,
                                   struct rk_error *err)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        struct rk_key_entry *entry = entry_of(loader, &records[i]);
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
        struct rk_key_entry *entry = &loader->entries[i];
        while (at < n && records[at].id < entry->id) {
            at++;
        }
        bool listed = at < n && records[at].id == entry->id;
        *changed = *changed || entry->listed != listed;
        entry->listed = listed;
    }
    count_states(loader);
    return RK_OK;
}
