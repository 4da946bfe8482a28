/* Reading the registry of wrapped data keys (see registry.h). */
#include "registry_internal.h"

#include <rekey/keys/mongo.h>

#include <mongoc/mongoc.h>
#include <stdlib.h>

#define RECORDS_MAX 65536u

static const char *const state_names[] = {
    [RK_KEY_PENDING] = "pending", [RK_KEY_CURRENT] = "current",     [RK_KEY_RETIRING] = "retiring",
    [RK_KEY_RETIRED] = "retired", [RK_KEY_DESTROYED] = "destroyed",
};
#define N_STATES (sizeof state_names / sizeof state_names[0])

const char *rk_key_state_name(enum rk_key_state state)
{
    return state_names[state];
}

/* A state of a later version must not be written under, and counts as retiring. */
static enum rk_key_state state_of(const char *name)
{
    for (size_t i = 0; i < N_STATES; i++) {
        if (strcmp(name, state_names[i]) == 0) {
            return (enum rk_key_state)i;
        }
    }
    return RK_KEY_RETIRING;
}

enum rk_status rk_registry_new(void *client_pool, const char *state_db, struct rk_registry **out,
                               struct rk_error *err)
{
    struct rk_registry *registry = calloc(1, sizeof *registry);
    char *name = strdup(state_db);
    if (registry == NULL || name == NULL) {
        free(registry);
        free(name);
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    registry->pool = client_pool;
    registry->state_db = name;
    *out = registry;
    return RK_OK;
}

void rk_registry_free(struct rk_registry *registry)
{
    if (registry != NULL) {
        rk_silence_deinit(&registry->silence);
        free(registry->state_db);
        free(registry);
    }
}

static int64_t *date_of(struct rk_key_record *record, const char *key)
{
    return strcmp(key, "createdAt") == 0     ? &record->created_at_ms
           : strcmp(key, "activatedAt") == 0 ? &record->activated_at_ms
           : strcmp(key, "quietAt") == 0     ? &record->quiet_at_ms
           : strcmp(key, "retiredAt") == 0   ? &record->retired_at_ms
           : strcmp(key, "destroyedAt") == 0 ? &record->destroyed_at_ms
                                             : NULL;
}

static bool plain_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
}

bool rk_key_name_valid(const char *name)
{
    size_t base = 0;
    while (plain_char(name[base])) {
        base++;
    }
    if (base == 0 || base > RK_KEY_BASE_NAME_MAX) {
        return false;
    }
    size_t len = base;
    while (name[len] > ' ' && name[len] <= '~') {
        len++;
    }
    return name[len] == '\0' && len < RK_KEY_NAME_SIZE &&
           (len == base || (name[base] == ':' && len > base + 1));
}

static void take_name(const bson_iter_t *iter, struct rk_key_record *record)
{
    uint32_t len = 0;
    const char *name = bson_iter_utf8(iter, &len);
    record->name[0] = '\0'; /* of a name that is none: nobody writes under it */
    if (len < sizeof record->name && rk_key_name_valid(name)) {
        memcpy(record->name, name, len);
        record->name[len] = '\0';
    }
}

/*
 * Takes what it understands. A wrapped key that is absent or too long stays empty, and the provider
 * refuses it. False when the id is no key id.
 */
static bool parse_record(const bson_t *doc, struct rk_key_record *record)
{
    bson_iter_t iter;
    *record = (struct rk_key_record){.state = RK_KEY_RETIRING, .name = RK_KEY_NAME_DEFAULT};
    if (!bson_iter_init(&iter, doc)) {
        return false;
    }
    while (bson_iter_next(&iter)) {
        const char *key = bson_iter_key(&iter);
        if (strcmp(key, "_id") == 0 && (BSON_ITER_HOLDS_INT(&iter))) {
            int64_t id = bson_iter_as_int64(&iter);
            record->id = id > 0 && id <= UINT32_MAX ? (uint32_t)id : 0;
        } else if (strcmp(key, "state") == 0 && BSON_ITER_HOLDS_UTF8(&iter)) {
            record->state = state_of(bson_iter_utf8(&iter, NULL));
        } else if (strcmp(key, "name") == 0 && BSON_ITER_HOLDS_UTF8(&iter)) {
            take_name(&iter, record);
        } else if (strcmp(key, "kek") == 0 && BSON_ITER_HOLDS_UTF8(&iter)) {
            uint32_t len = 0;
            const char *kek = bson_iter_utf8(&iter, &len);
            if (len < sizeof record->wrapped.kek) {
                memcpy(record->wrapped.kek, kek, len);
            }
        } else if (strcmp(key, "mode") == 0 && BSON_ITER_HOLDS_UTF8(&iter)) {
            record->wrapped.remote = strcmp(bson_iter_utf8(&iter, NULL), "transit") == 0;
        } else if (strcmp(key, "wrapped") == 0 && BSON_ITER_HOLDS_BINARY(&iter)) {
            bson_subtype_t subtype;
            uint32_t len = 0;
            const uint8_t *data = NULL;
            bson_iter_binary(&iter, &subtype, &len, &data);
            if (len <= sizeof record->wrapped.data) {
                memcpy(record->wrapped.data, data, len);
                record->wrapped.len = len;
            }
        } else if (strcmp(key, "encryptions") == 0 && BSON_ITER_HOLDS_INT(&iter)) {
            int64_t n = bson_iter_as_int64(&iter);
            record->encryptions = n > 0 ? (uint64_t)n : 0;
        } else if (BSON_ITER_HOLDS_DATE_TIME(&iter) && date_of(record, key) != NULL) {
            *date_of(record, key) = bson_iter_date_time(&iter);
        }
    }
    return record->id != 0;
}

