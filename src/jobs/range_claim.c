#include "counts_internal.h"
#include "range_internal.h"

#include <string.h>

static enum rk_status read_id(const struct rk_bson_view *doc, const char *key, struct rk_id *id)
{
    struct rk_bson_elem elem;
    id->type = 0;
    return rk_bson_find(doc, key, &elem) ? rk_id_set_elem(id, &elem) : RK_OK;
}

static enum rk_status read_range(const struct rk_bson_view *doc, struct rk_range *range,
                                 struct rk_error *err)
{
    struct rk_bson_elem elem;
    if (!rk_bson_find(doc, "_id", &elem) || elem.type != RK_BSON_OID) {
        return rk_error_set(err, RK_EREFUSED, "jobStatus holds a range without an ObjectId _id");
    }
    memcpy(range->id.bytes, elem.value, sizeof range->id.bytes);
    range->seq = rk_view_int(doc, "seq");
    range->docs = rk_view_int(doc, "batchSize");
    range->epoch = rk_view_int(doc, "epoch");
    range->attempts = rk_view_int(doc, "attempts");
    range->counts = rk_sweep_counts_read(doc);
    range->slot = rk_bson_find(doc, "slot", &elem) ? rk_view_int(doc, "slot") : -1;
    if (read_id(doc, "startId", &range->start) != RK_OK ||
        read_id(doc, "endId", &range->end) != RK_OK ||
        read_id(doc, "position", &range->position) != RK_OK) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    if (range->start.type == 0 || range->end.type == 0) {
        return rk_error_set(err, RK_EREFUSED, "jobStatus holds a range without startId or endId");
    }
    return rk_split_off_read(doc, &range->split_off, err);
}

/* attempts: {$add: ["$attempts", {$cond: [{$eq: ["$state", "running"]}, 1, 0]}]}: taking over from
 * an owner that fell silent is an attempt, going on after a pause is none. */
static void put_attempts(struct rk_bson_writer *w)
{
    rk_bson_begin_doc(w, "attempts");
    rk_bson_begin_array(w, "$add");
    rk_bson_put_string(w, "0", "$attempts");
    rk_bson_begin_doc(w, "1");
    rk_bson_begin_array(w, "$cond");
    rk_bson_begin_doc(w, "0");
    rk_bson_begin_array(w, "$eq");
    rk_bson_put_string(w, "0", "$state");
    rk_bson_put_string(w, "1", "running");
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_put_int32(w, "1", 1);
    rk_bson_put_int32(w, "2", 0);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_end(w);
}

#define NO_SLOT (-1)
#define SLOT_ATTEMPTS 4u /* at a slot that others are after as well */

/* Which range: that one (NULL: any), pending or expired; and the slot that a pending one gets. */
struct claim {
    const bson_oid_t *job;
    const bson_oid_t *id;
    bool expired;
    int32_t slot;
};

/* An expired range keeps its slot. */
static void put_slot(struct rk_bson_writer *w, const struct claim *claim)
{
    if (claim->expired) {
        return;
    }
    if (claim->slot == NO_SLOT) {
        rk_bson_put_string(w, "slot", "$$REMOVE");
    } else {
        rk_bson_put_int32(w, "slot", claim->slot);
    }
}

static void put_session(struct rk_bson_writer *w, const struct rk_lease *lease,
                        const struct claim *claim)
{
    if (lease->session != NULL) {
        rk_bson_put_binary(w, "session", strlen("session"), BSON_SUBTYPE_UUID, lease->session,
                           RK_SESSION_ID_LEN);
    } else {
        rk_bson_put_string(w, "session", "$$REMOVE");
    }
    rk_bson_put_string(w, "formerSession", claim->expired ? "$session" : "$$REMOVE");
}

static void put_claim(struct rk_bson_writer *w, const struct rk_lease *lease,
                      const struct claim *claim)
{
    rk_bson_begin(w);
    rk_bson_put_string(w, "findAndModify", "jobStatus");
    rk_bson_begin_doc(w, "query");
    if (claim->id != NULL) {
        rk_bson_put_oid(w, "_id", claim->id);
    }
    rk_bson_put_oid(w, "jobId", claim->job);
    rk_bson_put_string(w, "state", claim->expired ? "running" : "pending");
    if (claim->expired) {
        bson_t *ran_out = rk_lease_ran_out(lease, "$leaseUntil");
        rk_bson_put(w, RK_BSON_DOCUMENT, "$expr", strlen("$expr"), bson_get_data(ran_out),
                    ran_out->len);
        bson_destroy(ran_out);
    }
    rk_bson_end(w);
    rk_bson_begin_doc(w, "sort");
    rk_bson_put_int32(w, "seq", 1);
    rk_bson_end(w);
    rk_bson_begin_array(w, "update");
    rk_bson_begin_doc(w, "0");
    rk_bson_begin_doc(w, "$set");
    rk_bson_put_string(w, "state", "running");
    rk_bson_put_literal(w, "owner", lease->owner);
    rk_bson_begin_doc(w, "epoch");
    rk_bson_begin_array(w, "$add");
    rk_bson_put_string(w, "0", "$epoch");
    rk_bson_put_int64(w, "1", 1);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_put_now_plus(w, "leaseUntil", lease->lease_ms);
    put_attempts(w);
    put_slot(w, claim);
    put_session(w, lease, claim);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_put_bool(w, "new", true);
    rk_bson_put_majority(w, lease->wtimeout_ms);
    rk_bson_end(w);
}

/* What the former owner has left open would hold its documents; should it still live, its epoch is
 * over, and what it has not committed is done again. */
