/*
 * Cuts a collection into ranges by walking its _id index in steps of range_docs keys. Where to
 * go on is read from jobStatus itself: the range with the highest seq says where cutting stopped.
 */
#include "range_internal.h"
#include "scan_internal.h"

#include <rekey/log/log.h>

#include <string.h>

#define COMMAND_MAX (48u << 20)

struct planner {
    const struct rk_lease *lease;
    const bson_oid_t *job;
    const struct rk_ns *ns;
    const struct rk_planner_settings *settings;
    int64_t seq;        /* of the next range */
    struct rk_id start; /* of the next range */
    bool complete;
};

static void put_planner_filter(bson_t *filter, const struct planner *p)
{
    bson_t branches;
    bson_t expired;
    BSON_APPEND_OID(filter, "_id", p->job);
    BSON_APPEND_BOOL(filter, "active", true);
    BSON_APPEND_BOOL(filter, "planComplete", false);
    BSON_APPEND_ARRAY_BEGIN(filter, "$or", &branches);
    bson_t *mine = BCON_NEW("plannerOwner", BCON_UTF8(p->lease->owner));
    bson_t *nobody = BCON_NEW("plannerOwner", BCON_NULL);
    BSON_APPEND_DOCUMENT(&branches, "0", mine);
    BSON_APPEND_DOCUMENT(&branches, "1", nobody);
    BSON_APPEND_DOCUMENT_BEGIN(&branches, "2", &expired);
    bson_t *ran_out = rk_lease_ran_out(p->lease, "$plannerLeaseUntil");
    BSON_APPEND_DOCUMENT(&expired, "$expr", ran_out);
    bson_destroy(ran_out);
    bson_append_document_end(&branches, &expired);
    bson_append_array_end(filter, &branches);
    bson_destroy(mine);
    bson_destroy(nobody);
}

static enum rk_status run(const struct planner *p, const bson_t *command, bson_t *reply,
                          struct rk_error *err)
{
    return rk_command_run_bson(p->lease->client, p->lease->state_db, command, reply, err);
}

/* True in *got when this owner holds the planner lease now. */
static enum rk_status take_lease(const struct planner *p, bool *got, struct rk_error *err)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t reply;
    put_planner_filter(&filter, p);
    bson_t *command = BCON_NEW(
        "findAndModify", BCON_UTF8("jobs"), "query", BCON_DOCUMENT(&filter), "update", "[", "{",
        "$set", "{", "plannerOwner", "{", "$literal", BCON_UTF8(p->lease->owner), "}",
        "plannerEpoch", "{", "$add", "[", BCON_UTF8("$plannerEpoch"), "{", "$cond", "[", "{", "$eq",
        "[", BCON_UTF8("$plannerOwner"), "{", "$literal", BCON_UTF8(p->lease->owner), "}", "]", "}",
        BCON_INT64(0), BCON_INT64(1), "]", "}", "]", "}", "plannerLeaseUntil", "{", "$add", "[",
        BCON_UTF8("$$NOW"), BCON_INT64((int64_t)p->lease->lease_ms), "]", "}", "}", "}", "]");
    rk_bson_append_majority(command, p->lease->wtimeout_ms);
    enum rk_status status = run(p, command, &reply, err);
    if (status == RK_OK) {
        struct rk_bson_view view = rk_reply_view(&reply);
        struct rk_bson_elem elem;
        *got = rk_bson_find(&view, "value", &elem) && elem.type == RK_BSON_DOCUMENT;
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(&filter);
    return status;
}

