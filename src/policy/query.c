/*
 * Filters. What ciphertext can answer is rewritten, what it cannot is refused: a predicate that
 * silently matched nothing would be worse than an error.
 */
#include "command_internal.h"

#include <rekey/bson/compare.h>

enum predicate_kind {
    PRED_COPY,
    PRED_ONE,
    PRED_LIST,
    PRED_NOT,
    PRED_ELEMENT, /* a filter of its own for the elements of an array */
    PRED_SHAPE,   /* asks what kind of value it is: encryption keeps that above the fields */
    PRED_REFUSE,
};

struct predicate {
    const char *name;
    enum predicate_kind kind;
    const char *many; /* PRED_ONE: the list operator of the same meaning */
    int code;         /* of a refusal */
};

static const struct predicate predicates[] = {
    {"$eq", PRED_ONE, "$in", 0},
    {"$ne", PRED_ONE, "$nin", 0},
    {"$in", PRED_LIST, NULL, 0},
    {"$nin", PRED_LIST, NULL, 0},
    {"$not", PRED_NOT, NULL, 0},
    {"$exists", PRED_COPY, NULL, 0},
    {"$comment", PRED_COPY, NULL, 0},
    {"$gt", PRED_REFUSE, NULL, RK_CODE_RANGE},
    {"$gte", PRED_REFUSE, NULL, RK_CODE_RANGE},
    {"$lt", PRED_REFUSE, NULL, RK_CODE_RANGE},
    {"$lte", PRED_REFUSE, NULL, RK_CODE_RANGE},
    {"$elemMatch", PRED_ELEMENT, NULL, RK_CODE_ELEM_MATCH},
    {"$size", PRED_SHAPE, NULL, RK_CODE_PREDICATE},
    {"$type", PRED_SHAPE, NULL, RK_CODE_PREDICATE},
};
/* $regex, $mod, $all, bits, geo, and whatever comes after this was written. */
static const struct predicate other_predicate = {"", PRED_REFUSE, NULL, RK_CODE_PREDICATE};

static const struct predicate *predicate_find(const char *name)
{
    for (size_t i = 0; i < sizeof predicates / sizeof predicates[0]; i++) {
        if (strcmp(predicates[i].name, name) == 0) {
            return &predicates[i];
        }
    }
    return &other_predicate;
}

static enum rk_verdict refuse_predicate(const struct rk_comparison *cmp, const char *op, int code)
{
    const char *advice = "ciphertext cannot answer it; deterministic fields know $eq, $ne, $in and "
                         "$nin, all fields $exists and null";
    if (cmp->match.relation == RK_PATH_ABOVE) {
        advice = "protected fields lie below; name them by their dotted paths";
        code = code == RK_CODE_ELEM_MATCH ? code : RK_CODE_ABOVE;
    }
    return rk_refuse(cmp->scope, code, op, cmp->path->key, cmp->path->key_len, advice);
}

/* In the filter paths start at the elements, so the array's node is its root. */
enum rk_verdict rk_query_rewrite_element(const struct rk_comparison *cmp,
                                         const struct rk_bson_elem *op, struct rk_bson_writer *w)
{
    struct rk_bson_view filter;
    if (cmp->match.relation != RK_PATH_ABOVE || cmp->match.node == NULL ||
        op->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(op, &filter)) {
        return refuse_predicate(cmp, op->key, RK_CODE_ELEM_MATCH);
    }
    const struct rk_policy elements = {.ns = cmp->scope->ns, .root = *cmp->match.node};
    struct rk_scope scope = *cmp->scope;
    scope.policy = &elements;
    scope.aliases = NULL;
    rk_bson_begin_sub(w, op->type, op->key, op->key_len);
    enum rk_verdict verdict = rk_query_rewrite(&scope, &filter, 0, w);
    rk_bson_end(w);
    return verdict;
}

