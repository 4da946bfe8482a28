/*
 * Requests: the cheap look that lets unconcerned messages through, and the rewrite of the rest.
 * Which command means what is in command_table.c.
 */
#include "command_internal.h"

#include <stdio.h>

/* What the top level of a command document says about where it goes. */
struct target {
    struct rk_text db;
    struct rk_text coll;
    struct rk_bson_elem first;
    struct rk_bson_elem pipeline;
    bool has_pipeline;
};

static void copy_name(char *out, size_t size, struct rk_text text)
{
    size_t n = text.len < size - 1 ? text.len : size - 1;
    memcpy(out, text.at, n);
    out[n] = '\0';
}

/* One pass over the top level. False: malformed, or ambiguous about its database. */
static bool target_read(const struct rk_bson_view *view, struct target *t)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    enum rk_bson_step step;
    bool has_db = false;
    *t = (struct target){.db = {"", 0}};
    rk_bson_iter_init(&iter, view);
    if (rk_bson_next(&iter, &t->first) != RK_BSON_STEP_ELEM) {
        return false;
    }
    t->coll = rk_elem_text(&t->first);
    bool get_more = rk_bson_key_is(&t->first, "getMore");
    while ((step = rk_bson_next(&iter, &elem)) == RK_BSON_STEP_ELEM) {
        if (elem.key[0] == '$' && rk_bson_key_is(&elem, "$db")) {
            if (has_db) {
                return false;
            }
            has_db = true;
            t->db = rk_elem_text(&elem);
        } else if (elem.key[0] == 'p' && rk_bson_key_is(&elem, "pipeline")) {
            t->pipeline = elem;
            t->has_pipeline = true;
        } else if (get_more && rk_bson_key_is(&elem, "collection")) {
            t->coll = rk_elem_text(&elem);
        }
    }
    return step == RK_BSON_STEP_END;
}

/* A collection by its name, and nothing that mongod and Rekey could read differently. */
static bool names_collection(const struct target *t)
{
    return t->coll.len > 0 && memchr(t->coll.at, '\0', t->coll.len) == NULL;
}

/* Is the first value a collection's name, fit to be shown? Of an unknown command it may be
 * anything, and so it may of those that reach other databases. */
static bool takes_collection(const struct rk_command_spec *spec)
{
    return spec != NULL && (spec->kind != RK_KIND_CROSS || spec->klass == RK_CLASS_READ);
}

static bool is_aggregate(const struct rk_command_spec *spec)
{
    return spec->fields == rk_fields_aggregate;
}

/* Any other command stays in its database when it is explained. */
static bool explains_bulk_write(const struct target *t)
{
    struct rk_bson_view inner;
    struct rk_bson_elem elem;
    return rk_bson_elem_view(&t->first, &inner) && rk_bson_find(&inner, "bulkWrite", &elem);
}

bool rk_command_peek(const struct rk_policy_set *set, const uint8_t *body, uint32_t body_len,
                     struct rk_command_info *info)
{
    struct rk_bson_view view;
    struct target t;
    *info = (struct rk_command_info){.klass = RK_CLASS_OTHER, .reply = RK_REPLY_PASS};
    if (!rk_bson_view_init(&view, body, body_len) || !target_read(&view, &t)) {
        return false;
    }
    const struct rk_command_spec *spec = rk_command_spec_find(t.first.key, t.first.key_len);
    copy_name(info->name, sizeof info->name, (struct rk_text){t.first.key, t.first.key_len});
    copy_name(info->db, sizeof info->db, t.db);
    info->klass = spec != NULL ? spec->klass : RK_CLASS_OTHER;
    if (spec != NULL && spec->kind == RK_KIND_HELLO) {
        info->reply = RK_REPLY_HELLO;
        return !rk_asks_x509(spec, &view);
    }
    if (spec != NULL && spec->kind == RK_KIND_SESSION) {
        return !rk_asks_x509(spec, &view);
    }
    if (takes_collection(spec)) {
        copy_name(info->coll, sizeof info->coll, t.coll);
    }
    if (rk_policy_set_empty(set)) {
        return true;
    }
    bool covered = rk_policy_covers_db(set, t.db.at, t.db.len);
    bool change_streams = info->klass == RK_CLASS_READ && rk_text_is(t.db, "admin");
    info->reply = covered || change_streams ? RK_REPLY_SCAN : RK_REPLY_PASS;
    info->policy = covered ? rk_scope_find(set, t.db.at, t.db.len, t.coll.at, t.coll.len) : NULL;
    if (spec == NULL) {
        return info->policy == NULL;
    }
    if (rk_bson_key_is(&t.first, "getMore")) {
        (void)rk_bson_elem_int(&t.first, &info->cursor_id);
    }
    switch (spec->kind) {
    case RK_KIND_HELLO:
    case RK_KIND_SESSION:
    case RK_KIND_PLAIN:
        return true;
    case RK_KIND_REWRITE:
    case RK_KIND_REFUSE:
        return !covered || (info->policy == NULL && names_collection(&t));
    case RK_KIND_DATABASE:
        return !covered;
    case RK_KIND_CROSS:
        break;
    }
    if (is_aggregate(spec)) {
        return !covered && (!t.has_pipeline || !rk_pipeline_reaches_out(&t.pipeline));
    }
    return spec->check == NULL && !covered && !explains_bulk_write(&t);
}