enum rk_status rk_ranges_count(const struct rk_lease *lease, const bson_oid_t *job,
                               const char *state, uint32_t limit, int64_t *n, struct rk_error *err)
{
    bson_t reply;
    bson_t *command =
        BCON_NEW("count", BCON_UTF8("jobStatus"), "query", "{", "jobId", BCON_OID(job), "state",
                 BCON_UTF8(state), "}", "limit", BCON_INT64((int64_t)limit));
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    if (status == RK_OK) {
        struct rk_bson_view view = rk_reply_view(&reply);
        *n = rk_view_int(&view, "n");
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* Sets seq and start to go on behind the last range, or complete when that one is open-ended. A
 * majority read: were the last range taken back by an election, the job would count as cut without
 * it. It sees all that came before taking the lease. */
static enum rk_status find_last(struct planner *p, struct rk_error *err)
{
    static const char *const last_path[] = {"cursor", "firstBatch", "0"};
    bson_t reply;
    struct rk_bson_elem elem;
    struct rk_bson_view last;
    bson_t *command =
        BCON_NEW("find", BCON_UTF8("jobStatus"), "filter", "{", "jobId", BCON_OID(p->job), "}",
                 "sort", "{", "seq", BCON_INT32(-1), "}", "limit", BCON_INT64(1), "singleBatch",
                 BCON_BOOL(true), "readConcern", "{", "level", BCON_UTF8("majority"), "}");
    enum rk_status status = run(p, command, &reply, err);
    if (status != RK_OK) {
        goto done;
    }
    struct rk_bson_view view = rk_reply_view(&reply);
    if (!rk_view_path(&view, last_path, 3, &elem)) {
        p->seq = 0;
        status = rk_id_set(&p->start, RK_BSON_MINKEY, NULL, 0);
        goto done;
    }
    if (!rk_bson_elem_view(&elem, &last) ||
        (!rk_bson_find(&last, "cutEndId", &elem) && !rk_bson_find(&last, "endId", &elem))) {
        status = rk_error_set(err, RK_EREFUSED, "jobStatus holds a range without endId");
        goto done;
    }
    p->seq = rk_view_int(&last, "seq") + 1;
    p->complete = elem.type == RK_BSON_MAXKEY;
    status = rk_id_set_elem(&p->start, &elem);
done:
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* Counts the documents from p->start on; position is scratch space. */
static enum rk_status count_rest(const struct planner *p, struct rk_scan_batch *batch,
                                 struct rk_id *position, int64_t *docs, struct rk_error *err)
{
    struct rk_bson_iter iter;
    struct rk_bson_view doc;
    struct rk_bson_elem id;
    enum rk_status status;
    *docs = 0;
    position->type = 0;
    do {
        struct rk_scan scan = {
            .min = &p->start, .after = position, .limit = p->settings->range_docs + 1};
        status = rk_scan_read(p->lease->client, p->ns, &scan, batch, err);
        if (status == RK_OK) {
            rk_scan_iter_init(&iter, batch);
            while (rk_scan_next(&iter, &doc, &id) == RK_OK) {
                (*docs)++;
                status = rk_id_set_elem(position, &id);
            }
        }
    } while (status == RK_OK && !batch->exhausted);
    return status;
}

/* Where the range that starts at p->start ends, and how many documents it has. */
static enum rk_status find_end(const struct planner *p, struct rk_scan_batch *batch,
                               struct rk_id *end, int64_t *docs, struct rk_error *err)
{
    struct rk_scan scan = {.min = &p->start, .skip = p->settings->range_docs, .limit = 1};
    struct rk_bson_iter iter;
    struct rk_bson_view doc;
    struct rk_bson_elem id;
    enum rk_status status = rk_scan_read(p->lease->client, p->ns, &scan, batch, err);
    if (status != RK_OK) {
        return status;
    }
    rk_scan_iter_init(&iter, batch);
    if (rk_scan_next(&iter, &doc, &id) == RK_OK && id.type != RK_BSON_MAXKEY) {
        *docs = p->settings->range_docs;
        return rk_id_set_elem(end, &id);
    }
    /* The rest is one range without an upper bound: what is inserted behind it while the job
     * runs belongs to it as well, since another instance may still write under the old key. */
    status = count_rest(p, batch, end, docs, err);
    return status == RK_OK ? rk_id_set(end, RK_BSON_MAXKEY, NULL, 0) : status;
}

static enum rk_status insert_range(const struct planner *p, const struct rk_id *end, int64_t docs,
                                   struct rk_error *err)
{
    struct rk_range_cut cut = {.seq = p->seq, .start = &p->start, .end = end, .docs = docs};
    bson_oid_init(&cut.id, NULL);
    /* RK_ESTATE: another planner was faster; its cut stands. */
    return rk_range_insert(p->lease, p->job, p->ns, &cut, err);
}

/* Once in a job's life. value: findAndModify's, the job as it was before; null: it ran already. */
static void log_start(const struct planner *p, const struct rk_bson_elem *value)
{
    struct rk_bson_view job;
    struct rk_bson_view warnings;
    struct rk_bson_elem elem;
    struct rk_bson_iter iter;
    const char *text;
    uint32_t len;
    if (value->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(value, &job)) {
        return;
    }
    rk_log(RK_LOG_INFO, "job_started", RK_S("ns", p->ns->full));
    if (rk_bson_find(&job, "warnings", &elem) && rk_bson_elem_view(&elem, &warnings)) {
        rk_bson_iter_init(&iter, &warnings);
        while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
            if (rk_bson_elem_utf8(&elem, &text, &len)) {
                rk_log(RK_LOG_WARN, "job_warning", RK_S("ns", p->ns->full), RK_S("text", text));
            }
        }
    }
}

static enum rk_status start_running(const struct planner *p, struct rk_error *err)
{
    bson_t reply;
    bson_t *command = BCON_NEW("findAndModify", BCON_UTF8("jobs"), "query", "{", "_id",
                               BCON_OID(p->job), "state", BCON_UTF8("planning"), "}", "update", "{",
                               "$set", "{", "state", BCON_UTF8("running"), "}", "$currentDate", "{",
                               "startedAt", BCON_BOOL(true), "}", "}");
    rk_bson_append_majority(command, p->lease->wtimeout_ms);
    enum rk_status status = run(p, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    struct rk_bson_elem value;
    if (status == RK_OK && rk_bson_find(&view, "value", &value)) {
        log_start(p, &value);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

static enum rk_status record_progress(const struct planner *p, struct rk_error *err)
{
    struct rk_buf command;
    struct rk_bson_writer w;
    bson_t reply = BSON_INITIALIZER;
    rk_buf_init(&command, COMMAND_MAX);
    rk_bson_writer_init(&w, &command);
    rk_bson_begin(&w);
    rk_bson_put_string(&w, "findAndModify", "jobs");
    rk_bson_begin_doc(&w, "query");
    rk_bson_put_oid(&w, "_id", p->job);
    rk_bson_put_string(&w, "plannerOwner", p->lease->owner);
    rk_bson_put_bool(&w, "planComplete", false); /* one that comes late takes nothing back */
    rk_bson_end(&w);
    rk_bson_begin_doc(&w, "update");
    rk_bson_begin_doc(&w, "$set");
    rk_bson_put_id(&w, "plannedTo", &p->start);
    rk_bson_put_bool(&w, "planComplete", p->complete);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_put_majority(&w, p->lease->wtimeout_ms);
    rk_bson_end(&w);
    enum rk_status status = rk_bson_writer_status(&w);
    if (status == RK_OK) {
        bson_destroy(&reply);
        status = rk_command_run(p->lease->client, p->lease->state_db, &command, &reply, err);
    }
    bson_destroy(&reply);
    rk_buf_deinit(&command);
    return status;
}

static enum rk_status cut_ranges(struct planner *p, int64_t room, uint32_t *cut,
                                 struct rk_error *err)
{
    struct rk_scan_batch batch;
    struct rk_id end;
    enum rk_status status = RK_OK;
    rk_scan_batch_init(&batch);
    rk_id_init(&end);
    while (status == RK_OK && !p->complete && (int64_t)*cut < room) {
        int64_t docs = 0;
        status = find_end(p, &batch, &end, &docs, err);
        if (status == RK_OK) {
            status = insert_range(p, &end, docs, err);
        }
        if (status == RK_OK) {
            p->complete = end.type == RK_BSON_MAXKEY;
            p->seq++;
            (*cut)++;
            p->settings->range_cut(p->settings->arg);
            status = rk_id_set(&p->start, end.type, end.value.data, end.value.len);
        }
    }
    rk_id_deinit(&end);
    rk_scan_batch_deinit(&batch);
    return status;
}

enum rk_status rk_planner_step(const struct rk_lease *lease, const bson_oid_t *job,
                               const struct rk_ns *ns, const struct rk_planner_settings *settings,
                               uint32_t *cut, struct rk_error *err)
{
    struct planner p = {.lease = lease, .job = job, .ns = ns, .settings = settings};
    bool mine = false;
    int64_t pending = 0;
    rk_id_init(&p.start);
    *cut = 0;
    enum rk_status status =
        rk_ranges_count(lease, job, "pending", settings->ranges_ahead, &pending, err);
    if (status != RK_OK || pending >= (int64_t)settings->ranges_ahead) {
        goto done;
    }
    status = take_lease(&p, &mine, err);
    if (status != RK_OK || !mine) {
        goto done;
    }
    status = find_last(&p, err);
    if (status == RK_OK) {
        status = start_running(&p, err);
    }
    if (status == RK_OK && !p.complete) {
        status = cut_ranges(&p, (int64_t)settings->ranges_ahead - pending, cut, err);
    }
    if (status == RK_OK) {
        status = record_progress(&p, err);
    }
done:
    rk_id_deinit(&p.start);
    return status == RK_ESTATE ? RK_OK : status;
}
