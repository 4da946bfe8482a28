/*
 * The operators of expressions: those that hand their arguments on, and all others, which compute
 * and may not be given anything protected. Comparisons are in expr_compare.c, what binds variables
 * in expr_vars.c.
 */
#include "expr_internal.h"

/* Every operator without a rule: computes, so that it may be given nothing protected. */
static enum rk_verdict rewrite_plain(const struct rk_expr *x, const struct rk_bson_elem *op,
                                     struct rk_carried *carried, struct rk_bson_writer *w)
{
    const struct rk_expr plain = rk_expr_apart(x);
    enum rk_verdict verdict = rk_expr_run(&plain, op, carried, w);
    if (!rk_stops(verdict) && rk_carries_protected(carried)) {
        return rk_expr_refuse(x->scope, op->key, carried->path);
    }
    carried->what = RK_CARRIES_NOTHING;
    return verdict;
}

/* $getField and the like name fields in ways of their own. */
static enum rk_verdict rewrite_named(const struct rk_expr *x, const struct rk_bson_elem *op,
                                     struct rk_carried *carried, struct rk_bson_writer *w)
{
    struct rk_text path;
    if (rk_expr_touches(x->scope, op, &path)) {
        return rk_expr_refuse(x->scope, op->key, path);
    }
    return rewrite_plain(x, op, carried, w);
}

static enum rk_verdict rewrite_literal(const struct rk_expr *x, const struct rk_bson_elem *op,
                                       struct rk_carried *carried, struct rk_bson_writer *w)
{
    (void)x;
    carried->what = rk_elem_is_null(op) ? RK_CARRIES_NO_VALUE : RK_CARRIES_CONSTANT;
    rk_bson_copy(w, op);
    return RK_VERDICT_FORWARD;
}

/* Operators whose result is one of their arguments, or is made of them: $ifNull, $mergeObjects.
 * first: only the first argument is handed on. */
static enum rk_verdict rewrite_arguments(const struct rk_expr *x, const struct rk_bson_elem *op,
                                         bool first, struct rk_carried *carried,
                                         struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    const struct rk_expr plain = rk_expr_apart(x);
    struct rk_carried one;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem arg;
    unsigned n = 0;
    *carried = (struct rk_carried){.what = RK_CARRIES_NO_VALUE};
    if (op->type != RK_BSON_ARRAY || !rk_bson_elem_view(op, &view)) {
        return rk_expr_run(x, op, carried, w);
    }
    rk_bson_begin_sub(w, op->type, op->key, op->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &arg) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        bool handed_on = n++ == 0 || !first;
        verdict = rk_worse(verdict, rk_expr_run(handed_on ? x : &plain, &arg, &one, w));
        if (handed_on) {
            *carried = rk_carried_join(*carried, one);
        } else if (!rk_stops(verdict) && rk_carries_protected(&one)) {
            return rk_expr_refuse(x->scope, op->key, one.path);
        }
    }
    rk_bson_end(w);
    return verdict;
}

/* $size and $isArray of what encryption leaves in its shape: what is above the fields, and arrays
 * of deterministic values, which are no arrays themselves. */
static enum rk_verdict rewrite_shape(const struct rk_expr *x, const struct rk_bson_elem *op,
                                     struct rk_carried *carried, struct rk_bson_writer *w)
{
    const struct rk_expr apart = rk_expr_apart(x);
    enum rk_verdict verdict = rewrite_arguments(&apart, op, true, carried, w);
    const struct rk_field *field = carried->what == RK_CARRIES_FIELD ? carried->node->field : NULL;
    if (!rk_stops(verdict) && (carried->what == RK_CARRIES_ANYTHING ||
                               (field != NULL && field->algorithm == RK_ALGORITHM_RANDOM))) {
        return rk_expr_refuse(x->scope, op->key, carried->path);
    }
    carried->what = RK_CARRIES_NOTHING;
    return verdict;
}

static enum rk_verdict rewrite_alternatives(const struct rk_expr *x, const struct rk_bson_elem *op,
                                            struct rk_carried *carried, struct rk_bson_writer *w)
{
    return rewrite_arguments(x, op, false, carried, w);
}

/* Parts of arrays: an encrypted value is none, but there may be an array of them. */
static enum rk_verdict rewrite_first(const struct rk_expr *x, const struct rk_bson_elem *op,
                                     struct rk_carried *carried, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = rewrite_arguments(x, op, true, carried, w);
    if (!rk_stops(verdict) && carried->what == RK_CARRIES_FIELD && carried->node->field != NULL &&
        memchr(carried->node->field->path, '.', strlen(carried->node->field->path)) == NULL) {
        return rk_expr_refuse(x->scope, op->key, carried->path);
    }
    return verdict;
}

