#include <rekey/keys/instances.h>

#include "registry_internal.h"

#include <rekey/keys/mongo.h>
#include <stdio.h>
#include <stdlib.h>

/* What has been silent for this long is of no interest to anybody. */
#define FORGET_MS 86400000
/* Until mongod's clock is believed that somebody is silent, whatever else is seen. */
#define CLOCK_STEP_MAX_MS 300000

static void append_id(bson_t *array, size_t i, int64_t id)
{
    char index[16];
    const char *name = NULL;
    size_t len = bson_uint32_to_string((uint32_t)i, &name, index, sizeof index);
    bson_append_int64(array, name, (int)len, id);
}

static void append_keys(bson_t *doc, const char *field, const uint32_t *ids, size_t n)
{
    bson_t array;
    bson_append_array_begin(doc, field, -1, &array);
    for (size_t i = 0; i < n; i++) {
        append_id(&array, i, (int64_t)ids[i]);
    }
    bson_append_array_end(doc, &array);
}

static void append_open(bson_t *doc, const struct rk_open_cursors *open)
{
    bson_t part;
    bson_t array;
    BSON_APPEND_DOCUMENT_BEGIN(doc, "open", &part);
    BSON_APPEND_INT64(&part, "upTo", (int64_t)open->up_to);
    BSON_APPEND_ARRAY_BEGIN(&part, "ids", &array);
    for (size_t i = 0; i < open->n; i++) {
        append_id(&array, i, open->ids[i]);
    }
    bson_append_array_end(&part, &array);
    bson_append_document_end(doc, &part);
}

static void append_now(bson_t *update)
{
    bson_t part;
    BSON_APPEND_DOCUMENT_BEGIN(update, "$currentDate", &part);
    BSON_APPEND_BOOL(&part, "at", true);
    bson_append_document_end(update, &part);
}

static enum rk_status write_own(struct rk_registry *registry, const char *instance,
                                const bson_t *update, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t opts = BSON_INITIALIZER;
    bson_t *selector = BCON_NEW("_id", BCON_UTF8(instance));
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    mongoc_collection_t *instances =
        mongoc_client_get_collection(client, registry->state_db, "instances");
    BSON_APPEND_BOOL(&opts, "upsert", true);
    rk_mongo_majority_writes(&opts);
    if (!mongoc_collection_update_one(instances, selector, update, &opts, NULL, &cause)) {
        status = rk_mongo_error(err, "cannot announce this instance", &cause);
    }
    mongoc_collection_destroy(instances);
    mongoc_client_pool_push(registry->pool, client);
    bson_destroy(selector);
    bson_destroy(&opts);
    return status;
}

/* A list of cursors that is not whole must not look as if it was. */
static enum rk_status check_open(const struct rk_open_cursors *open, struct rk_error *err)
{
    if (open->n >= RK_OPEN_CURSORS_MAX) {
        return rk_error_set(err, RK_ELIMIT, "too many open cursors to tell others of");
    }
    return open->n == 0 || open->ids != NULL ? RK_OK
                                             : rk_error_set(err, RK_ENOMEM, "out of memory");
}

enum rk_status rk_instances_beat(struct rk_registry *registry, const struct rk_heartbeat *heartbeat,
                                 struct rk_error *err)
{
    bson_t part;
    enum rk_status status = check_open(&heartbeat->outdated, err);
    if (status != RK_OK) {
        return status;
    }
    bson_t update = BSON_INITIALIZER;
    append_now(&update);
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &part);
    BSON_APPEND_INT64(&part, "leaseMs", (int64_t)heartbeat->lease_ms);
    append_keys(&part, "keys", heartbeat->key_ids, heartbeat->n_keys);
    append_keys(&part, "writes", heartbeat->written_ids, heartbeat->n_written);
    BSON_APPEND_INT64(&part, "cursorsMs", (int64_t)heartbeat->cursor_grace_ms);
    BSON_APPEND_INT64(&part, "waitsFor", (int64_t)heartbeat->waiting_for);
    if (heartbeat->outdated.n > 0) {
        append_open(&part, &heartbeat->outdated);
    }
    bson_append_document_end(&update, &part);
    if (heartbeat->outdated.n == 0) {
        BSON_APPEND_DOCUMENT_BEGIN(&update, "$unset", &part);
        BSON_APPEND_BOOL(&part, "open", true);
        bson_append_document_end(&update, &part);
    }
    status = write_own(registry, heartbeat->instance, &update, err);
    bson_destroy(&update);
    return status;
}

