/*
 * Telling other instances of ranges. Which ones were offered, and when, is written into jobStatus,
 * so that whoever plans next, or finds the transport's memory gone, knows what to offer again.
 */
#include "engine_internal.h"

#include <stdlib.h>
#include <string.h>

/* Ranges that nobody works on, and whose last offer was made a while ago, or by a clock that was
 * ahead. */
static bson_t *find_command(const struct rk_lease *lease, const struct rk_job_view *job,
                            uint32_t again_ms, uint32_t max)
{
    bson_t *ran_out = rk_lease_ran_out(lease, "$leaseUntil");
    bson_t *command =
        BCON_NEW("find", BCON_UTF8("jobStatus"), "filter", "{", "jobId", BCON_OID(&job->id),
                 "state", "{", "$in", "[", BCON_UTF8("pending"), BCON_UTF8("running"), "]", "}",
                 "$expr", "{", "$and", "[", "{", "$or", "[", "{", "$eq", "[", BCON_UTF8("$state"),
                 BCON_UTF8("pending"), "]", "}", BCON_DOCUMENT(ran_out), "]", "}", "{", "$or", "[",
                 "{", "$lte", "[", "{", "$ifNull", "[", BCON_UTF8("$offeredAt"), BCON_DATE_TIME(0),
                 "]", "}", "{", "$subtract", "[", BCON_UTF8("$$NOW"), BCON_INT64((int64_t)again_ms),
                 "]", "}", "]", "}", "{", "$gt", "[", BCON_UTF8("$offeredAt"), "{", "$add", "[",
                 BCON_UTF8("$$NOW"), BCON_INT64((int64_t)again_ms), "]", "}", "]", "}", "]", "}",
                 "]", "}", "}", "sort", "{", "seq", BCON_INT32(1), "}", "projection", "{", "_id",
                 BCON_INT32(1), "}", "limit", BCON_INT64((int64_t)max), "batchSize",
                 BCON_INT64((int64_t)max), "singleBatch", BCON_BOOL(true));
    bson_destroy(ran_out);
    return command;
}

static enum rk_status find_ranges(const struct rk_lease *lease, const struct rk_job_view *job,
                                  uint32_t again_ms, uint32_t max, struct rk_hint *hints, size_t *n,
                                  struct rk_error *err)
{
    struct rk_bson_view doc;
    struct rk_bson_iter iter;
    bson_t reply;
    bson_t *command = find_command(lease, job, again_ms, max);
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    *n = 0;
    if (status == RK_OK) {
        status = rk_reply_batch(&reply, &iter, err);
    }
    while (status == RK_OK && *n < max && rk_batch_next(&iter, &doc)) {
        struct rk_hint *hint = &hints[*n];
        *hint = (struct rk_hint){.kind = RK_HINT_RANGE, .job = job->id};
        memcpy(hint->ns, job->ns.full, sizeof hint->ns);
        *n += rk_view_oid(&doc, "_id", &hint->range);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* Those that are done by now are left alone: nothing touches them any more. */
static enum rk_status note_offered(const struct rk_lease *lease, const struct rk_hint *hints,
                                   size_t n, struct rk_error *err)
{
    bson_t ids = BSON_INITIALIZER;
    bson_t reply;
    for (size_t i = 0; i < n; i++) {
        BSON_APPEND_OID(&ids, "0", &hints[i].range);
    }
    bson_t *command =
        BCON_NEW("update", BCON_UTF8("jobStatus"), "updates", "[", "{", "q", "{", "_id", "{", "$in",
                 BCON_ARRAY(&ids), "}", "state", "{", "$in", "[", BCON_UTF8("pending"),
                 BCON_UTF8("running"), "]", "}", "}", "u", "{", "$currentDate", "{", "offeredAt",
                 BCON_BOOL(true), "}", "}", "multi", BCON_BOOL(true), "}", "]");
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_check_writes(&reply, "to note what was offered", err);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(&ids);
    return status;
}

/* open: somebody works on a range, or could. waits: somebody should. */
static enum rk_status look(const struct rk_lease *lease, const struct rk_job_view *job, bool *open,
                           bool *waits, struct rk_error *err)
{
    uint32_t most = job->concurrency > 0 ? job->concurrency : 1;
    int64_t pending = 0;
    int64_t running = 0;
    enum rk_status status = rk_ranges_count(lease, &job->id, "pending", 1, &pending, err);
    if (status == RK_OK) {
        status = rk_ranges_count(lease, &job->id, "running", most, &running, err);
    }
    *open = pending > 0 || running > 0;
    *waits = pending > 0 && (job->concurrency == 0 || running < (int64_t)most);
    return status;
}

enum rk_status rk_offers_step(const struct rk_lease *lease, const struct rk_job_view *job,
                              const struct rk_transport *transport, uint32_t max, bool *waits,
                              struct rk_error *err)
{
    const struct rk_transport_ops *ops = transport->ops;
    struct rk_hint *hints = calloc(max, sizeof *hints);
    struct rk_error unnoted;
    bool open;
    size_t n = 0;
    size_t sent = 0;
    if (hints == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    enum rk_status status = look(lease, job, &open, waits, err);
    if (status == RK_OK && open) {
        status = find_ranges(lease, job, ops->offer_again_ms(transport->self), max, hints, &n, err);
    }
    if (status == RK_OK && n > 0) {
        hints[n - 1].is_meta = !job->plan_complete;
        status = ops->offer(transport->self, hints, n, &sent, err);
    }
    if (sent > 0) {
        /* Also after a failure: what was sent was sent. */
        enum rk_status noted = note_offered(lease, hints, sent, status == RK_OK ? err : &unnoted);
        status = status == RK_OK ? noted : status;
    }
    free(hints);
    return status;
}
