#include "automatic_internal.h"

#include "registry_internal.h"

#include <rekey/base/clock.h>
#include <rekey/keys/instances.h>
#include <rekey/keys/mongo.h>
#include <rekey/log/log.h>
#include <stdlib.h>
#include <string.h>

#define DAY_MS 86400000
#define RETRY_US 60000000u

/* What this instance may encrypt under a key. */
struct lease {
    uint32_t key_id;
    uint64_t leased;
    uint64_t claimed; /* at the last look */
};

struct rk_automatic {
    struct rk_rotation_rules rules;
    struct rk_key_loader *loader;
    struct lease *leases; /* of keys that were current, by rising id */
    size_t n_leases;
    bool failing;         /* to lease; said so in the log already */
    uint64_t retry_at_us; /* no rotation sooner: the last one failed */
};

struct rk_automatic *rk_automatic_new(const struct rk_rotation_rules *rules,
                                      struct rk_key_loader *loader)
{
    struct rk_automatic *automatic = calloc(1, sizeof *automatic);
    if (automatic != NULL) {
        automatic->rules = *rules;
        automatic->loader = loader;
    }
    return automatic;
}

void rk_automatic_free(struct rk_automatic *automatic)
{
    if (automatic != NULL) {
        free(automatic->leases);
        free(automatic);
    }
}

/* NULL: out of memory. */
static struct lease *lease_of(struct rk_automatic *automatic, uint32_t key_id)
{
    size_t low = 0;
    size_t high = automatic->n_leases;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (automatic->leases[middle].key_id < key_id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < automatic->n_leases && automatic->leases[low].key_id == key_id) {
        return &automatic->leases[low];
    }
    struct lease *grown =
        realloc(automatic->leases, (automatic->n_leases + 1) * sizeof *automatic->leases);
    if (grown == NULL) {
        return NULL;
    }
    memmove(&grown[low + 1], &grown[low], (automatic->n_leases - low) * sizeof *grown);
    grown[low] = (struct lease){.key_id = key_id};
    automatic->leases = grown;
    automatic->n_leases++;
    return &grown[low];
}

/* Adds n to the count of each of these keys. Takes ids, an array. */
static enum rk_status add_to_registry(struct rk_registry *registry, bson_t *ids, uint64_t n,
                                      struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t opts = BSON_INITIALIZER;
    bson_t *selector = BCON_NEW("_id", "{", "$in", BCON_ARRAY(ids), "}");
    bson_t *update = BCON_NEW("$inc", "{", "encryptions", BCON_INT64((int64_t)n), "}");
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    mongoc_collection_t *keys = mongoc_client_get_collection(client, registry->state_db, "keys");
    rk_mongo_majority_writes(&opts);
    if (!mongoc_collection_update_many(keys, selector, update, &opts, NULL, &cause)) {
        status = rk_mongo_error(err, "cannot lease encryptions", &cause);
    }
    mongoc_collection_destroy(keys);
    mongoc_client_pool_push(registry->pool, client);
    bson_destroy(update);
    bson_destroy(selector);
    bson_destroy(&opts);
    bson_destroy(ids);
    return status;
}

/* Keeps at least half a block ahead; a block is twice what was used since the last look, if that is
 * more than the configured one. A lease that may or may not have been written is written again. */
