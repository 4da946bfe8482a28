/*
 * Dead letters for people: listing, counting, asking for another try, giving up.
 */
#include "command_internal.h"

#include <rekey/jobs/dead_letters.h>
#include <rekey/keys/audit.h>

#include <string.h>

void rk_dead_letters_append_open(bson_t *filter)
{
    BCON_APPEND(filter, "resolved", "{", "$ne", BCON_BOOL(true), "}", "discarded", "{", "$exists",
                BCON_BOOL(false), "}");
}

/* RK_EINVAL when the id is none. Free *filter also then. */
static enum rk_status filter_of(const struct rk_dead_letters_which *which, bool all,
                                bson_t **filter, struct rk_error *err)
{
    *filter = bson_new();
    if (!all) {
        rk_dead_letters_append_open(*filter);
    }
    if (which->ns != NULL) {
        BSON_APPEND_UTF8(*filter, "ns", which->ns);
    }
    if (which->id != NULL) {
        bson_oid_t id;
        if (!bson_oid_is_valid(which->id, strlen(which->id))) {
            return rk_error_set(err, RK_EINVAL,
                                "\"%s\" is no dead letter's id: it has 24 hex digits", which->id);
        }
        bson_oid_init_from_string(&id, which->id);
        BSON_APPEND_OID(*filter, "_id", &id);
    }
    return RK_OK;
}

/* Takes opts. *n: entries that fn was called with. */
static enum rk_status find(mongoc_client_t *client, const char *state_db, const bson_t *filter,
                           bson_t *opts, rk_dead_letter_fn *fn, void *arg, size_t *n,
                           struct rk_error *err)
{
    const bson_t *entry;
    bson_error_t cause;
    enum rk_status status = RK_OK;
    mongoc_collection_t *letters = mongoc_client_get_collection(client, state_db, "deadLetters");
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(letters, filter, opts, NULL);
    for (*n = 0; mongoc_cursor_next(cursor, &entry); (*n)++) {
        fn(arg, entry);
    }
    if (mongoc_cursor_error(cursor, &cause)) {
        status = rk_command_error(err, "cannot read dead letters", &cause);
    }
    mongoc_cursor_destroy(cursor);
    mongoc_collection_destroy(letters);
    bson_destroy(opts);
    return status;
}

enum rk_status rk_dead_letters_list(mongoc_client_t *client, const char *state_db, const char *ns,
                                    bool all, size_t max, rk_dead_letter_fn *fn, void *arg,
                                    struct rk_error *err)
{
    const struct rk_dead_letters_which which = {.ns = ns};
    bson_t *filter = NULL;
    size_t n = 0;
    enum rk_status status = filter_of(&which, all, &filter, err);
    if (status == RK_OK) {
        bson_t *opts =
            BCON_NEW("sort", "{", "lastSeen", BCON_INT32(-1), "}", "limit",
                     BCON_INT64((int64_t)max), "projection", "{", "raw", BCON_BOOL(false), "}");
        status = find(client, state_db, filter, opts, fn, arg, &n, err);
    }
    bson_destroy(filter);
    return status;
}

enum rk_status rk_dead_letters_get(mongoc_client_t *client, const char *state_db, const char *id,
                                   rk_dead_letter_fn *fn, void *arg, struct rk_error *err)
{
    const struct rk_dead_letters_which which = {.id = id};
    bson_t *filter = NULL;
    size_t n = 0;
    enum rk_status status = filter_of(&which, true, &filter, err);
    if (status == RK_OK) {
        status = find(client, state_db, filter, BCON_NEW("limit", BCON_INT64(1)), fn, arg, &n, err);
    }
    bson_destroy(filter);
    return status == RK_OK && n == 0
               ? rk_error_set(err, RK_ENOENT, "there is no dead letter %s", id)
               : status;
}

static enum rk_status count(mongoc_client_t *client, const char *state_db,
                            const struct rk_dead_letters_which *which, bool all, int64_t *n,
                            struct rk_error *err)
{
    bson_t reply = BSON_INITIALIZER;
    bson_t *filter = NULL;
    enum rk_status status = filter_of(which, all, &filter, err);
    *n = 0;
    if (status == RK_OK) {
        bson_t *command =
            BCON_NEW("count", BCON_UTF8("deadLetters"), "query", BCON_DOCUMENT(filter));
        bson_destroy(&reply);
        status = rk_command_run_bson(client, state_db, command, &reply, err);
        struct rk_bson_view view = rk_reply_view(&reply);
        *n = rk_view_int(&view, "n");
        bson_destroy(command);
    }
    bson_destroy(&reply);
    bson_destroy(filter);
    return status;
}

