/*
 * distinct on a protected path: decrypt, then de-duplicate. Sorted and not hashed, so that no
 * choice of values makes it slow.
 */
#include <stdio.h>
#include <stdlib.h>

#include "reply_internal.h"

struct value {
    struct rk_bson_elem elem;
    bool duplicate;
};

/* By value: whole numbers of any type are one kind, as they are to mongod; else type and bytes. */
static int order_of(const struct value *x, const struct value *y)
{
    int64_t a;
    int64_t b;
    bool x_whole = rk_bson_elem_int(&x->elem, &a);
    bool y_whole = rk_bson_elem_int(&y->elem, &b);
    if (x_whole != y_whole) {
        return x_whole ? -1 : 1;
    }
    if (x_whole) {
        return (a > b) - (a < b);
    }
    if (x->elem.type != y->elem.type) {
        return x->elem.type < y->elem.type ? -1 : 1;
    }
    if (x->elem.value_len != y->elem.value_len) {
        return x->elem.value_len < y->elem.value_len ? -1 : 1;
    }
    return memcmp(x->elem.value, y->elem.value, x->elem.value_len);
}

/* For qsort; equal values by position, so that the first comes first. */
static int compare_values(const void *a, const void *b)
{
    const struct value *x = *(const struct value *const *)a;
    const struct value *y = *(const struct value *const *)b;
    int order = order_of(x, y);
    return order != 0 ? order : (x > y) - (x < y);
}

static size_t count_elements(const struct rk_bson_view *view)
{
    size_t n = 0;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        n++;
    }
    return n;
}

/* Marks all but the first of equal values. */
static enum rk_status mark_duplicates(struct value *values, size_t n)
{
    struct value **sorted = calloc(n, sizeof *sorted);
    if (sorted == NULL) {
        return RK_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        sorted[i] = &values[i];
    }
    qsort(sorted, n, sizeof *sorted, compare_values);
    for (size_t i = 1; i < n; i++) {
        sorted[i]->duplicate = order_of(sorted[i - 1], sorted[i]) == 0;
    }
    free(sorted);
    return RK_OK;
}

static enum rk_status write_unique(struct rk_bson_writer *w, const struct rk_bson_view *plain)
{
    size_t n = count_elements(plain);
    if (n == 0) {
        return RK_OK;
    }
    struct value *values = calloc(n, sizeof *values);
    if (values == NULL) {
        return RK_ENOMEM;
    }
    struct rk_bson_iter iter;
    rk_bson_iter_init(&iter, plain);
    for (size_t i = 0; i < n && rk_bson_next(&iter, &values[i].elem) == RK_BSON_STEP_ELEM; i++) {
    }
    enum rk_status status = mark_duplicates(values, n);
    size_t kept = 0;
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        if (!values[i].duplicate) {
            char key[24];
            int key_len = snprintf(key, sizeof key, "%zu", kept++);
            rk_bson_copy_as(w, key, (size_t)key_len, &values[i].elem);
        }
    }
    free(values);
    return status;
}

enum rk_verdict rk_reply_distinct(struct rk_reply *r, const struct rk_bson_elem *values,
                                  const struct rk_trail *up)
{
    const struct rk_trail at = {.up = up, .key = values->key, .key_len = values->key_len};
    struct rk_buf *scratch = &r->d.crypt->scratch;
    struct rk_bson_writer *w = r->d.w;
    struct rk_bson_writer plain;
    struct rk_bson_view view;
    if (!rk_bson_elem_view(values, &view)) {
        return rk_decrypt_elem(&r->d, NULL, values, up);
    }
    rk_buf_clear(scratch);
    rk_bson_writer_init(&plain, scratch);
    r->d.w = &plain;
    rk_bson_begin(&plain);
    enum rk_verdict verdict = rk_decrypt_elements(&r->d, r->distinct, true, &view, &at);
    rk_bson_end(&plain);
    r->d.w = w;
    if (verdict == RK_VERDICT_FORWARD && w->status == RK_OK) {
        w->status = plain.status;
    }
    if (verdict == RK_VERDICT_FORWARD && w->status == RK_OK &&
        rk_bson_view_init(&view, scratch->data, scratch->len)) {
        rk_bson_begin_sub(w, values->type, values->key, values->key_len);
        enum rk_status status = write_unique(w, &view);
        rk_bson_end(w);
        if (status != RK_OK) {
            w->status = status;
        }
    }
    rk_buf_cleanse(scratch);
    return verdict;
}
