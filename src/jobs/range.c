#include "counts_internal.h"
#include "range_internal.h"

#include <string.h>

#define LEASES_MAX 10 /* as long as no lease is that was given by a right clock */

void rk_range_init(struct rk_range *range)
{
    *range = (struct rk_range){0};
    rk_id_init(&range->start);
    rk_id_init(&range->end);
    rk_id_init(&range->position);
    rk_id_init(&range->split_off.end);
}

void rk_range_deinit(struct rk_range *range)
{
    rk_id_deinit(&range->start);
    rk_id_deinit(&range->end);
    rk_id_deinit(&range->position);
    rk_id_deinit(&range->split_off.end);
}

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

static void put_literal_string(struct rk_bson_writer *w, const char *key, const char *text)
{
    rk_bson_begin_doc(w, key);
    rk_bson_put_string(w, "$literal", text);
    rk_bson_end(w);
}

bson_t *rk_lease_ran_out(const struct rk_lease *lease, const char *field)
{
    return BCON_NEW("$or", "[", "{", "$lt", "[", BCON_UTF8(field), BCON_UTF8("$$NOW"), "]", "}",
                    "{", "$gt", "[", BCON_UTF8(field), "{", "$add", "[", BCON_UTF8("$$NOW"),
                    BCON_INT64((int64_t)lease->lease_ms * LEASES_MAX), "]", "}", "]", "}", "]");
}

#define NO_SLOT (-1)
#define SLOT_ATTEMPTS 4u /* at a slot that others are after as well */
#define CODE_DUPLICATE_KEY 11000

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
    put_literal_string(w, "owner", lease->owner);
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
        if (status == RK_OK || cause.code != CODE_DUPLICATE_KEY) {
            return status == RK_OK ? RK_OK : rk_error_set(err, status, "%s", cause.message);
        }
    }
    return rk_error_set(err, RK_ELIMIT, "others were faster");
}

enum rk_status rk_range_claim_one(const struct rk_lease *lease, const bson_oid_t *job,
                                  const bson_oid_t *id, uint32_t concurrency,
                                  struct rk_range *range, struct rk_error *err)
{
    struct claim pending = {.job = job, .id = id, .slot = NO_SLOT};
    const struct claim expired = {.job = job, .id = id, .expired = true};
    enum rk_status status = concurrency == 0
                                ? take(lease, &pending, range, err)
                                : take_with_slot(lease, &pending, concurrency, range, err);
    if (status != RK_ENOENT && status != RK_ELIMIT) {
        return status;
    }
    enum rk_status over = take(lease, &expired, range, err);
    return over == RK_ENOENT ? status : over;
}

enum rk_status rk_range_claim(const struct rk_lease *lease, const bson_oid_t *job,
                              uint32_t concurrency, struct rk_range *range, struct rk_error *err)
{
    return rk_range_claim_one(lease, job, NULL, concurrency, range, err);
}

static void put_next(struct rk_bson_writer *w, const struct rk_lease *lease,
                     enum rk_range_next next)
{
    static const char *const states[] = {"running", "done", "pending", "failed"};
    rk_bson_put_string(w, "state", states[next]);
    rk_bson_put_bool(w, "isComplete", next == RK_RANGE_DONE);
    if (next == RK_RANGE_GO_ON) {
        rk_bson_put_now_plus(w, "leaseUntil", lease->lease_ms);
    } else if (next == RK_RANGE_RELEASE) {
        rk_bson_put(w, RK_BSON_NULL, "offeredAt", strlen("offeredAt"), NULL, 0); /* at once */
    } else {
        rk_bson_put_string(w, "finishedAt", "$$NOW");
    }
    if (next != RK_RANGE_GO_ON) {
        rk_bson_put_string(w, "session", "$$REMOVE");
        rk_bson_put_string(w, "formerSession", "$$REMOVE");
    }
}

/* A checkpoint whose sender has given up may arrive after a later one of the same epoch; the
 * position must not fall back to it. Ranges that nobody has worked on yet have no counts. */
static void put_not_beyond(struct rk_bson_writer *w, int64_t scanned)
{
    rk_bson_begin_doc(w, "scanned");
    rk_bson_begin_doc(w, "$not");
    rk_bson_put_int64(w, "$gt", scanned);
    rk_bson_end(w);
    rk_bson_end(w);
}

