#include "transaction_internal.h"

#include <rekey/log/log.h>

#include <string.h>

#define WIRE_VERSION_SNAPSHOT_READS 13 /* MongoDB 5.0 */
#define SPARED_SHIFT_MAX 6u            /* of 64 batches one still tries */

static bool can(mongoc_client_t *client)
{
    mongoc_server_description_t *primary = mongoc_client_select_server(client, true, NULL, NULL);
    bson_iter_t iter;
    bool possible = primary != NULL &&
                    strcmp(mongoc_server_description_type(primary), "RSPrimary") == 0 &&
                    bson_iter_init_find(&iter, mongoc_server_description_hello_response(primary),
                                        "maxWireVersion") &&
                    bson_iter_as_int64(&iter) >= WIRE_VERSION_SNAPSHOT_READS;
    mongoc_server_description_destroy(primary);
    return possible;
}

bool rk_transaction_possible(struct rk_transaction *t)
{
    if (!can(t->client)) {
        return false;
    }
    if (t->session == NULL) {
        /* Causal consistency would add a readConcern of its own to the transaction's. */
        mongoc_session_opt_t *opts = mongoc_session_opts_new();
        mongoc_session_opts_set_causal_consistency(opts, false);
        t->session = mongoc_client_start_session(t->client, opts, NULL);
        mongoc_session_opts_destroy(opts);
    }
    return t->session != NULL;
}

bool rk_transaction_wanted(struct rk_transaction *t)
{
    if (t->spared > 0) {
        t->spared--;
        return false;
    }
    return rk_transaction_possible(t);
}

void rk_transaction_note(struct rk_transaction *t, bool written)
{
    if (written) {
        t->given_up = 0;
    } else {
        t->spared = (1u << t->given_up) - 1;
        t->given_up += t->given_up < SPARED_SHIFT_MAX;
    }
}

void rk_transaction_deinit(struct rk_transaction *t)
{
    if (t->session != NULL) {
        mongoc_client_session_destroy(t->session);
        t->session = NULL;
    }
}

const uint8_t *rk_transaction_session(const struct rk_transaction *t)
{
    bson_iter_t iter;
    bson_subtype_t subtype;
    uint32_t len = 0;
    const uint8_t *id = NULL;
    if (t->session != NULL &&
        bson_iter_init_find(&iter, mongoc_client_session_get_lsid(t->session), "id") &&
        BSON_ITER_HOLDS_BINARY(&iter)) {
        bson_iter_binary(&iter, &subtype, &len, &id);
    }
    return len == RK_SESSION_ID_LEN ? id : NULL;
}

static enum rk_status failed(struct rk_error *err, const bson_error_t *cause)
{
    return rk_error_set_code(err, RK_EIO, (int)cause->code, "%s", cause->message);
}

enum rk_status rk_transaction_begin(struct rk_transaction *t, uint32_t wtimeout_ms,
                                    struct rk_error *err)
{
    bson_error_t cause;
    mongoc_transaction_opt_t *opts = mongoc_transaction_opts_new();
    mongoc_write_concern_t *majority = mongoc_write_concern_new();
    mongoc_write_concern_set_wmajority(majority, (int32_t)wtimeout_ms);
    mongoc_transaction_opts_set_write_concern(opts, majority);
    bool begun = mongoc_client_session_start_transaction(t->session, opts, &cause);
    mongoc_write_concern_destroy(majority);
    mongoc_transaction_opts_destroy(opts);
    return begun ? RK_OK : failed(err, &cause);
}

void rk_transaction_put_time(struct rk_bson_writer *w, uint64_t at)
{
    uint8_t time[8];
    rk_store_u64(time, at);
    rk_bson_begin_doc(w, "readConcern");
    rk_bson_put_string(w, "level", "snapshot");
    rk_bson_put(w, RK_BSON_TIMESTAMP, "atClusterTime", strlen("atClusterTime"), time, sizeof time);
    rk_bson_end(w);
}

enum rk_status rk_transaction_run(struct rk_transaction *t, const char *db,
                                  const struct rk_buf *command, bson_t *reply, struct rk_error *err)
{
    bson_t view;
    bson_error_t cause;
    bson_t opts = BSON_INITIALIZER;
    enum rk_status status = RK_OK;
    if (!bson_init_static(&view, command->data, command->len) ||
        !mongoc_client_session_append(t->session, &opts, &cause)) {
        bson_init(reply);
        status = rk_error_set(err, RK_EINVAL, "cannot build a command of a transaction");
    } else if (!mongoc_client_command_with_opts(t->client, db, &view, NULL, &opts, reply, &cause)) {
        status = failed(err, &cause);
    }
    bson_destroy(&opts);
    return status;
}

enum rk_status rk_transaction_commit(struct rk_transaction *t, bool *unsure, struct rk_error *err)
{
    bson_t reply;
    bson_error_t cause;
    bool done = mongoc_client_session_commit_transaction(t->session, &reply, &cause);
    *unsure = !done && mongoc_error_has_label(&reply, "UnknownTransactionCommitResult");
    bson_destroy(&reply);
    return done ? RK_OK : failed(err, &cause);
}

void rk_transaction_abort(struct rk_transaction *t)
{
    if (mongoc_client_session_in_transaction(t->session)) {
        (void)mongoc_client_session_abort_transaction(t->session, NULL);
    } else if (rk_transaction_session(t) != NULL) {
        rk_session_kill(t->client, rk_transaction_session(t)); /* a commit that did not arrive */
    }
}

void rk_session_kill(mongoc_client_t *client, const uint8_t id[RK_SESSION_ID_LEN])
{
    bson_error_t cause;
    bson_t *command = BCON_NEW("killSessions", "[", "{", "id",
                               BCON_BIN(BSON_SUBTYPE_UUID, id, RK_SESSION_ID_LEN), "}", "]");
    if (!mongoc_client_command_simple(client, "admin", command, NULL, NULL, &cause)) {
        rk_log(RK_LOG_INFO, "session_not_killed", RK_I("code", (int64_t)cause.code),
               RK_S("error", cause.message));
    }
    bson_destroy(command);
}