enum rk_status rk_dead_letters_count(mongoc_client_t *client, const char *state_db, const char *ns,
                                     int64_t *n, struct rk_error *err)
{
    const struct rk_dead_letters_which which = {.ns = ns};
    return count(client, state_db, &which, false, n, err);
}

/* That none was open is a failure only for one that was named. */
static enum rk_status explain_none(mongoc_client_t *client, const char *state_db,
                                   const struct rk_dead_letters_which *which, struct rk_error *err)
{
    int64_t n = 0;
    if (which->id == NULL) {
        return RK_OK;
    }
    enum rk_status status = count(client, state_db, which, true, &n, err);
    if (status != RK_OK) {
        return status;
    }
    return n == 0
               ? rk_error_set(err, RK_ENOENT, "there is no dead letter %s", which->id)
               : rk_error_set(err, RK_ESTATE, "dead letter %s is resolved or discarded", which->id);
}

struct acting {
    const struct rk_dead_letters_which *which;
    const bson_t *update; /* a pipeline */
    const char *reason;   /* or NULL */
    int64_t n;
};

/* Updates the open entries among which. */
static enum rk_status update_open(mongoc_client_t *client, const char *state_db, void *arg,
                                  struct rk_error *err)
{
    struct acting *a = arg;
    bson_t reply = BSON_INITIALIZER;
    bson_t *filter = NULL;
    enum rk_status status = filter_of(a->which, false, &filter, err);
    if (status == RK_OK) {
        bson_t *command = BCON_NEW("update", BCON_UTF8("deadLetters"), "updates", "[", "{", "q",
                                   BCON_DOCUMENT(filter), "u", BCON_ARRAY(a->update), "multi",
                                   BCON_BOOL(true), "}", "]");
        rk_mongo_majority_writes(command);
        bson_destroy(&reply);
        status = rk_command_run_bson(client, state_db, command, &reply, err);
        if (status == RK_OK) {
            status = rk_reply_check_writes(&reply, "to change the dead letters", err);
        }
        struct rk_bson_view view = rk_reply_view(&reply);
        a->n = rk_view_int(&view, "n");
        bson_destroy(command);
    }
    bson_destroy(&reply);
    bson_destroy(filter);
    if (status == RK_OK && a->n == 0) {
        status = explain_none(client, state_db, a->which, err);
    }
    return status != RK_OK
               ? status
               : rk_error_set(err, RK_OK, "%lld dead letters%s%s", (long long)a->n,
                              a->reason != NULL ? ": " : "", a->reason != NULL ? a->reason : "");
}

/* Takes update. */
static enum rk_status act(mongoc_client_t *client, const char *state_db,
                          const struct rk_dead_letters_which *which, struct rk_audit_event *event,
                          bson_t *update, int64_t *n, struct rk_error *err)
{
    struct acting acting = {.which = which, .update = update, .reason = event->detail};
    event->target = which->id != NULL ? which->id : which->ns;
    enum rk_status status = rk_audited(client, state_db, event, update_open, &acting, err);
    *n = acting.n;
    bson_destroy(update);
    return status;
}

enum rk_status rk_dead_letters_retry(mongoc_client_t *client, const char *state_db,
                                     const struct rk_dead_letters_which *which, const char *actor,
                                     int64_t *n, struct rk_error *err)
{
    struct rk_audit_event event = {.actor = actor, .action = "deadLetters.retry"};
    bson_t *update = BCON_NEW("0", "{", "$set", "{", "retry", BCON_BOOL(true), "}", "}", "1", "{",
                              "$unset", BCON_UTF8("retriedAt"), "}");
    return act(client, state_db, which, &event, update, n, err);
}

enum rk_status rk_dead_letters_discard(mongoc_client_t *client, const char *state_db,
                                       const struct rk_dead_letters_which *which, const char *actor,
                                       const char *reason, int64_t *n, struct rk_error *err)
{
    struct rk_audit_event event = {
        .actor = actor, .action = "deadLetters.discard", .detail = reason};
    bson_t *update =
        BCON_NEW("0", "{", "$set", "{", "retry", BCON_BOOL(false), "discarded", "{", "by", "{",
                 "$literal", BCON_UTF8(actor), "}", "at", BCON_UTF8("$$NOW"), "reason", "{",
                 "$literal", BCON_UTF8(reason), "}", "}", "}", "}");
    return act(client, state_db, which, &event, update, n, err);
}
