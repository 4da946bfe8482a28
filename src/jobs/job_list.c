/*
 * Jobs with their totals: one find over jobs, one aggregation over jobStatus for those found.
 */
#include "command_internal.h"
#include "counts_internal.h"

#include <rekey/jobs/store.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void read_text(const struct rk_bson_view *doc, const char *key, char *out, size_t size)
{
    struct rk_bson_elem elem;
    const char *text;
    uint32_t len;
    out[0] = '\0';
    if (rk_bson_find(doc, key, &elem) && rk_bson_elem_utf8(&elem, &text, &len)) {
        (void)snprintf(out, size, "%.*s", (int)len, text);
    }
}

static void read_id(const struct rk_bson_view *doc, const char *key, char out[RK_JOB_ID_LEN])
{
    struct rk_bson_elem elem;
    bson_oid_t id;
    if (rk_bson_find(doc, key, &elem) && elem.type == RK_BSON_OID) {
        memcpy(id.bytes, elem.value, sizeof id.bytes);
        bson_oid_to_string(&id, out);
    }
}

static void read_job(const struct rk_bson_view *doc, struct rk_job *job)
{
    struct rk_bson_elem elem;
    *job = (struct rk_job){0};
    read_id(doc, "_id", job->id);
    read_id(doc, "proof", job->proof);
    read_text(doc, "verifiedBy", job->verified_by, sizeof job->verified_by);
    job->verified_at_ms = rk_view_date(doc, "verifiedAt");
    read_text(doc, "ns", job->ns, sizeof job->ns);
    read_text(doc, "transform", job->transform, sizeof job->transform);
    read_text(doc, "state", job->state, sizeof job->state);
    read_text(doc, "createdBy", job->created_by, sizeof job->created_by);
    read_text(doc, "error", job->error, sizeof job->error);
    job->terms.priority = (int32_t)rk_view_int(doc, "priority");
    job->terms.concurrency = (uint32_t)rk_view_int(doc, "concurrency");
    job->created_at_ms = rk_view_date(doc, "createdAt");
    job->started_at_ms = rk_view_date(doc, "startedAt");
    job->completed_at_ms = rk_view_date(doc, "completedAt");
    job->plan_complete = rk_bson_find(doc, "planComplete", &elem) && rk_bson_elem_truthy(&elem);
}

static void append_ids(bson_t *array, const struct rk_job_filter *only)
{
    for (size_t i = 0; i < only->n_ids; i++) {
        bson_oid_t id;
        bson_oid_init_from_string(&id, only->ids[i]);
        BSON_APPEND_OID(array, "0", &id);
    }
}

static enum rk_status find_jobs(mongoc_client_t *client, const char *state_db,
                                const struct rk_job_filter *only, struct rk_job *jobs,
                                size_t jobs_max, size_t *n, struct rk_error *err)
{
    struct rk_bson_iter iter;
    struct rk_bson_view doc;
    bson_t filter = BSON_INITIALIZER;
    bson_t reply;
    if (only->only_active) {
        BSON_APPEND_BOOL(&filter, "active", true);
    }
    if (only->ids != NULL) {
        bson_t ids = BSON_INITIALIZER;
        append_ids(&ids, only);
        BCON_APPEND(&filter, "_id", "{", "$in", BCON_ARRAY(&ids), "}");
        bson_destroy(&ids);
    }
    bson_t *command =
        BCON_NEW("find", BCON_UTF8("jobs"), "filter", BCON_DOCUMENT(&filter), "sort", "{",
                 "createdAt", BCON_INT32(-1), "}", "limit", BCON_INT64((int64_t)jobs_max),
                 "batchSize", BCON_INT64((int64_t)jobs_max));
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_batch(&reply, &iter, err);
    }
    while (status == RK_OK && *n < jobs_max && rk_batch_next(&iter, &doc)) {
        read_job(&doc, &jobs[(*n)++]);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(&filter);
    return status;
}

/* {$sum: "$<field>"} under key */
static void put_sum(bson_t *group, const char *key, const char *field)
{
    BCON_APPEND(group, key, "{", "$sum", BCON_UTF8(field), "}");
}

/* {$sum: {$cond: [{$eq: ["$state", state]}, 1, 0]}} under key */
static void put_state_count(bson_t *group, const char *key, const char *state)
{
    BCON_APPEND(group, key, "{", "$sum", "{", "$cond", "[", "{", "$eq", "[", BCON_UTF8("$state"),
                BCON_UTF8(state), "]", "}", BCON_INT32(1), BCON_INT32(0), "]", "}", "}");
}