static void end_former(const struct rk_lease *lease, const struct rk_bson_view *doc)
{
    const uint8_t *id = rk_range_session(doc, "formerSession");
    if (id != NULL &&
        (lease->session == NULL || memcmp(id, lease->session, RK_SESSION_ID_LEN) != 0)) {
        rk_session_kill(lease->client, id);
    }
}

static enum rk_status take(const struct rk_lease *lease, const struct claim *claim,
                           struct rk_range *range, struct rk_error *err)
{
    struct rk_buf command;
    struct rk_bson_writer w;
    struct rk_bson_elem elem;
    struct rk_bson_view doc;
    bson_t reply = BSON_INITIALIZER;
    rk_buf_init(&command, 1u << 16);
    rk_bson_writer_init(&w, &command);
    put_claim(&w, lease, claim);
    enum rk_status status = rk_bson_writer_status(&w);
    if (status != RK_OK) {
        rk_error_set(err, status, "cannot build the claim of a range");
        goto done;
    }
    bson_destroy(&reply);
    status = rk_command_run(lease->client, lease->state_db, &command, &reply, err);
    if (status != RK_OK) {
        goto done;
    }
    struct rk_bson_view view = rk_reply_view(&reply);
    if (!rk_bson_find(&view, "value", &elem) || !rk_bson_elem_view(&elem, &doc)) {
        status = rk_error_set(err, RK_ENOENT, "no range to claim");
        goto done;
    }
    status = read_range(&doc, range, err);
    range->has_session = lease->session != NULL;
    if (claim->expired) {
        end_former(lease, &doc);
    }
    range->claimed_at =
        rk_bson_find(&view, "operationTime", &elem) && elem.type == RK_BSON_TIMESTAMP
            ? rk_load_u64(elem.value)
            : 0;
done:
    bson_destroy(&reply);
    rk_buf_deinit(&command);
    return status;
}

bool rk_slot_valid(int64_t slot, uint32_t concurrency)
{
    return concurrency == 0 || (slot >= 0 && slot < (int64_t)concurrency);
}

static enum rk_status take_with_slot(const struct rk_lease *lease, struct claim *claim,
                                     uint32_t concurrency, struct rk_range *range,
                                     struct rk_error *err)
{
    struct rk_error cause = {0};
    enum rk_status status = RK_OK;
    for (unsigned i = 0; i < SLOT_ATTEMPTS; i++) {
        status = rk_slot_find(lease, claim->job, concurrency, &claim->slot, err);
        if (status != RK_OK) {
            return status;
        }
        status = take(lease, claim, range, &cause);
        if (!rk_is_duplicate(status, &cause)) {
            return status == RK_OK ? RK_OK : rk_error_set(err, status, "%s", cause.message);
        }
    }
    return rk_error_set(err, RK_ELIMIT, "others were faster");
}

static enum rk_status take_pending(const struct rk_lease *lease, const bson_oid_t *job,
                                   const bson_oid_t *id, uint32_t concurrency,
                                   struct rk_range *range, struct rk_error *err)
{
    struct claim claim = {.job = job, .id = id, .slot = NO_SLOT};
    return concurrency == 0 ? take(lease, &claim, range, err)
                            : take_with_slot(lease, &claim, concurrency, range, err);
}

static enum rk_status take_expired(const struct rk_lease *lease, const bson_oid_t *job,
                                   const bson_oid_t *id, struct rk_range *range,
                                   struct rk_error *err)
{
    const struct claim claim = {.job = job, .id = id, .expired = true};
    return take(lease, &claim, range, err);
}

enum rk_status rk_range_claim_one(const struct rk_lease *lease, const bson_oid_t *job,
                                  const bson_oid_t *id, uint32_t concurrency,
                                  struct rk_range *range, struct rk_error *err)
{
    enum rk_status status = take_pending(lease, job, id, concurrency, range, err);
    if (status != RK_ENOENT && status != RK_ELIMIT) {
        return status;
    }
    enum rk_status over = take_expired(lease, job, id, range, err);
    return over == RK_ENOENT ? status : over;
}

/* Asked before it is tried to take one: a claim that finds none still waits for all that was
 * written before it to be safe, which in the middle of a sweep takes as long as a batch. */
static enum rk_status find_expired(const struct rk_lease *lease, const bson_oid_t *job,
                                   struct rk_error *err)
{
    struct rk_bson_view range;
    struct rk_bson_iter iter;
    bson_t reply;
    bson_t *ran_out = rk_lease_ran_out(lease, "$leaseUntil");
    bson_t *command =
        BCON_NEW("find", BCON_UTF8("jobStatus"), "filter", "{", "jobId", BCON_OID(job), "state",
                 BCON_UTF8("running"), "$expr", BCON_DOCUMENT(ran_out), "}", "projection", "{",
                 "_id", BCON_INT32(1), "}", "limit", BCON_INT32(1), "singleBatch", BCON_BOOL(true));
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_batch(&reply, &iter, err);
    }
    if (status == RK_OK && !rk_batch_next(&iter, &range)) {
        status = rk_error_set(err, RK_ENOENT, "no lease has run out");
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(ran_out);
    return status;
}

/* What somebody has begun with comes first: until a job is cut, pending ranges never run out. */
enum rk_status rk_range_claim(const struct rk_lease *lease, const bson_oid_t *job,
                              uint32_t concurrency, struct rk_range *range, struct rk_error *err)
{
    enum rk_status status = find_expired(lease, job, err);
    if (status == RK_OK) {
        status = take_expired(lease, job, NULL, range, err);
    }
    return status == RK_ENOENT ? take_pending(lease, job, NULL, concurrency, range, err) : status;
}
