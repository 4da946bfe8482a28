/*
 * Updates: replacement documents are encrypted like inserts; operator documents by a table of
 * what each operator may do to protected paths. An operator that is not in the table may not
 * touch them.
 */
#include "update_internal.h"

struct update_operator {
    const char *name;
    rk_operator_fn *rewrite;
};

static enum rk_verdict refuse_below(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                    const struct rk_bson_elem *field)
{
    bool positional = rk_scope_relate(scope, field->key, field->key_len).positional;
    return rk_refuse(scope, positional ? RK_CODE_POSITIONAL : RK_CODE_UPDATE_OPERATOR, op->key,
                     field->key, field->key_len,
                     "it lies inside an encrypted value; set the whole protected field");
}

/* $set and $setOnInsert */
static enum rk_verdict rewrite_set(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                   const struct rk_bson_elem *field, struct rk_bson_writer *w)
{
    struct rk_path_match match = rk_scope_relate(scope, field->key, field->key_len);
    if (match.relation == RK_PATH_BELOW) {
        return refuse_below(scope, op, field);
    }
    if (match.relation == RK_PATH_EXACT) {
        return rk_document_encrypt_value(scope->crypt, scope->ns, match.field, field, field->key,
                                         field->key_len, w, scope->err);
    }
    if (match.relation == RK_PATH_UNRELATED) {
        return rk_copy_plain(scope, field, w);
    }
    return rk_update_put_value(scope, match.node, field, w);
}

static enum rk_verdict rewrite_unset(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                     const struct rk_bson_elem *field, struct rk_bson_writer *w)
{
    struct rk_path_match match = rk_scope_relate(scope, field->key, field->key_len);
    if (match.relation == RK_PATH_BELOW) {
        return refuse_below(scope, op, field);
    }
    rk_bson_copy(w, field);
    return RK_VERDICT_FORWARD;
}

static enum rk_verdict rewrite_rename(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                      const struct rk_bson_elem *field, struct rk_bson_writer *w)
{
    struct rk_text target = rk_elem_text(field);
    const char *advice = "a renamed value would leave the policy; read it and write it back";
    if (rk_scope_touches(scope, field->key, field->key_len)) {
        return rk_refuse(scope, RK_CODE_RENAME_SOURCE, op->key, field->key, field->key_len, advice);
    }
    if (rk_scope_touches(scope, target.at, target.len)) {
        return rk_refuse(scope, RK_CODE_RENAME_TARGET, op->key, target.at, target.len, advice);
    }
    rk_bson_copy(w, field);
    return RK_VERDICT_FORWARD;
}

/* $inc, $bit, and whatever comes after this was written. */
enum rk_verdict rk_operator_other(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                  const struct rk_bson_elem *field, struct rk_bson_writer *w)
{
    struct rk_path_match match = rk_scope_relate(scope, field->key, field->key_len);
    if (match.relation != RK_PATH_UNRELATED) {
        return rk_refuse(scope, RK_CODE_UPDATE_OPERATOR, op->key, field->key, field->key_len,
                         match.relation == RK_PATH_ABOVE
                             ? "encrypted fields lie below; use $set with the whole new value"
                             : "the server cannot compute on ciphertext; use $set");
    }
    return rk_copy_plain(scope, field, w);
}

static const struct update_operator operators[] = {
    {"$set", rewrite_set},       {"$setOnInsert", rewrite_set},
    {"$unset", rewrite_unset},   {"$rename", rewrite_rename},
    {"$push", rk_operator_push}, {"$addToSet", rk_operator_add_to_set},
    {"$pull", rk_operator_pull}, {"$pullAll", rk_operator_pull_all},
    {"$pop", rk_operator_pop},
};

static rk_operator_fn *operator_find(const char *name)
{
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        if (strcmp(operators[i].name, name) == 0) {
            return operators[i].rewrite;
        }
    }
    return rk_operator_other;
}

/* ---- equalities of an upsert's filter that became $in */

struct seeding {
    const struct rk_scope *scope;
    const struct rk_bson_view *update; /* NULL: a pipeline */
    struct rk_bson_writer *w;
    bool dry; /* only tell (by REPLACE) whether there is something to write */
};

enum overlap {
    OVERLAP_NONE,
    OVERLAP_SAME, /* or one lies below the other */
    OVERLAP_POSITIONAL,
};

static enum overlap paths_overlap(const struct rk_bson_elem *written,
                                  const struct rk_bson_elem *seeded)
{
    const char *a = written->key;
    const char *b = seeded->key;
    size_t same = 0;
    while (a[same] != '\0' && a[same] == b[same]) {
        same++;
    }
    if ((a[same] == '\0' || a[same] == '.') && (b[same] == '\0' || b[same] == '.')) {
        return OVERLAP_SAME;
    }
    return a[same] == '$' && same > 0 && a[same - 1] == '.' ? OVERLAP_POSITIONAL : OVERLAP_NONE;
}