/* With open cursors it stays, as one that does not live. */
static enum rk_status stay(struct rk_registry *registry, const char *instance,
                           uint32_t cursor_grace_ms, const struct rk_open_cursors *open,
                           struct rk_error *err)
{
    bson_t part;
    enum rk_status status = check_open(open, err);
    if (status != RK_OK) {
        return status;
    }
    bson_t update = BSON_INITIALIZER;
    append_now(&update);
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &part);
    BSON_APPEND_INT64(&part, "leaseMs", 0);
    append_keys(&part, "writes", NULL, 0);
    BSON_APPEND_INT64(&part, "cursorsMs", (int64_t)cursor_grace_ms);
    BSON_APPEND_INT64(&part, "waitsFor", (int64_t)open->n);
    append_open(&part, open);
    bson_append_document_end(&update, &part);
    status = write_own(registry, instance, &update, err);
    bson_destroy(&update);
    return status;
}

enum rk_status rk_instances_leave(struct rk_registry *registry, const char *instance,
                                  uint32_t cursor_grace_ms, const struct rk_open_cursors *open,
                                  struct rk_error *err)
{
    bson_error_t cause;
    if (open->n > 0) {
        return stay(registry, instance, cursor_grace_ms, open, err);
    }
    enum rk_status status = RK_OK;
    bson_t *mine = BCON_NEW("_id", BCON_UTF8(instance));
    bson_t *old = BCON_NEW("$expr", "{", "$lt", "[", BCON_UTF8("$at"), "{", "$subtract", "[",
                           BCON_UTF8("$$NOW"), BCON_INT64(FORGET_MS), "]", "}", "]", "}");
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    mongoc_collection_t *instances =
        mongoc_client_get_collection(client, registry->state_db, "instances");
    if (!mongoc_collection_delete_one(instances, mine, NULL, NULL, &cause) ||
        !mongoc_collection_delete_many(instances, old, NULL, NULL, &cause)) {
        status = rk_mongo_error(err, "cannot take this instance off the list", &cause);
    }
    mongoc_collection_destroy(instances);
    mongoc_client_pool_push(registry->pool, client);
    bson_destroy(old);
    bson_destroy(mine);
    return status;
}

typedef enum rk_status found_fn(void *arg, const bson_t *doc, struct rk_error *err);

/* Calls fn with each instance that filter finds, until that fails. Takes filter. */
static enum rk_status find(struct rk_registry *registry, bson_t *filter, found_fn *fn, void *arg,
                           struct rk_error *err)
{
    enum rk_status status = RK_OK;
    const bson_t *doc;
    bson_error_t cause;
    bson_t opts = BSON_INITIALIZER;
    mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    mongoc_collection_t *instances =
        mongoc_client_get_collection(client, registry->state_db, "instances");
    rk_mongo_majority_reads(&opts);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(instances, filter, &opts, primary);
    while (status == RK_OK && mongoc_cursor_next(cursor, &doc)) {
        status = fn(arg, doc, err);
    }
    if (status == RK_OK && mongoc_cursor_error(cursor, &cause)) {
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

/* Instances are counted, and one of them is told of. */
struct told_of {
    size_t n;
    char *what;
    size_t size;
};

static int64_t number(const bson_t *doc, const char *field)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, doc, field) && BSON_ITER_HOLDS_NUMBER(&iter)
               ? bson_iter_as_int64(&iter)
               : 0;
}

struct lacking {
    struct told_of told;
    struct rk_silence *silence;
};

