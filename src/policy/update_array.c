/*
 * Operators on arrays of sub-documents with protected fields. What is added is encrypted; what is
 * looked for is a filter on the elements, or a whole element, which can only be compared when its
 * ciphertext has one form.
 */
#include "update_internal.h"

static enum rk_verdict put_members(const struct rk_scope *scope, const struct rk_path_node *node,
                                   const struct rk_bson_view *array, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_iter iter;
    struct rk_bson_elem item;
    rk_bson_iter_init(&iter, array);
    while (rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, rk_update_put_value(scope, node, &item, w));
    }
    return verdict;
}

enum rk_verdict rk_update_put_value(const struct rk_scope *scope, const struct rk_path_node *node,
                                    const struct rk_bson_elem *value, struct rk_bson_writer *w)
{
    struct rk_bson_view view;
    if (!rk_bson_elem_view(value, &view)) {
        return rk_copy_plain(scope, value, w);
    }
    rk_bson_begin_sub(w, value->type, value->key, value->key_len);
    enum rk_verdict verdict =
        value->type == RK_BSON_ARRAY
            ? put_members(scope, node, &view, w)
            : rk_document_encrypt(scope->crypt, scope->ns, node, &view, w, scope->err);
    rk_bson_end(w);
    return verdict;
}

/* Does every protected value in it have one ciphertext, and only one? */
static bool has_one_form(const struct rk_scope *scope, const struct rk_path_node *node,
                         const struct rk_bson_elem *value)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem item;
    if (node->field != NULL) {
        const struct rk_comparison cmp = {
            .scope = scope,
            .path = value,
            .match = {.relation = RK_PATH_EXACT, .node = node, .field = node->field}};
        return rk_elem_is_null(value) || (node->field->algorithm == RK_ALGORITHM_DETERMINISTIC &&
                                          node->field->n_legacy == 0 && !scope->collation &&
                                          rk_field_keys(scope, cmp.match.field).missing_id == 0 &&
                                          rk_compare_forms(&cmp, value) == 1);
    }
    if (!rk_bson_elem_view(value, &view)) {
        return true;
    }
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM) {
        const struct rk_path_node *child =
            rk_path_step(node, value->type == RK_BSON_ARRAY, item.key, item.key_len);
        if (child != NULL && !has_one_form(scope, child, &item)) {
            return false;
        }
    }
    return true;
}

/* Appends a value that mongod compares whole with the elements of the array at node. */
static enum rk_verdict put_compared(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                    const struct rk_bson_elem *field,
                                    const struct rk_path_node *node,
                                    const struct rk_bson_elem *value, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = rk_update_put_value(scope, node, value, w);
    if (verdict == RK_VERDICT_REPLACE && !has_one_form(scope, node, value)) {
        return rk_refuse(scope, RK_CODE_UPDATE_OPERATOR, op->key, field->key, field->key_len,
                         "whole elements are compared, and equal values may have other ciphertext "
                         "(random fields, integers, two live keys); choose them by one field, or "
                         "use $push or $set");
    }
    return verdict;
}

static enum rk_verdict put_all_compared(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                        const struct rk_bson_elem *field,
                                        const struct rk_path_node *node,
                                        const struct rk_bson_elem *list, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem item;
    if (list->type != RK_BSON_ARRAY || !rk_bson_elem_view(list, &view)) {
        rk_bson_copy(w, list); /* mongod refuses it */
        return verdict;
    }
    rk_bson_begin_sub(w, list->type, list->key, list->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, put_compared(scope, op, field, node, &item, w));
    }
    rk_bson_end(w);
    return verdict;
}

/* The modifiers {$each: [...], ...}; false: the value is meant as it is. $addToSet knows them by
 * the first key, $push by any. */
static bool has_each(const struct rk_bson_elem *field, bool first, struct rk_bson_view *modifiers)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem each;
    if (field->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(field, modifiers)) {
        return false;
    }
    if (!first) {
        return rk_bson_find(modifiers, "$each", &each);
    }
    rk_bson_iter_init(&iter, modifiers);
    return rk_bson_next(&iter, &each) == RK_BSON_STEP_ELEM && rk_bson_key_is(&each, "$each");
}

/* A scope in which paths start at the elements of the array at node. */
static struct rk_scope elements_scope(const struct rk_scope *scope, const struct rk_path_node *node,
                                      struct rk_policy *elements)
{
    struct rk_scope below = *scope;
    *elements = (struct rk_policy){.ns = scope->ns, .root = *node};
    below.policy = elements;
    return below;
}

