/*
 * Any bytes as a document. Walking never leaves it, valid or not; a valid one that is written
 * again element by element comes out byte for byte the same, and a document put together from
 * its elements under other keys is valid as well. The order of values is one.
 */
#include <rekey/bson/compare.h>
#include <rekey/bson/rewrite.h>

#include <stdlib.h>

#define LEN_MAX 65536u
#define DEPTH_MAX 200u

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* Every accessor on every element, as far down as documents go. */
static void look_at(const struct rk_bson_view *view, unsigned depth)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_elem found;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        struct rk_bson_view sub;
        const char *text = NULL;
        uint32_t len = 0;
        int64_t number = 0;
        check(elem.start >= view->data + 4 && elem.value <= elem.start + elem.len);
        check(elem.start + elem.len < view->data + view->len);
        check(elem.value + elem.value_len == elem.start + elem.len);
        check(strlen(elem.key) == elem.key_len && rk_bson_key_is(&elem, elem.key));
        (void)rk_bson_elem_truthy(&elem);
        (void)rk_bson_elem_int(&elem, &number);
        if (rk_bson_elem_utf8(&elem, &text, &len)) {
            check(text[len] == '\0');
        }
        if (elem.key_len < 8) {
            check(rk_bson_find(view, elem.key, &found) && found.start <= elem.start);
        }
        if (rk_bson_elem_view(&elem, &sub) && depth > 1) {
            look_at(&sub, depth - 1);
        }
    }
}

static int sign(int order)
{
    return (order > 0) - (order < 0);
}

/* Each element with the two after it. */
static void check_order(const struct rk_bson_view *view)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem a;
    struct rk_bson_elem b;
    struct rk_bson_elem c;
    rk_bson_iter_init(&iter, view);
    if (rk_bson_next(&iter, &a) != RK_BSON_STEP_ELEM ||
        rk_bson_next(&iter, &b) != RK_BSON_STEP_ELEM) {
        return;
    }
    while (rk_bson_next(&iter, &c) == RK_BSON_STEP_ELEM) {
        int ab = sign(rk_bson_compare(&a, &b));
        int bc = sign(rk_bson_compare(&b, &c));
        check(rk_bson_compare(&a, &a) == 0 && sign(rk_bson_compare(&b, &a)) == -ab);
        check(ab != bc || sign(rk_bson_compare(&a, &c)) == ab);
        a = b;
        b = c;
    }
}

static void write_again(struct rk_bson_writer *w, const struct rk_bson_view *view)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        struct rk_bson_view sub;
        if (rk_bson_elem_view(&elem, &sub)) {
            rk_bson_begin_sub(w, elem.type, elem.key, elem.key_len);
            write_again(w, &sub);
        } else {
            rk_bson_copy(w, &elem);
        }
    }
    rk_bson_end(w);
}

static void check_rewrites(const struct rk_bson_view *view)
{
    struct rk_buf out;
    struct rk_bson_writer w;
    struct rk_bson_view again;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_buf_init(&out, 16 * LEN_MAX);
    rk_bson_writer_init(&w, &out);
    rk_bson_begin(&w);
    write_again(&w, view);
    check(rk_bson_writer_status(&w) == RK_OK);
    check(out.len == view->len && memcmp(out.data, view->data, view->len) == 0);

    rk_buf_clear(&out);
    rk_bson_begin(&w);
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        rk_bson_copy_as(&w, "renamed", 7, &elem);
    }
    rk_bson_end(&w);
    check(rk_bson_writer_status(&w) == RK_OK);
    check(rk_bson_view_init(&again, out.data, out.len) && again.len == out.len);
    check(rk_bson_validate(&again, DEPTH_MAX));
    rk_buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rk_bson_view view;
    if (size < 5 || size > LEN_MAX) {
        return 0;
    }
    /* The length put right, in memory of exactly that size; the closing NUL is the fuzzer's. */
    uint8_t *copy = malloc(size);
    check(copy != NULL);
    memcpy(copy, data, size);
    if (!rk_bson_view_init(&view, copy, size)) {
        rk_store_u32(copy, (uint32_t)size);
    }
    if (rk_bson_view_init(&view, copy, size)) {
        look_at(&view, DEPTH_MAX);
        if (rk_bson_validate(&view, DEPTH_MAX)) {
            check_rewrites(&view);
            check_order(&view);
        }
    }
    free(copy);
    return 0;
}
