/* One collection of a pass: where it was, counting on, saving (see proof.h). */
#include "proof_internal.h"
#include "scan_internal.h"
#include "verify_internal.h"

#include <rekey/base/clock.h>
#include <string.h>
#include <unistd.h>

#define COMMAND_MAX (48u << 20)
#define BATCHES_PER_S 4u /* at a limited rate */

struct part {
    struct rk_pass *pass;
    const struct rk_ns *ns;
    const struct rk_policy *policy; /* NULL: only usage is counted */
    const struct rk_pass_uuid *uuid;
    struct rk_proof_part *out;
    struct rk_verifier *verifier;
    struct rk_id position;
    bool done;
    int64_t estimated;
    uint64_t saved_us;
    uint64_t batch_us; /* when the batch began */
};

enum rk_status rk_pass_uuid(mongoc_client_t *client, const struct rk_ns *ns,
                            struct rk_pass_uuid *uuid, struct rk_error *err)
{
    static const char *const uuid_path[] = {"cursor", "firstBatch", "0", "info", "uuid"};
    struct rk_bson_elem elem;
    bson_t reply;
    bson_t *command =
        BCON_NEW("listCollections", BCON_INT32(1), "filter", "{", "name", BCON_UTF8(ns->coll), "}");
    enum rk_status status = rk_command_run_bson(client, ns->db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    *uuid = (struct rk_pass_uuid){.bytes = {0}};
    if (status == RK_OK && rk_view_path(&view, uuid_path, 5, &elem) &&
        elem.type == RK_BSON_BINARY && elem.value_len == 5 + sizeof uuid->bytes) {
        memcpy(uuid->bytes, elem.value + 5, sizeof uuid->bytes);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

static void put_id(struct rk_bson_writer *w, const struct part *p)
{
    rk_bson_begin_doc(w, "_id");
    rk_bson_put_oid(w, "proof", &p->pass->id);
    rk_bson_put_string(w, "ns", p->ns->full);
    rk_bson_end(w);
}

static enum rk_status run(const struct part *p, struct rk_bson_writer *w, bson_t *reply,
                          struct rk_error *err)
{
    if (rk_bson_writer_status(w) != RK_OK) {
        bson_init(reply);
        return rk_error_set(err, rk_bson_writer_status(w), "what was counted of %s is too large",
                            p->ns->full);
    }
    return rk_command_run(p->pass->lease.client, p->pass->lease.state_db, w->out, reply, err);
}

static enum rk_status lost(struct rk_error *err)
{
    return rk_error_set(err, RK_ESTATE, "another rekeyctl goes on with this scan");
}

static enum rk_status read_part(struct part *p, const struct rk_bson_view *doc)
{
    struct rk_bson_elem elem;
    enum rk_status status = RK_OK;
    p->out->started_at_ms = rk_view_date(doc, "startedAt");
    if (!rk_bson_find(doc, "documents", &elem)) {
        return RK_OK; /* new */
    }
    if (rk_census_read(doc, &p->out->census) != RK_OK) {
        rk_census_clear(&p->out->census); /* of other fields */
        return RK_OK;
    }
    p->done = rk_bson_find(doc, "done", &elem) && rk_bson_elem_truthy(&elem);
    if (rk_bson_find(doc, "position", &elem)) {
        status = rk_id_set_elem(&p->position, &elem);
    }
    return status;
}

/* When a job over the collection ended last; 0: none did since the pass began. */
static enum rk_status last_swept(const struct part *p, int64_t *at_ms, struct rk_error *err)
{
    struct rk_bson_iter jobs;
    struct rk_bson_view job;
    bson_t reply;
    bson_t *command = BCON_NEW(
        "find", BCON_UTF8("jobs"), "filter", "{", "ns", BCON_UTF8(p->ns->full), "state",
        BCON_UTF8("complete"), "completedAt", "{", "$gte", BCON_DATE_TIME(p->pass->started_at_ms),
        "}", "}", "sort", "{", "completedAt", BCON_INT32(-1), "}", "limit", BCON_INT32(1),
        "readConcern", "{", "level", BCON_UTF8("majority"), "}");
    enum rk_status status =
        rk_command_run_bson(p->pass->lease.client, p->pass->lease.state_db, command, &reply, err);
    status = status == RK_OK ? rk_reply_batch(&reply, &jobs, err) : status;
    *at_ms = status == RK_OK && rk_batch_next(&jobs, &job) ? rk_view_date(&job, "completedAt") : 0;
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* Makes the part this owner's. What was counted of another collection that had the name, or before
 * a job went over this one, is dropped: it would tell of what is there no more. */
static bson_t *taking(const struct part *p, int64_t swept_ms)
{
    bson_t *uuid =
        BCON_NEW("is", BCON_BIN(BSON_SUBTYPE_UUID, p->uuid->bytes, sizeof p->uuid->bytes));
    bson_iter_t is;
    (void)bson_iter_init_find(&is, uuid, "is");
    bson_t *command = BCON_NEW(
        "findAndModify", BCON_UTF8("proofParts"), "query", "{", "_id", "{", "proof",
        BCON_OID(&p->pass->id), "ns", BCON_UTF8(p->ns->full), "}", "}", "update", "[", "{", "$set",
        "{", "epoch", "{", "$max", "[", BCON_UTF8("$epoch"), BCON_INT64(p->pass->epoch), "]", "}",
        "}", "}", "{", "$replaceWith", "{", "$cond", "[", "{", "$and", "[", "{", "$eq", "[",
        BCON_UTF8("$epoch"), BCON_INT64(p->pass->epoch), "]", "}", "{", "$or", "[", "{", "$ne", "[",
        BCON_UTF8("$uuid"), BCON_ITER(&is), "]", "}", "{", "$lte", "[", BCON_UTF8("$startedAt"),
        BCON_DATE_TIME(swept_ms), "]", "}", "]", "}", "]", "}", "{", "_id", BCON_UTF8("$_id"),
        "epoch", BCON_UTF8("$epoch"), "uuid", BCON_ITER(&is), "startedAt", BCON_UTF8("$$NOW"), "}",
        BCON_UTF8("$$ROOT"), "]", "}", "}", "]", "upsert", BCON_BOOL(true), "new", BCON_BOOL(true),
        "writeConcern", "{", "w", BCON_UTF8("majority"), "wtimeout",
        BCON_INT64((int64_t)p->pass->lease.wtimeout_ms), "}");
    bson_destroy(uuid);
    return command;
}

/* Makes the part this owner's, and reads where it was. */
static enum rk_status load(struct part *p, struct rk_error *err)
{
    struct rk_bson_elem elem;
    struct rk_bson_view doc;
    int64_t swept_ms = 0;
    bson_t reply;
    rk_census_clear(&p->out->census);
    p->position.type = 0;
    p->done = false;
    enum rk_status status = last_swept(p, &swept_ms, err);
    if (status != RK_OK) {
        return status;
    }
    bson_t *command = taking(p, swept_ms);
    status =
        rk_command_run_bson(p->pass->lease.client, p->pass->lease.state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK &&
        (!rk_bson_find(&view, "value", &elem) || !rk_bson_elem_view(&elem, &doc))) {
        status = rk_error_set(err, RK_EIO, "mongod's reply is malformed");
    } else if (status == RK_OK && rk_view_int(&doc, "epoch") != p->pass->epoch) {
        status = lost(err);
    } else if (status == RK_OK && read_part(p, &doc) != RK_OK) {
        status = rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

static void put_state(struct rk_bson_writer *w, const struct part *p)
{
    rk_bson_put_bool(w, "done", p->done);
    if (p->position.type != 0) {
        rk_bson_put_id(w, "position", &p->position);
    }
    rk_census_put(w, &p->out->census);
}

/* After everything up to the position was counted. */
static enum rk_status save(struct part *p, struct rk_error *err)
{
    struct rk_buf command;
    struct rk_bson_writer w;
    bson_t reply;
    enum rk_status status = rk_pass_renew(p->pass, err);
    if (status != RK_OK) {
        return status;
    }
    rk_buf_init(&command, COMMAND_MAX);
    rk_bson_writer_init(&w, &command);
    rk_bson_begin(&w);
    rk_bson_put_string(&w, "update", "proofParts");
    rk_bson_begin_array(&w, "updates");
    rk_bson_begin_doc(&w, "0");
    rk_bson_begin_doc(&w, "q");
    put_id(&w, p);
    rk_bson_put_int64(&w, "epoch", p->pass->epoch);
    rk_bson_end(&w);
    rk_bson_begin_doc(&w, "u");
    rk_bson_begin_doc(&w, "$set");
    put_state(&w, p);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_put_majority(&w, p->pass->lease.wtimeout_ms);
    rk_bson_end(&w);
    status = run(p, &w, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK) {
        status = rk_reply_check_writes(&reply, "what was counted", err);
    }
    if (status == RK_OK && rk_view_int(&view, "n") != 1) {
        status = lost(err);
    }
    bson_destroy(&reply);
    rk_buf_deinit(&command);
    if (status == RK_OK) {
        p->pass->saves++;
        p->saved_us = rk_clock_mono_us();
    }
    return status;
}

static void expect(void *arg, int64_t documents)
{
    struct part *p = arg;
    p->estimated = documents;
    rk_verifier_expect(p->verifier, documents);
}

static enum rk_status count(void *arg, const struct rk_bson_view *doc, struct rk_error *err)
{
    struct part *p = arg;
    return rk_verifier_add(p->verifier, doc, err);
}

static void keep_to_rate(struct part *p, uint32_t documents)
{
    uint32_t rate = p->pass->request->settings.max_rate;
    uint64_t now = rk_clock_mono_us();
    uint64_t due = p->batch_us + (rate > 0 ? documents * UINT64_C(1000000) / rate : 0);
    if (due > now) {
        (void)usleep((useconds_t)(due - now));
    }
    p->batch_us = rk_clock_mono_us();
}

static enum rk_status batch_done(void *arg, uint32_t documents, struct rk_error *err)
{
    struct part *p = arg;
    const struct rk_proof_request *request = p->pass->request;
    uint64_t interval_us = (uint64_t)request->settings.checkpoint_interval_ms * 1000u;
    enum rk_status status = RK_OK;
    if (request->progress != NULL) {
        request->progress(request->arg, p->ns->full, p->out->census.documents, p->estimated);
    }
    keep_to_rate(p, documents);
    if (rk_clock_mono_us() - p->saved_us >= interval_us) {
        status = rk_verifier_settle(p->verifier, err);
        status = status == RK_OK ? save(p, err) : status;
    }
    return status;
}

static uint32_t batch_docs(const struct rk_proof_settings *settings)
{
    uint32_t share = settings->max_rate / BATCHES_PER_S;
    if (settings->max_rate == 0 || share > settings->batch_docs) {
        return settings->batch_docs;
    }
    return share > 0 ? share : 1;
}

/* From where the part was saved last to the end. */
static enum rk_status go_on(struct part *p, struct rk_error *err)
{
    const struct rk_proof_request *request = p->pass->request;
    const struct rk_scan_visitor visitor = {expect, count, batch_done, p};
    enum rk_status status = load(p, err);
    if (status != RK_OK || p->done) {
        return status;
    }
    status = rk_verifier_new(request->verify, p->policy, &p->out->census, &p->verifier, err);
    if (status == RK_OK) {
        p->saved_us = p->batch_us = rk_clock_mono_us();
        status = rk_scan_all(p->pass->lease.client, p->ns,
                             rk_scan_mode(request->settings.read_preference),
                             batch_docs(&request->settings), &visitor, &p->position, err);
    }
    if (status == RK_OK) {
        status = rk_verifier_settle(p->verifier, err);
    }
    if (status == RK_OK) {
        p->done = true;
        status = save(p, err);
    }
    rk_verifier_free(p->verifier);
    p->verifier = NULL;
    return status;
}

enum rk_status rk_pass_part(struct rk_pass *pass, const struct rk_ns *ns,
                            const struct rk_pass_uuid *uuid, struct rk_proof_part *part,
                            struct rk_error *err)
{
    const struct rk_policy *policy =
        pass->request->verify == NULL ? NULL
                                      : rk_policy_find(pass->request->policies, ns->db,
                                                       strlen(ns->db), ns->coll, strlen(ns->coll));
    struct part p = {.pass = pass, .ns = ns, .policy = policy, .uuid = uuid, .out = part};
    rk_census_deinit(&part->census);
    enum rk_status status = rk_census_init(&part->census, policy);
    if (status != RK_OK) {
        return rk_error_set(err, status, "out of memory");
    }
    (void)snprintf(part->ns, sizeof part->ns, "%s", ns->full);
    rk_id_init(&p.position);
    status = go_on(&p, err);
    rk_id_deinit(&p.position);
    if (status != RK_OK) {
        rk_census_clear(&part->census);
        part->started_at_ms = 0;
    }
    return status;
}
