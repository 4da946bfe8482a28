/*
 * Expressions, projections and key patterns: whether they read, move or order protected values.
 * The server would compute on ciphertext; only handing a value on whole makes sense.
 */
#include "expr_internal.h"

#define PATH_MAX_LEN 1024u

static bool reference_of(struct rk_text text, struct rk_text *path)
{
    static const char *const whole[] = {"$$ROOT", "$$CURRENT"};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        size_t n = strlen(whole[i]);
        if (text.len >= n && memcmp(text.at, whole[i], n) == 0) {
            if (text.len == n) {
                *path = (struct rk_text){.at = text.at + n, .len = 0};
                return true;
            }
            if (text.at[n] == '.') {
                *path = (struct rk_text){text.at + n + 1, text.len - (uint32_t)n - 1};
                return true;
            }
        }
    }
    if (text.len < 2 || text.at[0] != '$' || text.at[1] == '$') {
        return false;
    }
    *path = (struct rk_text){text.at + 1, text.len - 1};
    return true;
}

bool rk_expr_reference(const struct rk_bson_elem *elem, struct rk_text *path)
{
    return reference_of(rk_elem_text(elem), path);
}

/* A variable that stands for a protected value, or for a constant that was taken out of it. */
static bool is_bound(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                     struct rk_text *path)
{
    struct rk_text rest;
    const struct rk_var *var = rk_var_find(scope, rk_elem_text(elem), &rest);
    if (var == NULL ||
        !(rk_carries_protected(&var->carried) || var->carried.what == RK_CARRIES_CONSTANT)) {
        return false;
    }
    *path = var->carried.path.len > 0 ? var->carried.path : var->name;
    return true;
}

bool rk_expr_uses_bound(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                        struct rk_text *path)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem inner;
    if (scope->vars == NULL || !rk_bson_elem_view(elem, &view)) {
        return is_bound(scope, elem, path);
    }
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &inner) == RK_BSON_STEP_ELEM) {
        if (rk_expr_uses_bound(scope, &inner, path)) {
            return true;
        }
    }
    return false;
}

static bool touches_members(const struct rk_scope *scope, const struct rk_bson_view *view,
                            struct rk_text *path)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (rk_expr_touches(scope, &elem, path)) {
            return true;
        }
    }
    return false;
}

/* {$getField: name} or {$getField: {field: name, input: ...}}; the input defaults to the whole
 * document. A name that is computed may be any. */
static bool get_field_touches(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                              struct rk_text *path)
{
    struct rk_bson_view args;
    struct rk_bson_elem field = *elem;
    struct rk_bson_elem input;
    if (rk_bson_elem_view(elem, &args)) {
        if (rk_bson_find(&args, "input", &input)) {
            return touches_members(scope, &args, path);
        }
        if (!rk_bson_find(&args, "field", &field)) {
            field = *elem;
        }
    }
    *path = rk_elem_text(&field);
    bool computed = path->len == 0 || path->at[0] == '$';
    return computed || rk_scope_touches(scope, path->at, path->len);
}

/* {$top: {output: ..., sortBy: {name: 1}}}: its names are paths without a "$". */
static bool sort_by_touches(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                            struct rk_text *path)
{
    static const char *const sorting[] = {"$top", "$topN", "$bottom", "$bottomN"};
    struct rk_bson_view args;
    struct rk_bson_view keys;
    struct rk_bson_iter iter;
    struct rk_bson_elem key;
    bool sorts = false;
    for (size_t i = 0; i < sizeof sorting / sizeof sorting[0]; i++) {
        sorts = sorts || rk_bson_key_is(elem, sorting[i]);
    }
    if (!sorts || !rk_bson_elem_view(elem, &args) || !rk_bson_find(&args, "sortBy", &key) ||
        !rk_bson_elem_view(&key, &keys)) {
        return false;
    }
    rk_bson_iter_init(&iter, &keys);
    while (rk_bson_next(&iter, &key) == RK_BSON_STEP_ELEM) {
        *path = (struct rk_text){key.key, key.key_len};
        if (rk_scope_touches(scope, path->at, path->len)) {
            return true;
        }
    }
    return false;
}

