/*
 * Aggregation expressions, rewritten. What only hands protected values on ($cond, $ifNull, $map,
 * ...) is followed, so that it is known what comes out; comparisons with constants get the
 * constants' ciphertexts (expr_compare.c); every other operator may not touch a protected value.
 *
 * Constants bound by $let are put where they are used, and null where they were bound: what is
 * compared with a protected field must not reach the server in the clear.
 */
#include "expr_internal.h"

#define NO_VALUE_NAME "$$REMOVE"

/* What two alternatives, or two members, carry together. */
struct rk_carried rk_carried_join(struct rk_carried a, struct rk_carried b)
{
    struct rk_carried both = a.what >= b.what ? a : b;
    const struct rk_carried *less = a.what >= b.what ? &b : &a;
    both.legacy = a.legacy || b.legacy;
    both.empty = a.empty || b.empty;
    both.hides_paths = a.hides_paths || b.hides_paths;
    if (both.what != RK_CARRIES_FIELD || less->what == RK_CARRIES_NO_VALUE) {
        return both;
    }
    both.constants = a.constants || b.constants || less->what == RK_CARRIES_CONSTANT;
    if (less->what == RK_CARRIES_NOTHING ||
        (less->what == RK_CARRIES_FIELD && less->node != both.node)) {
        both.what = RK_CARRIES_ANYTHING;
    }
    return both;
}

bool rk_carries_protected(const struct rk_carried *carried)
{
    return carried->what >= RK_CARRIES_FIELD;
}

/* As a member of a document or array: a constant is then part of something computed. */
struct rk_carried rk_carried_inside(struct rk_carried carried)
{
    if (rk_carries_protected(&carried)) {
        carried.what = RK_CARRIES_ANYTHING;
    } else {
        carried.what = RK_CARRIES_NOTHING;
    }
    return carried;
}

enum rk_verdict rk_expr_refuse(const struct rk_scope *scope, const char *op, struct rk_text path)
{
    return rk_refuse(scope, RK_CODE_PREDICATE, op, path.at, path.len,
                     "the server cannot compute on ciphertext; do this in the application, or "
                     "compare a deterministic field with constants by $eq, $ne or $in");
}

/* ---- references */

static struct rk_carried carried_of(struct rk_path_match match, struct rk_text path)
{
    struct rk_carried carried = {.what = RK_CARRIES_NOTHING, .path = path};
    if (match.relation == RK_PATH_BELOW ||
        (match.relation != RK_PATH_UNRELATED && match.node == NULL)) {
        carried.what = RK_CARRIES_ANYTHING;
        carried.below = match.relation == RK_PATH_BELOW;
        carried.hides_paths = true;
    } else if (match.relation != RK_PATH_UNRELATED && rk_is_anything(match.node)) {
        carried.what = RK_CARRIES_ANYTHING;
        carried.hides_paths = match.node->hides_paths;
    } else if (match.relation != RK_PATH_UNRELATED) {
        carried.what = RK_CARRIES_FIELD;
        carried.node = match.node;
        carried.legacy = match.node->has_legacy;
        carried.hides_paths = match.node->hides_paths;
    }
    return carried;
}

/* A path from what carried stands for. */
static struct rk_carried carried_at(const struct rk_carried *from, struct rk_text rest)
{
    if (rest.len == 0 || !rk_carries_protected(from)) {
        struct rk_carried same = *from;
        same.what = rest.len > 0 ? RK_CARRIES_NOTHING : from->what;
        return same;
    }
    if (from->what == RK_CARRIES_ANYTHING || from->constants) {
        struct rk_carried any = *from;
        any.what = RK_CARRIES_ANYTHING;
        any.below = any.hides_paths;
        return any;
    }
    return carried_of(rk_path_relate_from(from->node, rest.at, rest.len), rest);
}

const struct rk_var *rk_var_find(const struct rk_scope *scope, struct rk_text text,
                                 struct rk_text *rest)
{
    if (text.len < 3 || text.at[0] != '$' || text.at[1] != '$') {
        return NULL;
    }
    const char *name = text.at + 2;
    const char *dot = memchr(name, '.', text.len - 2);
    size_t len = dot != NULL ? (size_t)(dot - name) : text.len - 2u;
    *rest = (struct rk_text){name + len, 0};
    if (dot != NULL) {
        *rest = (struct rk_text){dot + 1, text.len - 3u - (uint32_t)len};
    }
    for (const struct rk_var *var = scope->vars; var != NULL; var = var->up) {
        if (var->name.len == len && memcmp(var->name.at, name, len) == 0) {
            return var;
        }
    }
    return NULL;
}

