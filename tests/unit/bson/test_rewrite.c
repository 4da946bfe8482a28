#include <rekey/bson/rewrite.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

static struct rk_buf buf;
static struct rk_bson_writer w;

static int begin(void **state)
{
    (void)state;
    rk_buf_init(&buf, 100000);
    rk_bson_writer_init(&w, &buf);
    return 0;
}

static int end(void **state)
{
    (void)state;
    rk_buf_deinit(&buf);
    return 0;
}

static void test_every_put(void **state)
{
    (void)state;
    static const uint8_t expected[] = {
        0x5A, 0x00, 0x00, 0x00,                                        /* length 90 */
        0x10, 'i',  0,    0xFE, 0xFF, 0xFF, 0xFF,                      /* int32 -2 */
        0x12, 'l',  0,    1,    0,    0,    0,    0,    0, 0,    0x80, /* int64 */
        0x01, 'd',  0,    0,    0,    0,    0,    0,    0, 0xF0, 0x3F, /* double 1.0 */
        0x08, 't',  0,    1,                                           /* true */
        0x02, 's',  0,    4,    0,    0,    0,    'a',  0, 'b',  0,    /* string "a\0b" */
        0x05, 'b',  0,    2,    0,    0,    0,    0x8E, 7, 8,          /* binary */
        0x03, 'o',  0,    5,    0,    0,    0,    0,                   /* {} */
        0x0A, 'n',  0,                                                 /* null */
        0x04, 'a',  0,    17,   0,    0,    0,                         /* array of 17 bytes: */
        0x03, '0',  0,    9,    0,    0,    0,                         /*   [{x: */
        0x08, 'x',  0,    0,    0,                                     /*     false}, */
        0x00,                                                          /*   ] */
        0x00,
    };
    static const uint8_t empty[] = {5, 0, 0, 0, 0};
    const struct rk_bson_view doc = {.data = empty, .len = 5};
    rk_bson_begin(&w);
    rk_bson_put_int32(&w, "i", -2);
    rk_bson_put_int64(&w, "l", INT64_MIN + 1);
    rk_bson_put_double(&w, "d", 1.0);
    rk_bson_put_bool(&w, "t", true);
    rk_bson_put_utf8(&w, "s", "a\0b", 3);
    rk_bson_put_binary(&w, "b", 1, 0x8E, "\x07\x08", 2);
    rk_bson_put_doc(&w, RK_BSON_DOCUMENT, "o", &doc);
    rk_bson_put(&w, RK_BSON_NULL, "n", 1, NULL, 0);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "a", 1);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "0", 1);
    rk_bson_put_bool(&w, "x", false);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
    assert_int_equal(buf.len, sizeof expected);
    assert_memory_equal(buf.data, expected, sizeof expected);
    struct rk_bson_view view;
    assert_true(rk_bson_view_init(&view, buf.data, buf.len));
    assert_true(rk_bson_validate(&view, 3));
}

static void test_copies_what_it_read(void **state)
{
    (void)state;
    static const uint8_t doc[] = {
        25,   0,   0,   0,                  /* length */
        0x10, 'a', 'b', 0, 1, 0, 0, 0,      /* ab: 1 */
        0x02, 'c', 0,   2, 0, 0, 0, 'x', 0, /* c: "x" */
        0x0A, 'n', 0,                       /* n: null */
        0x00,
    };
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    assert_true(rk_bson_view_init(&view, doc, sizeof doc));
    assert_int_equal(rk_buf_append(&buf, "head", 4), RK_OK); /* documents need not start at 0 */
    rk_bson_begin(&w);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        rk_bson_copy(&w, &elem);
    }
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
    assert_int_equal(buf.len, 4 + sizeof doc);
    assert_memory_equal(buf.data + 4, doc, sizeof doc);

    static const uint8_t renamed[] = {14, 0, 0, 0, 0x10, 'l', 'o', 'n', 0, 1, 0, 0, 0, 0};
    rk_buf_clear(&buf);
    assert_true(rk_bson_find(&view, "ab", &elem));
    rk_bson_begin(&w);
    rk_bson_copy_as(&w, "longer", 3, &elem);
    rk_bson_end(&w);
    assert_memory_equal(buf.data, renamed, sizeof renamed);
}

static void test_the_buffers_cap_sticks(void **state)
{
    (void)state;
    rk_buf_deinit(&buf);
    rk_buf_init(&buf, 20);
    rk_bson_begin(&w);
    rk_bson_put_utf8(&w, "key", "a text too long", 15);
    assert_int_equal(rk_bson_writer_status(&w), RK_ELIMIT);
    size_t len = buf.len;
    rk_bson_put_bool(&w, "x", true);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "y", 1);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_ELIMIT);
    assert_int_equal(buf.len, len);
}

static void test_depth_is_bounded(void **state)
{
    (void)state;
    rk_bson_begin(&w);
    for (int i = 1; i < RK_BSON_WRITER_DEPTH_MAX; i++) {
        rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "", 0);
    }
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
    for (int i = 0; i < RK_BSON_WRITER_DEPTH_MAX; i++) {
        rk_bson_end(&w);
    }
    struct rk_bson_view view;
    assert_true(rk_bson_view_init(&view, buf.data, buf.len));
    assert_true(rk_bson_validate(&view, RK_BSON_WRITER_DEPTH_MAX));
    assert_false(rk_bson_validate(&view, RK_BSON_WRITER_DEPTH_MAX - 1));
    rk_bson_begin(&w);
    for (int i = 0; i < RK_BSON_WRITER_DEPTH_MAX; i++) {
        rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "", 0);
    }
    assert_int_equal(rk_bson_writer_status(&w), RK_ELIMIT);
}

#define WITH_WRITER(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WRITER(test_every_put),
        WITH_WRITER(test_copies_what_it_read),
        WITH_WRITER(test_the_buffers_cap_sticks),
        WITH_WRITER(test_depth_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
