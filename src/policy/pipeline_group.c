/*
 * Stages that group. Whole values may be handed on by $first, $last and $push; telling values
 * apart ($group by them, $addToSet, $sortByCount) is the server's, which sees ciphertext: only
 * where equal values have equal ciphertexts.
 */
#include "pipeline_internal.h"

/* The server is to tell values apart that are carried: it can where it can compare them. */
static enum rk_verdict check_grouping(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                      const struct rk_carried *carried)
{
    const char *why = "equal values have different ciphertexts and the server cannot compute on "
                      "them; do this in the application";
    if (!rk_carries_protected(carried) ||
        (carried->what == RK_CARRIES_FIELD && !carried->constants &&
         rk_field_is_exact(scope, carried->node->field, &why))) {
        return RK_VERDICT_FORWARD;
    }
    return rk_refuse(scope, RK_CODE_PREDICATE, op->key, carried->path.at, carried->path.len, why);
}

/* An expression by whose values documents are grouped; they then stand under name. */
static enum rk_verdict rewrite_group_key(struct rk_pipeline *p, const struct rk_scope *before,
                                         const struct rk_bson_elem *stage,
                                         const struct rk_bson_elem *key, const char *name,
                                         struct rk_bson_writer *w)
{
    const struct rk_bson_elem named = {.key = name, .key_len = (uint32_t)strlen(name)};
    struct rk_carried carried;
    enum rk_verdict verdict = rk_expr_rewrite(before, key, &carried, w);
    if (!rk_stops(verdict)) {
        verdict = rk_worse(verdict, check_grouping(before, stage, &carried));
    }
    if (!rk_stops(verdict)) {
        verdict =
            rk_worse(verdict, rk_expr_hand_on(before, stage->key, &carried, &named, &p->aliases));
    }
    return verdict;
}

/* {_id: "$ssn"}, {_id: {a: "$ssn", ...}} */
static enum rk_verdict rewrite_group_id(struct rk_pipeline *p, const struct rk_scope *before,
                                        const struct rk_bson_elem *stage,
                                        const struct rk_bson_elem *id, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem member;
    if (id->type != RK_BSON_DOCUMENT || rk_elem_is_operators(id, &view) ||
        !rk_bson_elem_view(id, &view)) {
        return rewrite_group_key(p, before, stage, id, "_id", w);
    }
    rk_bson_begin_sub(w, id->type, id->key, id->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &member) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, rewrite_group_key(p, before, stage, &member, "_id", w));
    }
    rk_bson_end(w);
    return verdict;
}

static bool is_one_of(const struct rk_bson_elem *op, const char *const *names)
{
    for (; *names != NULL; names++) {
        if (rk_bson_key_is(op, *names)) {
            return true;
        }
    }
    return false;
}

/* What an accumulator does with its argument; appended under its name. */
static enum rk_verdict rewrite_accumulator(struct rk_pipeline *p, const struct rk_scope *before,
                                           const struct rk_bson_elem *field,
                                           const struct rk_bson_elem *op, struct rk_bson_writer *w)
{
    static const char *const whole[] = {"$first", "$last", "$push", "$addToSet", NULL};
    static const char *const sorting[] = {"$top", "$topN", "$bottom", "$bottomN", NULL};
    struct rk_carried carried;
    struct rk_text path;
    if (is_one_of(op, sorting) && rk_scope_guarded(before)) {
        rk_bson_copy(w, op);
        return rk_expr_touches(before, field, &path) ? rk_pipeline_refuse(p, op, path)
                                                     : RK_VERDICT_FORWARD;
    }
    if (!is_one_of(op, whole)) {
        return rk_expr_rewrite_plain(before, op, w);
    }
    enum rk_verdict verdict = rk_expr_rewrite(before, op, &carried, w);
    if (!rk_stops(verdict) && rk_bson_key_is(op, "$addToSet")) {
        verdict = rk_worse(verdict, check_grouping(before, op, &carried));
    }
    if (!rk_stops(verdict)) {
        verdict = rk_worse(verdict, rk_expr_hand_on(before, op->key, &carried, field, &p->aliases));
    }
    return verdict;
}

static enum rk_verdict rewrite_group_field(struct rk_pipeline *p, const struct rk_scope *before,
                                           const struct rk_bson_elem *stage,
                                           const struct rk_bson_elem *field,
                                           struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem op;
    if (rk_bson_key_is(field, "_id")) {
        return rewrite_group_id(p, before, stage, field, w);
    }
    if (!rk_elem_is_operators(field, &view)) {
        return rk_expr_rewrite_plain(before, field, w); /* mongod refuses it */
    }
    rk_bson_begin_sub(w, field->type, field->key, field->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &op) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, rewrite_accumulator(p, before, field, &op, w));
    }
    rk_bson_end(w);
    return verdict;
}

enum rk_verdict rk_stage_group(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                               struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_aliases before = p->aliases;
    struct rk_scope scope = p->scope;
    struct rk_bson_view spec;
    struct rk_bson_iter iter;
    struct rk_bson_elem field;
    if (!rk_bson_elem_view(stage, &spec)) {
        rk_bson_copy(w, stage); /* mongod refuses it */
        return verdict;
    }
    scope.aliases = &before;
    rk_pipeline_nothing_left(p);
    rk_bson_begin_sub(w, stage->type, stage->key, stage->key_len);
    rk_bson_iter_init(&iter, &spec);
    while (rk_bson_next(&iter, &field) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, rewrite_group_field(p, &scope, stage, &field, w));
    }
    rk_bson_end(w);
    p->scope.moved = true;
    return verdict;
}

enum rk_verdict rk_stage_sort_by_count(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                       struct rk_bson_writer *w)
{
    struct rk_aliases before = p->aliases;
    struct rk_scope scope = p->scope;
    scope.aliases = &before;
    rk_pipeline_nothing_left(p);
    enum rk_verdict verdict = rewrite_group_key(p, &scope, stage, stage, "_id", w);
    p->scope.moved = true;
    return verdict;
}
