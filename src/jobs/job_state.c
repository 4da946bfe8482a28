#include "job_state_internal.h"

#include "dead_letters_internal.h"

#include <rekey/log/log.h>
#include <string.h>

static bool read_job(const struct rk_bson_view *doc, struct rk_job_view *job)
{
    struct rk_bson_elem elem;
    struct rk_bson_view key;
    const char *text;
    uint32_t len;
    *job = (struct rk_job_view){0};
    if (!rk_bson_find(doc, "_id", &elem) || elem.type != RK_BSON_OID) {
        return false;
    }
    memcpy(job->id.bytes, elem.value, sizeof job->id.bytes);
    if (!rk_bson_find(doc, "ns", &elem) || !rk_bson_elem_utf8(&elem, &text, &len) ||
        !rk_ns_parse(&job->ns, text)) {
        return false;
    }
    if (!rk_bson_find(doc, "transform", &elem) || !rk_bson_elem_utf8(&elem, &text, &len)) {
        return false;
    }
    if (rk_view_int(doc, "format") > RK_JOB_FORMAT) {
        return false; /* a later version's */
    }
    job->transform = rk_transform_find(text);
    job->key_id = (uint32_t)rk_view_int(doc, "keyId");
    job->priority = (int32_t)rk_view_int(doc, "priority");
    job->concurrency = (uint32_t)rk_view_int(doc, "concurrency");
    job->plan_complete = rk_bson_find(doc, "planComplete", &elem) && rk_bson_elem_truthy(&elem);
    if ((rk_bson_find(doc, "startedAt", &elem) || rk_bson_find(doc, "createdAt", &elem)) &&
        elem.type == RK_BSON_DATE) {
        job->started_at_ms = rk_load_i64(elem.value);
    }
    if (rk_bson_find(doc, "shardKey", &elem) &&
        !(rk_bson_elem_view(&elem, &key) && rk_shard_key_set(&job->shard_key, &key))) {
        return false;
    }
    return job->transform != NULL;
}

/* Highest priority first, and of equal ones the oldest, which is how they come from mongod: but for
 * those that have none, from before there were any, which count as 0. */
static void sort_jobs(struct rk_job_view *jobs, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const struct rk_job_view job = jobs[i];
        size_t j = i;
        for (; j > 0 && jobs[j - 1].priority < job.priority; j--) {
            jobs[j] = jobs[j - 1];
        }
        jobs[j] = job;
    }
}

enum rk_status rk_job_load_active(const struct rk_lease *lease, struct rk_job_view *jobs,
                                  size_t jobs_max, size_t *n, struct rk_error *err)
{
    struct rk_bson_view doc;
    struct rk_bson_iter iter;
    bson_t reply;
    bson_t *command = BCON_NEW(
        "find", BCON_UTF8("jobs"), "filter", "{", "active", BCON_BOOL(true), "state", "{", "$in",
        "[", BCON_UTF8("planning"), BCON_UTF8("running"), "]", "}", "$expr", "{", "$lte", "[",
        BCON_UTF8("$notBefore"), BCON_UTF8("$$NOW"), "]", "}", "}", "sort", "{", "priority",
        BCON_INT32(-1), "createdAt", BCON_INT32(1), "}", "limit", BCON_INT64((int64_t)jobs_max),
        "batchSize", BCON_INT64((int64_t)jobs_max), "singleBatch", BCON_BOOL(true));
    *n = 0;
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_batch(&reply, &iter, err);
    }
    while (status == RK_OK && *n < jobs_max && rk_batch_next(&iter, &doc)) {
        *n += read_job(&doc, &jobs[*n]);
    }
    sort_jobs(jobs, *n);
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