/* ---- the whole message */

static enum rk_verdict rewrite_element(struct rk_statement *st, const struct rk_command_field *rule,
                                       const struct rk_bson_elem *elem, struct rk_bson_writer *w)
{
    if (rule != NULL && rule->value != NULL) {
        return rule->value(st, elem, w);
    }
    if (rule != NULL && rule->member != NULL) {
        return rk_batch_rewrite_array(st, rule, elem, w);
    }
    rk_bson_copy(w, elem);
    return RK_VERDICT_FORWARD;
}

const struct rk_command_field *rk_command_field_find(const struct rk_command_field *fields,
                                                     const char *name)
{
    for (; fields != NULL && fields->name != NULL; fields++) {
        if (strcmp(fields->name, name) == 0) {
            return fields;
        }
    }
    return NULL;
}

enum rk_verdict rk_statement_rewrite(struct rk_statement *st, const struct rk_command_field *fields,
                                     struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, &st->view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_worse(verdict,
                           rewrite_element(st, rk_command_field_find(fields, elem.key), &elem, w));
    }
    return verdict;
}

enum rk_verdict rk_check_buckets(const struct rk_scope *scope, const char *command,
                                 struct rk_text coll)
{
    return scope->policy == NULL || !rk_scope_is_buckets(coll.at, coll.len)
               ? RK_VERDICT_FORWARD
               : rk_refuse(scope, RK_CODE_INVALID_NAMESPACE, command, NULL, 0,
                           "protected fields cannot be found in the buckets of a time series; use "
                           "its own name");
}

/* Places the statement at its collection and asks what the command may do there. *fields are then
 * the rules to rewrite it by. */
static enum rk_verdict prepare(struct rk_statement *st, const struct target *t,
                               const struct rk_command_field **fields)
{
    const struct rk_command_spec *spec = rk_command_spec_find(t->first.key, t->first.key_len);
    int64_t whole_db;
    *fields = NULL;
    const struct rk_text none = {"", 0};
    const struct rk_text coll = spec == NULL || takes_collection(spec) ? t->coll : none;
    st->scope = rk_scope_at(&st->scope, coll.at, coll.len);
    st->info->policy = st->scope.policy;
    if (spec == NULL || spec->kind == RK_KIND_REFUSE) {
        return st->scope.policy == NULL
                   ? RK_VERDICT_FORWARD
                   : rk_refuse(&st->scope, RK_CODE_NOT_SUPPORTED, t->first.key, NULL, 0,
                               "this command is not known to be safe with encrypted fields");
    }
    bool by_name = spec->kind == RK_KIND_REWRITE || spec->kind == RK_KIND_DATABASE;
    if ((by_name || is_aggregate(spec)) && !names_collection(t) &&
        !(is_aggregate(spec) && rk_bson_elem_int(&t->first, &whole_db))) {
        return rk_refuse(&st->scope, RK_CODE_INVALID_NAMESPACE, t->first.key, NULL, 0,
                         "collections of this database must be given by name");
    }
    if (rk_check_buckets(&st->scope, t->first.key, coll) != RK_VERDICT_FORWARD) {
        return RK_VERDICT_REJECT;
    }
    enum rk_verdict verdict = spec->check != NULL ? spec->check(st) : RK_VERDICT_FORWARD;
    if (is_aggregate(spec) || st->scope.policy != NULL) { /* bulkWrite is placed by its check */
        *fields = spec->fields;
    }
    return verdict;
}

