/* Expressions that bind variables: $let, and $map and $filter over arrays. */
#include "expr_internal.h"

enum rk_verdict rk_var_check_name(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                  struct rk_text name)
{
    return rk_text_is(name, "CURRENT")
               ? rk_refuse(scope, RK_CODE_PREDICATE, op->key, NULL, 0,
                           "it would change what every path means; bind another name than CURRENT")
               : RK_VERDICT_FORWARD;
}

enum rk_verdict rk_var_check_names(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                   const struct rk_bson_view *list)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_iter iter;
    struct rk_bson_elem var;
    rk_bson_iter_init(&iter, list);
    while (rk_bson_next(&iter, &var) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_var_check_name(scope, op, (struct rk_text){var.key, var.key_len});
    }
    return verdict;
}

/* What a variable carries: constants among it were sent when it was bound, not encrypted for the
 * field that the variable is compared with later. */
static struct rk_carried bound(struct rk_carried carried)
{
    if (carried.constants && carried.what == RK_CARRIES_FIELD) {
        carried.what = RK_CARRIES_ANYTHING;
    }
    return carried;
}

enum rk_verdict rk_expr_bind(const struct rk_expr *x, const struct rk_bson_elem *elem,
                             struct rk_var *var, struct rk_bson_writer *w)
{
    const struct rk_expr apart = rk_expr_apart(x);
    if (rk_expr_constant(x->scope, elem, &var->constant)) {
        var->carried.what =
            rk_elem_is_null(&var->constant) ? RK_CARRIES_NO_VALUE : RK_CARRIES_CONSTANT;
        rk_bson_put(w, RK_BSON_NULL, elem->key, elem->key_len, NULL, 0);
        return RK_VERDICT_REPLACE;
    }
    enum rk_verdict verdict = rk_expr_run(&apart, elem, &var->carried, w);
    var->carried = bound(var->carried);
    return verdict;
}

enum rk_verdict rk_expr_let(const struct rk_expr *x, const struct rk_bson_elem *op,
                            struct rk_carried *carried, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_scope scope = *x->scope;
    const struct rk_expr inner = {.scope = &scope, .seal = x->seal, .again = x->again};
    struct rk_var vars[RK_VARS_MAX];
    struct rk_bson_view args;
    struct rk_bson_view list;
    struct rk_bson_iter iter;
    struct rk_bson_elem vars_elem;
    struct rk_bson_elem in;
    struct rk_bson_elem elem;
    unsigned n = 0;
    if (!rk_bson_elem_view(op, &args) || !rk_bson_find(&args, "vars", &vars_elem) ||
        !rk_bson_elem_view(&vars_elem, &list) || !rk_bson_find(&args, "in", &in)) {
        return rk_expr_members(x, op, carried, w); /* mongod refuses it */
    }
    rk_bson_begin_sub(w, op->type, op->key, op->key_len);
    rk_bson_begin_sub(w, vars_elem.type, vars_elem.key, vars_elem.key_len);
    rk_bson_iter_init(&iter, &list);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        if (n == RK_VARS_MAX) {
            return rk_refuse(x->scope, RK_CODE_PREDICATE, op->key, NULL, 0,
                             "binds too many variables for a collection with encrypted fields");
        }
        vars[n] = (struct rk_var){.up = scope.vars, .name = {elem.key, elem.key_len}};
        verdict = rk_worse(verdict, rk_var_check_name(x->scope, op, vars[n].name));
        if (!rk_stops(verdict)) {
            verdict = rk_worse(verdict, rk_expr_bind(x, &elem, &vars[n], w));
        }
        scope.vars = &vars[n++];
    }
    rk_bson_end(w);
    if (!rk_stops(verdict)) {
        verdict = rk_worse(verdict, rk_expr_run(&inner, &in, carried, w));
    }
    rk_bson_end(w);
    return verdict;
}

/* {input: array, as: name, in: what becomes of each, or cond: which are kept, limit: ...} */
enum rk_verdict rk_expr_over(const struct rk_expr *x, const struct rk_bson_elem *op,
                             struct rk_carried *carried, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    const struct rk_expr apart = rk_expr_apart(x);
    bool filters = rk_bson_key_is(op, "$filter");
    struct rk_scope scope = *x->scope;
    struct rk_var var = {.up = x->scope->vars, .name = {"this", 4}};
    const struct rk_expr each = {
        .scope = &scope, .seal = filters ? NULL : x->seal, .again = x->again};
    struct rk_carried one = {0};
    struct rk_bson_view args;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    if (!rk_bson_elem_view(op, &args) || !rk_bson_find(&args, "input", &elem)) {
        return rk_expr_members(x, op, carried, w); /* mongod refuses it */
    }
    rk_bson_begin_sub(w, op->type, op->key, op->key_len);
    verdict = rk_expr_run(filters ? x : &apart, &elem, &var.carried, w);
    if (rk_bson_find(&args, "as", &elem)) {
        rk_bson_copy(w, &elem);
        var.name = rk_elem_text(&elem);
    }
    verdict = rk_worse(verdict, rk_var_check_name(x->scope, op, var.name));
    if (!rk_carries_protected(&var.carried)) {
        var.carried.what = RK_CARRIES_NOTHING; /* an element of it, which is not known here */
    }
    *carried = var.carried;
    var.carried = bound(var.carried);
    scope.vars = &var;
    rk_bson_iter_init(&iter, &args);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        if (rk_bson_key_is(&elem, "input") || rk_bson_key_is(&elem, "as")) {
            continue;
        }
        verdict = rk_worse(verdict, rk_expr_run(&each, &elem, &one, w));
        if (!filters) {
            *carried = one;
        } else if (!rk_stops(verdict) && rk_carries_protected(&one)) {
            return rk_expr_refuse(x->scope, op->key, one.path);
        }
    }
    rk_bson_end(w);
    if (!rk_carries_protected(carried)) {
        carried->what = RK_CARRIES_NOTHING;
    }
    return verdict;
}

/* {input: array, initialValue: ..., in: what becomes of $$value and $$this}: computes, so that
 * nothing protected may be in it, and hides variables of these names. */
enum rk_verdict rk_expr_reduce(const struct rk_expr *x, const struct rk_bson_elem *op,
                               struct rk_carried *carried, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    const struct rk_carried nothing = {.what = RK_CARRIES_NOTHING};
    const struct rk_var value = {
        .up = x->scope->vars, .name = {"value", strlen("value")}, .carried = nothing};
    const struct rk_var element = {
        .up = &value, .name = {"this", strlen("this")}, .carried = nothing};
    const struct rk_expr apart = rk_expr_apart(x);
    struct rk_scope scope = *x->scope;
    const struct rk_expr each = {.scope = &scope, .again = x->again};
    struct rk_carried one;
    struct rk_bson_view args;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    *carried = nothing;
    if (!rk_bson_elem_view(op, &args)) {
        rk_bson_copy(w, op); /* mongod refuses it */
        return verdict;
    }
    scope.vars = &element;
    rk_bson_begin_sub(w, op->type, op->key, op->key_len);
    rk_bson_iter_init(&iter, &args);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        const struct rk_expr *in = rk_bson_key_is(&elem, "in") ? &each : &apart;
        verdict = rk_worse(verdict, rk_expr_run(in, &elem, &one, w));
        if (!rk_stops(verdict) && rk_carries_protected(&one)) {
            return rk_expr_refuse(x->scope, op->key, one.path);
        }
    }
    rk_bson_end(w);
    return verdict;
}
