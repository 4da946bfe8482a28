/*
 * bulkWrite (MongoDB 8.0): inserts, updates and deletes of several collections in one command. An
 * op names its collection by an index into nsInfo, and is rewritten by the rules of the statement
 * that it is (command_fields.c), in that collection's scope.
 *
 * nsInfo may come after the ops, so it is read first. As long as none of its collections is
 * protected, the ops are nobody's business; else one that is not understood is refused.
 */
#include "command_internal.h"

#define NAMESPACES_MAX 100000u /* as many as mongod takes ops */

struct bulk_namespace {
    struct rk_text db;
    struct rk_text coll;
    const struct rk_policy *policy; /* NULL: unprotected */
};

static void put_insert(struct rk_bson_writer *w)
{
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "document", strlen("document"));
    rk_batch_put_refused_document(w);
    rk_bson_end(w);
}

static void put_update(struct rk_bson_writer *w)
{
    rk_batch_put_refused_operator("filter", w);
    rk_batch_put_refused_operator("updateMods", w);
}

static void put_delete(struct rk_bson_writer *w)
{
    rk_batch_put_refused_operator("filter", w);
}

static const struct op {
    const char *name;
    const struct rk_command_field *fields;
    void (*put_refused)(struct rk_bson_writer *w);
} kinds[] = {
    {"insert", rk_fields_insert_op, put_insert},
    {"update", rk_fields_update_op, put_update},
    {"delete", rk_fields_delete_op, put_delete},
};

static const struct op *kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            return &kinds[i];
        }
    }
    return NULL;
}

/* ---- nsInfo */

static struct rk_scope scope_of(const struct rk_statement *st, const struct bulk_namespace *ns)
{
    struct rk_scope scope = st->scope;
    scope.db = ns->db.at;
    scope.db_len = ns->db.len;
    return rk_scope_at(&scope, ns->coll.at, ns->coll.len);
}

/* False: not the one string that mongod asks for. */
static bool ns_of(const struct rk_bson_view *info, struct rk_text *ns)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    unsigned n = 0;
    rk_bson_iter_init(&iter, info);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (rk_bson_key_is(&elem, "ns")) {
            *ns = rk_elem_text(&elem);
            n++;
        }
    }
    return n == 1;
}

static enum rk_verdict read_namespace(void *arg, const struct rk_bson_view *info,
                                      struct rk_bson_writer *w)
{
    struct rk_statement *st = arg;
    struct rk_text text = {"", 0};
    (void)w;
    const char *dot = ns_of(info, &text) ? memchr(text.at, '.', text.len) : NULL;
    if (dot == NULL || dot == text.at || dot + 1 == text.at + text.len ||
        memchr(text.at, '\0', text.len) != NULL) {
        return rk_refuse(&st->scope, RK_CODE_INVALID_NAMESPACE, "nsInfo", NULL, 0,
                         "every member needs one ns, of the form database.collection");
    }
    uint32_t db_len = (uint32_t)(dot - text.at);
    struct bulk_namespace ns = {.db = {text.at, db_len}, .coll = {dot + 1, text.len - db_len - 1}};
    struct rk_scope scope = scope_of(st, &ns);
    ns.policy = scope.policy;
    switch (rk_buf_append(st->namespaces, &ns, sizeof ns)) {
    case RK_OK:
        return rk_check_buckets(&scope, "nsInfo", ns.coll);
    case RK_ELIMIT:
        return rk_refuse(&st->scope, RK_CODE_TOO_LARGE, "nsInfo", NULL, 0,
                         "more namespaces than a command may have ops");
    default:
        return rk_refuse(&st->scope, RK_CODE_MEMORY, "nsInfo", NULL, 0, "out of memory");
    }
}

static enum rk_verdict read_array(struct rk_statement *st, const struct rk_bson_elem *array)
{
    struct rk_buf nothing;
    struct rk_bson_writer w;
    rk_buf_init(&nothing, RK_FRAME_LEN_MAX);
    rk_bson_writer_init(&w, &nothing);
    rk_bson_begin(&w);
    enum rk_verdict verdict = rk_rewrite_members(&st->scope, array, read_namespace, st, &w);
    rk_buf_deinit(&nothing);
    return verdict;
}

static enum rk_verdict read_sequence(struct rk_statement *st, const struct rk_msg_sequence *seq)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view info;
    for (uint32_t off = 0; off < seq->docs_len && !rk_stops(verdict); off += info.len) {
        verdict =
            rk_bson_view_init(&info, seq->docs + off, seq->docs_len - off)
                ? read_namespace(st, &info, NULL)
                : rk_refuse(&st->scope, RK_CODE_INVALID_BSON, seq->id, NULL, 0, "malformed BSON");
    }
    return verdict;
}

/* Reads nsInfo. mongod refuses what is there twice; whoever counts must not do so by chance. */
static enum rk_verdict read_all(struct rk_statement *st)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    unsigned n_infos = 0;
    unsigned n_ops = 0;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, &st->view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        n_ops += rk_bson_key_is(&elem, "ops") ? 1 : 0;
        if (rk_bson_key_is(&elem, "nsInfo")) {
            n_infos++;
            verdict = read_array(st, &elem);
        }
    }
    for (unsigned i = 0; st->msg != NULL && i < st->msg->n_sequences && !rk_stops(verdict); i++) {
        const struct rk_msg_sequence *seq = &st->msg->sequences[i];
        n_ops += strcmp(seq->id, "ops") == 0 ? 1 : 0;
        if (strcmp(seq->id, "nsInfo") == 0) {
            n_infos++;
            verdict = read_sequence(st, seq);
        }
    }
    if (!rk_stops(verdict) && (n_infos > 1 || n_ops > 1)) {
        return rk_refuse(&st->scope, RK_CODE_FAILED_TO_PARSE, st->info->name, NULL, 0,
                         "ops and nsInfo must be there once");
    }
    return verdict;
}

