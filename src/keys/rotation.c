/*
 * Changes of the registry of wrapped data keys (see registry.h).
 *
 * Rotations and promotions have to hold without transactions, which a standalone mongod lacks. The
 * deciding write of a rotation is the insert of the new key under the next id, that of a promotion
 * the change of its state from "pending": each wins or loses as a whole. From then on the new key
 * is current, because readers take the highest id in state "current" and count all lower ones as
 * retiring, whatever their documents say. Marking those is a second write, which the next promotion
 * repeats should a crash have swallowed it.
 *
 * Readers see a key only when its state is majority-committed: a value must never be encrypted
 * under a key that a failover could roll back.
 */
#include "registry_internal.h"

#include <openssl/crypto.h>
#include <rekey/base/clock.h>
#include <rekey/keys/audit.h>
#include <rekey/keys/instances.h>
#include <rekey/keys/mongo.h>
#include <stdlib.h>
#include <string.h>

/* Rotations of other names may take an id that was seen free; each attempt lost is a key of theirs.
 */
#define ATTEMPTS_MAX 100u

/* The deciding write of a rotation. */
static enum rk_status insert_key(mongoc_collection_t *keys, const struct rk_key_record *record,
                                 struct rk_error *err)
{
    const struct rk_wrapped_key *wrapped = &record->wrapped;
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t doc = BSON_INITIALIZER;
    bson_t opts = BSON_INITIALIZER;
    int64_t now_ms = rk_clock_wall_ms();
    BSON_APPEND_INT64(&doc, "_id", (int64_t)record->id);
    if (strcmp(record->name, RK_KEY_NAME_DEFAULT) != 0) {
        BSON_APPEND_UTF8(&doc, "name", record->name);
    }
    BSON_APPEND_UTF8(&doc, "state", rk_key_state_name(record->state));
    if (wrapped->remote) {
        BSON_APPEND_UTF8(&doc, "mode", "transit");
    }
    BSON_APPEND_UTF8(&doc, "kek", wrapped->kek);
    BSON_APPEND_BINARY(&doc, "wrapped", BSON_SUBTYPE_BINARY, wrapped->data, (uint32_t)wrapped->len);
    BSON_APPEND_DATE_TIME(&doc, "createdAt", now_ms);
    if (record->state == RK_KEY_CURRENT) {
        BSON_APPEND_DATE_TIME(&doc, "activatedAt", now_ms);
    }
    rk_mongo_majority_writes(&opts);
    if (!mongoc_collection_insert_one(keys, &doc, &opts, NULL, &cause)) {
        status = rk_mongo_error(err,
                                "cannot confirm the new key (it may yet take effect; look at "
                                "`rekeyctl keys list` before trying again)",
                                &cause);
        if (status == RK_ESTATE) {
            status =
                rk_error_set(err, RK_ESTATE, "another rotation has just made key %u", record->id);
        }
    }
    bson_destroy(&opts);
    bson_destroy(&doc);
    return status;
}

/* Tidies documents that readers already count as retiring. */
static enum rk_status mark_retiring(mongoc_collection_t *keys, const struct rk_key_record *current,
                                    struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t opts = BSON_INITIALIZER;
    bson_t *selector = BCON_NEW("_id", "{", "$lt", BCON_INT64((int64_t)current->id), "}", "state",
                                BCON_UTF8(rk_key_state_name(RK_KEY_CURRENT)));
    bson_t *update =
        BCON_NEW("$set", "{", "state", BCON_UTF8(rk_key_state_name(RK_KEY_RETIRING)), "}");
    rk_registry_put_name(selector, current->name);
    rk_mongo_majority_writes(&opts);
    if (!mongoc_collection_update_many(keys, selector, update, &opts, NULL, &cause)) {
        status = rk_mongo_error(err, "cannot mark the former key as retiring", &cause);
    }
    bson_destroy(update);
    bson_destroy(selector);
    bson_destroy(&opts);
    return status;
}

/*
 * What a rotation starts from: made->id, and the state that its key will have. The newest id is
 * read first: as long as nobody has the next one, the keys of the name are as they are read then.
 */