bool rk_expr_touches(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                     struct rk_text *path)
{
    struct rk_bson_view view;
    if (!rk_scope_guarded(scope)) {
        return false;
    }
    if (rk_bson_key_is(elem, "$literal")) {
        return false;
    }
    if (rk_bson_key_is(elem, "$getField")) {
        return get_field_touches(scope, elem, path);
    }
    if (sort_by_touches(scope, elem, path) || is_bound(scope, elem, path)) {
        return true;
    }
    if (rk_expr_reference(elem, path)) {
        return rk_scope_touches(scope, path->at, path->len);
    }
    return rk_bson_elem_view(elem, &view) && touches_members(scope, &view, path);
}

bool rk_expr_names(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                   struct rk_text *path)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem inner;
    if (!rk_scope_guarded(scope)) {
        return false;
    }
    if (rk_bson_key_is(elem, "$getField") && get_field_touches(scope, elem, path)) {
        return true;
    }
    *path = rk_elem_text(elem);
    if (path->len > 0) {
        (void)reference_of(*path, path);
        return rk_scope_touches(scope, path->at, path->len);
    }
    if (!rk_bson_elem_view(elem, &view)) {
        return false;
    }
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &inner) == RK_BSON_STEP_ELEM) {
        *path = (struct rk_text){inner.key, inner.key_len};
        if ((elem->type == RK_BSON_DOCUMENT && inner.key_len > 0 &&
             rk_scope_touches(scope, inner.key, inner.key_len)) ||
            rk_expr_names(scope, &inner, path)) {
            return true;
        }
    }
    return false;
}

/* {$slice: n} or {$slice: [skip, n]}, as find takes it; in expressions it names an array. */
static bool is_count(const struct rk_bson_elem *elem)
{
    struct rk_bson_view list;
    struct rk_bson_iter iter;
    struct rk_bson_elem item;
    int64_t n;
    if (!rk_bson_elem_view(elem, &list)) {
        return rk_bson_elem_int(elem, &n);
    }
    rk_bson_iter_init(&iter, &list);
    while (rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM) {
        if (!rk_bson_elem_int(&item, &n)) {
            return false;
        }
    }
    return elem->type == RK_BSON_ARRAY;
}

/* Operators that only find's projections know. *done: it was one, and it is written. */
static enum rk_verdict rewrite_find_operator(const struct rk_scope *scope,
                                             const struct rk_bson_elem *elem,
                                             struct rk_path_match match, bool *done,
                                             struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    const struct rk_comparison cmp = {.scope = scope, .path = elem, .match = match};
    struct rk_bson_view ops;
    struct rk_bson_elem op;
    *done =
        rk_elem_is_operators(elem, &ops) && (rk_bson_find(&ops, "$elemMatch", &op) ||
                                             (rk_bson_find(&ops, "$slice", &op) && is_count(&op)));
    if (!*done) {
        return verdict;
    }
    bool elem_match = rk_bson_key_is(&op, "$elemMatch");
    if (match.relation == RK_PATH_ABOVE && elem_match) {
        rk_bson_begin_sub(w, elem->type, elem->key, elem->key_len);
        verdict = rk_query_rewrite_element(&cmp, &op, w);
        rk_bson_end(w);
        return verdict;
    }
    if (match.relation == RK_PATH_EXACT) {
        return rk_refuse(scope, RK_CODE_PREDICATE, op.key, elem->key, elem->key_len,
                         "not possible on encrypted values; project the whole path");
    }
    rk_bson_copy(w, elem); /* whole elements, whatever is in them */
    return verdict;
}

