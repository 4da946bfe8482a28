#include "dead_letters_internal.h"
#include "transform_internal.h"

#include <string.h>

#define COMMAND_MAX (48u << 20)
#define COMMAND_SOFT_MAX (4u << 20)
#define RAW_MAX (15u << 20)

struct filing {
    const struct rk_lease *lease;
    const bson_oid_t *job;
    const struct rk_ns *ns;
    const struct rk_transform_ops *transform;
    struct rk_buf command;
    struct rk_bson_writer w;
    uint32_t n_ops;
};

static void begin(struct filing *f)
{
    rk_buf_clear(&f->command);
    rk_bson_writer_init(&f->w, &f->command);
    f->n_ops = 0;
    rk_bson_begin(&f->w);
    rk_bson_put_string(&f->w, "update", "deadLetters");
    rk_bson_put_bool(&f->w, "ordered", false);
    rk_bson_put_majority(&f->w, f->lease->wtimeout_ms);
    rk_bson_begin_array(&f->w, "updates");
}

/* A duplicate key is another thread's upsert of the same entry, as good as this one. */
static enum rk_status flush(struct filing *f, struct rk_error *err)
{
    bson_t reply;
    rk_bson_end(&f->w);
    rk_bson_end(&f->w);
    if (rk_bson_writer_status(&f->w) != RK_OK) {
        return rk_error_set(err, RK_ENOMEM, "cannot build a dead letter");
    }
    enum rk_status status =
        rk_command_run(f->lease->client, f->lease->state_db, &f->command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_check_writes(&reply, "a dead letter", err);
    }
    bson_destroy(&reply);
    return rk_is_duplicate(status, err) ? RK_OK : status;
}

static void put_first_seen(struct rk_bson_writer *w)
{
    rk_bson_begin_doc(w, "firstSeen");
    rk_bson_begin_array(w, "$ifNull");
    rk_bson_put_string(w, "0", "$firstSeen");
    rk_bson_put_string(w, "1", "$$NOW");
    rk_bson_end(w);
    rk_bson_end(w);
}

static void put_attempts(struct rk_bson_writer *w)
{
    rk_bson_begin_doc(w, "attempts");
    rk_bson_begin_array(w, "$add");
    rk_bson_begin_doc(w, "0");
    rk_bson_begin_array(w, "$ifNull");
    rk_bson_put_string(w, "0", "$attempts");
    rk_bson_put_int32(w, "1", 0);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_put_int32(w, "1", 1);
    rk_bson_end(w);
    rk_bson_end(w);
}

static void put_raw(struct rk_bson_writer *w, const struct rk_value *raw, bool omit)
{
    if (omit) {
        rk_bson_put_string(w, "raw", "$$REMOVE");
        rk_bson_put_bool(w, "rawOmitted", true);
        return;
    }
    rk_bson_begin_doc(w, "raw");
    rk_bson_put(w, raw->type, "$literal", strlen("$literal"), raw->data, raw->len);
    rk_bson_end(w);
    rk_bson_put_string(w, "rawOmitted", "$$REMOVE");
}

/* What it was discarded for is no answer to another value at the same place; whether it is another
 * one shows only where both were kept. */
static void put_discarded(struct rk_bson_writer *w, bool omitted)
{
    rk_bson_begin_doc(w, "$set");
    if (omitted) {
        rk_bson_put_string(w, "discarded", "$$REMOVE");
        rk_bson_end(w);
        return;
    }
    rk_bson_begin_doc(w, "discarded");
    rk_bson_begin_array(w, "$cond");
    rk_bson_begin_doc(w, "0");
    rk_bson_begin_array(w, "$eq");
    rk_bson_put_string(w, "0", "$formerRaw");
    rk_bson_put_string(w, "1", "$raw");
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_put_string(w, "1", "$discarded");
    rk_bson_put_string(w, "2", "$$REMOVE");
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_end(w);
}

