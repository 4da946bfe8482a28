/*
 * Splitting a range that takes long, so that whoever is idle can help. Without transactions, which
 * a standalone server does not have:
 *
 *   1. the owner shortens its range and notes in it what is to become a range of its own
 *   2. that range is inserted; its _id is in the note, so repeating it is harmless
 *   3. the note goes
 *
 * Each is committed before the next one begins. A range with a note is not worked on before 2 and 3
 * are done, by the owner or by whoever claims it after that one, so it is not finished either, and
 * its job not closed.
 */
#include "range_internal.h"
#include "scan_internal.h"

#include <string.h>

#define COMMAND_MAX (48u << 20)

/* Below that of the range that it comes from, and unlike any other's: made of what of a new
 * ObjectId tells processes, and moments in them, apart. */
static int64_t lower_seq(int64_t seq, const bson_oid_t *id)
{
    uint64_t own = 0;
    for (size_t i = 6; i < sizeof id->bytes; i++) {
        own = own << 8 | id->bytes[i];
    }
    return (seq < 0 ? seq : 0) - 1 - (int64_t)own;
}

/* Where what is left is to be split, skip documents from the position on; type 0: nowhere. */
static enum rk_status find_middle(const struct rk_lease *lease, const struct rk_ns *ns,
                                  const struct rk_range *range, int64_t skip, struct rk_id *middle,
                                  struct rk_error *err)
{
    struct rk_scan scan = {.min = &range->start,
                           .max = &range->end,
                           .after = &range->position,
                           .skip = (uint32_t)skip,
                           .limit = 1};
    struct rk_scan_batch batch;
    struct rk_bson_iter iter;
    struct rk_bson_view doc;
    struct rk_bson_elem id;
    rk_scan_batch_init(&batch);
    enum rk_status status = rk_scan_read(lease->client, ns, &scan, &batch, err);
    if (status == RK_OK) {
        rk_scan_iter_init(&iter, &batch);
        if (rk_scan_next(&iter, &doc, &id) == RK_OK && id.type != RK_BSON_MAXKEY) {
            status = rk_id_set_elem(middle, &id);
        }
    }
    rk_scan_batch_deinit(&batch);
    return status;
}

enum rk_status rk_split_off_read(const struct rk_bson_view *range, struct rk_split_off *off,
                                 struct rk_error *err)
{
    struct rk_bson_elem elem;
    struct rk_bson_elem end;
    struct rk_bson_view note;
    off->end.type = 0;
    if (!rk_bson_find(range, "splitOff", &elem)) {
        return RK_OK;
    }
    if (!rk_bson_elem_view(&elem, &note) || !rk_bson_find(&note, "endId", &end) ||
        !rk_bson_find(&note, "_id", &elem) || elem.type != RK_BSON_OID) {
        return rk_error_set(err, RK_EREFUSED, "jobStatus holds a splitOff without _id or endId");
    }
    memcpy(off->id.bytes, elem.value, sizeof off->id.bytes);
    off->seq = rk_view_int(&note, "seq");
    off->docs = rk_view_int(&note, "batchSize");
    return rk_id_set_elem(&off->end, &end) == RK_OK ? RK_OK
                                                    : rk_error_set(err, RK_ENOMEM, "out of memory");
}

/* An update of one range; its filter goes on from here. */
static void begin_update(struct rk_bson_writer *w, struct rk_buf *command, const bson_oid_t *range)
{
    rk_buf_init(command, COMMAND_MAX);
    rk_bson_writer_init(w, command);
    rk_bson_begin(w);
    rk_bson_put_string(w, "update", "jobStatus");
    rk_bson_begin_array(w, "updates");
    rk_bson_begin_doc(w, "0");
    rk_bson_begin_doc(w, "q");
    rk_bson_put_oid(w, "_id", range);
}

static enum rk_status end_update(struct rk_bson_writer *w, struct rk_buf *command,
                                 const struct rk_lease *lease, int64_t *matched,
                                 struct rk_error *err)
{
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_put_majority(w, lease->wtimeout_ms);
    rk_bson_end(w);
    enum rk_status status = rk_range_update(lease, w, matched, err);
    rk_buf_deinit(command);
    return status;
}

/* The filter of the owner; and that there is no note, which would be lost. */
static void put_own_whole(struct rk_bson_writer *w, const struct rk_lease *lease, int64_t epoch)
{
    rk_bson_put_string(w, "owner", lease->owner);
    rk_bson_put_int64(w, "epoch", epoch);
    rk_bson_put_string(w, "state", "running");
    rk_bson_begin_doc(w, "splitOff");
    rk_bson_put_bool(w, "$exists", false);
    rk_bson_end(w);
}