/* explain: its first field is the command, the database is the outer one's. */
static enum rk_verdict rewrite_explain(struct rk_statement *st, const struct target *outer,
                                       struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_statement inner = *st;
    const struct rk_command_field *fields;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct target t;
    if (outer->first.type != RK_BSON_DOCUMENT || !rk_bson_elem_view(&outer->first, &inner.view) ||
        !target_read(&inner.view, &t) || rk_bson_key_is(&t.first, "explain") ||
        (st->msg != NULL && st->msg->n_sequences > 0)) {
        return rk_refuse(&st->scope, RK_CODE_FAILED_TO_PARSE, "explain", NULL, 0,
                         "needs one command, given as a document");
    }
    inner.msg = NULL;
    verdict = prepare(&inner, &t, &fields);
    if (rk_stops(verdict)) {
        return verdict;
    }
    if (takes_collection(rk_command_spec_find(t.first.key, t.first.key_len))) {
        copy_name(st->info->coll, sizeof st->info->coll, t.coll);
    }
    rk_bson_begin_sub(w, outer->first.type, outer->first.key, outer->first.key_len);
    verdict = rk_statement_rewrite(&inner, fields, w);
    rk_bson_end(w);
    rk_bson_iter_init(&iter, &st->view);
    (void)rk_bson_next(&iter, &elem); /* the command, just written */
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        rk_bson_copy(w, &elem);
    }
    return verdict;
}

static enum rk_verdict rewrite_body(struct rk_statement *st, const struct target *t,
                                    const struct rk_command_field *fields, struct rk_bson_writer *w)
{
    if (w->status == RK_OK) {
        w->status = rk_msg_section_body(w->out);
    }
    size_t start = w->out->len;
    rk_bson_begin(w);
    enum rk_verdict verdict = rk_bson_key_is(&t->first, "explain")
                                  ? rewrite_explain(st, t, w)
                                  : rk_statement_rewrite(st, fields, w);
    rk_bson_end(w);
    st->body_len = w->out->len - start;
    return verdict;
}

/* Everything that will be walked, nested documents included. */
static bool validate(const struct rk_msg *msg)
{
    struct rk_bson_view view;
    if (!rk_bson_view_init(&view, msg->body, msg->body_len) ||
        !rk_bson_validate(&view, RK_COMMAND_DEPTH_MAX)) {
        return false;
    }
    for (unsigned i = 0; i < msg->n_sequences; i++) {
        const struct rk_msg_sequence *seq = &msg->sequences[i];
        for (uint32_t off = 0; off < seq->docs_len; off += view.len) {
            if (!rk_bson_view_init(&view, seq->docs + off, seq->docs_len - off) ||
                !rk_bson_validate(&view, RK_COMMAND_DEPTH_MAX)) {
                return false;
            }
        }
    }
    return true;
}

static enum rk_verdict rewrite_sections(struct rk_statement *st, const struct target *t,
                                        const struct rk_command_field *fields,
                                        struct rk_bson_writer *w)
{
    const struct rk_msg *msg = st->msg;
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    bool body_done = false;
    for (unsigned i = 0; i <= msg->n_sequences && !rk_stops(verdict); i++) {
        bool after = i == msg->n_sequences || msg->sequences[i].docs > msg->body;
        if (after && !body_done) {
            verdict = rk_worse(verdict, rewrite_body(st, t, fields, w));
            body_done = true;
        }
        if (i < msg->n_sequences && !rk_stops(verdict)) {
            const struct rk_msg_sequence *seq = &msg->sequences[i];
            verdict = rk_worse(verdict, rk_batch_rewrite_sequence(
                                            st, rk_command_field_find(fields, seq->id), seq, w));
        }
    }
    if (st->batch_moves && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, rk_batch_rewrite_moved(st, w));
    }
    return verdict;
}