static void put_checkpoint(struct rk_bson_writer *w, const struct rk_lease *lease,
                           const struct rk_range *range, enum rk_range_next next, const char *error)
{
    rk_bson_begin(w);
    rk_bson_put_string(w, "update", "jobStatus");
    rk_bson_begin_array(w, "updates");
    rk_bson_begin_doc(w, "0");
    rk_bson_begin_doc(w, "q");
    rk_bson_put_oid(w, "_id", &range->id);
    rk_bson_put_string(w, "owner", lease->owner);
    rk_bson_put_int64(w, "epoch", range->epoch);
    rk_bson_put_string(w, "state", "running");
    put_not_beyond(w, range->counts.scanned);
    rk_bson_end(w);
    rk_bson_begin_array(w, "u");
    rk_bson_begin_doc(w, "0");
    rk_bson_begin_doc(w, "$set");
    put_next(w, lease, next);
    rk_sweep_counts_put(w, &range->counts);
    rk_bson_put_int64(w, "attempts", range->attempts);
    if (range->position.type != 0) {
        rk_bson_begin_doc(w, "position");
        rk_bson_put_id(w, "$literal", &range->position);
        rk_bson_end(w);
    }
    put_literal_string(w, "error", error != NULL ? error : "");
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_put_majority(w, lease->wtimeout_ms);
    rk_bson_end(w);
}

enum rk_status rk_range_update(const struct rk_lease *lease, const struct rk_bson_writer *w,
                               int64_t *matched, struct rk_error *err)
{
    if (rk_bson_writer_status(w) != RK_OK) {
        return rk_error_set(err, RK_ENOMEM, "cannot build a checkpoint");
    }
    bson_t reply;
    enum rk_status status = rk_command_run(lease->client, lease->state_db, w->out, &reply, err);
    if (status == RK_OK) {
        static const char *const code_path[] = {"writeErrors", "0", "code"};
        struct rk_bson_view view = rk_reply_view(&reply);
        struct rk_bson_elem elem;
        int64_t code = 0;
        *matched = rk_view_int(&view, "n");
        if (rk_view_path(&view, code_path, 3, &elem) && rk_bson_elem_int(&elem, &code)) {
            status =
                rk_error_set_code(err, rk_code_transient((int)code) ? RK_EIO : RK_EREFUSED,
                                  (int)code, "mongod refused a checkpoint (code %d)", (int)code);
        }
    }
    bson_destroy(&reply);
    return status;
}

enum rk_status rk_range_checkpoint(const struct rk_lease *lease, const struct rk_range *range,
                                   enum rk_range_next next, const char *error, struct rk_error *err)
{
    struct rk_buf command;
    struct rk_bson_writer w;
    int64_t matched = 0;
    rk_buf_init(&command, 18u << 20);
    rk_bson_writer_init(&w, &command);
    put_checkpoint(&w, lease, range, next, error);
    enum rk_status status = rk_range_update(lease, &w, &matched, err);
    if (status == RK_OK && matched == 0) {
        status = rk_error_set(err, RK_ESTATE, "the range belongs to another instance by now");
    }
    rk_buf_deinit(&command);
    return status;
}

enum rk_status rk_range_renew(const struct rk_lease *lease, const bson_oid_t *ids, size_t n_ids,
                              struct rk_error *err)
{
    struct rk_buf command;
    struct rk_bson_writer w;
    int64_t matched = 0;
    rk_buf_init(&command, 1u << 20);
    rk_bson_writer_init(&w, &command);
    rk_bson_begin(&w);
    rk_bson_put_string(&w, "update", "jobStatus");
    rk_bson_begin_array(&w, "updates");
    rk_bson_begin_doc(&w, "0");
    rk_bson_begin_doc(&w, "q");
    rk_bson_begin_doc(&w, "_id");
    rk_bson_begin_array(&w, "$in");
    for (size_t i = 0; i < n_ids; i++) {
        char key[16];
        const char *index;
        bson_uint32_to_string((uint32_t)i, &index, key, sizeof key);
        rk_bson_put_oid(&w, index, &ids[i]);
    }
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_put_string(&w, "owner", lease->owner);
    rk_bson_put_string(&w, "state", "running");
    rk_bson_end(&w);
    rk_bson_begin_array(&w, "u");
    rk_bson_begin_doc(&w, "0");
    rk_bson_begin_doc(&w, "$set");
    rk_bson_put_now_plus(&w, "leaseUntil", lease->lease_ms);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_put_bool(&w, "multi", true);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    enum rk_status status = rk_range_update(lease, &w, &matched, err);
    rk_buf_deinit(&command);
    return status;
}