static void put_note(struct rk_bson_writer *w, const struct rk_split_off *off)
{
    rk_bson_begin_doc(w, "splitOff");
    rk_bson_begin_doc(w, "$literal");
    rk_bson_put_oid(w, "_id", &off->id);
    rk_bson_put_int64(w, "seq", off->seq);
    rk_bson_put_id(w, "endId", &off->end);
    rk_bson_put_int64(w, "batchSize", off->docs);
    rk_bson_end(w);
    rk_bson_end(w);
}

static enum rk_status shorten(const struct rk_lease *lease, const struct rk_range *range,
                              const struct rk_id *end, struct rk_error *err)
{
    struct rk_buf command;
    struct rk_bson_writer w;
    int64_t matched = 0;
    begin_update(&w, &command, &range->id);
    put_own_whole(&w, lease, range->epoch);
    rk_bson_end(&w);
    rk_bson_begin_array(&w, "u");
    rk_bson_begin_doc(&w, "0");
    rk_bson_begin_doc(&w, "$set");
    rk_bson_begin_doc(&w, "cutEndId");
    rk_bson_begin_array(&w, "$ifNull");
    rk_bson_put_string(&w, "0", "$cutEndId");
    rk_bson_put_string(&w, "1", "$endId");
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_begin_doc(&w, "endId");
    rk_bson_put_id(&w, "$literal", end);
    rk_bson_end(&w);
    rk_bson_put_int64(&w, "batchSize", range->docs - range->split_off.docs);
    put_note(&w, &range->split_off);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    enum rk_status status = end_update(&w, &command, lease, &matched, err);
    if (status == RK_OK && matched == 0) {
        status = rk_error_set(err, RK_ESTATE, "the range belongs to another instance by now");
    }
    return status;
}

enum rk_status rk_range_split(const struct rk_lease *lease, const struct rk_ns *ns,
                              struct rk_range *range, bool *split, struct rk_error *err)
{
    struct rk_split_off *off = &range->split_off;
    int64_t left = range->docs - range->counts.scanned;
    struct rk_id middle;
    rk_id_init(&middle);
    *split = false;
    enum rk_status status = find_middle(lease, ns, range, left / 2, &middle, err);
    if (status != RK_OK || middle.type == 0) {
        goto done;
    }
    bson_oid_init(&off->id, NULL);
    off->seq = lower_seq(range->seq, &off->id);
    off->docs = left - left / 2;
    status = rk_id_set(&off->end, range->end.type, range->end.value.data, range->end.value.len);
    if (status == RK_OK) {
        status = shorten(lease, range, &middle, err);
    }
    if (status == RK_OK) {
        *split = true;
        range->docs -= off->docs;
        status = rk_id_set(&range->end, middle.type, middle.value.data, middle.value.len);
    }
done:
    rk_id_deinit(&middle);
    return status;
}

/* Of a range that is there already: the one that was split off, or another one of the same seq? */
static enum rk_status is_there(const struct rk_lease *lease, const bson_oid_t *id,
                               struct rk_error *err)
{
    bson_t reply;
    bson_t *command =
        BCON_NEW("count", BCON_UTF8("jobStatus"), "query", "{", "_id", BCON_OID(id), "}", "limit",
                 BCON_INT32(1), "readConcern", "{", "level", BCON_UTF8("majority"), "}");
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK && rk_view_int(&view, "n") == 0) {
        status = rk_error_set(err, RK_EREFUSED, "another range has the seq of one split off");
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* That very note: this may come late, when the range has been split again. */
static enum rk_status remove_note(const struct rk_lease *lease, const bson_oid_t *range,
                                  const bson_oid_t *split_off, struct rk_error *err)
{
    struct rk_buf command;
    struct rk_bson_writer w;
    int64_t matched = 0;
    begin_update(&w, &command, range);
    rk_bson_put_oid(&w, "splitOff._id", split_off);
    rk_bson_end(&w);
    rk_bson_begin_doc(&w, "u");
    rk_bson_begin_doc(&w, "$unset");
    rk_bson_put_int32(&w, "splitOff", 1);
    rk_bson_end(&w);
    rk_bson_end(&w);
    return end_update(&w, &command, lease, &matched, err); /* matched 0: it is gone already */
}

enum rk_status rk_range_complete_split(const struct rk_lease *lease, const bson_oid_t *job,
                                       const struct rk_ns *ns, struct rk_range *range,
                                       struct rk_error *err)
{
    struct rk_split_off *off = &range->split_off;
    const struct rk_range_cut cut = {
        .id = off->id, .seq = off->seq, .start = &range->end, .end = &off->end, .docs = off->docs};
    enum rk_status status = rk_range_insert(lease, job, ns, &cut, err);
    if (status == RK_ESTATE) {
        status = is_there(lease, &off->id, err);
    }
    if (status == RK_OK) {
        status = remove_note(lease, &range->id, &off->id, err);
    }
    if (status == RK_OK) {
        off->end.type = 0;
    }
    return status;
}