static enum rk_status plan_key(mongoc_client_t *client, const char *state_db, bool first_only,
                               struct rk_key_record *made, struct rk_error *err)
{
    struct rk_key_record *records = NULL;
    size_t n = 0;
    enum rk_status status = rk_registry_newest(client, state_db, &made->id, err);
    if (status == RK_OK) {
        status = rk_registry_read(client, state_db, made->name, &records, &n, err);
    }
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        if (records[i].state == RK_KEY_PENDING) {
            status = rk_error_set(err, RK_ESTATE,
                                  "key %u is pending still: it becomes current when every instance "
                                  "has loaded it",
                                  records[i].id);
        }
    }
    free(records);
    if (status == RK_OK && made->id == UINT32_MAX) {
        status = rk_error_set(err, RK_ELIMIT, "key ids are exhausted");
    } else if (status == RK_OK && first_only && n > 0) {
        status = rk_error_set(err, RK_ESTATE, "\"%s\" has a key already", made->name);
    }
    made->id++;
    /* Before the first key nobody has written anything that others could miss. */
    made->state = n > 0 ? RK_KEY_PENDING : RK_KEY_CURRENT;
    return status;
}

static enum rk_status make_key(mongoc_client_t *client, const char *state_db,
                               const struct rk_provider *provider, struct rk_key_record *made,
                               struct rk_error *err)
{
    uint8_t root[RK_DATA_KEY_LEN];
    mongoc_collection_t *keys = mongoc_client_get_collection(client, state_db, "keys");
    enum rk_status status =
        provider->ops->generate(provider->self, made->id, root, &made->wrapped, err);
    /* Only the wrapped form is needed here; whoever uses the key unwraps it. */
    OPENSSL_cleanse(root, sizeof root);
    if (status == RK_OK) {
        status = insert_key(keys, made, err);
    }
    mongoc_collection_destroy(keys);
    return status;
}

/* Did a key of another name take the id? */
static bool lost_to_another(mongoc_client_t *client, const char *state_db,
                            const struct rk_key_record *made)
{
    struct rk_key_record *records = NULL;
    size_t n = 0;
    bool own = rk_registry_read(client, state_db, made->name, &records, &n, NULL) != RK_OK;
    for (size_t i = 0; i < n; i++) {
        own = own || records[i].id == made->id;
    }
    free(records);
    return !own;
}

/* One attempt. *again: a key of another name took the id. */
static enum rk_status rotate_once(mongoc_client_t *client, const char *state_db,
                                  const struct rk_provider *provider, const char *actor,
                                  bool first_only, struct rk_key_record *made, bool *again,
                                  struct rk_error *err)
{
    enum rk_status status = plan_key(client, state_db, first_only, made, err);
    struct rk_audit_event event = {.actor = actor,
                                   .action = "key.rotate",
                                   .key_id = made->id,
                                   .target = made->name,
                                   .result = "started"};
    if (status == RK_OK) {
        status = rk_audit_record(client, state_db, &event, err);
    }
    if (status == RK_OK) {
        struct rk_error why = {.message = ""};
        status = make_key(client, state_db, provider, made, &why);
        *again = status == RK_ESTATE && lost_to_another(client, state_db, made);
        status = rk_audit_conclude(client, state_db, &event, status, &why, err);
    }
    return status;
}

static enum rk_status rotate(struct rk_registry *registry, const struct rk_provider *provider,
                             const char *name, const char *actor, bool first_only,
                             struct rk_key_record *made, struct rk_error *err)
{
    bool again = true;
    enum rk_status status = RK_OK;
    if (!rk_key_name_valid(name)) {
        return rk_error_set(err, RK_EINVAL,
                            "\"%s\" is no name for a key: it has 1 to %u letters, digits, _ . or -",
                            name, RK_KEY_BASE_NAME_MAX);
    }
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    for (unsigned attempt = 0; again && attempt < ATTEMPTS_MAX; attempt++) {
        again = false;
        *made = (struct rk_key_record){.id = 0};
        memcpy(made->name, name, strlen(name) + 1);
        status =
            rotate_once(client, registry->state_db, provider, actor, first_only, made, &again, err);
    }
    mongoc_client_pool_push(registry->pool, client);
    return status;
}