/* The first operator of the update that writes to this path, to a parent or below it, or to the
 * elements of a parent. */
static enum overlap find_overlap(const struct rk_bson_view *update, const struct rk_bson_elem *path,
                                 struct rk_bson_elem *op, struct rk_bson_elem *written)
{
    struct rk_bson_iter ops;
    struct rk_bson_iter fields;
    struct rk_bson_view view;
    rk_bson_iter_init(&ops, update);
    while (rk_bson_next(&ops, op) == RK_BSON_STEP_ELEM) {
        if (!rk_bson_elem_view(op, &view)) {
            continue;
        }
        rk_bson_iter_init(&fields, &view);
        while (rk_bson_next(&fields, written) == RK_BSON_STEP_ELEM) {
            enum overlap overlap = paths_overlap(written, path);
            if (overlap != OVERLAP_NONE) {
                return overlap;
            }
        }
    }
    return OVERLAP_NONE;
}

/* Does nothing of what was there show afterwards? A parent does, of what $unset takes away. */
static bool overwrites(const struct rk_bson_elem *op, const struct rk_bson_elem *written)
{
    return rk_bson_key_is(op, "$set") || rk_bson_key_is(op, "$setOnInsert") ||
           (rk_bson_key_is(op, "$unset") && memchr(written->key, '.', written->key_len) == NULL);
}

static enum rk_verdict write_seed(void *arg, const struct rk_bson_elem *path,
                                  const struct rk_field *field, const struct rk_bson_elem *value)
{
    struct seeding *seeding = arg;
    const struct rk_scope *scope = seeding->scope;
    struct rk_bson_elem op;
    struct rk_bson_elem written;
    if (seeding->update == NULL) {
        return rk_refuse(scope, RK_CODE_PIPELINE, "an upsert by pipeline", path->key, path->key_len,
                         "the new document would miss the field; use update operators");
    }
    switch (find_overlap(seeding->update, path, &op, &written)) {
    case OVERLAP_NONE:
        break;
    case OVERLAP_SAME:
        return overwrites(&op, &written)
                   ? RK_VERDICT_FORWARD
                   : rk_refuse(scope, RK_CODE_UPDATE_OPERATOR, op.key, path->key, path->key_len,
                               "a new document would get its value there from the filter; find "
                               "documents by another field, or leave out upsert");
    case OVERLAP_POSITIONAL:
        return RK_VERDICT_FORWARD; /* a new document has no array there: mongod makes none */
    }
    if (seeding->dry) {
        return RK_VERDICT_REPLACE;
    }
    return rk_document_encrypt_value(scope->crypt, scope->ns, field, value, path->key,
                                     path->key_len, seeding->w, scope->err);
}

/* To mongod, too: an error of this statement alone (command_batch.c). */
static enum rk_verdict unparsable(const struct rk_scope *scope)
{
    if (scope->err != NULL) {
        scope->err->status = RK_EINVAL;
    }
    return RK_VERDICT_REJECT;
}

/* ---- whole updates */

/*
 * The values of a document lie under the keys of its tenant: that cannot change by itself. What
 * writes the same tenant again is common (the whole document by $set), and harmless.
 */
static enum rk_verdict check_tenant(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                    const struct rk_bson_elem *field)
{
    const char *path = scope->policy->tenant;
    const struct rk_bson_elem tenant = {.key = path, .key_len = (uint32_t)strlen(path)};
    const struct rk_text target = rk_elem_text(field); /* of $rename */
    const struct rk_bson_elem renamed = {.key = target.at, .key_len = target.len};
    bool sets = rk_bson_key_is(op, "$set") || rk_bson_key_is(op, "$setOnInsert");
    bool touched = paths_overlap(field, &tenant) != OVERLAP_NONE ||
                   (rk_bson_key_is(op, "$rename") && target.len > 0 &&
                    paths_overlap(&renamed, &tenant) != OVERLAP_NONE);
    if (!touched ||
        (sets && rk_bson_key_is(field, path) && rk_tenant_is(&scope->crypt->tenant, field))) {
        return RK_VERDICT_FORWARD;
    }
    return rk_refuse(
        scope, RK_CODE_UPDATE_OPERATOR, op->key, path, strlen(path),
        "keys are chosen by this field: name it in the filter, with the same value; to "
        "change it replace the whole document");
}