static enum rk_verdict check_push_sort(const struct rk_scope *scope,
                                       const struct rk_bson_elem *field,
                                       const struct rk_path_node *node,
                                       const struct rk_bson_elem *sort)
{
    struct rk_policy elements;
    struct rk_bson_view keys;
    const struct rk_scope below = elements_scope(scope, node, &elements);
    if (rk_bson_elem_view(sort, &keys)) {
        return rk_keys_check(&below, sort->key, &keys);
    }
    return rk_refuse(scope, RK_CODE_UPDATE_OPERATOR, sort->key, field->key, field->key_len,
                     "the order of ciphertext has no meaning; sort by an unprotected field");
}

/* What $push and $addToSet (compared) add: a value, or {$each: [values], ...}. */
static enum rk_verdict rewrite_added(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                     const struct rk_bson_elem *field, bool compared,
                                     struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_path_match match = rk_scope_relate(scope, field->key, field->key_len);
    struct rk_bson_view modifiers;
    struct rk_bson_iter iter;
    struct rk_bson_elem modifier;
    if (match.relation != RK_PATH_ABOVE) {
        return rk_operator_other(scope, op, field, w);
    }
    if (!has_each(field, compared, &modifiers)) {
        return compared ? put_compared(scope, op, field, match.node, field, w)
                        : rk_update_put_value(scope, match.node, field, w);
    }
    rk_bson_begin_sub(w, field->type, field->key, field->key_len);
    rk_bson_iter_init(&iter, &modifiers);
    while (rk_bson_next(&iter, &modifier) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        enum rk_verdict one = RK_VERDICT_FORWARD;
        if (rk_bson_key_is(&modifier, "$each")) {
            one = compared ? put_all_compared(scope, op, field, match.node, &modifier, w)
                           : rk_update_put_value(scope, match.node, &modifier, w);
        } else {
            if (rk_bson_key_is(&modifier, "$sort")) {
                one = check_push_sort(scope, field, match.node, &modifier);
            }
            rk_bson_copy(w, &modifier);
        }
        verdict = rk_worse(verdict, one);
    }
    rk_bson_end(w);
    return verdict;
}

enum rk_verdict rk_operator_push(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                 const struct rk_bson_elem *field, struct rk_bson_writer *w)
{
    return rewrite_added(scope, op, field, false, w);
}

enum rk_verdict rk_operator_add_to_set(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                       const struct rk_bson_elem *field, struct rk_bson_writer *w)
{
    return rewrite_added(scope, op, field, true, w);
}

/* A filter on elements that are documents, unlike {$in: [...]}, which is one on any element. */
static bool is_filter(const struct rk_bson_elem *field, struct rk_bson_view *filter)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem first;
    if (field->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(field, filter)) {
        return false;
    }
    rk_bson_iter_init(&iter, filter);
    return rk_bson_next(&iter, &first) != RK_BSON_STEP_ELEM || first.key[0] != '$' ||
           rk_bson_key_is(&first, "$and") || rk_bson_key_is(&first, "$or") ||
           rk_bson_key_is(&first, "$nor");
}

enum rk_verdict rk_operator_pull(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                 const struct rk_bson_elem *field, struct rk_bson_writer *w)
{
    struct rk_path_match match = rk_scope_relate(scope, field->key, field->key_len);
    struct rk_policy elements;
    struct rk_bson_view filter;
    if (match.relation != RK_PATH_ABOVE) {
        return rk_operator_other(scope, op, field, w);
    }
    if (is_filter(field, &filter)) {
        const struct rk_scope below = elements_scope(scope, match.node, &elements);
        rk_bson_begin_sub(w, field->type, field->key, field->key_len);
        enum rk_verdict verdict = rk_query_rewrite(&below, &filter, 0, w);
        rk_bson_end(w);
        return verdict;
    }
    if (field->type == RK_BSON_DOCUMENT) {
        return rk_refuse(scope, RK_CODE_UPDATE_OPERATOR, op->key, field->key, field->key_len,
                         "encrypted fields lie below; choose the elements by their fields");
    }
    return put_compared(scope, op, field, match.node, field, w);
}

enum rk_verdict rk_operator_pull_all(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                     const struct rk_bson_elem *field, struct rk_bson_writer *w)
{
    struct rk_path_match match = rk_scope_relate(scope, field->key, field->key_len);
    return match.relation == RK_PATH_ABOVE
               ? put_all_compared(scope, op, field, match.node, field, w)
               : rk_operator_other(scope, op, field, w);
}

enum rk_verdict rk_operator_pop(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                const struct rk_bson_elem *field, struct rk_bson_writer *w)
{
    if (rk_scope_relate(scope, field->key, field->key_len).relation != RK_PATH_ABOVE) {
        return rk_operator_other(scope, op, field, w);
    }
    rk_bson_copy(w, field); /* whole elements, whatever is in them */
    return RK_VERDICT_FORWARD;
}