/* One element of a projection whose value is not a plain yes or no. */
static enum rk_verdict rewrite_computed(const struct rk_scope *scope,
                                        const struct rk_bson_elem *elem, struct rk_path_match match,
                                        struct rk_aliases *aliases, struct rk_bson_writer *w)
{
    struct rk_carried carried;
    bool done = false;
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    if (aliases == NULL) {
        verdict = rewrite_find_operator(scope, elem, match, &done, w);
    }
    if (!done) {
        verdict = rk_expr_rewrite(scope, elem, &carried, w);
        if (!rk_stops(verdict)) {
            verdict =
                rk_worse(verdict, rk_expr_hand_on(scope, "projection", &carried, elem, aliases));
        }
    }
    return verdict;
}

/* The dotted path of a trail, in out. False: it is too long. */
static bool spell(const struct rk_trail *trail, char out[PATH_MAX_LEN], size_t *len)
{
    *len = 0;
    if (trail->up != NULL) {
        if (!spell(trail->up, out, len) || *len == PATH_MAX_LEN) {
            return false;
        }
        out[(*len)++] = '.';
    }
    if (trail->key_len > PATH_MAX_LEN - *len) {
        return false;
    }
    memcpy(out + *len, trail->key, trail->key_len);
    *len += trail->key_len;
    return true;
}

/* {a: {b: ...}} means "a.b" in a projection: may such a path lead into an encrypted value? */
static bool reaches_inside(const struct rk_scope *scope, const struct rk_trail *at,
                           const struct rk_bson_elem *elem)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem member;
    char path[PATH_MAX_LEN];
    size_t len;
    if (elem->type != RK_BSON_DOCUMENT || rk_elem_is_operators(elem, &view) ||
        !rk_bson_elem_view(elem, &view)) {
        return false;
    }
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &member) == RK_BSON_STEP_ELEM) {
        const struct rk_trail below = {.up = at, .key = member.key, .key_len = member.key_len};
        if (!spell(&below, path, &len) ||
            rk_scope_relate(scope, path, len).relation == RK_PATH_BELOW ||
            reaches_inside(scope, &below, &member)) {
            return true;
        }
    }
    return false;
}

/* Does a projection say by this only whether the field stays? */
static bool is_yes_or_no(const struct rk_bson_elem *elem)
{
    return elem->type == RK_BSON_BOOL || elem->type == RK_BSON_INT32 ||
           elem->type == RK_BSON_INT64 || elem->type == RK_BSON_DOUBLE ||
           elem->type == RK_BSON_DECIMAL128;
}

enum rk_verdict rk_projection_rewrite(const struct rk_scope *scope, const struct rk_bson_view *spec,
                                      bool adds, struct rk_aliases *aliases, bool *moved,
                                      struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    bool guarded = rk_scope_guarded(scope);
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, spec);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        struct rk_path_match match = {.relation = RK_PATH_UNRELATED};
        if (guarded) {
            match = rk_scope_relate(scope, elem.key, elem.key_len);
        }
        if (match.relation == RK_PATH_BELOW ||
            (match.relation != RK_PATH_UNRELATED &&
             reaches_inside(scope, &(struct rk_trail){.key = elem.key, .key_len = elem.key_len},
                            &elem))) {
            return rk_refuse(scope, RK_CODE_BELOW, "projection", elem.key, elem.key_len,
                             RK_BELOW_ADVICE);
        }
        if (!guarded || (!adds && is_yes_or_no(&elem))) {
            rk_bson_copy(w, &elem);
            continue;
        }
        verdict = rk_worse(verdict, rewrite_computed(scope, &elem, match, aliases, w));
        if (match.relation != RK_PATH_UNRELATED && moved != NULL) {
            *moved = true;
        }
    }
    return verdict;
}

enum rk_verdict rk_keys_check(const struct rk_scope *scope, const char *what,
                              const struct rk_bson_view *keys)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, keys);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (rk_scope_touches(scope, elem.key, elem.key_len)) {
            return rk_refuse(scope, RK_CODE_PREDICATE, what, elem.key, elem.key_len,
                             "the order of ciphertext has no meaning; use an unprotected field");
        }
    }
    return RK_VERDICT_FORWARD;
}