/* Appends the operators {$in: [...], $exists: true, ...} of one path. */
static enum rk_verdict rewrite_operators(const struct rk_comparison *cmp,
                                         const struct rk_bson_view *ops, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_iter iter;
    struct rk_bson_elem op;
    struct rk_bson_view inner;
    rk_bson_iter_init(&iter, ops);
    while (rk_bson_next(&iter, &op) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        const struct predicate *pred = predicate_find(op.key);
        enum rk_verdict one = RK_VERDICT_FORWARD;
        switch (pred->kind) {
        case PRED_COPY:
            rk_bson_copy(w, &op);
            break;
        case PRED_ONE:
            one = rk_compare_one(cmp, op.key, pred->many, &op, w);
            break;
        case PRED_LIST:
            one = rk_compare_list(cmp, &op, w);
            break;
        case PRED_NOT:
            if (!rk_elem_is_operators(&op, &inner)) {
                return refuse_predicate(cmp, op.key, RK_CODE_PREDICATE);
            }
            rk_bson_begin_sub(w, RK_BSON_DOCUMENT, op.key, op.key_len);
            one = rewrite_operators(cmp, &inner, w);
            rk_bson_end(w);
            break;
        case PRED_ELEMENT:
            one = rk_query_rewrite_element(cmp, &op, w);
            break;
        case PRED_SHAPE:
            if (cmp->match.relation != RK_PATH_ABOVE) {
                return refuse_predicate(cmp, op.key, pred->code);
            }
            rk_bson_copy(w, &op);
            break;
        case PRED_REFUSE:
            return refuse_predicate(cmp, op.key, pred->code);
        }
        verdict = rk_worse(verdict, one);
    }
    return verdict;
}

static enum rk_verdict rewrite_path(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                                    unsigned flags, struct rk_bson_writer *w)
{
    const struct rk_comparison cmp = {.scope = scope,
                                      .path = elem,
                                      .match = rk_scope_relate(scope, elem->key, elem->key_len),
                                      .flags = flags};
    struct rk_bson_view ops;
    switch (cmp.match.relation) {
    case RK_PATH_UNRELATED:
        rk_bson_copy(w, elem);
        return RK_VERDICT_FORWARD;
    case RK_PATH_BELOW:
        return rk_refuse(scope, RK_CODE_BELOW, "filter", elem->key, elem->key_len, RK_BELOW_ADVICE);
    case RK_PATH_ABOVE:
    case RK_PATH_EXACT:
        break;
    }
    if (!rk_elem_is_operators(elem, &ops)) {
        return rk_compare_one(&cmp, NULL, "$in", elem, w);
    }
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, elem->key, elem->key_len);
    enum rk_verdict verdict = rewrite_operators(&cmp, &ops, w);
    rk_bson_end(w);
    return verdict;
}

struct branch {
    const struct rk_scope *scope;
    unsigned flags;
};

static enum rk_verdict rewrite_branch(void *arg, const struct rk_bson_view *member,
                                      struct rk_bson_writer *w)
{
    const struct branch *branch = arg;
    return rk_query_rewrite(branch->scope, member, branch->flags, w);
}

/* An element of a filter whose key starts with '$'. */
static enum rk_verdict rewrite_top(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                                   unsigned flags, struct rk_bson_writer *w)
{
    if (rk_bson_key_is(elem, "$and") || rk_bson_key_is(elem, "$nor") ||
        rk_bson_key_is(elem, "$or")) {
        struct branch branch = {scope, flags};
        branch.flags |= rk_bson_key_is(elem, "$or") ? RK_QUERY_IN_OR : 0;
        if (rk_bson_key_is(elem, "$nor")) {
            branch.flags = 0; /* nothing in it is taken for a new document */
        }
        return rk_rewrite_members(scope, elem, rewrite_branch, &branch, w);
    }
    if (rk_bson_key_is(elem, "$expr")) {
        return rk_expr_rewrite_plain(scope, elem, w);
    }
    if (rk_bson_key_is(elem, "$where") || rk_bson_key_is(elem, "$text")) {
        return rk_refuse(scope, RK_CODE_WHERE, elem->key, NULL, 0,
                         "not possible in a collection with encrypted fields");
    } else if (!rk_bson_key_is(elem, "$comment") && !rk_bson_key_is(elem, "$alwaysTrue") &&
               !rk_bson_key_is(elem, "$alwaysFalse") && !rk_bson_key_is(elem, "$sampleRate")) {
        return rk_refuse(scope, RK_CODE_PREDICATE, elem->key, NULL, 0,
                         "not possible in a collection with encrypted fields");
    }
    rk_bson_copy(w, elem);
    return RK_VERDICT_FORWARD;
}

enum rk_verdict rk_query_rewrite(const struct rk_scope *scope, const struct rk_bson_view *filter,
                                 unsigned flags, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    bool guarded = rk_scope_guarded(scope);
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, filter);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        if (!guarded) {
            rk_bson_copy(w, &elem);
        } else if (elem.key[0] == '$') {
            verdict = rk_worse(verdict, rewrite_top(scope, &elem, flags, w));
        } else {
            verdict = rk_worse(verdict, rewrite_path(scope, &elem, flags, w));
        }
    }
    return verdict;
}

