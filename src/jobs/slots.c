#include "range_internal.h"

#include <string.h>

#define SLOTS_MAX 1024u

enum rk_status rk_slot_find(const struct rk_lease *lease, const bson_oid_t *job,
                            uint32_t concurrency, int32_t *slot, struct rk_error *err)
{
    struct rk_bson_view doc;
    struct rk_bson_iter iter;
    bool taken[SLOTS_MAX] = {false};
    bson_t reply;
    bson_t *command =
        BCON_NEW("find", BCON_UTF8("jobStatus"), "filter", "{", "jobId", BCON_OID(job), "state",
                 BCON_UTF8("running"), "slot", "{", "$exists", BCON_BOOL(true), "}", "}",
                 "projection", "{", "_id", BCON_INT32(0), "slot", BCON_INT32(1), "}", "batchSize",
                 BCON_INT32((int32_t)SLOTS_MAX), "singleBatch", BCON_BOOL(true));
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_batch(&reply, &iter, err);
    }
    if (status == RK_OK) {
        while (rk_batch_next(&iter, &doc)) {
            int64_t of = rk_view_int(&doc, "slot");
            if (of >= 0 && of < (int64_t)SLOTS_MAX) {
                taken[of] = true;
            }
        }
        uint32_t n = concurrency < SLOTS_MAX ? concurrency : SLOTS_MAX;
        for (*slot = 0; (uint32_t)*slot < n && taken[*slot]; (*slot)++) {
        }
        if ((uint32_t)*slot == n) {
            status = rk_error_set(err, RK_ELIMIT, "%u ranges of the job are being worked on", n);
        }
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}