/* Makes room for one more record. */
static enum rk_status grow(struct rk_key_record **records, size_t n, size_t *cap,
                           struct rk_error *err)
{
    if (n < *cap) {
        return RK_OK;
    }
    if (n == RECORDS_MAX) {
        return rk_error_set(err, RK_ELIMIT, "the key registry holds more than %u keys",
                            RECORDS_MAX);
    }
    size_t wider = *cap == 0 ? 16 : 2 * *cap;
    struct rk_key_record *grown = realloc(*records, wider * sizeof **records);
    if (grown == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    *records = grown;
    *cap = wider;
    return RK_OK;
}

/* By name, the newest first. */
static int by_name(const void *a, const void *b)
{
    const struct rk_key_record *x = *(const struct rk_key_record *const *)a;
    const struct rk_key_record *y = *(const struct rk_key_record *const *)b;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : (x->id < y->id) - (x->id > y->id);
}

/* Of each name the highest id in state current is its current key. */
static enum rk_status settle_states(struct rk_key_record *records, size_t n, struct rk_error *err)
{
    struct rk_key_record **order = calloc(n + 1, sizeof(struct rk_key_record *));
    if (order == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        order[i] = &records[i];
    }
    qsort(order, n, sizeof *order, by_name);
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        found = found && strcmp(order[i]->name, order[i - 1]->name) == 0;
        if (order[i]->state < RK_KEY_RETIRING && (found || order[i]->name[0] == '\0')) {
            order[i]->state = RK_KEY_RETIRING;
        }
        found = found || order[i]->state == RK_KEY_CURRENT;
    }
    free(order);
    return RK_OK;
}

void rk_registry_put_name(bson_t *filter, const char *name)
{
    if (strcmp(name, RK_KEY_NAME_DEFAULT) == 0) {
        BCON_APPEND(filter, "name", "{", "$in", "[", BCON_UTF8(name), BCON_NULL, "]", "}");
    } else {
        BSON_APPEND_UTF8(filter, "name", name);
    }
}

/* A majority read of the primary, sorted by id. */
static mongoc_cursor_t *find(mongoc_collection_t *keys, const bson_t *filter, int direction,
                             int64_t limit)
{
    bson_t opts = BSON_INITIALIZER;
    bson_t sort;
    mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    BSON_APPEND_DOCUMENT_BEGIN(&opts, "sort", &sort);
    BSON_APPEND_INT32(&sort, "_id", direction);
    bson_append_document_end(&opts, &sort);
    BSON_APPEND_INT64(&opts, "limit", limit);
    rk_mongo_majority_reads(&opts);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(keys, filter, &opts, primary);
    mongoc_read_prefs_destroy(primary);
    bson_destroy(&opts);
    return cursor;
}

enum rk_status rk_registry_newest(mongoc_client_t *client, const char *state_db, uint32_t *id,
                                  struct rk_error *err)
{
    enum rk_status status = RK_OK;
    struct rk_key_record record;
    const bson_t *doc;
    bson_error_t cause;
    mongoc_collection_t *keys = mongoc_client_get_collection(client, state_db, "keys");
    /* What is no id of a key must not stand before the highest that is. */
    bson_t *filter = BCON_NEW("_id", "{", "$gt", BCON_INT32(0), "$lte", BCON_INT64(UINT32_MAX),
                              "$type", "[", BCON_UTF8("int"), BCON_UTF8("long"), "]", "}");
    mongoc_cursor_t *cursor = find(keys, filter, -1, 1);
    *id = 0;
    if (mongoc_cursor_next(cursor, &doc) && parse_record(doc, &record)) {
        *id = record.id;
    }
    if (mongoc_cursor_error(cursor, &cause)) {
        status = rk_mongo_error(err, "cannot read the key registry", &cause);
    }
    mongoc_cursor_destroy(cursor);
    mongoc_collection_destroy(keys);
    bson_destroy(filter);
    return status;
}

enum rk_status rk_registry_read(mongoc_client_t *client, const char *state_db, const char *name,
                                struct rk_key_record **out, size_t *n_out, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    struct rk_key_record *records = NULL;
    size_t n = 0;
    size_t cap = 0;
    const bson_t *doc;
    bson_error_t cause;
    mongoc_collection_t *keys = mongoc_client_get_collection(client, state_db, "keys");
    bson_t filter = BSON_INITIALIZER;
    if (name != NULL) {
        rk_registry_put_name(&filter, name);
    }
    mongoc_cursor_t *cursor = find(keys, &filter, 1, 0);
    while (mongoc_cursor_next(cursor, &doc)) {
        status = grow(&records, n, &cap, err);
        if (status != RK_OK) {
            goto done;
        }
        n += parse_record(doc, &records[n]) ? 1 : 0;
    }
    if (mongoc_cursor_error(cursor, &cause)) {
        status = rk_mongo_error(err, "cannot read the key registry", &cause);
        goto done;
    }
    status = settle_states(records, n, err);
    if (status != RK_OK) {
        goto done;
    }
    *out = records;
    *n_out = n;
    records = NULL;
done:
    free(records);
    mongoc_cursor_destroy(cursor);
    mongoc_collection_destroy(keys);
    bson_destroy(&filter);
    return status;
}

enum rk_status rk_registry_list(struct rk_registry *registry, struct rk_key_record **records,
                                size_t *n, struct rk_error *err)
{
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    enum rk_status status = rk_registry_read(client, registry->state_db, NULL, records, n, err);
    mongoc_client_pool_push(registry->pool, client);
    return status;
}
