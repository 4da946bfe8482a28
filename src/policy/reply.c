/*
 * Replies, decrypted. Envelopes are found by their mark anywhere, so most of a reply needs no
 * understanding; its shape (cursor batches, value, values, change events) matters only where
 * legacy values, which have no mark, may stand.
 */
#include <rekey/policy/reply.h>
#include <stdio.h>

#include "reply_internal.h"

/* Treats one element of a document or array of the reply. FORWARD: go on. */
typedef enum rk_verdict elem_fn(struct rk_reply *r, const struct rk_bson_elem *elem,
                                const struct rk_trail *up);

static enum rk_verdict each(struct rk_reply *r, const struct rk_bson_view *view,
                            const struct rk_trail *up, elem_fn *treat)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    while (r->d.w->status == RK_OK) {
        enum rk_bson_step step = rk_bson_next(&iter, &elem);
        if (step == RK_BSON_STEP_END) {
            break;
        }
        if (step == RK_BSON_STEP_MALFORMED) {
            return rk_decrypt_malformed(&r->d, up);
        }
        enum rk_verdict verdict = treat(r, &elem, up);
        if (verdict != RK_VERDICT_FORWARD) {
            return verdict;
        }
    }
    return RK_VERDICT_FORWARD;
}

/* Each element inside elem; what is no document or array is only searched for envelopes. */
static enum rk_verdict inside(struct rk_reply *r, const struct rk_bson_elem *elem,
                              const struct rk_trail *up, elem_fn *treat)
{
    const struct rk_trail at = {.up = up, .key = elem->key, .key_len = elem->key_len};
    struct rk_bson_view view;
    if (!rk_bson_elem_view(elem, &view)) {
        return rk_decrypt_elem(&r->d, NULL, elem, up);
    }
    rk_bson_begin_sub(r->d.w, elem->type, elem->key, elem->key_len);
    enum rk_verdict verdict = each(r, &view, &at, treat);
    rk_bson_end(r->d.w);
    return verdict;
}

static const struct rk_path_node *root_of(const struct rk_policy *policy)
{
    return policy != NULL ? &policy->root : NULL;
}

/* Streams over a database or the whole cluster name no collection of their own
 * ("$cmd.aggregate"); their events do. */
static bool names_collection(const struct rk_command_info *info)
{
    return info->coll[0] != '\0' && info->coll[0] != '$';
}

/* ---- change events */

/* known: false where the event does not tell its collection. */
static const struct rk_policy *event_policy(const struct rk_reply *r,
                                            const struct rk_bson_view *event, bool *known)
{
    struct rk_bson_elem ns, db, coll;
    struct rk_bson_view view;
    const char *db_name, *coll_name;
    uint32_t db_len, coll_len;
    *known = false;
    if (!rk_bson_find(event, "ns", &ns) || !rk_bson_elem_view(&ns, &view)) {
        return r->info->policy; /* projected away: the stream is that of the command's collection */
    }
    if (!rk_bson_find(&view, "db", &db) || !rk_bson_elem_utf8(&db, &db_name, &db_len) ||
        !rk_bson_find(&view, "coll", &coll) || !rk_bson_elem_utf8(&coll, &coll_name, &coll_len)) {
        return NULL;
    }
    *known = true;
    return rk_policy_find(r->set, db_name, db_len, coll_name, coll_len);
}

bool rk_reply_is_event(const struct rk_bson_view *doc)
{
    struct rk_bson_elem id, data;
    struct rk_bson_view view;
    return rk_bson_find(doc, "_id", &id) && rk_bson_elem_view(&id, &view) &&
           rk_bson_find(&view, "_data", &data);
}

/*
 * Keys of updatedFields are dotted paths with array indexes. An index at the end is an element of
 * an array that stands at the path without it.
 */
static enum rk_verdict updated_field(struct rk_reply *r, const struct rk_bson_elem *elem,
                                     const struct rk_trail *up)
{
    size_t len = elem->key_len;
    for (;;) {
        const char *dot = memrchr(elem->key, '.', len);
        if (dot == NULL || !rk_path_is_index(dot + 1, len - (size_t)(dot + 1 - elem->key))) {
            break;
        }
        len = (size_t)(dot - elem->key);
    }
    const struct rk_path_node *node = NULL;
    if (r->event_policy != NULL) {
        node = rk_path_relate(r->event_policy, elem->key, len).node;
    }
    return rk_decrypt_elem(&r->d, node, elem, up);
}

