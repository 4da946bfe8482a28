/* Sessions and transactions. */
#include "runner.h"

static bool has_session(struct call *call)
{
    return call->session != NULL || failed(call, "%s needs a session", call->op);
}

static bool start_session(struct call *call)
{
    const char *name;
    mongoc_session_opt_t *opts = mongoc_session_opts_new();

    if (bson_has_field(&call->args, "causalConsistency")) {
        mongoc_session_opts_set_causal_consistency(opts, flag_of(&call->args, "causalConsistency"));
    }
    if (bson_has_field(&call->args, "snapshot")) {
        mongoc_session_opts_set_snapshot(opts, flag_of(&call->args, "snapshot"));
    }
    mongoc_client_session_t *session =
        need_text(call, "as", &name) ? mongoc_client_start_session(call->client, opts, &call->error)
                                     : NULL;
    mongoc_session_opts_destroy(opts);
    if (session == NULL) {
        return false;
    }
    scenario_name(call->scenario, name)->session = session;
    return done(call);
}

static bool start_transaction(struct call *call)
{
    mongoc_read_prefs_t *prefs;
    if (!has_session(call) || !read_prefs_of(call, &call->args, &prefs)) {
        return false;
    }
    mongoc_transaction_opt_t *opts = mongoc_transaction_opts_new();
    mongoc_read_concern_t *read_concern = read_concern_of(&call->args);
    mongoc_write_concern_t *write_concern = write_concern_of(&call->args);

    if (prefs != NULL) {
        mongoc_transaction_opts_set_read_prefs(opts, prefs);
    }
    if (read_concern != NULL) {
        mongoc_transaction_opts_set_read_concern(opts, read_concern);
    }
    if (write_concern != NULL) {
        mongoc_transaction_opts_set_write_concern(opts, write_concern);
    }
    bool ok = mongoc_client_session_start_transaction(call->session, opts, &call->error);
    mongoc_read_prefs_destroy(prefs);
    mongoc_read_concern_destroy(read_concern);
    mongoc_write_concern_destroy(write_concern);
    mongoc_transaction_opts_destroy(opts);
    return ok && done(call);
}

static bool commit_transaction(struct call *call)
{
    if (!has_session(call)) {
        return false;
    }
    bson_destroy(&call->reply);
    return mongoc_client_session_commit_transaction(call->session, &call->reply, &call->error) &&
           done(call);
}

static bool abort_transaction(struct call *call)
{
    if (!has_session(call)) {
        return false;
    }
    return mongoc_client_session_abort_transaction(call->session, &call->error) && done(call);
}

static bool end_session(struct call *call)
{
    if (!has_session(call)) {
        return false;
    }
    struct named *own = NULL;
    for (struct named *named = call->scenario->names; named != NULL; named = named->next) {
        if (named->within == call->session) {
            named_close(named);
        }
        if (named->session == call->session) {
            own = named;
        }
    }
    named_close(own); /* after its cursors */
    call->session = NULL;
    return done(call);
}

/* One attempt; a failing step's error is the callback's, so that the driver aborts or retries. */
static bool attempt(mongoc_client_session_t *session, void *context, bson_t **reply,
                    bson_error_t *error)
{
    struct call *outer = context;
    bson_string_t *list = bson_string_new("[");
    bson_t steps;
    bson_t step;
    bson_iter_t iter;
    bool ok = need_view(outer, "steps", &steps) && bson_iter_init(&iter, &steps);

    while (ok && bson_iter_next(&iter) && view_of(&steps, bson_iter_key(&iter), &step)) {
        struct call call;
        call_init(&call, outer->scenario, &step);
        ok = call_run(&call, outer->client, session);
        if (ok) {
            char *result = call_result(&call, ok);
            bson_string_append(list, list->len > 1 ? ", " : "");
            bson_string_append(list, result);
            bson_free(result);
        } else {
            *error = call.error;
            *reply = bson_copy(&call.reply);
        }
        call_deinit(&call);
    }
    bson_string_append(list, "]");
    bson_free(outer->json);
    outer->json = bson_string_free(list, false);
    return ok;
}

static bool with_transaction(struct call *call)
{
    if (!has_session(call)) {
        return false;
    }
    bson_destroy(&call->reply);
    return mongoc_client_session_with_transaction(call->session, attempt, NULL, call, &call->reply,
                                                  &call->error);
}

const struct op ops_sessions[] = {
    {"startSession", start_session, ""},
    {"startTransaction", start_transaction, ""},
    {"commitTransaction", commit_transaction, ""},
    {"abortTransaction", abort_transaction, ""},
    {"endSession", end_session, ""},
    {"withTransaction", with_transaction, " steps "},
    {NULL, NULL, NULL},
};
