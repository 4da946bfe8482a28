/*
 * The registry of wrapped data keys (see registry.h).
 *
 * A rotation has to hold without transactions, which a standalone mongod lacks. Its one deciding
 * write is the insert of the new key under the next id: it wins or loses as a whole. From then on
 * the new key is current, because readers take the highest id in state "current" and count all
 * others as retiring, whatever their documents say. Marking those is a second write, which the
 * next rotation repeats should a crash have swallowed it.
 *
 * Readers see a key only when its insert is majority-committed: a value must never be encrypted
 * under a key that a failover could roll back.
 */
#include <rekey/keys/registry.h>

#include <rekey/base/clock.h>
#include <rekey/keys/audit.h>
#include <rekey/keys/mongo.h>

#include <mongoc/mongoc.h>
#include <openssl/crypto.h>
#include <stdlib.h>

#define RECORDS_MAX 65536u

struct rk_registry {
    mongoc_client_pool_t *pool;
    char *state_db;
};

const char *rk_key_state_name(enum rk_key_state state)
{
    return state == RK_KEY_CURRENT ? "current" : "retiring";
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
        free(registry->state_db);
        free(registry);
    }
}

/*
 * Takes what it understands. A state that is not "current" (one of a later version, say) must not
 * be written under; a wrapped key that is absent or too long stays empty, and the provider refuses
 * it. False when the id is no key id.
 */
