#include <rekey/keys/audit.h>

#include <rekey/keys/mongo.h>

#include <mongoc/mongoc.h>
#include <unistd.h>

static void append_event(bson_t *set, const struct rk_audit_event *event)
{
    char host[256] = "";
    /* A name that was cut need not be terminated; the last byte stays NUL. */
    (void)gethostname(host, sizeof host - 1);
    BSON_APPEND_UTF8(set, "actor", event->actor);
    BSON_APPEND_UTF8(set, "host", host);
    BSON_APPEND_INT64(set, "pid", (int64_t)getpid());
    BSON_APPEND_UTF8(set, "action", event->action);
    if (event->key_id != 0) {
        BSON_APPEND_INT64(set, "keyId", (int64_t)event->key_id);
    }
    if (event->target != NULL) {
        BSON_APPEND_UTF8(set, "target", event->target);
    }
    BSON_APPEND_UTF8(set, "result", event->result);
    if (event->detail != NULL) {
        BSON_APPEND_UTF8(set, "detail", event->detail);
    }
}

enum rk_status rk_audit_record(mongoc_client_t *client, const char *state_db,
                               const struct rk_audit_event *event, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_oid_t id;
    bson_t selector = BSON_INITIALIZER;
    bson_t update = BSON_INITIALIZER;
    bson_t opts = BSON_INITIALIZER;
    bson_t part;
    mongoc_collection_t *audit = mongoc_client_get_collection(client, state_db, "audit");

    /* An upsert instead of an insert, because only an update can take the server's clock. */
    bson_oid_init(&id, NULL);
    BSON_APPEND_OID(&selector, "_id", &id);
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$currentDate", &part);
    BSON_APPEND_BOOL(&part, "at", true);
    bson_append_document_end(&update, &part);
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &part);
    append_event(&part, event);
    bson_append_document_end(&update, &part);
    BSON_APPEND_BOOL(&opts, "upsert", true);
    rk_mongo_majority_writes(&opts);

    if (!mongoc_collection_update_one(audit, &selector, &update, &opts, NULL, &cause)) {
        status = rk_mongo_error(err, "cannot write the audit log", &cause);
    }
    mongoc_collection_destroy(audit);
    bson_destroy(&opts);
    bson_destroy(&update);
    bson_destroy(&selector);
    return status;
}