/* What a string stands for: a path, a variable, or itself. */
struct rk_carried rk_expr_string(const struct rk_scope *scope, const struct rk_bson_elem *elem)
{
    struct rk_text text = rk_elem_text(elem);
    struct rk_text path;
    const struct rk_var *var = rk_var_find(scope, text, &path);
    if (var != NULL) {
        return carried_at(&var->carried, path);
    }
    if (rk_text_is(text, NO_VALUE_NAME)) {
        return (struct rk_carried){.what = RK_CARRIES_NO_VALUE};
    }
    if (rk_expr_reference(elem, &path)) {
        return carried_of(rk_scope_relate(scope, path.at, path.len), path);
    }
    return (struct rk_carried){.what = text.len > 0 && text.at[0] == '$' ? RK_CARRIES_NOTHING
                                                                         : RK_CARRIES_CONSTANT};
}

bool rk_expr_constant(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                      struct rk_bson_elem *value)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem op;
    struct rk_text rest;
    const struct rk_var *var = rk_var_find(scope, rk_elem_text(elem), &rest);
    if (var != NULL) {
        *value = var->constant;
        return var->carried.what == RK_CARRIES_CONSTANT && rest.len == 0;
    }
    if (rk_elem_is_operators(elem, &view)) {
        rk_bson_iter_init(&iter, &view);
        *value = *elem;
        if (rk_bson_next(&iter, &op) != RK_BSON_STEP_ELEM || !rk_bson_key_is(&op, "$literal")) {
            return false;
        }
        *value = op;
        return true;
    }
    *value = *elem;
    return elem->type == RK_BSON_STRING
               ? rk_expr_string(scope, elem).what == RK_CARRIES_CONSTANT
               : elem->type != RK_BSON_DOCUMENT && elem->type != RK_BSON_ARRAY;
}

/* ---- leaves */

static enum rk_verdict rewrite_constant(const struct rk_expr *x, const struct rk_bson_elem *elem,
                                        struct rk_carried *carried, struct rk_bson_writer *w)
{
    struct rk_bson_elem value;
    struct rk_text rest;
    if (!rk_expr_constant(x->scope, elem, &value) || rk_elem_is_null(&value)) {
        rk_bson_copy(w, elem);
        return RK_VERDICT_FORWARD;
    }
    carried->what = RK_CARRIES_CONSTANT;
    if (x->seal != NULL) {
        enum rk_verdict verdict = rk_compare_check(x->seal, &value);
        return rk_stops(verdict) ? verdict : rk_compare_put(x->seal, &value, 0, elem->key, w);
    }
    if (rk_var_find(x->scope, rk_elem_text(elem), &rest) == NULL) {
        rk_bson_copy(w, elem);
        return RK_VERDICT_FORWARD;
    }
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, elem->key, elem->key_len);
    rk_bson_copy_as(w, "$literal", strlen("$literal"), &value);
    rk_bson_end(w);
    return RK_VERDICT_REPLACE;
}

/* A path into a constant, "$$v.a.b": the variable is bound anew, for nothing but this. */
static enum rk_verdict rewrite_into_constant(const struct rk_var *var,
                                             const struct rk_bson_elem *elem,
                                             struct rk_bson_writer *w)
{
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, elem->key, elem->key_len);
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "$let", strlen("$let"));
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "vars", strlen("vars"));
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, var->name.at, var->name.len);
    rk_bson_copy_as(w, "$literal", strlen("$literal"), &var->constant);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_copy_as(w, "in", strlen("in"), elem);
    rk_bson_end(w);
    rk_bson_end(w);
    return RK_VERDICT_REPLACE;
}