static bson_t *totals_command(const struct rk_job *jobs, size_t n)
{
    bson_t ids = BSON_INITIALIZER;
    bson_t group = BSON_INITIALIZER;
    for (size_t i = 0; i < n; i++) {
        bson_oid_t id;
        bson_oid_init_from_string(&id, jobs[i].id);
        BSON_APPEND_OID(&ids, "0", &id);
    }
    BSON_APPEND_UTF8(&group, "_id", "$jobId");
    put_sum(&group, "documents", "$batchSize");
    BCON_APPEND(&group, "ranges", "{", "$sum", BCON_INT32(1), "}");
    put_state_count(&group, "done", "done");
    put_state_count(&group, "running", "running");
    put_state_count(&group, "failed", "failed");
    put_sum(&group, "scanned", "$scanned");
    put_sum(&group, "swept", "$swept");
    put_sum(&group, "alreadyCurrent", "$alreadyCurrent");
    put_sum(&group, "gone", "$gone");
    put_sum(&group, "rejected", "$rejected");
    put_sum(&group, "changedAgain", "$changedAgain");
    put_sum(&group, "deadLettered", "$deadLettered");
    put_sum(&group, "plaintext", "$plaintext");
    BCON_APPEND(&group, "error", "{", "$max", BCON_UTF8("$error"), "}");
    bson_t *command =
        BCON_NEW("aggregate", BCON_UTF8("jobStatus"), "pipeline", "[", "{", "$match", "{", "jobId",
                 "{", "$in", BCON_ARRAY(&ids), "}", "}", "}", "{", "$group", BCON_DOCUMENT(&group),
                 "}", "]", "cursor", "{", "batchSize", BCON_INT64((int64_t)n + 1), "}");
    bson_destroy(&group);
    bson_destroy(&ids);
    return command;
}

static void read_totals(const struct rk_bson_view *doc, struct rk_job *job)
{
    job->documents = rk_view_int(doc, "documents");
    job->ranges = rk_view_int(doc, "ranges");
    job->ranges_done = rk_view_int(doc, "done");
    job->ranges_running = rk_view_int(doc, "running");
    job->ranges_failed = rk_view_int(doc, "failed");
    job->counts = rk_sweep_counts_read(doc);
    read_text(doc, "error", job->range_error, sizeof job->range_error);
}

static enum rk_status add_totals(mongoc_client_t *client, const char *state_db, struct rk_job *jobs,
                                 size_t n, struct rk_error *err)
{
    struct rk_bson_iter iter;
    struct rk_bson_view doc;
    bson_t reply;
    bson_t *command = totals_command(jobs, n);
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_batch(&reply, &iter, err);
    }
    while (status == RK_OK && rk_batch_next(&iter, &doc)) {
        char id[RK_JOB_ID_LEN];
        bson_oid_t oid;
        if (!rk_view_oid(&doc, "_id", &oid)) {
            continue;
        }
        bson_oid_to_string(&oid, id);
        for (size_t i = 0; i < n; i++) {
            if (strcmp(jobs[i].id, id) == 0) {
                read_totals(&doc, &jobs[i]);
            }
        }
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* While the collection is still being cut, its metadata say how much there is to come. */
static void add_estimate(mongoc_client_t *client, struct rk_job *job)
{
    struct rk_ns ns;
    job->documents_estimated = job->documents;
    if (!job->plan_complete && rk_ns_parse(&ns, job->ns)) {
        bson_t reply;
        struct rk_error err;
        bson_t *command = BCON_NEW("count", BCON_UTF8(ns.coll));
        if (rk_command_run_bson(client, ns.db, command, &reply, &err) == RK_OK) {
            struct rk_bson_view view = rk_reply_view(&reply);
            int64_t n = rk_view_int(&view, "n");
            job->documents_estimated = n > job->documents ? n : job->documents;
        }
        bson_destroy(&reply);
        bson_destroy(command);
    }
}

enum rk_status rk_jobs_list(mongoc_client_t *client, const char *state_db,
                            const struct rk_job_filter *filter, size_t jobs_max,
                            struct rk_job **jobs, size_t *n, struct rk_error *err)
{
    struct rk_job *list = calloc(jobs_max, sizeof *list);
    *n = 0;
    if (list == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    enum rk_status status = find_jobs(client, state_db, filter, list, jobs_max, n, err);
    if (status == RK_OK && *n > 0) {
        status = add_totals(client, state_db, list, *n, err);
    }
    for (size_t i = 0; status == RK_OK && i < *n; i++) {
        if (strcmp(list[i].state, "planning") == 0 || strcmp(list[i].state, "running") == 0 ||
            strcmp(list[i].state, "paused") == 0) {
            add_estimate(client, &list[i]);
        } else {
            list[i].documents_estimated = list[i].documents;
        }
    }
    if (status != RK_OK) {
        free(list);
        return status;
    }
    *jobs = list;
    return RK_OK;
}
