/*
 * What owners that fell silent have left open is ended as soon as their leases are over, and not
 * only when a sweeper takes their ranges over: all sweepers may be waiting for just those
 * documents.
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

enum rk_status rk_dead_sessions_end(const struct rk_lease *lease, const bson_oid_t *job,
                                    struct rk_error *err)
{
    struct rk_bson_view doc;
    struct rk_bson_iter iter;
    bson_t reply;
    bson_t *ran_out = rk_lease_ran_out(lease, "$leaseUntil");
    bson_t *command =
        BCON_NEW("find", BCON_UTF8("jobStatus"), "filter", "{", "jobId", BCON_OID(job), "state",
                 BCON_UTF8("running"), "session", "{", "$exists", BCON_BOOL(true), "}", "$expr",
                 BCON_DOCUMENT(ran_out), "}", "projection", "{", "_id", BCON_INT32(0), "session",
                 BCON_INT32(1), "}", "limit", BCON_INT32(SESSIONS_MAX), "batchSize",
                 BCON_INT32(SESSIONS_MAX), "singleBatch", BCON_BOOL(true));
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_batch(&reply, &iter, err);
    }
    while (status == RK_OK && rk_batch_next(&iter, &doc)) {
        const uint8_t *id = rk_range_session(&doc, "session");
        if (id != NULL) {
            rk_session_kill(lease->client, id);
        }
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(ran_out);
    return status;
}