static enum rk_status any_range(const struct rk_lease *lease, const bson_t *query, bool by_seq,
                                bool *any, struct rk_error *err)
{
    static const char *const first_path[] = {"cursor", "firstBatch", "0"};
    struct rk_bson_elem elem;
    bson_t reply;
    bson_t *command = BCON_NEW(
        "find", BCON_UTF8("jobStatus"), "filter", BCON_DOCUMENT(query), "projection", "{", "_id",
        BCON_INT32(1), "}", "sort", "{", "seq", BCON_INT32(-1), "}", "limit", BCON_INT32(1),
        "singleBatch", BCON_BOOL(true), "readConcern", "{", "level", BCON_UTF8("majority"), "}");
    if (by_seq) {
        BCON_APPEND(command, "hint", "{", "jobId", BCON_INT32(1), "seq", BCON_INT32(1), "}");
    }
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    *any = status == RK_OK && rk_view_path(&view, first_path, 3, &elem);
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* Is a range not over? An index scan by state may miss a range that changes its state meanwhile, so
 * when it finds none, a scan by falling seq decides: it meets each range once, and what is split
 * off, whose seq is lower, after the one that it came from. */
static enum rk_status any_open(const struct rk_lease *lease, const bson_oid_t *job, bool *open,
                               struct rk_error *err)
{
    bson_t *query = BCON_NEW("jobId", BCON_OID(job), "state", "{", "$in", "[", BCON_UTF8("pending"),
                             BCON_UTF8("running"), "]", "}");
    enum rk_status status = any_range(lease, query, false, open, err);
    if (status == RK_OK && !*open) {
        status = any_range(lease, query, true, open, err);
    }
    bson_destroy(query);
    return status;
}

/* With no range open. Asks for whatever is not done instead of failed ranges, since a failed one
 * may become pending between the two questions, while one that is done stays so. */
static enum rk_status any_failed(const struct rk_lease *lease, const bson_oid_t *job, bool *failed,
                                 struct rk_error *err)
{
    bson_t *query = BCON_NEW("jobId", BCON_OID(job), "state", "{", "$ne", BCON_UTF8("done"), "}");
    enum rk_status status = any_range(lease, query, true, failed, err);
    bson_destroy(query);
    return status;
}

/* *closed: this call did it, no other instance's. */
static enum rk_status close_job(const struct rk_lease *lease, const bson_oid_t *job, bool failed,
                                bool *closed, struct rk_error *err)
{
    struct rk_bson_elem elem;
    bson_t reply;
    bson_t *command = BCON_NEW(
        "findAndModify", BCON_UTF8("jobs"), "query", "{", "_id", BCON_OID(job), "active",
        BCON_BOOL(true), "state", BCON_UTF8("running"), "planComplete", BCON_BOOL(true), "}",
        "update", "{", "$set", "{", "state", BCON_UTF8(failed ? "failed" : "complete"), "active",
        BCON_BOOL(false), "error",
        BCON_UTF8(failed ? "a range failed; see its error, then rekeyctl resume" : ""), "}",
        "$currentDate", "{", "completedAt", BCON_BOOL(true), "}", "}", "writeConcern", "{", "w",
        BCON_UTF8("majority"), "wtimeout", BCON_INT64((int64_t)lease->wtimeout_ms), "}");
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    *closed =
        status == RK_OK && rk_bson_find(&view, "value", &elem) && elem.type == RK_BSON_DOCUMENT;
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

enum rk_status rk_job_close_if_done(const struct rk_lease *lease, const struct rk_job_view *job,
                                    struct rk_error *err)
{
    bool open = false;
    bool failed = false;
    bool closed = false;
    enum rk_status status = any_open(lease, &job->id, &open, err);
    if (status != RK_OK || open) {
        return status;
    }
    status = any_failed(lease, &job->id, &failed, err);
    if (status == RK_OK) {
        status = close_job(lease, &job->id, failed, &closed, err);
    }
    if (status == RK_OK && closed) {
        rk_log(failed ? RK_LOG_ERROR : RK_LOG_INFO, failed ? "job_failed" : "job_complete",
               RK_S("ns", job->ns.full), RK_S("transform", job->transform->name));
        if (!failed && job->started_at_ms != 0) {
            status = rk_dead_letters_resolve_unseen(lease, job->ns.full, job->transform,
                                                    job->started_at_ms, err);
        }
    }
    return status;
}
