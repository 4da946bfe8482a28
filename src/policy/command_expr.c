/*
 * Expressions, projections and key patterns: whether they read, move or order protected values.
 * The server would compute on ciphertext; only handing a value on whole makes sense.
 */
#include "command_internal.h"

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
    if (sort_by_touches(scope, elem, path)) {
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

enum rk_verdict rk_expr_hand_on(const struct rk_scope *scope, const char *what, struct rk_text path,
                                const struct rk_path_node **node)
{
    struct rk_path_match match = rk_scope_relate(scope, path.at, path.len);
    *node = NULL;
    if (match.relation == RK_PATH_UNRELATED) {
        return RK_VERDICT_FORWARD;
    }
    if (match.relation == RK_PATH_BELOW) {
        return rk_refuse(scope, RK_CODE_BELOW, what, path.at, path.len,
                         "it lies inside an encrypted value; name the protected path itself");
    }
    if (match.node == NULL || match.node->has_legacy) {
        return rk_refuse(scope, RK_CODE_PREDICATE, what, path.at, path.len,
                         "values in a legacy format can be read under their own path only; sweep "
                         "the collection, then drop legacy from the policy");
    }
    *node = match.node;
    return RK_VERDICT_FORWARD;
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

/* One element of a projection whose value is not a plain yes or no. */
static enum rk_verdict check_computed(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                                      bool related, struct rk_aliases *aliases)
{
    const struct rk_path_node *node;
    struct rk_bson_view ops;
    struct rk_bson_elem op;
    struct rk_text path;
    if (rk_expr_reference(elem, &path)) {
        enum rk_verdict verdict = rk_expr_hand_on(scope, "projection", path, &node);
        if (verdict == RK_VERDICT_FORWARD && node != NULL && aliases != NULL) {
            rk_aliases_add(aliases, elem->key, elem->key_len, node);
            /* Arrays on the way would put indexes into later spellings of a dotted name. */
            aliases->all = aliases->all || memchr(elem->key, '.', elem->key_len) != NULL;
        }
        return verdict;
    }
    if (rk_elem_is_operators(elem, &ops)) {
        bool elem_match = rk_bson_find(&ops, "$elemMatch", &op);
        bool above = rk_scope_relate(scope, elem->key, elem->key_len).relation == RK_PATH_ABOVE;
        if (above && !elem_match && rk_bson_find(&ops, "$slice", &op) && is_count(&op)) {
            return RK_VERDICT_FORWARD; /* whole elements, whatever is in them */
        }
        if (related && (elem_match || rk_bson_find(&ops, "$slice", &op))) {
            return rk_refuse(scope, RK_CODE_PREDICATE, op.key, elem->key, elem->key_len,
                             "not possible on encrypted values; project the whole path");
        }
        if (elem_match) {
            return RK_VERDICT_FORWARD; /* a filter, in which "$" has no meaning in values */
        }
    }
    if (rk_expr_touches(scope, elem, &path)) {
        return rk_refuse(scope, RK_CODE_PREDICATE, "an expression", path.at, path.len,
                         "the server cannot compute on ciphertext; project the whole value");
    }
    return RK_VERDICT_FORWARD;
}

enum rk_verdict rk_projection_check(const struct rk_scope *scope, const struct rk_bson_view *spec,
                                    struct rk_aliases *aliases, bool *moved)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    if (!rk_scope_guarded(scope)) {
        return verdict;
    }
    rk_bson_iter_init(&iter, spec);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        struct rk_path_match match = rk_scope_relate(scope, elem.key, elem.key_len);
        bool related = match.relation != RK_PATH_UNRELATED;
        if (match.relation == RK_PATH_BELOW) {
            return rk_refuse(
                scope, RK_CODE_BELOW, "projection", elem.key, elem.key_len,
                "it lies inside an encrypted value; project the protected path itself");
        }
        if (elem.type == RK_BSON_STRING || elem.type == RK_BSON_SYMBOL ||
            elem.type == RK_BSON_DOCUMENT || elem.type == RK_BSON_ARRAY) {
            verdict = check_computed(scope, &elem, related, aliases);
            if (related && moved != NULL) {
                *moved = true;
            }
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
