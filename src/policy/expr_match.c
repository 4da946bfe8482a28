/*
 * A protected field compared with a constant, as it is written. The constant becomes its ciphertext
 * under every key that records may still be under: {$eq: ["$ssn", x]} is true when any of them is
 * there. References are repeated for that ($or of $eq, which the server can answer from an index);
 * what is longer stands once, before $in.
 */
#include "expr_internal.h"

#include <stdio.h>

#define NAME_MAX 16u

/* {op: [field, form i]}, or with swap [form i, field]. */
static enum rk_verdict put_form(const struct rk_match *m, const char *op, bool swap, size_t i,
                                struct rk_bson_writer *w)
{
    rk_bson_begin_sub(w, RK_BSON_ARRAY, op, strlen(op));
    if (!swap) {
        rk_bson_copy_as(w, "0", 1, m->field);
    }
    enum rk_verdict verdict = rk_compare_put(m->cmp, m->value, i, swap ? "0" : "1", w);
    if (swap) {
        rk_bson_copy_as(w, "1", 1, m->field);
    }
    rk_bson_end(w);
    return verdict;
}

/* {any: [{op: [field, form]}, ...]} */
static enum rk_verdict put_each(const struct rk_match *m, const char *any, const char *op,
                                bool swap, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_REPLACE;
    size_t n = rk_compare_forms(m->cmp, m->value);
    char name[NAME_MAX];
    rk_bson_begin_sub(w, RK_BSON_ARRAY, any, strlen(any));
    for (size_t i = 0; i < n && !rk_stops(verdict); i++) {
        int len = snprintf(name, sizeof name, "%zu", i);
        rk_bson_begin_sub(w, RK_BSON_DOCUMENT, name, (size_t)len);
        verdict = put_form(m, op, swap, i, w);
        rk_bson_end(w);
    }
    rk_bson_end(w);
    return verdict;
}

/* {op: [field, [forms]]} */
static enum rk_verdict put_list(const struct rk_match *m, const char *op, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_REPLACE;
    unsigned index = 0;
    rk_bson_begin_sub(w, RK_BSON_ARRAY, op, strlen(op));
    rk_bson_copy_as(w, "0", 1, m->field);
    rk_bson_begin_sub(w, RK_BSON_ARRAY, "1", 1);
    verdict = rk_compare_put_all(m->cmp, m->value, &index, w);
    rk_bson_end(w);
    rk_bson_end(w);
    return verdict;
}

enum rk_verdict rk_match_put_equality(const struct rk_match *m, bool equal,
                                      struct rk_bson_writer *w)
{
    size_t n = rk_compare_forms(m->cmp, m->value);
    if (n == 1) {
        return put_form(m, equal ? "$eq" : "$ne", false, 0, w);
    }
    if (m->field->type == RK_BSON_STRING) {
        return put_each(m, equal ? "$or" : "$and", equal ? "$eq" : "$ne", false, w);
    }
    if (equal) {
        return put_list(m, "$in", w);
    }
    rk_bson_begin_sub(w, RK_BSON_ARRAY, "$not", 4);
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "0", 1);
    enum rk_verdict verdict = put_list(m, "$in", w);
    rk_bson_end(w);
    rk_bson_end(w);
    return verdict;
}

/* A constant in an array of the field's values: {$in: [x, "$contacts.mail"]}. */
enum rk_verdict rk_match_put_membership(const struct rk_match *m, struct rk_bson_writer *w)
{
    size_t n = rk_compare_forms(m->cmp, m->value);
    if (n == 1) {
        return put_form(m, "$in", true, 0, w);
    }
    if (m->field->type == RK_BSON_STRING) {
        return put_each(m, "$or", "$in", true, w);
    }
    rk_bson_begin_sub(w, RK_BSON_ARRAY, "$gt", 3);
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "0", 1);
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "$size", 5);
    enum rk_verdict verdict = put_list(m, "$setIntersection", w);
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_put_int32(w, "1", 0);
    rk_bson_end(w);
    return verdict;
}