static void put_entry(struct filing *f, const struct rk_value *id, const char *path,
                      size_t path_len, const struct rk_value *raw, const char *reason)
{
    struct rk_bson_writer *w = &f->w;
    const char *key;
    char buf[16];
    size_t key_len = bson_uint32_to_string(f->n_ops++, &key, buf, sizeof buf);
    /* Of all that is found, only envelopes are certain to be no plaintext. */
    bool omit = !rk_value_is_envelope(raw) || (uint64_t)raw->len + id->len > RAW_MAX;
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, key, key_len);
    rk_bson_begin_doc(w, "q");
    rk_bson_put_string(w, "ns", f->ns->full);
    rk_bson_begin_doc(w, "docId");
    rk_bson_put(w, id->type, "$eq", 3, id->data, id->len);
    rk_bson_end(w);
    rk_bson_put_utf8(w, "path", path, path_len);
    rk_bson_end(w);
    rk_bson_put_bool(w, "upsert", true);
    rk_bson_begin_array(w, "u");
    rk_bson_begin_doc(w, "0");
    rk_bson_begin_doc(w, "$set");
    if (f->job != NULL) {
        rk_bson_put_oid(w, "jobId", f->job);
    }
    rk_bson_put_string(w, "transform", f->transform->name);
    rk_bson_put_string(w, "reason", reason);
    rk_bson_put_string(w, "formerRaw", "$raw");
    put_raw(w, raw, omit);
    put_attempts(w);
    put_first_seen(w);
    rk_bson_put_string(w, "lastSeen", "$$NOW");
    rk_bson_put_bool(w, "resolved", false);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_begin_doc(w, "1");
    put_discarded(w, omit);
    rk_bson_end(w);
    rk_bson_begin_doc(w, "2");
    rk_bson_begin_array(w, "$unset");
    rk_bson_put_string(w, "0", "retry");
    rk_bson_put_string(w, "1", "resolvedAt");
    rk_bson_put_string(w, "2", "formerRaw");
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_end(w);
}

static enum rk_status file_one(struct filing *f, const struct rk_plan *plan,
                               const struct rk_doc_plan *doc, uint32_t path_off, uint32_t path_len,
                               const struct rk_value *raw, const char *reason, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    if (f->n_ops > 0 && f->command.len + raw->len > COMMAND_SOFT_MAX) {
        status = flush(f, err);
        begin(f);
    }
    put_entry(f, &doc->id, (const char *)plan->arena.data + path_off, path_len, raw, reason);
    return status;
}

static enum rk_status file_document(struct filing *f, const struct rk_plan *plan,
                                    const struct rk_doc_plan *doc, int64_t *filed,
                                    struct rk_error *err)
{
    enum rk_status status = RK_OK;
    for (uint32_t i = 0; status == RK_OK && i < doc->n_rejects; i++) {
        const struct rk_reject *r = rk_plan_reject(plan, doc->first_reject + i);
        status = file_one(f, plan, doc, r->path_off, r->path_len, &r->old, r->reason, err);
        (*filed)++;
    }
    for (uint32_t i = 0; status == RK_OK && doc->failure != NULL && i < doc->n_changes; i++) {
        const struct rk_change *c = rk_plan_change(plan, doc->first_change + i);
        status = file_one(f, plan, doc, c->path_off, c->path_len, &c->old, doc->failure, err);
        (*filed)++;
    }
    return status;
}

enum rk_status rk_dead_letters_file(const struct rk_lease *lease, const bson_oid_t *job,
                                    const struct rk_ns *ns,
                                    const struct rk_transform_ops *transform,
                                    const struct rk_plan *plan, int64_t *filed,
                                    struct rk_error *err)
{
    struct filing f = {.lease = lease, .job = job, .ns = ns, .transform = transform};
    enum rk_status status = RK_OK;
    *filed = 0;
    rk_buf_init(&f.command, COMMAND_MAX);
    begin(&f);
    for (size_t i = 0; status == RK_OK && i < rk_plan_count(plan); i++) {
        status = file_document(&f, plan, rk_plan_doc(plan, i), filed, err);
    }
    if (status == RK_OK && f.n_ops > 0) {
        status = flush(&f, err);
    }
    rk_buf_deinit(&f.command);
    return status;
}

/* Runs findAndModify on the entries with a pipeline of one $set stage. */
static enum rk_status find_and_set(const struct rk_lease *lease, const bson_t *query,
                                   const bson_t *set, bson_t *reply, struct rk_error *err)
{
    bson_t *command =
        BCON_NEW("findAndModify", BCON_UTF8("deadLetters"), "query", BCON_DOCUMENT(query), "update",
                 "[", "{", "$set", BCON_DOCUMENT(set), "}", "]", "new", BCON_BOOL(true));
    rk_bson_append_majority(command, lease->wtimeout_ms);
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, reply, err);
    bson_destroy(command);
    return status;
}

