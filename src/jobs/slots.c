#include "range_internal.h"

#include <string.h>

#define SLOTS_MAX 1024u

enum rk_status rk_slot_find(const struct rk_lease *lease, const bson_oid_t *job,
                            uint32_t concurrency, int32_t *slot, struct rk_error *err)
{
    static const char *const batch_path[] = {"cursor", "firstBatch"};
    struct rk_bson_view docs;
    struct rk_bson_view doc;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    bool taken[SLOTS_MAX] = {false};
    bson_t reply;
    bson_t *command =
        BCON_NEW("find", BCON_UTF8("jobStatus"), "filter", "{", "jobId", BCON_OID(job), "state",
                 BCON_UTF8("running"), "slot", "{", "$exists", BCON_BOOL(true), "}", "}",
                 "projection", "{", "_id", BCON_INT32(0), "slot", BCON_INT32(1), "}", "batchSize",
                 BCON_INT32((int32_t)SLOTS_MAX), "singleBatch", BCON_BOOL(true));
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK &&
        (!rk_view_path(&view, batch_path, 2, &elem) || !rk_bson_elem_view(&elem, &docs))) {
        status = rk_error_set(err, RK_EIO, "mongod's reply to find is malformed");
    }
    if (status == RK_OK) {
        rk_bson_iter_init(&iter, &docs);
        while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
            int64_t of = rk_bson_elem_view(&elem, &doc) ? rk_view_int(&doc, "slot") : -1;
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