static enum rk_verdict rewrite_message(struct rk_statement *st, const struct target *t,
                                       const struct rk_command_field *fields, struct rk_buf *out)
{
    const struct rk_msg *msg = st->msg;
    struct rk_bson_writer w;
    size_t msg_off = 0;
    rk_buf_clear(out);
    rk_bson_writer_init(&w, out);
    w.status =
        rk_msg_begin(out, msg->frame.request_id, msg->frame.response_to, msg->flags, &msg_off);
    enum rk_verdict verdict = rewrite_sections(st, t, fields, &w);
    if (rk_stops(verdict)) {
        return verdict;
    }
    if (rk_bson_writer_status(&w) == RK_ELIMIT) {
        return rk_refuse(&st->scope, RK_CODE_TOO_LARGE, st->info->name, NULL, 0,
                         "the message outgrew the size limit through encryption; send smaller "
                         "batches");
    }
    if (rk_bson_writer_status(&w) != RK_OK) {
        return rk_refuse(&st->scope, RK_CODE_MEMORY, st->info->name, NULL, 0, "out of memory");
    }
    rk_msg_end(out, msg_off);
    return verdict;
}

static void forget_errors(struct rk_command_info *info)
{
    rk_write_errors_free(info->write_errors);
    info->write_errors = NULL;
}

static enum rk_verdict rewrite(const struct rk_policy_set *set, struct rk_crypt *crypt,
                               const struct rk_msg *msg, struct rk_buf *out,
                               struct rk_command_info *info, struct rk_error *err)
{
    struct rk_buf namespaces;
    struct rk_statement st = {.scope = {.set = set, .crypt = crypt, .err = err},
                              .msg = msg,
                              .info = info,
                              .view = {msg->body, msg->body_len},
                              .namespaces = &namespaces};
    const struct rk_command_field *fields = NULL;
    struct target t;
    if (!validate(msg) || !target_read(&st.view, &t)) {
        rk_error_set_code(err, RK_EINVAL, RK_CODE_INVALID_BSON,
                          "%s: malformed or too deeply nested BSON, or more than one $db",
                          info->name);
        return RK_VERDICT_REJECT;
    }
    st.scope.db = t.db.at;
    st.scope.db_len = t.db.len;
    rk_bulk_namespaces_init(&namespaces);
    crypt->keys_bound = false;
    enum rk_verdict verdict = prepare(&st, &t, &fields);
    if (!rk_stops(verdict)) {
        verdict = rewrite_message(&st, &t, fields, out);
    }
    if (!rk_stops(verdict) && rk_batch_must_move(&st, st.body_len)) {
        /* In a sequence of its own the batch may be as long as the message. */
        forget_errors(info);
        st.batch_moves = true;
        rk_remote_rewind(rk_aead_remote(crypt->aead)); /* it asks the same again */
        verdict = rewrite_message(&st, &t, fields, out);
    }
    rk_buf_deinit(&namespaces);
    info->keys_bound = crypt->keys_bound;
    return verdict;
}

enum rk_verdict rk_command_rewrite(const struct rk_policy_set *set, struct rk_crypt *crypt,
                                   const uint8_t *data, size_t len, const struct rk_msg *msg,
                                   struct rk_buf *out, struct rk_command_info *info,
                                   struct rk_error *err)
{
    (void)data;
    (void)len;
    rk_buf_clear(out);
    if (rk_command_peek(set, msg->body, msg->body_len, info)) {
        return RK_VERDICT_FORWARD;
    }
    const struct rk_crypt_pass pass = rk_crypt_begin(crypt);
    crypt->tenant = (struct rk_tenant){.n_fields = 0};
    enum rk_verdict verdict = rewrite(set, crypt, msg, out, info, err);
    verdict = rk_crypt_end(crypt, &pass, verdict);
    if (rk_stops(verdict)) {
        forget_errors(info);
    }
    return verdict;
}
