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

bson_t *rk_lease_ran_out(const struct rk_lease *lease, const char *field)
{
    return BCON_NEW("$or", "[", "{", "$lt", "[", BCON_UTF8(field), BCON_UTF8("$$NOW"), "]", "}",
                    "{", "$gt", "[", BCON_UTF8(field), "{", "$add", "[", BCON_UTF8("$$NOW"),
                    BCON_INT64((int64_t)lease->lease_ms * LEASES_MAX), "]", "}", "]", "}", "]");
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
    rk_bson_put_literal(w, "error", error != NULL ? error : "");
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
        struct rk_bson_view view = rk_reply_view(&reply);
        *matched = rk_view_int(&view, "n");
        status = rk_reply_check_writes(&reply, "a checkpoint", err);
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