/* The deciding write of a promotion; *changed is false when the key was not pending (any more). */
static enum rk_status activate(mongoc_collection_t *keys, uint32_t id, bool *changed,
                               struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t reply;
    bson_t opts = BSON_INITIALIZER;
    bson_iter_t modified;
    bson_t *selector = BCON_NEW("_id", BCON_INT64((int64_t)id), "state",
                                BCON_UTF8(rk_key_state_name(RK_KEY_PENDING)));
    bson_t *update = BCON_NEW("$set", "{", "state", BCON_UTF8(rk_key_state_name(RK_KEY_CURRENT)),
                              "}", "$currentDate", "{", "activatedAt", BCON_BOOL(true), "}");
    rk_mongo_majority_writes(&opts);
    if (!mongoc_collection_update_one(keys, selector, update, &opts, &reply, &cause)) {
        status = rk_mongo_error(err, "cannot confirm that the new key is current", &cause);
    }
    *changed = bson_iter_init_find(&modified, &reply, "modifiedCount") &&
               bson_iter_as_int64(&modified) == 1;
    bson_destroy(&reply);
    bson_destroy(update);
    bson_destroy(selector);
    bson_destroy(&opts);
    return status;
}

static enum rk_status check_instances(struct rk_registry *registry, uint32_t id,
                                      struct rk_error *err)
{
    size_t n = 0;
    char what[256];
    enum rk_status status = rk_instances_without(registry, id, &n, what, sizeof what, err);
    if (status == RK_OK && n > 0) {
        status = rk_error_set(err, RK_ESTATE,
                              "key %u is pending: it waits for %zu instances, such as %s; it "
                              "becomes current by itself",
                              id, n, what);
    }
    return status;
}

enum rk_status rk_registry_promote(struct rk_registry *registry, const struct rk_key_record *key,
                                   const char *actor, struct rk_error *err)
{
    const uint32_t key_id = key->id;
    const char *state_db = registry->state_db;
    enum rk_status status = check_instances(registry, key_id, err);
    if (status != RK_OK) {
        return status;
    }
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    mongoc_collection_t *keys = mongoc_client_get_collection(client, state_db, "keys");
    struct rk_audit_event event = {.actor = actor,
                                   .action = "key.promote",
                                   .key_id = key_id,
                                   .target = key->name,
                                   .result = "started"};
    struct rk_error why = {.message = ""};
    bool changed = false;
    status = rk_audit_record(client, state_db, &event, err);
    if (status == RK_OK) {
        status = activate(keys, key_id, &changed, &why);
        if (status == RK_OK && !changed) {
            (void)rk_error_set(&why, RK_OK, "somebody else was faster");
        } else if (status == RK_OK) {
            enum rk_status marked = mark_retiring(keys, key, &why);
            (void)marked; /* the promotion holds all the same; why goes to the audit log */
        }
        status = rk_audit_conclude(client, state_db, &event, status, &why, err);
    }
    mongoc_collection_destroy(keys);
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
    *done = status == RK_OK;
    return rk_audit_conclude(client, state_db, &event, status, &why, err);
}

enum rk_status rk_registry_rewrap(struct rk_registry *registry, const struct rk_provider *provider,
                                  const char *actor, uint32_t *rewrapped, struct rk_error *err)
{
    struct rk_key_record *records = NULL;
    size_t n = 0;
    mongoc_client_t *client = mongoc_client_pool_pop(registry->pool);
    enum rk_status status = rk_registry_read(client, registry->state_db, NULL, &records, &n, err);
    *rewrapped = 0;
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        bool done = false;
        if (records[i].state == RK_KEY_DESTROYED) {
            continue;
        }
        status = rewrap_one(client, registry->state_db, provider, actor, &records[i], &done, err);
        *rewrapped += done ? 1 : 0;
    }
    free(records);
    mongoc_client_pool_push(registry->pool, client);
    return status;
}

enum rk_status rk_registry_rotate(struct rk_registry *registry, const struct rk_provider *provider,
                                  const char *name, const char *actor, struct rk_key_record *made,
                                  struct rk_error *err)
{
    return rotate(registry, provider, name, actor, false, made, err);
}

enum rk_status rk_registry_create_first(struct rk_registry *registry,
                                        const struct rk_provider *provider, const char *name,
                                        const char *actor, struct rk_key_record *made,
                                        struct rk_error *err)
{
    return rotate(registry, provider, name, actor, true, made, err);
}