static enum rk_status keep_ahead(struct rk_automatic *automatic, const struct rk_current_key *key,
                                 struct rk_error *err)
{
    struct lease *lease = lease_of(automatic, key->id);
    if (lease == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    uint64_t claimed = rk_data_key_claimed(key->key);
    uint64_t block = 2 * (claimed - lease->claimed);
    block = block > automatic->rules.lease ? block : automatic->rules.lease;
    if (lease->leased >= claimed + block / 2) {
        lease->claimed = claimed;
        return RK_OK;
    }
    uint64_t more = claimed + block - lease->leased;
    enum rk_status status = add_to_registry(rk_key_loader_registry(automatic->loader),
                                            BCON_NEW("0", BCON_INT64((int64_t)key->id)), more, err);
    if (status == RK_OK) {
        lease->leased += more;
        lease->claimed = claimed;
    }
    return status;
}

/* The next key without a lease that is not in use yet. */
static bool next_new(const struct rk_automatic *automatic, size_t *at, struct rk_current_key *key)
{
    while (rk_key_loader_next_current(automatic->loader, at, key)) {
        if (key->key != NULL && !key->in_use) {
            return true;
        }
    }
    return false;
}

/* One write for all: there may be as many keys as tenants. */
enum rk_status rk_automatic_begin(struct rk_automatic *automatic, struct rk_error *err)
{
    struct rk_current_key key;
    size_t at = 0;
    uint32_t n = 0;
    if (automatic->rules.after_encryptions == 0 ||
        rk_key_loader_instance(automatic->loader) == NULL) {
        return RK_OK;
    }
    bson_t *ids = bson_new();
    while (next_new(automatic, &at, &key)) {
        char text[16];
        const char *index;
        struct lease *lease = lease_of(automatic, key.id);
        if (lease == NULL) {
            bson_destroy(ids);
            return rk_error_set(err, RK_ENOMEM, "out of memory");
        }
        if (lease->leased == 0) {
            size_t len = bson_uint32_to_string(n++, &index, text, sizeof text);
            bson_append_int64(ids, index, (int)len, (int64_t)key.id);
        }
    }
    if (n == 0) {
        bson_destroy(ids);
        return RK_OK;
    }
    enum rk_status status = add_to_registry(rk_key_loader_registry(automatic->loader), ids,
                                            automatic->rules.lease, err);
    at = 0;
    while (status == RK_OK && next_new(automatic, &at, &key)) {
        struct lease *lease = lease_of(automatic, key.id);
        lease->leased = lease->leased == 0 ? automatic->rules.lease : lease->leased;
    }
    return status;
}

static void renew(struct rk_automatic *automatic)
{
    struct rk_error err;
    struct rk_current_key key;
    size_t at = 0;
    enum rk_status status = RK_OK;
    while (automatic->rules.after_encryptions != 0 && status == RK_OK &&
           rk_key_loader_next_current(automatic->loader, &at, &key)) {
        status = key.key != NULL ? keep_ahead(automatic, &key, &err) : RK_OK;
    }
    if (status != RK_OK && !automatic->failing) {
        rk_log(RK_LOG_WARN, "encryptions_not_leased", RK_S("reason", err.message));
    }
    automatic->failing = status != RK_OK;
}

/* Why it is time for another key; false: it is not. */
static bool is_due(const struct rk_automatic *automatic, const struct rk_current_key *key,
                   char *reason, size_t size)
{
    const struct rk_rotation_rules *rules = &automatic->rules;
    int64_t age_ms = key->activated_at_ms == 0 ? 0 : rk_clock_wall_ms() - key->activated_at_ms;
    if (rules->after_days != 0 && age_ms >= (int64_t)rules->after_days * DAY_MS) {
        (void)snprintf(reason, size, "age %lld d", (long long)(age_ms / DAY_MS));
        return true;
    }
    if (rules->after_encryptions != 0 && key->encryptions >= rules->after_encryptions) {
        (void)snprintf(reason, size, "count %llu", (unsigned long long)key->encryptions);
        return true;
    }
    return false;
}

struct lowest {
    char name[256];
};

static void on_instance(void *arg, const struct rk_heartbeat *heartbeat)
{
    struct lowest *lowest = arg;
    if (lowest->name[0] == '\0' || strcmp(heartbeat->instance, lowest->name) < 0) {
        (void)snprintf(lowest->name, sizeof lowest->name, "%s", heartbeat->instance);
    }
}

/* One instance does it, so that the others' attempts do not fail; should two think that it is they,
 * the registry lets one win. */
static enum rk_status rotate(struct rk_automatic *automatic, const struct rk_current_key *key,
                             const char *reason, struct rk_error *err)
{
    char actor[128];
    struct lowest lowest = {.name = ""};
    struct rk_key_record made;
    struct rk_registry *registry = rk_key_loader_registry(automatic->loader);
    enum rk_status status = rk_instances_living(registry, on_instance, &lowest, err);
    if (status != RK_OK || strcmp(lowest.name, rk_key_loader_instance(automatic->loader)) != 0) {
        return status;
    }
    (void)snprintf(actor, sizeof actor, "rekeyd, automatic: %s", reason);
    status = rk_registry_rotate(registry, rk_key_loader_provider(automatic->loader), key->name,
                                actor, &made, err);
    if (status == RK_OK) {
        rk_log(RK_LOG_INFO, "key_rotated", RK_S("name", key->name), RK_I("from", key->id),
               RK_I("to", made.id), RK_S("reason", reason));
    }
    return status == RK_ESTATE ? RK_OK : status;
}

void rk_automatic_look(struct rk_automatic *automatic)
{
    struct rk_current_key key;
    struct rk_error err;
    size_t at = 0;
    char reason[64];
    if (rk_key_loader_instance(automatic->loader) == NULL) {
        return;
    }
    renew(automatic);
    while (rk_clock_mono_us() >= automatic->retry_at_us &&
           rk_key_loader_next_current(automatic->loader, &at, &key)) {
        if (is_due(automatic, &key, reason, sizeof reason) &&
            !rk_key_loader_has_pending(automatic->loader, key.name) &&
            rotate(automatic, &key, reason, &err) != RK_OK) {
            rk_log(RK_LOG_WARN, "key_rotation_failed", RK_S("name", key.name),
                   RK_S("reason", err.message));
            automatic->retry_at_us = rk_clock_mono_us() + RETRY_US;
        }
    }
}
