/*
 * What owners that fell silent have left open is ended as soon as their leases are over, and not
 * only when a sweeper takes their ranges over: all sweepers may be waiting for just those
 * documents.
 *
 * Every coordinator looks, and a session may be that of a sweeper that lives and works on something
 * else by now. So who ends one takes it off the range first: it is ended once. The owner goes with
 * it, so that one that was merely slow does not go on in a session that no range names.
 */
#include "range_internal.h"

#include "transform_internal.h"

#define SESSIONS_MAX 64 /* in one look; the others follow with the next */

const uint8_t *rk_range_session(const struct rk_bson_view *doc, const char *key)
{
    struct rk_bson_elem elem;
    bool found = rk_bson_find(doc, key, &elem) && elem.type == RK_BSON_BINARY &&
                 elem.value_len == RK_BINARY_HEAD_LEN + RK_SESSION_ID_LEN;
    return found ? elem.value + RK_BINARY_HEAD_LEN : NULL;
}

/* *off: this call did it. A session that is taken off and not ended, because this process dies or
 * the answer is lost, is left to mongod. */
static enum rk_status take_off(const struct rk_lease *lease, const bson_oid_t *range, int64_t epoch,
                               const uint8_t *session, bool *off, struct rk_error *err)
{
    bson_t reply;
    bson_t *ran_out = rk_lease_ran_out(lease, "$leaseUntil");
    bson_t *command =
        BCON_NEW("update", BCON_UTF8("jobStatus"), "updates", "[", "{", "q", "{", "_id",
                 BCON_OID(range), "epoch", BCON_INT64(epoch), "state", BCON_UTF8("running"),
                 "session", BCON_BIN(BSON_SUBTYPE_UUID, session, RK_SESSION_ID_LEN), "$expr",
                 BCON_DOCUMENT(ran_out), "}", "u", "{", "$unset", "{", "session", BCON_INT32(1),
                 "owner", BCON_INT32(1), "}", "}", "}", "]");
    rk_bson_append_majority(command, lease->wtimeout_ms);
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_check_writes(&reply, "to take a session off a range", err);
    }
    struct rk_bson_view view = rk_reply_view(&reply);
    *off = status == RK_OK && rk_view_int(&view, "n") == 1;
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(ran_out);
    return status;
}

static enum rk_status end_session(const struct rk_lease *lease, const struct rk_bson_view *range,
                                  struct rk_error *err)
{
    bson_oid_t id;
    bool off = false;
    const uint8_t *session = rk_range_session(range, "session");
    if (session == NULL || !rk_view_oid(range, "_id", &id)) {
        return RK_OK;
    }
    enum rk_status status = take_off(lease, &id, rk_view_int(range, "epoch"), session, &off, err);
    if (off) {
        rk_session_kill(lease->client, session);
    }
    return status;
}

enum rk_status rk_dead_sessions_end(const struct rk_lease *lease, const bson_oid_t *job,
                                    void (*meanwhile)(void *arg), void *arg, struct rk_error *err)
{
    struct rk_bson_view doc;
    struct rk_bson_iter iter;
    bson_t reply;
    bson_t *ran_out = rk_lease_ran_out(lease, "$leaseUntil");
    bson_t *command =
        BCON_NEW("find", BCON_UTF8("jobStatus"), "filter", "{", "jobId", BCON_OID(job), "state",
                 BCON_UTF8("running"), "session", "{", "$exists", BCON_BOOL(true), "}", "$expr",
                 BCON_DOCUMENT(ran_out), "}", "projection", "{", "epoch", BCON_INT32(1), "session",
                 BCON_INT32(1), "}", "limit", BCON_INT32(SESSIONS_MAX), "batchSize",
                 BCON_INT32(SESSIONS_MAX), "singleBatch", BCON_BOOL(true));
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_batch(&reply, &iter, err);
    }
    while (status == RK_OK && rk_batch_next(&iter, &doc)) {
        meanwhile(arg);
        status = end_session(lease, &doc, err);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(ran_out);
    return status;
}