static bool is_silent(struct rk_silence *silence, const char *name, const bson_t *doc)
{
    bson_iter_t iter;
    int64_t at = bson_iter_init_find(&iter, doc, "at") && BSON_ITER_HOLDS_DATE_TIME(&iter)
                     ? bson_iter_date_time(&iter)
                     : 0;
    int64_t lease_ms = number(doc, "leaseMs");
    int64_t cursors_ms = number(doc, "cursorsMs");
    int64_t lasts_ms = lease_ms > cursors_ms ? lease_ms : cursors_ms;
    return rk_silence_lasts(silence, name, at, lasts_ms > 0 ? (uint64_t)lasts_ms : 0);
}

static enum rk_status on_lacking(void *arg, const bson_t *doc, struct rk_error *err)
{
    struct told_of *lacking = &((struct lacking *)arg)->told;
    bson_iter_t id;
    const char *name = bson_iter_init_find(&id, doc, "_id") && BSON_ITER_HOLDS_UTF8(&id)
                           ? bson_iter_utf8(&id, NULL)
                           : "?";
    int64_t readers = number(doc, "waitsFor");
    (void)err;
    if (is_silent(((struct lacking *)arg)->silence, name, doc)) {
        return RK_OK;
    }
    lacking->n++;
    if (readers == 0) {
        (void)snprintf(lacking->what, lacking->size, "%s", name);
    } else if (number(doc, "leaseMs") == 0) {
        (void)snprintf(lacking->what, lacking->size, "%s, which ended with %lld open cursors", name,
                       (long long)readers);
    } else {
        (void)snprintf(lacking->what, lacking->size,
                       "%s, where %lld queries go on that began before it", name,
                       (long long)readers);
    }
    return RK_OK;
}

enum rk_status rk_instances_without(struct rk_registry *registry, uint32_t key_id, size_t *n,
                                    char *what, size_t size, struct rk_error *err)
{
    struct lacking lacking = {.told = {.what = what, .size = size}, .silence = &registry->silence};
    bson_t *filter =
        BCON_NEW("keys", "{", "$ne", BCON_INT64((int64_t)key_id), "}", "$expr", "{", "$gt", "[",
                 BCON_UTF8("$at"), "{", "$subtract", "[", BCON_UTF8("$$NOW"), "{", "$add", "[",
                 BCON_INT64(CLOCK_STEP_MAX_MS), "{", "$max", "[", BCON_UTF8("$leaseMs"),
                 BCON_UTF8("$cursorsMs"), "]", "}", "]", "}", "]", "}", "]", "}");
    what[0] = '\0';
    enum rk_status status = find(registry, filter, on_lacking, &lacking, err);
    *n = lacking.told.n;
    return status;
}

struct outlived {
    int64_t *ids;
    size_t n;
};

static enum rk_status on_outlived(void *arg, const bson_t *doc, struct rk_error *err)
{
    struct outlived *all = arg;
    bson_iter_t found;
    bson_iter_t iter;
    if (!bson_iter_init(&iter, doc) || !bson_iter_find_descendant(&iter, "open.ids", &found) ||
        !BSON_ITER_HOLDS_ARRAY(&found) || !bson_iter_recurse(&found, &iter)) {
        return RK_OK;
    }
    while (bson_iter_next(&iter)) {
        if (!BSON_ITER_HOLDS_INT64(&iter)) {
            continue;
        }
        int64_t *grown = (all->n & (all->n - 1)) != 0
                             ? all->ids
                             : realloc(all->ids, (all->n == 0 ? 1 : all->n * 2) * sizeof *grown);
        if (grown == NULL) {
            return rk_error_set(err, RK_ENOMEM, "out of memory");
        }
        all->ids = grown;
        all->ids[all->n++] = bson_iter_int64(&iter);
    }
    return RK_OK;
}

enum rk_status rk_instances_outlived(struct rk_registry *registry, uint32_t key_id, int64_t **ids,
                                     size_t *n, struct rk_error *err)
{
    struct outlived all = {.n = 0};
    bson_t *filter = BCON_NEW("open.upTo", "{", "$lt", BCON_INT64((int64_t)key_id), "}");
    enum rk_status status = find(registry, filter, on_outlived, &all, err);
    if (status != RK_OK) {
        free(all.ids);
        return status;
    }
    *ids = all.ids;
    *n = all.n;
    return RK_OK;
}