static enum rk_verdict update_description(struct rk_reply *r, const struct rk_bson_elem *elem,
                                          const struct rk_trail *up)
{
    return rk_bson_key_is(elem, "updatedFields") ? inside(r, elem, up, updated_field)
                                                 : rk_decrypt_elem(&r->d, NULL, elem, up);
}

static enum rk_verdict event_elem(struct rk_reply *r, const struct rk_bson_elem *elem,
                                  const struct rk_trail *up)
{
    if (rk_bson_key_is(elem, "fullDocument") || rk_bson_key_is(elem, "fullDocumentBeforeChange")) {
        return rk_decrypt_elem(&r->d, root_of(r->event_policy), elem, up);
    }
    if (rk_bson_key_is(elem, "updateDescription")) {
        return inside(r, elem, up, update_description);
    }
    /* An ordinary document can look like an event; its own fields must not suffer for it. */
    const struct rk_path_node *node = root_of(r->info->policy);
    if (node != NULL) {
        node = rk_path_step(node, false, elem->key, elem->key_len);
    }
    return rk_decrypt_elem(&r->d, node, elem, up);
}

/* Among the events of many collections, those of one without a policy are treated as it is. */
static enum rk_verdict event(struct rk_reply *r, const struct rk_bson_elem *elem,
                             const struct rk_bson_view *doc, const struct rk_trail *up)
{
    bool known;
    const enum rk_undecryptable usual = r->d.undecryptable;
    const struct rk_policy *policy = r->d.policy;
    r->event_policy = event_policy(r, doc, &known);
    r->d.policy = r->event_policy;
    if (known && r->event_policy == NULL && !names_collection(r->info)) {
        r->d.undecryptable = RK_UNDECRYPTABLE_LEAVE;
    }
    enum rk_verdict verdict = inside(r, elem, up, event_elem);
    r->d.undecryptable = usual;
    r->d.policy = policy;
    return verdict;
}

/* ---- the shapes of replies */

static enum rk_verdict batch_elem(struct rk_reply *r, const struct rk_bson_elem *elem,
                                  const struct rk_trail *up)
{
    struct rk_bson_view doc;
    if (elem->type == RK_BSON_DOCUMENT && rk_bson_elem_view(elem, &doc) &&
        rk_reply_is_event(&doc)) {
        return event(r, elem, &doc, up);
    }
    return rk_decrypt_elem(&r->d, root_of(r->info->policy), elem, up);
}

static enum rk_verdict cursor_elem(struct rk_reply *r, const struct rk_bson_elem *elem,
                                   const struct rk_trail *up)
{
    if (rk_bson_key_is(elem, "firstBatch") || rk_bson_key_is(elem, "nextBatch")) {
        /* Of the commands that have statements only bulkWrite answers by a cursor. */
        bool results = r->info->write_errors != NULL;
        return inside(r, elem, up, results ? rk_reply_bulk_result : batch_elem);
    }
    return rk_decrypt_elem(&r->d, NULL, elem, up);
}

static enum rk_verdict body_elem(struct rk_reply *r, const struct rk_bson_elem *elem,
                                 const struct rk_trail *up)
{
    if (rk_bson_key_is(elem, "cursor")) {
        return inside(r, elem, up, cursor_elem);
    }
    if (rk_bson_key_is(elem, "value")) {
        return rk_decrypt_elem(&r->d, root_of(r->info->policy), elem, up);
    }
    if (rk_bson_key_is(elem, "values") && r->distinct != NULL) {
        return rk_reply_distinct(r, elem, up);
    }
    if (rk_bson_key_is(elem, "writeErrors")) {
        return inside(r, elem, up, rk_reply_write_error);
    }
    return rk_decrypt_elem(&r->d, NULL, elem, up);
}

/* ---- whole messages */

/* May there be legacy values at known places? */
static bool legacy_possible(const struct rk_policy_set *set, const struct rk_command_info *info)
{
    if (info->policy != NULL) {
        return info->policy->has_legacy;
    }
    return rk_policy_set_has_legacy(set) && !names_collection(info);
}

static enum rk_verdict write_doc(struct rk_reply *r, const struct rk_bson_view *view, bool shaped,
                                 const struct rk_path_node *node)
{
    rk_bson_begin(r->d.w);
    enum rk_verdict verdict = shaped ? each(r, view, NULL, body_elem)
                                     : rk_decrypt_elements(&r->d, node, false, view, NULL);
    rk_bson_end(r->d.w);
    return verdict;
}

