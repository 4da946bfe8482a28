#include "entries_internal.h"

#include <rekey/base/clock.h>
#include <rekey/keys/instances.h>
#include <rekey/log/log.h>

#include <stdlib.h>
#include <string.h>

/* The last key that whoever reads in epoch, or a later one, reads with. */
static uint32_t newest_of(const struct rk_key_loader *loader, uint64_t epoch)
{
    for (size_t i = 0; i < loader->n_entries; i++) {
        const struct rk_key_entry *entry = &loader->entries[i];
        bool lies = entry->state == RK_KEY_PENDING || entry->state == RK_KEY_CURRENT ||
                    entry->state == RK_KEY_RETIRING;
        if (lies && (entry->epoch == 0 || entry->epoch > epoch)) {
            return entry->id - 1;
        }
    }
    return UINT32_MAX; /* of those that there are */
}

void rk_key_presence_leave(struct rk_key_loader *loader)
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
        const struct rk_key_entry *entry = &loader->entries[i];
        if (entry->loaded && entry->settled) {
            ids[heartbeat.n_keys++] = entry->id;
        }
        if (entry->written || entry->to_be_written) {
            written[heartbeat.n_written++] = entry->id;
        }
    }
    uint64_t beat_us = rk_clock_boot_us();
    enum rk_status status = rk_instances_beat(loader->registry, &heartbeat, err);
    if (status == RK_OK) {
        loader->beat_us = beat_us;
        for (size_t i = 0; i < loader->n_entries; i++) {
            struct rk_key_entry *entry = &loader->entries[i];
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

static void log_current(const struct rk_key_loader *loader, const struct rk_key_entry *entry)
{
    uint32_t former = 0;
    for (const struct rk_key_entry *other = loader->entries; other < entry; other++) {
        bool before = other->state == RK_KEY_CURRENT || other->state == RK_KEY_RETIRING;
        former = before && strcmp(other->name, entry->name) == 0 ? other->id : former;
    }
    rk_log(RK_LOG_INFO, "current_key_changed", RK_S("name", entry->name), RK_I("from", former),
           RK_I("to", entry->id));
}

/* Under a pending key lies nothing yet, under the first one of a name nothing that anybody could
 * miss. What came current already may have been missed. */
static void begin(struct rk_key_loader *loader, struct rk_key_entry *entry, uint64_t epoch)
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
        struct rk_key_entry *entry = &loader->entries[i];
        if (entry->key != NULL && !entry->loaded) {
            epoch = epoch != 0 ? epoch : rk_readers_advance(loader->readers, generation);
            begin(loader, entry, epoch);
        }
        bool current = rk_key_entry_role(entry) == RK_KEY_WRITES;
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

/* Whatever became current before the last look at the registry is known; what does later waits for
 * this instance, as long as that heartbeat lasts (rk_instances_without). */
static void trust(struct rk_key_loader *loader)
{
    uint32_t lasts_ms =
        loader->lease_ms > loader->cursor_grace_ms ? loader->lease_ms : loader->cursor_grace_ms;
    if (loader->known_us != 0 &&
        !rk_readers_trust_until(loader->readers, loader->known_us + (uint64_t)lasts_ms * 1000u)) {
        rk_log(RK_LOG_WARN, "instance_was_silent", RK_I("lasts_ms", lasts_ms),
               RK_S("reason", "others may have stopped to wait for it: replies to queries that "
                              "compare protected fields were held back"));
    }
}

enum rk_status rk_key_loader_settle(struct rk_key_loader *loader, struct rk_error *err)
{
    trust(loader);
    size_t waited_for = loader->newcomers.waiting_for;
    loader->newcomers.waiting_for = 0;
    for (size_t i = 0; i < loader->n_entries; i++) {
        struct rk_key_entry *entry = &loader->entries[i];
        bool was = entry->settled;
        entry->settled = entry->loaded && rk_newcomers_settled(&loader->newcomers, entry->id,
                                                               entry->state == RK_KEY_PENDING);
        loader->announced = loader->announced && was == entry->settled;
    }
    loader->announced = loader->announced && waited_for == loader->newcomers.waiting_for;
    return loader->instance != NULL ? learn_outlived(loader, err) : RK_OK;
}