static enum rk_status on_writing(void *arg, const bson_t *doc, struct rk_error *err)
{
    struct told_of *writing = arg;
    bson_iter_t id;
    (void)err;
    if (bson_iter_init_find(&id, doc, "_id") && BSON_ITER_HOLDS_UTF8(&id)) {
        (void)snprintf(writing->what, writing->size, "%s", bson_iter_utf8(&id, NULL));
    }
    writing->n++;
    return RK_OK;
}

/* Of those whose last heartbeat is ("$gt") or is not ("$lte") within their lease. */
static void append_alive(bson_t *filter, const char *comparison)
{
    BCON_APPEND(filter, "$expr", "{", comparison, "[", BCON_UTF8("$at"), "{", "$subtract", "[",
                BCON_UTF8("$$NOW"), BCON_UTF8("$leaseMs"), "]", "}", "]", "}");
}

enum rk_status rk_instances_writing(struct rk_registry *registry, uint32_t key_id, bool alive,
                                    size_t *n, char *what, size_t size, struct rk_error *err)
{
    struct told_of writing = {.what = what, .size = size};
    bson_t *filter = BCON_NEW("$or", "[", "{", "writes", BCON_INT64((int64_t)key_id), "}", "{",
                              "writes", "{", "$exists", BCON_BOOL(false), "}", "}", "]");
    append_alive(filter, alive ? "$gt" : "$lte");
    what[0] = '\0';
    enum rk_status status = find(registry, filter, on_writing, &writing, err);
    *n = writing.n;
    return status;
}

struct telling {
    rk_instance_fn *fn;
    void *arg;
};

/* *ids is malloc'ed for the caller; NULL when there are none. */
static enum rk_status read_keys(const bson_t *doc, const char *field, uint32_t **ids, size_t *n,
                                struct rk_error *err)
{
    bson_iter_t array;
    bson_iter_t iter;
    *ids = NULL;
    *n = 0;
    if (!bson_iter_init_find(&array, doc, field) || !BSON_ITER_HOLDS_ARRAY(&array) ||
        !bson_iter_recurse(&array, &iter)) {
        return RK_OK;
    }
    *ids = calloc(doc->len, sizeof **ids); /* an element takes more than a byte */
    if (*ids == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    while (bson_iter_next(&iter)) {
        int64_t id = BSON_ITER_HOLDS_INT(&iter) ? bson_iter_as_int64(&iter) : 0;
        if (id > 0 && id <= UINT32_MAX) {
            (*ids)[(*n)++] = (uint32_t)id;
        }
    }
    return RK_OK;
}

static enum rk_status on_living(void *arg, const bson_t *doc, struct rk_error *err)
{
    const struct telling *telling = arg;
    bson_iter_t id;
    uint32_t *keys = NULL;
    uint32_t *written = NULL;
    struct rk_heartbeat heartbeat = {.instance = "?"};
    if (bson_iter_init_find(&id, doc, "_id") && BSON_ITER_HOLDS_UTF8(&id)) {
        heartbeat.instance = bson_iter_utf8(&id, NULL);
    }
    enum rk_status status = read_keys(doc, "keys", &keys, &heartbeat.n_keys, err);
    if (status == RK_OK) {
        status = read_keys(doc, "writes", &written, &heartbeat.n_written, err);
    }
    if (status == RK_OK) {
        heartbeat.key_ids = keys;
        heartbeat.written_ids = written;
        telling->fn(telling->arg, &heartbeat);
    }
    free(keys);
    free(written);
    return status;
}

enum rk_status rk_instances_living(struct rk_registry *registry, rk_instance_fn *fn, void *arg,
                                   struct rk_error *err)
{
    struct telling telling = {fn, arg};
    bson_t *filter = bson_new();
    append_alive(filter, "$gt");
    return find(registry, filter, on_living, &telling, err);
}