static enum rk_verdict rewrite_operator(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                        const struct rk_bson_view *filter, struct seeding *seeding,
                                        struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    rk_operator_fn *rewrite = operator_find(op->key);
    struct rk_bson_view fields;
    struct rk_bson_iter iter;
    struct rk_bson_elem field;
    if (op->key[0] != '$') {
        (void)rk_refuse(scope, RK_CODE_FAILED_TO_PARSE, "update", op->key, op->key_len,
                        "fields cannot stand beside update operators; use $set");
        return unparsable(scope);
    }
    if (op->type == RK_BSON_ARRAY) {
        (void)rk_refuse(scope, RK_CODE_FAILED_TO_PARSE, op->key, NULL, 0, "needs a document");
        return unparsable(scope);
    }
    if (!rk_bson_elem_view(op, &fields)) {
        rk_bson_copy(w, op); /* mongod refuses it */
        return verdict;
    }
    rk_bson_begin_sub(w, op->type, op->key, op->key_len);
    rk_bson_iter_init(&iter, &fields);
    while (rk_bson_next(&iter, &field) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        enum rk_verdict one = RK_VERDICT_FORWARD;
        if (scope->policy->tenant != NULL) {
            one = check_tenant(scope, op, &field);
        }
        verdict = rk_worse(verdict, rk_stops(one) ? one : rewrite(scope, op, &field, w));
    }
    if (filter != NULL && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, rk_query_seeds(scope, filter, write_seed, seeding));
    }
    rk_bson_end(w);
    return verdict;
}

static enum rk_verdict rewrite_all_operators(const struct rk_scope *scope,
                                             const struct rk_bson_view *update,
                                             const struct rk_bson_view *filter,
                                             struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct seeding seeding = {.scope = scope, .update = update, .w = w, .dry = true};
    struct rk_bson_iter iter;
    struct rk_bson_elem op;
    if (filter != NULL) {
        verdict = rk_query_seeds(scope, filter, write_seed, &seeding);
        filter = verdict == RK_VERDICT_REPLACE ? filter : NULL;
        seeding.dry = false;
    }
    rk_bson_iter_init(&iter, update);
    while (rk_bson_next(&iter, &op) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        bool takes_seeds = filter != NULL && rk_bson_key_is(&op, "$setOnInsert");
        verdict = rk_worse(verdict,
                           rewrite_operator(scope, &op, takes_seeds ? filter : NULL, &seeding, w));
        filter = takes_seeds ? NULL : filter;
    }
    if (filter != NULL && !rk_stops(verdict)) {
        rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "$setOnInsert", strlen("$setOnInsert"));
        verdict = rk_worse(verdict, rk_query_seeds(scope, filter, write_seed, &seeding));
        rk_bson_end(w);
    }
    return verdict;
}

enum rk_verdict rk_encrypt_whole(const struct rk_scope *scope, const struct rk_bson_view *document,
                                 struct rk_bson_writer *w)
{
    struct rk_crypt *crypt = scope->crypt;
    const struct rk_policy *policy = scope->policy;
    const struct rk_tenant outer = crypt->tenant;
    enum rk_verdict verdict;
    rk_tenant_of_document(policy, document, &crypt->tenant);
    if (crypt->tenant.problem != NULL) {
        /* Also without a protected value: a later update would find the document. */
        (void)rk_error_set_code(scope->err, RK_EREFUSED, RK_CODE_UNENCRYPTABLE,
                                "%s, path \"%s\": keys are chosen by this field, and %s", scope->ns,
                                policy->tenant, crypt->tenant.problem);
        verdict = RK_VERDICT_REJECT;
    } else {
        verdict = rk_document_encrypt(crypt, scope->ns, &policy->root, document, w, scope->err);
    }
    crypt->tenant = outer;
    return verdict;
}

enum rk_verdict rk_update_rewrite(const struct rk_scope *scope, const struct rk_bson_elem *u,
                                  const struct rk_bson_view *filter, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view view;
    if (!rk_bson_elem_view(u, &view)) {
        return rk_refuse(scope, RK_CODE_FAILED_TO_PARSE, "update", NULL, 0,
                         "must be a document or a pipeline");
    }
    if (u->type == RK_BSON_ARRAY && scope->policy->tenant != NULL) {
        return rk_refuse(
            scope, RK_CODE_PIPELINE, "an update by pipeline", NULL, 0,
            "it could change the field by which keys are chosen; use update operators");
    }
    if (u->type == RK_BSON_ARRAY) {
        struct seeding seeding = {.scope = scope, .dry = true};
        if (filter != NULL) {
            verdict = rk_query_seeds(scope, filter, write_seed, &seeding);
        }
        return rk_stops(verdict) ? verdict : rk_update_pipeline_rewrite(scope, u, w);
    }
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, u->key, u->key_len);
    struct rk_bson_view operators_view;
    if (rk_elem_is_operators(u, &operators_view)) {
        verdict = rewrite_all_operators(scope, &view, filter, w);
    } else {
        verdict = rk_encrypt_whole(scope, &view, w);
    }
    rk_bson_end(w);
    return verdict;
}