static enum rk_verdict rewrite_leaf(const struct rk_expr *x, const struct rk_bson_elem *elem,
                                    struct rk_carried *carried, struct rk_bson_writer *w)
{
    *carried = (struct rk_carried){.what = RK_CARRIES_NO_VALUE};
    if (elem->type == RK_BSON_STRING) {
        *carried = rk_expr_string(x->scope, elem);
        if (carried->below) {
            return rk_refuse(x->scope, RK_CODE_BELOW, "an expression", carried->path.at,
                             carried->path.len, RK_BELOW_ADVICE);
        }
        struct rk_text rest;
        const struct rk_var *var = rk_var_find(x->scope, rk_elem_text(elem), &rest);
        if (var != NULL && var->carried.what == RK_CARRIES_CONSTANT && rest.len > 0) {
            return rewrite_into_constant(var, elem, w);
        }
        if (carried->what != RK_CARRIES_CONSTANT) {
            rk_bson_copy(w, elem);
            return RK_VERDICT_FORWARD;
        }
    }
    return rewrite_constant(x, elem, carried, w);
}

/* ---- members */

/* Appends each member of an object or array under its own key; what is neither, as it is. */
enum rk_verdict rk_expr_members(const struct rk_expr *x, const struct rk_bson_elem *elem,
                                struct rk_carried *carried, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    const struct rk_expr members = rk_expr_apart(x);
    struct rk_carried one;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem member;
    *carried = (struct rk_carried){.what = RK_CARRIES_NO_VALUE, .empty = true};
    if (!rk_bson_elem_view(elem, &view)) {
        return rk_expr_run(&members, elem, carried, w);
    }
    rk_bson_begin_sub(w, elem->type, elem->key, elem->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &member) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, rk_expr_run(&members, &member, &one, w));
        *carried = rk_carried_join(*carried, rk_carried_inside(one));
    }
    rk_bson_end(w);
    return verdict;
}

enum rk_verdict rk_expr_run(const struct rk_expr *x, const struct rk_bson_elem *elem,
                            struct rk_carried *carried, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_carried one;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem op;
    struct rk_bson_elem value;
    if (!rk_bson_elem_view(elem, &view)) {
        return rewrite_leaf(x, elem, carried, w);
    }
    if (!rk_elem_is_operators(elem, &view)) {
        return rk_expr_members(x, elem, carried, w);
    }
    if (x->seal != NULL && rk_expr_constant(x->scope, elem, &value)) {
        return rewrite_constant(x, elem, carried, w);
    }
    *carried = (struct rk_carried){.what = RK_CARRIES_NO_VALUE};
    rk_bson_begin_sub(w, elem->type, elem->key, elem->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &op) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        one = (struct rk_carried){.what = RK_CARRIES_NO_VALUE};
        verdict = rk_worse(verdict, rk_expr_operator(op.key)(x, &op, &one, w));
        *carried = rk_carried_join(*carried, one);
    }
    rk_bson_end(w);
    return verdict;
}

enum rk_verdict rk_expr_rewrite(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                                struct rk_carried *carried, struct rk_bson_writer *w)
{
    const struct rk_expr x = {.scope = scope};
    *carried = (struct rk_carried){.what = RK_CARRIES_NOTHING};
    if (!rk_scope_guarded(scope)) {
        rk_bson_copy(w, elem);
        return RK_VERDICT_FORWARD;
    }
    return rk_expr_run(&x, elem, carried, w);
}

enum rk_verdict rk_expr_hand_on(const struct rk_scope *scope, const char *what,
                                const struct rk_carried *carried, const struct rk_bson_elem *name,
                                struct rk_aliases *aliases)
{
    if (!rk_carries_protected(carried)) {
        return RK_VERDICT_FORWARD;
    }
    if (carried->legacy) {
        return rk_refuse(scope, RK_CODE_PREDICATE, what, carried->path.at, carried->path.len,
                         "values in a legacy format can be read under their own path only; sweep "
                         "the collection, then drop legacy from the policy");
    }
    if (aliases != NULL) {
        const struct rk_path_node *anything =
            carried->hides_paths ? &rk_anything : &rk_anything_flat;
        bool pure = carried->what == RK_CARRIES_FIELD && !carried->constants;
        rk_aliases_add(aliases, name->key, name->key_len, pure ? carried->node : anything);
        /* Arrays on the way would put indexes into later spellings of a dotted name. */
        aliases->all = aliases->all || memchr(name->key, '.', name->key_len) != NULL;
    }
    return RK_VERDICT_FORWARD;
}

enum rk_verdict rk_expr_rewrite_plain(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                                      struct rk_bson_writer *w)
{
    struct rk_carried carried;
    enum rk_verdict verdict = rk_expr_rewrite(scope, elem, &carried, w);
    return !rk_stops(verdict) && rk_carries_protected(&carried)
               ? rk_expr_refuse(scope, elem->key, carried.path)
               : verdict;
}
