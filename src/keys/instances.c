#include <rekey/keys/instances.h>

#include "registry_internal.h"

#include <rekey/keys/mongo.h>
#include <stdio.h>

/* What has been silent for this long is of no interest to anybody. */
#define FORGET_MS 86400000

static void append_ids(bson_t *doc, const char *field, const uint32_t *ids, size_t n)
{
    bson_t array;
    bson_append_array_begin(doc, field, -1, &array);
    for (size_t i = 0; i < n; i++) {
        char index[16];
        const char *name = NULL;
        size_t len = bson_uint32_to_string((uint32_t)i, &name, index, sizeof index);
        bson_append_int64(&array, name, (int)len, (int64_t)ids[i]);
    }
    bson_append_array_end(doc, &array);
}

enum rk_status rk_instances_beat(struct rk_registry *registry, const struct rk_heartbeat *heartbeat,
                                 struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t update = BSON_INITIALIZER;
    bson_t opts = BSON_INITIALIZER;
    bson_t part;
    bson_t *selector = BCON_NEW("_id", BCON_UTF8(heartbeat->instance));
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    mongoc_collection_t *instances =
        mongoc_client_get_collection(client, registry->state_db, "instances");

    BSON_APPEND_DOCUMENT_BEGIN(&update, "$currentDate", &part);
    BSON_APPEND_BOOL(&part, "at", true);
    bson_append_document_end(&update, &part);
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &part);
    BSON_APPEND_INT64(&part, "leaseMs", (int64_t)heartbeat->lease_ms);
    append_ids(&part, "keys", heartbeat->key_ids, heartbeat->n_keys);
    append_ids(&part, "writes", heartbeat->written_ids, heartbeat->n_written);
    bson_append_document_end(&update, &part);
    BSON_APPEND_BOOL(&opts, "upsert", true);
    rk_mongo_majority_writes(&opts);
    if (!mongoc_collection_update_one(instances, selector, &update, &opts, NULL, &cause)) {
        status = rk_mongo_error(err, "cannot announce this instance", &cause);
    }
    mongoc_collection_destroy(instances);
    mongoc_client_pool_push(registry->pool, client);
    bson_destroy(selector);
    bson_destroy(&opts);
    bson_destroy(&update);
    return status;
}

void rk_instances_leave(struct rk_registry *registry, const char *instance)
{
    bson_error_t cause;
    bson_t *mine = BCON_NEW("_id", BCON_UTF8(instance));
    bson_t *old = BCON_NEW("$expr", "{", "$lt", "[", BCON_UTF8("$at"), "{", "$subtract", "[",
                           BCON_UTF8("$$NOW"), BCON_INT64(FORGET_MS), "]", "}", "]", "}");
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    mongoc_collection_t *instances =
        mongoc_client_get_collection(client, registry->state_db, "instances");
    (void)mongoc_collection_delete_one(instances, mine, NULL, NULL, &cause);
    (void)mongoc_collection_delete_many(instances, old, NULL, NULL, &cause);
    mongoc_collection_destroy(instances);
    mongoc_client_pool_push(registry->pool, client);
    bson_destroy(old);
    bson_destroy(mine);
}

enum rk_status rk_instances_without(struct rk_registry *registry, uint32_t key_id, size_t *n,
                                    char *name, size_t size, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    const bson_t *doc;
    bson_error_t cause;
    bson_t opts = BSON_INITIALIZER;
    bson_t *filter = BCON_NEW("keys", "{", "$ne", BCON_INT64((int64_t)key_id), "}", "$expr", "{",
                              "$gt", "[", BCON_UTF8("$at"), "{", "$subtract", "[",
                              BCON_UTF8("$$NOW"), BCON_UTF8("$leaseMs"), "]", "}", "]", "}");
    mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    mongoc_collection_t *instances =
        mongoc_client_get_collection(client, registry->state_db, "instances");
    rk_mongo_majority_reads(&opts);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(instances, filter, &opts, primary);
    *n = 0;
    name[0] = '\0';
    while (mongoc_cursor_next(cursor, &doc)) {
        bson_iter_t id;
        if (bson_iter_init_find(&id, doc, "_id") && BSON_ITER_HOLDS_UTF8(&id)) {
            (void)snprintf(name, size, "%s", bson_iter_utf8(&id, NULL));
        }
        (*n)++;
    }
    if (mongoc_cursor_error(cursor, &cause)) {
        status = rk_mongo_error(err, "cannot see which instances live", &cause);
    }
    mongoc_cursor_destroy(cursor);
    mongoc_collection_destroy(instances);
    mongoc_client_pool_push(registry->pool, client);
    mongoc_read_prefs_destroy(primary);
    bson_destroy(filter);
    bson_destroy(&opts);
    return status;
}