static size_t namespaces_count(const struct rk_statement *st)
{
    return st->namespaces->len / sizeof(struct bulk_namespace);
}

static struct bulk_namespace namespace_at(const struct rk_statement *st, size_t i)
{
    struct bulk_namespace ns;
    memcpy(&ns, st->namespaces->data + i * sizeof ns, sizeof ns);
    return ns;
}

/* Does the program want the results in parts? The errors of those that it fetches by getMore would
 * be beyond correction: nothing is known of a cursor's command by then. */
static bool has_batch_size(const struct rk_bson_view *command)
{
    struct rk_bson_elem elem;
    struct rk_bson_view cursor;
    return rk_bson_find(command, "cursor", &elem) && rk_bson_elem_view(&elem, &cursor) &&
           rk_bson_find(&cursor, "batchSize", &elem);
}

void rk_bulk_namespaces_init(struct rk_buf *namespaces)
{
    rk_buf_init(namespaces, NAMESPACES_MAX * sizeof(struct bulk_namespace));
}

enum rk_verdict rk_check_bulk_write(struct rk_statement *st)
{
    st->whole_errors = has_batch_size(&st->view);
    enum rk_verdict verdict = read_all(st);
    for (size_t i = 0; i < namespaces_count(st) && !rk_stops(verdict); i++) {
        struct bulk_namespace ns = namespace_at(st, i);
        if (ns.policy != NULL) {
            /* From here on nothing passes that is not understood, not even a section. */
            st->scope = scope_of(st, &ns);
            st->info->reply = RK_REPLY_SCAN;
            return verdict;
        }
    }
    rk_buf_clear(st->namespaces);
    return verdict;
}

/* ---- ops */

static enum rk_verdict copy_members(const struct rk_bson_view *view, struct rk_bson_writer *w)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        rk_bson_copy(w, &elem);
    }
    return RK_VERDICT_FORWARD;
}

enum rk_verdict rk_bulk_copy_namespace(void *arg, const struct rk_bson_view *info,
                                       struct rk_bson_writer *w)
{
    (void)arg;
    return copy_members(info, w);
}

/* Known fields only, and each of them once: which one of two mongod would take is not to be
 * guessed. */
static enum rk_verdict check_fields(const struct rk_scope *scope, const struct rk_bson_view *view,
                                    const struct rk_command_field *fields)
{
    uint32_t seen = 0;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        const struct rk_command_field *field = rk_command_field_find(fields, elem.key);
        uint32_t bit = field != NULL ? 1u << (field - fields) : 0;
        if (bit == 0 || (seen & bit) != 0) {
            return rk_refuse(scope, RK_CODE_FAILED_TO_PARSE, fields->name, elem.key, elem.key_len,
                             "this field of an op is not known, or it is there twice");
        }
        seen |= bit;
    }
    return RK_VERDICT_FORWARD;
}

/* The index of another namespace would make it an op elsewhere. */
static bool has_one_kind(const struct rk_bson_view *view)
{
    unsigned n = 0;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        n += kind_find(elem.key) != NULL ? 1 : 0;
    }
    return n == 1;
}

static const struct op *kind_of(const struct rk_bson_view *op, struct rk_bson_elem *first)
{
    struct rk_bson_iter iter;
    rk_bson_iter_init(&iter, op);
    return rk_bson_next(&iter, first) == RK_BSON_STEP_ELEM ? kind_find(first->key) : NULL;
}

enum rk_verdict rk_bulk_rewrite_op(void *arg, const struct rk_bson_view *view,
                                   struct rk_bson_writer *w)
{
    struct rk_statement *st = arg;
    struct rk_bson_elem first;
    int64_t index;
    const struct op *op = kind_of(view, &first);
    if (op == NULL || !has_one_kind(view)) {
        return rk_refuse(&st->scope, RK_CODE_FAILED_TO_PARSE, "ops", NULL, 0,
                         "every op must start as an insert, an update or a delete, and be only "
                         "that");
    }
    if (!rk_bson_elem_int(&first, &index) || index < 0 || (uint64_t)index >= namespaces_count(st)) {
        return rk_refuse(&st->scope, RK_CODE_BAD_VALUE, "ops", NULL, 0,
                         "an op has an invalid nsInfo index");
    }
    struct bulk_namespace ns = namespace_at(st, (size_t)index);
    struct rk_statement at = {.scope = scope_of(st, &ns), .info = st->info};
    if (ns.policy == NULL) {
        return copy_members(view, w);
    }
    memcpy(st->scope.ns, at.scope.ns, sizeof st->scope.ns); /* for what is said of this op */
    enum rk_verdict verdict = check_fields(&at.scope, view, op->fields);
    return rk_stops(verdict) ? verdict : rk_statement_rewrite_inner(&at, view, op->fields, w);
}

void rk_bulk_put_refused(const struct rk_bson_view *op, struct rk_bson_writer *w)
{
    struct rk_bson_elem first;
    const struct op *kind = kind_of(op, &first);
    rk_bson_copy(w, &first);
    kind->put_refused(w);
}

bool rk_bulk_inserts(const struct rk_bson_view *op)
{
    struct rk_bson_elem first;
    return kind_of(op, &first) == &kinds[0];
}
