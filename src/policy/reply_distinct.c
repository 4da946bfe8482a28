/*
 * distinct on a protected path: decrypt, then sort and de-duplicate, as mongod does with the values
 * themselves. Ciphertext comes in an order that means nothing.
 */
#include <rekey/bson/compare.h>
#include <stdio.h>
#include <stdlib.h>

#include "reply_internal.h"

/* For qsort; equal values by position, so that the one that came first is kept. */
static int compare_values(const void *a, const void *b)
{
    const struct rk_bson_elem *x = a;
    const struct rk_bson_elem *y = b;
    int order = rk_bson_compare(x, y);
    return order != 0 ? order : (x->start > y->start) - (x->start < y->start);
}

static void put(struct rk_bson_elem *out, size_t at, const struct rk_bson_elem *elem)
{
    if (out != NULL) {
        out[at] = *elem;
    }
}

/*
 * The values as mongod would have met them, into out (NULL: only counted). sent and plain hold the
 * same values, before and after decryption. mongod takes an array apart, one level deep; one that
 * was encrypted as a whole it could not.
 */
static size_t collect(const struct rk_bson_view *sent, const struct rk_bson_view *plain,
                      struct rk_bson_elem *out)
{
    size_t n = 0;
    struct rk_bson_iter i;
    struct rk_bson_iter j;
    struct rk_bson_elem before;
    struct rk_bson_elem after;
    rk_bson_iter_init(&i, sent);
    rk_bson_iter_init(&j, plain);
    while (rk_bson_next(&i, &before) == RK_BSON_STEP_ELEM &&
           rk_bson_next(&j, &after) == RK_BSON_STEP_ELEM) {
        struct rk_bson_view array;
        if (before.type == RK_BSON_ARRAY || after.type != RK_BSON_ARRAY ||
            !rk_bson_elem_view(&after, &array)) {
            put(out, n++, &after);
            continue;
        }
        struct rk_bson_iter members;
        rk_bson_iter_init(&members, &array);
        while (rk_bson_next(&members, &after) == RK_BSON_STEP_ELEM) {
            put(out, n++, &after);
        }
    }
    return n;
}

static enum rk_status write_unique(struct rk_bson_writer *w, const struct rk_bson_view *sent,
                                   const struct rk_bson_view *plain)
{
    size_t n = collect(sent, plain, NULL);
    if (n == 0) {
        return RK_OK;
    }
    struct rk_bson_elem *values = calloc(n, sizeof *values);
    if (values == NULL) {
        return RK_ENOMEM;
    }
    (void)collect(sent, plain, values);
    qsort(values, n, sizeof *values, compare_values);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || rk_bson_compare(&values[i - 1], &values[i]) != 0) {
            char key[24];
            int key_len = snprintf(key, sizeof key, "%zu", kept++);
            rk_bson_copy_as(w, key, (size_t)key_len, &values[i]);
        }
    }
    free(values);
    return RK_OK;
}

enum rk_verdict rk_reply_distinct(struct rk_reply *r, const struct rk_bson_elem *values,
                                  const struct rk_trail *up)
{
    const struct rk_trail at = {.up = up, .key = values->key, .key_len = values->key_len};
    struct rk_buf *scratch = &r->d.crypt->scratch;
    struct rk_bson_writer *w = r->d.w;
    struct rk_bson_writer plain;
    struct rk_bson_view sent;
    struct rk_bson_view view;
    if (!rk_bson_elem_view(values, &sent)) {
        return rk_decrypt_elem(&r->d, NULL, values, up);
    }
    rk_buf_clear(scratch);
    rk_bson_writer_init(&plain, scratch);
    r->d.w = &plain;
    rk_bson_begin(&plain);
    enum rk_verdict verdict = rk_decrypt_elements(&r->d, r->distinct, true, &sent, &at);
    rk_bson_end(&plain);
    r->d.w = w;
    if (verdict == RK_VERDICT_FORWARD && w->status == RK_OK) {
        w->status = plain.status;
    }
    if (verdict == RK_VERDICT_FORWARD && w->status == RK_OK &&
        rk_bson_view_init(&view, scratch->data, scratch->len)) {
        rk_bson_begin_sub(w, values->type, values->key, values->key_len);
        enum rk_status status = write_unique(w, &sent, &view);
        rk_bson_end(w);
        if (status != RK_OK) {
            w->status = status;
        }
    }
    rk_buf_cleanse(scratch);
    return verdict;
}
