/*
 * The batches of a command: documents, updates, deletes or ops, in an array of the body or in a
 * document sequence.
 *
 * What cannot be stored because of its own data (a type that cannot be encrypted, a size that only
 * encryption brought about) is an error of that statement alone, as it would be to mongod. The
 * statement is replaced by one that every server refuses, and its error is put into the reply. So
 * the server itself stops an ordered batch there, aborts a transaction, numbers statements for
 * retries and upserts, and answers a batch of which nothing is left.
 */
#include "command_internal.h"

#include <rekey/wire/limits.h>

void rk_batch_put_refused_document(struct rk_bson_writer *w)
{
    rk_bson_begin_sub(w, RK_BSON_ARRAY, "_id", strlen("_id")); /* no _id can be an array */
    rk_bson_end(w);
}

/* An operator that no server has, in a filter and in an update. */
void rk_batch_put_refused_operator(const char *key, struct rk_bson_writer *w)
{
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, key, strlen(key));
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "$rekeyRefused", strlen("$rekeyRefused"));
    rk_bson_end(w);
    rk_bson_end(w);
}

static void put_document(const struct rk_bson_view *was, struct rk_bson_writer *w)
{
    (void)was;
    rk_batch_put_refused_document(w);
}

static bool always(const struct rk_bson_view *was)
{
    (void)was;
    return true;
}

static bool never(const struct rk_bson_view *was)
{
    (void)was;
    return false;
}

static void put_update(const struct rk_bson_view *was, struct rk_bson_writer *w)
{
    (void)was;
    rk_batch_put_refused_operator("q", w);
    rk_batch_put_refused_operator("u", w);
}

static void put_delete(const struct rk_bson_view *was, struct rk_bson_writer *w)
{
    (void)was;
    rk_batch_put_refused_operator("q", w);
    rk_bson_put_int32(w, "limit", 1);
}

static const struct batch {
    const char *name;
    void (*put)(const struct rk_bson_view *was, struct rk_bson_writer *w);
    bool (*inserts)(const struct rk_bson_view *was);
} batches[] = {
    {"documents", put_document, always},
    {"updates", put_update, never},
    {"deletes", put_delete, never},
    {"ops", rk_bulk_put_refused, rk_bulk_inserts},
};

/* NULL: no batch of writes, errors are those of the command. */
static const struct batch *batch_find(const struct rk_statement *st, const char *name)
{
    for (size_t i = 0; st->msg != NULL && i < sizeof batches / sizeof batches[0]; i++) {
        if (strcmp(batches[i].name, name) == 0) {
            return &batches[i];
        }
    }
    return NULL;
}

/* Is the error one that mongod, too, would tell of this statement alone? Operators that do not
 * parse are (rk_update_rewrite sets RK_EINVAL); what only Rekey refuses is a mistake of the program
 * that sends it. */
static bool concerns_statement(const struct rk_error *err)
{
    return err != NULL && (err->code == RK_CODE_UNENCRYPTABLE || err->code == RK_CODE_DOLLAR_KEY ||
                           err->code == RK_CODE_DOTTED_KEY ||
                           (err->code == RK_CODE_FAILED_TO_PARSE && err->status == RK_EINVAL));
}

static bool outgrown(const struct rk_bson_view *was, size_t len)
{
    return len > RK_OBJECT_BYTES_MAX && was->len <= RK_OBJECT_BYTES_MAX;
}

static enum rk_verdict refuse_outgrown(const struct rk_statement *st, bool inserts, size_t len)
{
    (void)rk_error_set_code(st->scope.err, RK_EREFUSED,
                            inserts ? RK_CODE_BAD_VALUE : RK_CODE_TOO_LARGE,
                            "%s: object to %s too large once its fields are encrypted. size in "
                            "bytes: %zu, max size: %u",
                            st->scope.ns, inserts ? "insert" : "write", len,
                            inserts ? RK_DOCUMENT_BYTES_MAX : RK_OBJECT_BYTES_MAX);
    return RK_VERDICT_REJECT;
}

static enum rk_verdict remember(struct rk_statement *st, uint32_t index)
{
    struct rk_command_info *info = st->info;
    enum rk_status status =
        info->write_errors != NULL ? RK_OK : rk_write_errors_new(&info->write_errors);
    if (status == RK_OK) {
        status = rk_write_errors_add(info->write_errors, index, st->scope.err);
    }
    if (status == RK_ENOMEM) {
        return rk_refuse(&st->scope, RK_CODE_MEMORY, info->name, NULL, 0, "out of memory");
    }
    /* Too many to be kept: the last one stands for all, and for the whole command. */
    return status == RK_OK ? RK_VERDICT_REPLACE : RK_VERDICT_REJECT;
}