/* mongod sends no document sequences in replies today; what holds for batches holds for them. */
static enum rk_verdict write_sequence(struct rk_reply *r, const struct rk_msg_sequence *sequence,
                                      bool legacy)
{
    struct rk_bson_writer *w = r->d.w;
    size_t off = 0;
    struct rk_bson_view view;
    w->status = rk_msg_section_sequence(w->out, sequence->id, &off);
    for (uint32_t pos = 0; pos < sequence->docs_len && w->status == RK_OK; pos += view.len) {
        if (!rk_bson_view_init(&view, sequence->docs + pos, sequence->docs_len - pos)) {
            return rk_decrypt_malformed(&r->d, NULL);
        }
        enum rk_verdict verdict =
            write_doc(r, &view, false, legacy ? root_of(r->info->policy) : NULL);
        if (verdict != RK_VERDICT_FORWARD) {
            return verdict;
        }
    }
    if (w->status == RK_OK) {
        rk_msg_sequence_end(w->out, off);
    }
    return RK_VERDICT_FORWARD;
}

/*
 * A collection without a policy holds what its applications wrote: bytes that only look like an
 * envelope are theirs, and must not keep anyone from reading.
 */
static enum rk_undecryptable undecryptable_in(const struct rk_reply *r)
{
    return names_collection(r->info) && r->info->policy == NULL
               ? RK_UNDECRYPTABLE_LEAVE
               : rk_policy_set_undecryptable(r->set);
}

static enum rk_verdict write_message(struct rk_reply *r, struct rk_crypt *crypt,
                                     const struct rk_msg *msg, bool legacy, struct rk_buf *out,
                                     struct rk_error *err)
{
    size_t start = 0;
    struct rk_bson_writer w;
    struct rk_bson_view body;
    enum rk_undecryptable undecryptable = undecryptable_in(r);
    bool shaped = legacy || r->distinct != NULL || r->info->write_errors != NULL ||
                  !names_collection(r->info);
    rk_bson_writer_init(&w, out);
    rk_decrypt_init(&r->d, crypt, undecryptable, r->ns, msg->body, msg->body_len, &w, err);
    r->d.policy = r->info->policy;
    if (!rk_bson_view_init(&body, msg->body, msg->body_len)) {
        return rk_decrypt_malformed(&r->d, NULL);
    }
    w.status = rk_msg_begin(out, msg->frame.request_id, msg->frame.response_to, msg->flags, &start);
    if (w.status == RK_OK) {
        w.status = rk_msg_section_body(out);
    }
    enum rk_verdict verdict = write_doc(r, &body, shaped, NULL);
    bool changed = r->d.changed;
    for (unsigned i = 0; i < msg->n_sequences && verdict == RK_VERDICT_FORWARD && w.status == RK_OK;
         i++) {
        const struct rk_msg_sequence *sequence = &msg->sequences[i];
        rk_decrypt_init(&r->d, crypt, undecryptable, r->ns, sequence->docs, sequence->docs_len, &w,
                        err);
        r->d.policy = r->info->policy;
        verdict = write_sequence(r, sequence, legacy);
        changed = changed || r->d.changed;
    }
    if (verdict == RK_VERDICT_FORWARD && w.status == RK_OK) {
        rk_msg_end(out, start);
        return changed ? RK_VERDICT_REPLACE : RK_VERDICT_FORWARD;
    }
    return rk_document_verdict(&w, verdict, r->ns, err);
}

enum rk_verdict rk_reply_rewrite(const struct rk_policy_set *set, struct rk_crypt *crypt,
                                 const struct rk_command_info *info, const uint8_t *data,
                                 size_t len, const struct rk_msg *msg, struct rk_buf *out,
                                 struct rk_error *err)
{
    rk_buf_clear(out);
    if (info->reply != RK_REPLY_SCAN) {
        return RK_VERDICT_FORWARD;
    }
    bool legacy = legacy_possible(set, info);
    if (!legacy && info->write_errors == NULL && rk_envelope_scan(data, len) == NULL) {
        return RK_VERDICT_FORWARD;
    }
    struct rk_reply r = {.set = set, .info = info};
    (void)snprintf(r.ns, sizeof r.ns, "%s%s%s", info->db, info->coll[0] != '\0' ? "." : "",
                   info->coll);
    if (info->policy != NULL && info->distinct_field != NULL) {
        const char *path = info->distinct_field->path;
        r.distinct = rk_path_relate(info->policy, path, strlen(path)).node;
    }
    const struct rk_crypt_pass pass = rk_crypt_begin(crypt);
    enum rk_verdict verdict = write_message(&r, crypt, msg, legacy, out, err);
    verdict = rk_crypt_end(crypt, &pass, verdict);
    if (verdict != RK_VERDICT_REPLACE) {
        rk_buf_clear(out);
    }
    return verdict;
}