static enum rk_verdict rewrite_merge(const struct rk_expr *x, const struct rk_bson_elem *op,
                                     struct rk_carried *carried, struct rk_bson_writer *w)
{
    const struct rk_expr plain = rk_expr_apart(x);
    enum rk_verdict verdict = rewrite_arguments(&plain, op, false, carried, w);
    *carried = rk_carried_inside(*carried);
    return verdict;
}

/* {if: ..., then: ..., else: ...}, [if, then, else]; of $switch a branch {case: ..., then: ...}. */
static enum rk_verdict rewrite_cond(const struct rk_expr *x, const struct rk_bson_elem *op,
                                    struct rk_carried *carried, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    const struct rk_expr plain = rk_expr_apart(x);
    struct rk_carried one;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem arg;
    *carried = (struct rk_carried){.what = RK_CARRIES_NO_VALUE};
    if (!rk_bson_elem_view(op, &view)) {
        return rewrite_plain(x, op, carried, w);
    }
    rk_bson_begin_sub(w, op->type, op->key, op->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &arg) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        bool condition = op->type == RK_BSON_ARRAY
                             ? rk_bson_key_is(&arg, "0")
                             : !rk_bson_key_is(&arg, "then") && !rk_bson_key_is(&arg, "else");
        verdict = rk_worse(verdict, rk_expr_run(condition ? &plain : x, &arg, &one, w));
        if (!condition) {
            *carried = rk_carried_join(*carried, one);
        } else if (!rk_stops(verdict) && rk_carries_protected(&one)) {
            return rk_expr_refuse(x->scope, "a condition", one.path);
        }
    }
    rk_bson_end(w);
    return verdict;
}

static enum rk_verdict rewrite_branches(const struct rk_expr *x, const struct rk_bson_elem *list,
                                        struct rk_carried *carried, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_carried one;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem branch;
    *carried = (struct rk_carried){.what = RK_CARRIES_NO_VALUE};
    if (!rk_bson_elem_view(list, &view)) {
        return rewrite_plain(x, list, carried, w);
    }
    rk_bson_begin_sub(w, list->type, list->key, list->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &branch) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, rewrite_cond(x, &branch, &one, w));
        *carried = rk_carried_join(*carried, one);
    }
    rk_bson_end(w);
    return verdict;
}

static enum rk_verdict rewrite_switch(const struct rk_expr *x, const struct rk_bson_elem *op,
                                      struct rk_carried *carried, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_carried one;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem arg;
    *carried = (struct rk_carried){.what = RK_CARRIES_NO_VALUE};
    if (!rk_bson_elem_view(op, &view)) {
        return rewrite_plain(x, op, carried, w);
    }
    rk_bson_begin_sub(w, op->type, op->key, op->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &arg) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        bool branches = rk_bson_key_is(&arg, "branches");
        verdict = rk_worse(verdict, branches ? rewrite_branches(x, &arg, &one, w)
                                             : rk_expr_run(x, &arg, &one, w));
        *carried = rk_carried_join(*carried, one);
    }
    rk_bson_end(w);
    return verdict;
}

struct operator_rule {
    const char *name;
    rk_expr_fn *rewrite;
};

static const struct operator_rule rules[] = {
    {"$eq", rk_expr_compare},
    {"$ne", rk_expr_compare},
    {"$in", rk_expr_in},
    {"$cond", rewrite_cond},
    {"$switch", rewrite_switch},
    {"$ifNull", rewrite_alternatives},
    {"$literal", rewrite_literal},
    {"$let", rk_expr_let},
    {"$map", rk_expr_over},
    {"$filter", rk_expr_over},
    {"$reduce", rk_expr_reduce},
    {"$arrayElemAt", rewrite_first},
    {"$first", rewrite_first},
    {"$last", rewrite_first},
    {"$slice", rewrite_first},
    {"$reverseArray", rewrite_first},
    {"$mergeObjects", rewrite_merge},
    {"$concatArrays", rewrite_merge},
    {"$size", rewrite_shape},
    {"$isArray", rewrite_shape},
    {"$getField", rewrite_named},
    {"$setField", rewrite_named},
    {"$unsetField", rewrite_named},
    {"$sortArray", rewrite_named},
};

rk_expr_fn *rk_expr_operator(const char *name)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (strcmp(rules[i].name, name) == 0) {
            return rules[i].rewrite;
        }
    }
    return rewrite_plain;
}