/* Fills and closes the document that is open in w. */
static enum rk_verdict rewrite_member(struct rk_statement *st, const struct rk_command_field *rule,
                                      uint32_t index, const struct rk_bson_view *member,
                                      struct rk_bson_writer *w)
{
    const struct batch *batch = batch_find(st, rule->name);
    const size_t content = w->out->len;
    const unsigned depth = w->depth;
    enum rk_verdict verdict = rule->member(st, member, w);
    bool refused = verdict == RK_VERDICT_REJECT && concerns_statement(st->scope.err);
    if (!rk_stops(verdict)) {
        rk_bson_end(w);
        size_t len = w->out->len - content + sizeof(uint32_t);
        if (batch != NULL && w->status == RK_OK && outgrown(member, len)) {
            verdict = refuse_outgrown(st, batch->inserts(member), len);
            refused = true;
        }
    }
    if (batch == NULL || !refused || st->whole_errors || w->status != RK_OK) {
        return verdict;
    }
    verdict = remember(st, index);
    if (!rk_stops(verdict)) {
        w->out->len = content;
        w->depth = depth;
        batch->put(member, w);
        rk_bson_end(w);
    }
    return verdict;
}

/* Appends the members of an array as those of an array (keyed) or of a sequence. */
static enum rk_verdict rewrite_array(struct rk_statement *st, const struct rk_command_field *rule,
                                     const struct rk_bson_elem *elem, bool keyed,
                                     struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view array;
    struct rk_bson_view member;
    struct rk_bson_iter iter;
    struct rk_bson_elem item;
    if (elem->type != RK_BSON_ARRAY || !rk_bson_elem_view(elem, &array)) {
        return rk_refuse(&st->scope, RK_CODE_TYPE_MISMATCH, elem->key, NULL, 0, "must be an array");
    }
    rk_bson_iter_init(&iter, &array);
    for (uint32_t i = 0; rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM && !rk_stops(verdict);
         i++) {
        if (item.type != RK_BSON_DOCUMENT || !rk_bson_elem_view(&item, &member)) {
            return rk_refuse(&st->scope, RK_CODE_TYPE_MISMATCH, elem->key, NULL, 0,
                             "every member must be a document");
        }
        if (keyed) {
            rk_bson_begin_sub(w, RK_BSON_DOCUMENT, item.key, item.key_len);
        } else {
            rk_bson_begin(w);
        }
        verdict = rk_worse(verdict, rewrite_member(st, rule, i, &member, w));
    }
    return verdict;
}

enum rk_verdict rk_batch_rewrite_array(struct rk_statement *st, const struct rk_command_field *rule,
                                       const struct rk_bson_elem *elem, struct rk_bson_writer *w)
{
    if (batch_find(st, rule->name) != NULL) {
        st->batch = *elem;
        st->batch_rule = rule;
        if (st->batch_moves) {
            return RK_VERDICT_REPLACE;
        }
    }
    rk_bson_begin_sub(w, RK_BSON_ARRAY, elem->key, elem->key_len);
    enum rk_verdict verdict = rewrite_array(st, rule, elem, true, w);
    if (!rk_stops(verdict)) {
        rk_bson_end(w);
    }
    return verdict;
}

enum rk_verdict rk_batch_rewrite_moved(struct rk_statement *st, struct rk_bson_writer *w)
{
    size_t seq_off = 0;
    if (w->status == RK_OK) {
        w->status = rk_msg_section_sequence(w->out, st->batch_rule->name, &seq_off);
    }
    enum rk_verdict verdict = rewrite_array(st, st->batch_rule, &st->batch, false, w);
    if (w->status == RK_OK) {
        rk_msg_sequence_end(w->out, seq_off);
    }
    return verdict;
}

bool rk_batch_must_move(const struct rk_statement *st, size_t body_len)
{
    if (st->batch_rule == NULL || st->batch_moves || body_len <= RK_OBJECT_BYTES_MAX ||
        st->msg->body_len > RK_OBJECT_BYTES_MAX) {
        return false;
    }
    for (unsigned i = 0; i < st->msg->n_sequences; i++) {
        if (strcmp(st->msg->sequences[i].id, st->batch_rule->name) == 0) {
            return false; /* there twice: mongod refuses it */
        }
    }
    return true;
}

enum rk_verdict rk_batch_rewrite_sequence(struct rk_statement *st,
                                          const struct rk_command_field *rule,
                                          const struct rk_msg_sequence *seq,
                                          struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    bool copied = rule == NULL || rule->member == NULL;
    struct rk_bson_view document;
    size_t seq_off = 0;
    uint32_t index = 0;
    if (st->scope.policy != NULL && copied) {
        return rk_refuse(&st->scope, RK_CODE_NOT_SUPPORTED, "document sequence", seq->id,
                         seq->id_len, "this command takes no such documents");
    }
    if (w->status == RK_OK) {
        w->status = rk_msg_section_sequence(w->out, seq->id, &seq_off);
    }
    for (uint32_t off = 0; off < seq->docs_len && !rk_stops(verdict); off += document.len) {
        if (!rk_bson_view_init(&document, seq->docs + off, seq->docs_len - off)) {
            return rk_refuse(&st->scope, RK_CODE_INVALID_BSON, seq->id, NULL, 0, "malformed BSON");
        }
        if (copied) {
            if (w->status == RK_OK) {
                w->status = rk_buf_append(w->out, document.data, document.len);
            }
            continue;
        }
        rk_bson_begin(w);
        verdict = rk_worse(verdict, rewrite_member(st, rule, index++, &document, w));
    }
    if (w->status == RK_OK) {
        rk_msg_sequence_end(w->out, seq_off);
    }
    return verdict;
}