enum rk_status rk_dead_letters_waiting(const struct rk_lease *lease, bool *waiting,
                                       struct rk_error *err)
{
    bson_t reply;
    bson_t *command =
        BCON_NEW("count", BCON_UTF8("deadLetters"), "query", "{", "resolved", BCON_BOOL(false),
                 "retry", BCON_BOOL(true), "}", "limit", BCON_INT32(1));
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    *waiting = status == RK_OK && rk_view_int(&view, "n") > 0;
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* Entries of versions that had one transform only do not name it. */
static const struct rk_transform_ops *transform_of(const struct rk_bson_view *entry)
{
    struct rk_bson_elem elem;
    const char *name;
    uint32_t len;
    if (!rk_bson_find(entry, "transform", &elem)) {
        return &rk_transform_reencrypt;
    }
    return rk_bson_elem_utf8(&elem, &name, &len) ? rk_transform_find(name) : NULL;
}

enum rk_status rk_dead_letters_claim(const struct rk_lease *lease, struct rk_dead_letter *letter,
                                     struct rk_error *err)
{
    struct rk_bson_elem elem;
    struct rk_bson_view doc;
    const char *text;
    uint32_t len;
    bson_t reply;
    bson_t *query =
        BCON_NEW("resolved", BCON_BOOL(false), "retry", BCON_BOOL(true), "$expr", "{", "$lt", "[",
                 BCON_UTF8("$retriedAt"), "{", "$subtract", "[", BCON_UTF8("$$NOW"),
                 BCON_INT64((int64_t)lease->lease_ms), "]", "}", "]", "}");
    bson_t *set = BCON_NEW("retriedAt", BCON_UTF8("$$NOW"));
    enum rk_status status = find_and_set(lease, query, set, &reply, err);
    if (status != RK_OK) {
        goto done;
    }
    struct rk_bson_view view = rk_reply_view(&reply);
    if (!rk_bson_find(&view, "value", &elem) || !rk_bson_elem_view(&elem, &doc)) {
        status = rk_error_set(err, RK_ENOENT, "no dead letter to retry");
        goto done;
    }
    if (!rk_bson_find(&doc, "_id", &elem) || elem.type != RK_BSON_OID) {
        status = rk_error_set(err, RK_EREFUSED, "a dead letter has no ObjectId _id");
        goto done;
    }
    memcpy(letter->id.bytes, elem.value, sizeof letter->id.bytes);
    if (!rk_bson_find(&doc, "ns", &elem) || !rk_bson_elem_utf8(&elem, &text, &len) ||
        !rk_ns_parse(&letter->ns, text) || !rk_bson_find(&doc, "docId", &elem)) {
        status = rk_error_set(err, RK_EREFUSED, "a dead letter has no ns or docId");
        goto done;
    }
    status = rk_id_set_elem(&letter->doc, &elem);
    letter->transform = transform_of(&doc);
done:
    bson_destroy(&reply);
    bson_destroy(set);
    bson_destroy(query);
    return status;
}

enum rk_status rk_dead_letters_resolve(const struct rk_lease *lease, const bson_oid_t *id,
                                       struct rk_error *err)
{
    bson_t reply;
    bson_t *query = BCON_NEW("_id", BCON_OID(id), "$expr", "{", "$lt", "[", BCON_UTF8("$lastSeen"),
                             BCON_UTF8("$retriedAt"), "]", "}");
    bson_t *set = BCON_NEW("resolved", BCON_BOOL(true), "resolvedAt", BCON_UTF8("$$NOW"), "retry",
                           BCON_BOOL(false));
    enum rk_status status = find_and_set(lease, query, set, &reply, err);
    bson_destroy(&reply);
    bson_destroy(set);
    bson_destroy(query);
    return status;
}

enum rk_status rk_dead_letters_resolve_unseen(const struct rk_lease *lease, const char *ns,
                                              const struct rk_transform_ops *transform,
                                              int64_t started_at_ms, struct rk_error *err)
{
    bson_t reply;
    bson_t names = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&names, "0", transform->name);
    if (transform == &rk_transform_reencrypt) {
        BSON_APPEND_NULL(&names, "1"); /* or none, see transform_of */
    }
    bson_t *command = BCON_NEW(
        "update", BCON_UTF8("deadLetters"), "updates", "[", "{", "q", "{", "ns", BCON_UTF8(ns),
        "transform", "{", "$in", BCON_ARRAY(&names), "}", "resolved", BCON_BOOL(false), "lastSeen",
        "{", "$lt", BCON_DATE_TIME(started_at_ms), "}", "}", "u", "{", "$set", "{", "resolved",
        BCON_BOOL(true), "retry", BCON_BOOL(false), "}", "$currentDate", "{", "resolvedAt",
        BCON_BOOL(true), "}", "}", "multi", BCON_BOOL(true), "}", "]");
    rk_bson_append_majority(command, lease->wtimeout_ms);
    enum rk_status status =
        rk_command_run_bson(lease->client, lease->state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_check_writes(&reply, "to resolve dead letters", err);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(&names);
    return status;
}