static bool parse_record(const bson_t *doc, struct rk_key_record *record)
{
    bson_iter_t iter;
    *record = (struct rk_key_record){.state = RK_KEY_RETIRING};
    if (!bson_iter_init(&iter, doc)) {
        return false;
    }
    while (bson_iter_next(&iter)) {
        const char *key = bson_iter_key(&iter);
        if (strcmp(key, "_id") == 0 && (BSON_ITER_HOLDS_INT(&iter))) {
            int64_t id = bson_iter_as_int64(&iter);
            record->id = id > 0 && id <= UINT32_MAX ? (uint32_t)id : 0;
        } else if (strcmp(key, "state") == 0 && BSON_ITER_HOLDS_UTF8(&iter)) {
            if (strcmp(bson_iter_utf8(&iter, NULL), "current") == 0) {
                record->state = RK_KEY_CURRENT;
            }
        } else if (strcmp(key, "kek") == 0 && BSON_ITER_HOLDS_UTF8(&iter)) {
            uint32_t len = 0;
            const char *kek = bson_iter_utf8(&iter, &len);
            if (len < sizeof record->wrapped.kek) {
                memcpy(record->wrapped.kek, kek, len);
            }
        } else if (strcmp(key, "wrapped") == 0 && BSON_ITER_HOLDS_BINARY(&iter)) {
            bson_subtype_t subtype;
            uint32_t len = 0;
            const uint8_t *data = NULL;
            bson_iter_binary(&iter, &subtype, &len, &data);
            if (len <= sizeof record->wrapped.data) {
                memcpy(record->wrapped.data, data, len);
                record->wrapped.len = len;
            }
        } else if (strcmp(key, "createdAt") == 0 && BSON_ITER_HOLDS_DATE_TIME(&iter)) {
            record->created_at_ms = bson_iter_date_time(&iter);
        } else if (strcmp(key, "activatedAt") == 0 && BSON_ITER_HOLDS_DATE_TIME(&iter)) {
            record->activated_at_ms = bson_iter_date_time(&iter);
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

static void settle_states(struct rk_key_record *records, size_t n)
{
    bool found = false;
    for (size_t i = n; i > 0; i--) {
        if (found) {
            records[i - 1].state = RK_KEY_RETIRING;
        }
        found = found || records[i - 1].state == RK_KEY_CURRENT;
    }
}

static enum rk_status list(mongoc_client_t *client, const char *state_db,
                           struct rk_key_record **out, size_t *n_out, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    struct rk_key_record *records = NULL;
    size_t n = 0;
    size_t cap = 0;
    const bson_t *doc;
    bson_error_t cause;
    bson_t opts = BSON_INITIALIZER;
    bson_t filter = BSON_INITIALIZER;
    bson_t sort;
    mongoc_collection_t *keys = mongoc_client_get_collection(client, state_db, "keys");
    mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);

    BSON_APPEND_DOCUMENT_BEGIN(&opts, "sort", &sort);
    BSON_APPEND_INT32(&sort, "_id", 1);
    bson_append_document_end(&opts, &sort);
    rk_mongo_majority_reads(&opts);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(keys, &filter, &opts, primary);
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
    settle_states(records, n);
    *out = records;
    *n_out = n;
    records = NULL;
done:
    free(records);
    mongoc_cursor_destroy(cursor);
    mongoc_read_prefs_destroy(primary);
    mongoc_collection_destroy(keys);
    bson_destroy(&filter);
    bson_destroy(&opts);
    return status;
}

enum rk_status rk_registry_list(struct rk_registry *registry, struct rk_key_record **records,
                                size_t *n, struct rk_error *err)
{
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    enum rk_status status = list(client, registry->state_db, records, n, err);
    mongoc_client_pool_push(registry->pool, client);
    return status;
}

/* The deciding write of a rotation. */
static enum rk_status insert_current(mongoc_collection_t *keys, uint32_t id,
                                     const struct rk_wrapped_key *wrapped, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t doc = BSON_INITIALIZER;
    bson_t opts = BSON_INITIALIZER;
    int64_t now_ms = rk_clock_wall_ms();
    BSON_APPEND_INT64(&doc, "_id", (int64_t)id);
    BSON_APPEND_UTF8(&doc, "state", rk_key_state_name(RK_KEY_CURRENT));
    BSON_APPEND_UTF8(&doc, "kek", wrapped->kek);
    BSON_APPEND_BINARY(&doc, "wrapped", BSON_SUBTYPE_BINARY, wrapped->data, (uint32_t)wrapped->len);
    BSON_APPEND_DATE_TIME(&doc, "createdAt", now_ms);
    BSON_APPEND_DATE_TIME(&doc, "activatedAt", now_ms);
    rk_mongo_majority_writes(&opts);
    if (!mongoc_collection_insert_one(keys, &doc, &opts, NULL, &cause)) {
        status = rk_mongo_error(err,
                                "cannot confirm the new key (it may yet take effect; look at "
                                "`rekeyctl keys list` before trying again)",
                                &cause);
        if (status == RK_ESTATE) {
            status = rk_error_set(err, RK_ESTATE, "another rotation has just made key %u", id);
        }
    }
    bson_destroy(&opts);
    bson_destroy(&doc);
    return status;
}

/* Tidies documents that readers already count as retiring. */
static enum rk_status mark_retiring(mongoc_collection_t *keys, uint32_t below_id,
                                    struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t opts = BSON_INITIALIZER;
    bson_t *selector = BCON_NEW("_id", "{", "$lt", BCON_INT64((int64_t)below_id), "}", "state",
                                BCON_UTF8(rk_key_state_name(RK_KEY_CURRENT)));
    bson_t *update =
        BCON_NEW("$set", "{", "state", BCON_UTF8(rk_key_state_name(RK_KEY_RETIRING)), "}");
    rk_mongo_majority_writes(&opts);
    if (!mongoc_collection_update_many(keys, selector, update, &opts, NULL, &cause)) {
        status = rk_mongo_error(err, "cannot mark the former key as retiring", &cause);
    }
    bson_destroy(update);
    bson_destroy(selector);
    bson_destroy(&opts);
    return status;
}

static enum rk_status next_id(mongoc_client_t *client, const char *state_db, uint32_t *id,
                              struct rk_error *err)
{
    struct rk_key_record *records = NULL;
    size_t n = 0;
    enum rk_status status = list(client, state_db, &records, &n, err);
    if (status == RK_OK && n > 0 && records[n - 1].id == UINT32_MAX) {
        status = rk_error_set(err, RK_ELIMIT, "key ids are exhausted");
    } else if (status == RK_OK) {
        *id = n > 0 ? records[n - 1].id + 1 : 1;
    }
    free(records);
    return status;
}

static enum rk_status make_key(mongoc_client_t *client, const char *state_db,
                               const struct rk_provider *provider, uint32_t id,
                               struct rk_error *err)
{
    struct rk_wrapped_key wrapped = {.len = 0};
    uint8_t root[RK_DATA_KEY_LEN];
    mongoc_collection_t *keys = mongoc_client_get_collection(client, state_db, "keys");
    enum rk_status status = provider->ops->generate(provider->self, id, root, &wrapped, err);
    /* Only the wrapped form is needed here; whoever uses the key unwraps it. */
    OPENSSL_cleanse(root, sizeof root);
    if (status == RK_OK) {
        status = insert_current(keys, id, &wrapped, err);
    }
    mongoc_collection_destroy(keys);
    return status;
}

static enum rk_status rotate(struct rk_registry *registry, const struct rk_provider *provider,
                             const char *actor, bool first_only, uint32_t *new_id,
                             struct rk_error *err)
{
    uint32_t id = 0;
    struct rk_error why = {.message = ""};
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    enum rk_status status = next_id(client, registry->state_db, &id, err);
    if (status == RK_OK && first_only && id != 1) {
        status = rk_error_set(err, RK_ESTATE, "the key registry has a key already");
    }
    if (status != RK_OK) {
        goto done;
    }
    struct rk_audit_event event = {
        .actor = actor, .action = "key.rotate", .key_id = id, .result = "started"};
    status = rk_audit_record(client, registry->state_db, &event, err);
    if (status != RK_OK) {
        goto done;
    }
    status = make_key(client, registry->state_db, provider, id, &why);
    event.result = status == RK_OK ? "ok" : "failed";
    event.detail = status == RK_OK ? NULL : why.message;
    if (status == RK_OK) {
        mongoc_collection_t *keys =
            mongoc_client_get_collection(client, registry->state_db, "keys");
        if (mark_retiring(keys, id, &why) != RK_OK) {
            event.detail = why.message; /* the rotation holds all the same */
        }
        mongoc_collection_destroy(keys);
        *new_id = id;
    } else {
        (void)rk_error_set(err, status, "%s", why.message);
    }
    /* Without this record the log shows a rotation that started; the registry shows how it ended.
     */
    enum rk_status recorded = rk_audit_record(client, registry->state_db, &event, NULL);
    (void)recorded;
done:
    mongoc_client_pool_push(registry->pool, client);
    return status;
}

/* Replaces what it read and nothing newer. */
static enum rk_status replace_wrapped(mongoc_collection_t *keys, const struct rk_key_record *record,
                                      const struct rk_wrapped_key *wrapped, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t reply;
    bson_t opts = BSON_INITIALIZER;
    bson_iter_t matched;
    const struct rk_wrapped_key *old = &record->wrapped;
    bson_t *selector = BCON_NEW("_id", BCON_INT64((int64_t)record->id), "wrapped",
                                BCON_BIN(BSON_SUBTYPE_BINARY, old->data, (uint32_t)old->len));
    bson_t *update =
        BCON_NEW("$set", "{", "kek", BCON_UTF8(wrapped->kek), "wrapped",
                 BCON_BIN(BSON_SUBTYPE_BINARY, wrapped->data, (uint32_t)wrapped->len), "}");
    rk_mongo_majority_writes(&opts);
    if (!mongoc_collection_update_one(keys, selector, update, &opts, &reply, &cause)) {
        status = rk_mongo_error(err, "cannot confirm the rewrapped key", &cause);
    } else if (!bson_iter_init_find(&matched, &reply, "matchedCount") ||
               bson_iter_as_int64(&matched) != 1) {
        status = rk_error_set(err, RK_ESTATE, "key %u has just been changed by somebody else",
                              record->id);
    }
    bson_destroy(&reply);
    bson_destroy(update);
    bson_destroy(selector);
    bson_destroy(&opts);
    return status;
}

static enum rk_status rewrap_one(mongoc_client_t *client, const char *state_db,
                                 const struct rk_provider *provider, const char *actor,
                                 const struct rk_key_record *record, bool *done,
                                 struct rk_error *err)
{
    struct rk_wrapped_key wrapped = {.len = 0};
    struct rk_error why = {.message = ""};
    enum rk_status status =
        provider->ops->rewrap(provider->self, record->id, &record->wrapped, &wrapped, &why);
    if (status == RK_ESTATE) {
        return RK_OK; /* it is under the newest already */
    }
    struct rk_audit_event event = {.actor = actor,
                                   .action = "key.rewrap",
                                   .key_id = record->id,
                                   .target = status == RK_OK ? wrapped.kek : record->wrapped.kek,
                                   .result = "started"};
    enum rk_status recorded = rk_audit_record(client, state_db, &event, err);
    if (recorded != RK_OK) {
        return recorded;
    }
    if (status == RK_OK) {
        mongoc_collection_t *keys = mongoc_client_get_collection(client, state_db, "keys");
        status = replace_wrapped(keys, record, &wrapped, &why);
        mongoc_collection_destroy(keys);
    }
    event.result = status == RK_OK ? "ok" : "failed";
    event.detail = status == RK_OK ? NULL : why.message;
    recorded = rk_audit_record(client, state_db, &event, NULL);
    (void)recorded; /* "started" is there */
    *done = status == RK_OK;
    return status == RK_OK ? RK_OK : rk_error_set(err, status, "%s", why.message);
}

enum rk_status rk_registry_rewrap(struct rk_registry *registry, const struct rk_provider *provider,
                                  const char *actor, uint32_t *rewrapped, struct rk_error *err)
{
    struct rk_key_record *records = NULL;
    size_t n = 0;
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    enum rk_status status = list(client, registry->state_db, &records, &n, err);
    *rewrapped = 0;
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        bool done = false;
        status = rewrap_one(client, registry->state_db, provider, actor, &records[i], &done, err);
        *rewrapped += done ? 1 : 0;
    }
    free(records);
    mongoc_client_pool_push(registry->pool, client);
    return status;
}

enum rk_status rk_registry_rotate(struct rk_registry *registry, const struct rk_provider *provider,
                                  const char *actor, uint32_t *new_id, struct rk_error *err)
{
    return rotate(registry, provider, actor, false, new_id, err);
}

enum rk_status rk_registry_create_first(struct rk_registry *registry,
                                        const struct rk_provider *provider, const char *actor,
                                        uint32_t *new_id, struct rk_error *err)
{
    return rotate(registry, provider, actor, true, new_id, err);
}
