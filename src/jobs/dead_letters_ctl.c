/*
 * Dead letters for people: listing, counting, asking for another try.
 */
#include "command_internal.h"

#include <rekey/jobs/dead_letters.h>
#include <rekey/keys/audit.h>

#include <stdio.h>

#define WTIMEOUT_MS 30000

static bson_t *filter_of(const char *ns, bool all)
{
    bson_t *filter = bson_new();
    if (!all) {
        BSON_APPEND_BOOL(filter, "resolved", false);
    }
    if (ns != NULL) {
        BSON_APPEND_UTF8(filter, "ns", ns);
    }
    return filter;
}

enum rk_status rk_dead_letters_list(mongoc_client_t *client, const char *state_db, const char *ns,
                                    bool all, size_t max, rk_dead_letter_fn *fn, void *arg,
                                    struct rk_error *err)
{
    const bson_t *entry;
    bson_error_t cause;
    enum rk_status status = RK_OK;
    bson_t *filter = filter_of(ns, all);
    bson_t *opts =
        BCON_NEW("sort", "{", "lastSeen", BCON_INT32(-1), "}", "limit", BCON_INT64((int64_t)max),
                 "projection", "{", "raw", BCON_BOOL(false), "}");
    mongoc_collection_t *letters = mongoc_client_get_collection(client, state_db, "deadLetters");
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(letters, filter, opts, NULL);
    while (mongoc_cursor_next(cursor, &entry)) {
        fn(arg, entry);
    }
    if (mongoc_cursor_error(cursor, &cause)) {
        status = rk_error_set(err, RK_EIO, "cannot read dead letters: %s", cause.message);
    }
    mongoc_cursor_destroy(cursor);
    mongoc_collection_destroy(letters);
    bson_destroy(opts);
    bson_destroy(filter);
    return status;
}

enum rk_status rk_dead_letters_count(mongoc_client_t *client, const char *state_db, const char *ns,
                                     int64_t *n, struct rk_error *err)
{
    bson_t reply;
    bson_t *filter = filter_of(ns, false);
    bson_t *command = BCON_NEW("count", BCON_UTF8("deadLetters"), "query", BCON_DOCUMENT(filter));
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    *n = rk_view_int(&view, "n");
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(filter);
    return status;
}

enum rk_status rk_dead_letters_retry(mongoc_client_t *client, const char *state_db, const char *ns,
                                     const char *actor, int64_t *n, struct rk_error *err)
{
    struct rk_audit_event event = {
        .actor = actor, .action = "deadLetters.retry", .target = ns, .result = "started"};
    enum rk_status status = rk_audit_record(client, state_db, &event, err);
    if (status != RK_OK) {
        return status;
    }
    bson_t reply;
    bson_t *filter = filter_of(ns, false);
    bson_t *command = BCON_NEW("update", BCON_UTF8("deadLetters"), "updates", "[", "{", "q",
                               BCON_DOCUMENT(filter), "u", "{", "$set", "{", "retry",
                               BCON_BOOL(true), "}", "$unset", "{", "retriedAt", BCON_INT32(1), "}",
                               "}", "multi", BCON_BOOL(true), "}", "]", "writeConcern", "{", "w",
                               BCON_UTF8("majority"), "wtimeout", BCON_INT32(WTIMEOUT_MS), "}");
    status = rk_command_run_bson(client, state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    *n = rk_view_int(&view, "n");
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(filter);
    event.result = status == RK_OK ? "ok" : "failed";
    enum rk_status recorded =
        rk_audit_record(client, state_db, &event, status == RK_OK ? err : NULL);
    return status == RK_OK ? recorded : status;
}