/* A schema's properties by name; protected values are BinData to mongod and fail any type. */
static bool schema_mentions(const struct rk_scope *scope, const struct rk_bson_view *schema,
                            struct rk_text *path)
{
    struct rk_bson_iter iter;
    struct rk_bson_iter inner;
    struct rk_bson_elem elem;
    struct rk_bson_elem property;
    struct rk_bson_view view;
    rk_bson_iter_init(&iter, schema);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (!rk_bson_elem_view(&elem, &view)) {
            continue;
        }
        if (rk_bson_key_is(&elem, "properties")) {
            rk_bson_iter_init(&inner, &view);
            while (rk_bson_next(&inner, &property) == RK_BSON_STEP_ELEM) {
                if (rk_scope_touches(scope, property.key, property.key_len)) {
                    *path = (struct rk_text){property.key, property.key_len};
                    return true;
                }
            }
        }
        if (schema_mentions(scope, &view, path)) {
            return true;
        }
    }
    return false;
}

static bool members_mention(const struct rk_scope *scope, const struct rk_bson_view *array,
                            struct rk_text *path)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view view;
    rk_bson_iter_init(&iter, array);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (rk_bson_elem_view(&elem, &view) && rk_query_mentions(scope, &view, path)) {
            return true;
        }
    }
    return false;
}

bool rk_query_mentions(const struct rk_scope *scope, const struct rk_bson_view *filter,
                       struct rk_text *path)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view view;
    if (!rk_scope_guarded(scope)) {
        return false;
    }
    rk_bson_iter_init(&iter, filter);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        bool mentions = false;
        *path = (struct rk_text){elem.key, elem.key_len};
        if (elem.key[0] != '$') {
            mentions = rk_scope_touches(scope, elem.key, elem.key_len);
        } else if (rk_bson_key_is(&elem, "$expr")) {
            mentions = rk_expr_touches(scope, &elem, path);
        } else if (rk_bson_key_is(&elem, "$jsonSchema")) {
            mentions = rk_bson_elem_view(&elem, &view) && schema_mentions(scope, &view, path);
        } else if (rk_bson_elem_view(&elem, &view)) {
            mentions = members_mention(scope, &view, path);
        } else {
            mentions = rk_bson_key_is(&elem, "$where");
        }
        if (mentions) {
            return true;
        }
    }
    return false;
}

/* The value that mongod would take from a predicate on one path for an upsert's new document. */
static bool seed_value(const struct rk_bson_elem *elem, struct rk_bson_elem *value)
{
    struct rk_bson_view ops;
    struct rk_bson_view list;
    struct rk_bson_iter iter;
    struct rk_bson_elem other;
    if (!rk_elem_is_operators(elem, &ops)) {
        *value = *elem;
        return true;
    }
    if (rk_bson_find(&ops, "$eq", value)) {
        return true;
    }
    /* mongod turns a list of one (and the same) value into an equality before it looks. */
    if (!rk_bson_find(&ops, "$in", value) || !rk_bson_elem_view(value, &list)) {
        return false;
    }
    rk_bson_iter_init(&iter, &list);
    if (rk_bson_next(&iter, value) != RK_BSON_STEP_ELEM) {
        return false;
    }
    while (rk_bson_next(&iter, &other) == RK_BSON_STEP_ELEM) {
        if (rk_bson_compare(&other, value) != 0) {
            return false;
        }
    }
    return true;
}

enum rk_verdict rk_query_seeds(const struct rk_scope *scope, const struct rk_bson_view *filter,
                               rk_seed_fn *each, void *arg)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_iter iter;
    struct rk_bson_iter members;
    struct rk_bson_elem elem;
    struct rk_bson_elem value;
    struct rk_bson_view view;
    rk_bson_iter_init(&iter, filter);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        if (rk_bson_key_is(&elem, "$and") && rk_bson_elem_view(&elem, &view)) {
            rk_bson_iter_init(&members, &view);
            while (rk_bson_next(&members, &value) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
                if (rk_bson_elem_view(&value, &view)) {
                    verdict = rk_worse(verdict, rk_query_seeds(scope, &view, each, arg));
                }
            }
            continue;
        }
        struct rk_path_match match = rk_scope_relate(scope, elem.key, elem.key_len);
        const struct rk_comparison cmp = {.scope = scope, .path = &elem, .match = match};
        if (match.relation == RK_PATH_EXACT && seed_value(&elem, &value) &&
            !rk_elem_is_null(&value) && rk_compare_forms(&cmp, &value) > 1) {
            verdict = rk_worse(verdict, each(arg, &elem, match.field, &value));
        }
    }
    return verdict;
}
