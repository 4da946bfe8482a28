#include <rekey/keys/life.h>

#include "registry_internal.h"

#include <rekey/keys/instances.h>
#include <rekey/keys/mongo.h>

static enum rk_status check_writers(struct rk_registry *registry, uint32_t key_id, bool gone,
                                    struct rk_error *err)
{
    size_t n = 0;
    char name[160];
    enum rk_status status =
        rk_instances_writing(registry, key_id, true, &n, name, sizeof name, err);
    if (status == RK_OK && n > 0) {
        return rk_error_set(err, RK_ESTATE,
                            "%zu instances still write under key %u, such as %s: they turn to the "
                            "current key within keys.refresh_interval_ms",
                            n, key_id, name);
    }
    if (status != RK_OK || gone) {
        return status;
    }
    status = rk_instances_writing(registry, key_id, false, &n, name, sizeof name, err);
    if (status == RK_OK && n > 0) {
        status = rk_error_set(err, RK_ESTATE,
                              "%zu instances wrote under key %u when they were last heard of, such "
                              "as %s, and may do so still: --gone says that they have ended",
                              n, key_id, name);
    }
    return status;
}

/* One document, majority. Takes selector and update. *done: it matched. */
static enum rk_status change(struct rk_registry *registry, bson_t *selector, bson_t *update,
                             const char *what, bool *done, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t reply;
    bson_iter_t matched;
    bson_t opts = BSON_INITIALIZER;
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    mongoc_collection_t *keys = mongoc_client_get_collection(client, registry->state_db, "keys");
    rk_mongo_majority_writes(&opts);
    if (!mongoc_collection_update_one(keys, selector, update, &opts, &reply, &cause)) {
        status = rk_mongo_error(err, what, &cause);
    }
    *done =
        bson_iter_init_find(&matched, &reply, "matchedCount") && bson_iter_as_int64(&matched) == 1;
    bson_destroy(&reply);
    mongoc_collection_destroy(keys);
    mongoc_client_pool_push(registry->pool, client);
    bson_destroy(update);
    bson_destroy(selector);
    bson_destroy(&opts);
    return status;
}

static enum rk_status find(struct rk_registry *registry, uint32_t key_id, struct rk_key_record *out,
                           struct rk_error *err)
{
    struct rk_key_record *records = NULL;
    size_t n = 0;
    enum rk_status status = rk_registry_list(registry, &records, &n, err);
    bool found = false;
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        if (records[i].id == key_id) {
            *out = records[i];
            found = true;
        }
    }
    free(records);
    return status != RK_OK || found ? status
                                    : rk_error_set(err, RK_ENOENT, "there is no key %u", key_id);
}

enum rk_status rk_registry_quiet(struct rk_registry *registry, const struct rk_key_record *key,
                                 bool gone, int64_t *quiet_at_ms, struct rk_error *err)
{
    bool done = false;
    struct rk_key_record now;
    *quiet_at_ms = key->quiet_at_ms;
    if (key->quiet_at_ms != 0) {
        return RK_OK;
    }
    enum rk_status status = check_writers(registry, key->id, gone, err);
    if (status == RK_OK) {
        bson_t *selector = BCON_NEW("_id", BCON_INT64((int64_t)key->id), "quietAt", "{", "$exists",
                                    BCON_BOOL(false), "}");
        bson_t *update = BCON_NEW("$currentDate", "{", "quietAt", BCON_BOOL(true), "}");
        status = change(registry, selector, update,
                        "cannot record since when nobody writes under the key", &done, err);
    }
    if (status == RK_OK) {
        status = find(registry, key->id, &now, err); /* somebody else's time is as good */
    }
    if (status == RK_OK && now.quiet_at_ms == 0) {
        status = rk_error_set(err, RK_ESTATE, "key %u has just changed", key->id);
    }
    *quiet_at_ms = status == RK_OK ? now.quiet_at_ms : 0;
    return status;
}

static enum rk_status why_not(struct rk_registry *registry, uint32_t key_id, const char *step,
                              struct rk_error *err)
{
    struct rk_key_record key = {.id = key_id};
    enum rk_status status = find(registry, key_id, &key, err);
    return status == RK_OK ? rk_error_set(err, RK_ESTATE, "key %u is %s: it cannot be %s", key_id,
                                          rk_key_state_name(key.state), step)
                           : status;
}

enum rk_status rk_registry_retire(struct rk_registry *registry, uint32_t key_id, const char *proof,
                                  struct rk_error *err)
{
    bool done = false;
    bson_oid_t id;
    bson_oid_init_from_string(&id, proof);
    /* With quietAt, which only a retiring key has, "current" is what a promotion that was cut
     * short left behind. */
    bson_t *selector =
        BCON_NEW("_id", BCON_INT64((int64_t)key_id), "quietAt", "{", "$exists", BCON_BOOL(true),
                 "}", "state", "{", "$in", "[", BCON_UTF8(rk_key_state_name(RK_KEY_RETIRING)),
                 BCON_UTF8(rk_key_state_name(RK_KEY_CURRENT)), "]", "}");
    bson_t *update =
        BCON_NEW("$set", "{", "state", BCON_UTF8(rk_key_state_name(RK_KEY_RETIRED)), "proof",
                 BCON_OID(&id), "}", "$currentDate", "{", "retiredAt", BCON_BOOL(true), "}");
    enum rk_status status =
        change(registry, selector, update, "cannot confirm that the key is retired", &done, err);
    return status == RK_OK && !done ? why_not(registry, key_id, "retired", err) : status;
}

enum rk_status rk_registry_destroy(struct rk_registry *registry, uint32_t key_id, bool shred,
                                   const char *proof, struct rk_error *err)
{
    bool done = false;
    bson_oid_t id;
    bson_oid_init_from_string(&id, proof);
    const char *destroyed = rk_key_state_name(RK_KEY_DESTROYED);
    bson_t *selector = shred ? BCON_NEW("_id", BCON_INT64((int64_t)key_id), "state", "{", "$ne",
                                        BCON_UTF8(destroyed), "}")
                             : BCON_NEW("_id", BCON_INT64((int64_t)key_id), "state",
                                        BCON_UTF8(rk_key_state_name(RK_KEY_RETIRED)));
    bson_t *update = BCON_NEW("$set", "{", "state", BCON_UTF8(destroyed), "destructionProof",
                              BCON_OID(&id), "}", "$currentDate", "{", "destroyedAt",
                              BCON_BOOL(true), "}", "$unset", "{", "wrapped", BCON_INT32(1), "}");
    enum rk_status status =
        change(registry, selector, update, "cannot confirm that the key is destroyed", &done, err);
    return status == RK_OK && !done ? why_not(registry, key_id, "destroyed", err) : status;
}
