#include "range_internal.h"

#include <rekey/base/clock.h>

#include <string.h>

#define COMMAND_MAX (48u << 20)

static void put_range(struct rk_bson_writer *w, const bson_oid_t *job, const struct rk_ns *ns,
                      const struct rk_range_cut *cut)
{
    uint8_t now[8];
    rk_store_u64(now, (uint64_t)rk_clock_wall_ms());
    rk_bson_put_oid(w, "_id", &cut->id);
    rk_bson_put_oid(w, "jobId", job);
    rk_bson_put_int64(w, "seq", cut->seq);
    rk_bson_put_string(w, "collectionName", ns->full);
    rk_bson_put_int64(w, "batchSize", cut->docs);
    rk_bson_put_int64(w, "consumerProcessed", 0);
    rk_bson_put_id(w, "startId", cut->start);
    rk_bson_put_id(w, "endId", cut->end);
    rk_bson_put_bool(w, "isComplete", false);
    rk_bson_put(w, RK_BSON_DATE, "creationTimeStamp", strlen("creationTimeStamp"), now, sizeof now);
    rk_bson_put_string(w, "state", "pending");
    rk_bson_put_int64(w, "epoch", 0);
    rk_bson_put_int64(w, "attempts", 0);
}

enum rk_status rk_range_insert(const struct rk_lease *lease, const bson_oid_t *job,
                               const struct rk_ns *ns, const struct rk_range_cut *cut,
                               struct rk_error *err)
{
    struct rk_buf command;
    struct rk_bson_writer w;
    bson_t reply;
    rk_buf_init(&command, COMMAND_MAX);
    rk_bson_writer_init(&w, &command);
    rk_bson_begin(&w);
    rk_bson_put_string(&w, "insert", "jobStatus");
    rk_bson_begin_array(&w, "documents");
    rk_bson_begin_doc(&w, "0");
    put_range(&w, job, ns, cut);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_put_majority(&w, lease->wtimeout_ms);
    rk_bson_end(&w);
    if (rk_bson_writer_status(&w) != RK_OK) {
        rk_buf_deinit(&command);
        return rk_error_set(err, RK_ENOMEM, "cannot build a range");
    }
    enum rk_status status = rk_command_run(lease->client, lease->state_db, &command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_check_writes(&reply, "a range", err);
    }
    if (rk_is_duplicate(status, err)) {
        status = rk_error_set(err, RK_ESTATE, "the range is there already");
    }
    bson_destroy(&reply);
    rk_buf_deinit(&command);
    return status;
}
