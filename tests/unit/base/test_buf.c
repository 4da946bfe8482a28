#include <rekey/base/buf.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

static void test_appends_in_order_little_endian(void **state)
{
    (void)state;
    static const uint8_t expected[] = {
        'a',  'b',                                      /* bytes as given */
        0x7F,                                           /* u8 */
        0x04, 0x03, 0x02, 0x01,                         /* u32 0x01020304 */
        0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, /* u64 0x0102030405060708 */
    };
    struct rk_buf buf;
    rk_buf_init(&buf, 100);
    assert_int_equal(rk_buf_append(&buf, "ab", 2), RK_OK);
    assert_int_equal(rk_buf_append_u8(&buf, 0x7F), RK_OK);
    assert_int_equal(rk_buf_append_u32(&buf, 0x01020304), RK_OK);
    assert_int_equal(rk_buf_append_u64(&buf, 0x0102030405060708), RK_OK);
    assert_int_equal(rk_buf_append(&buf, NULL, 0), RK_OK);
    assert_int_equal(buf.len, sizeof expected);
    assert_memory_equal(buf.data, expected, sizeof expected);
    rk_buf_deinit(&buf);
    assert_null(buf.data);
    rk_buf_deinit(&buf);
}

static void test_the_cap_is_exact_and_appends_are_whole(void **state)
{
    (void)state;
    struct rk_buf buf;
    rk_buf_init(&buf, 10);
    assert_int_equal(rk_buf_append(&buf, "12345678", 8), RK_OK);
    assert_int_equal(rk_buf_append_u32(&buf, 1), RK_ELIMIT);
    assert_int_equal(rk_buf_append(&buf, "abc", 3), RK_ELIMIT);
    assert_int_equal(rk_buf_reserve(&buf, SIZE_MAX), RK_ELIMIT);
    assert_int_equal(buf.len, 8);
    assert_memory_equal(buf.data, "12345678", 8);
    assert_int_equal(rk_buf_append(&buf, "ab", 2), RK_OK);
    assert_int_equal(rk_buf_append_u8(&buf, 0), RK_ELIMIT);
    rk_buf_deinit(&buf);
}

static void test_grows_to_a_cap_that_is_no_power_of_two(void **state)
{
    (void)state;
    struct rk_buf buf;
    rk_buf_init(&buf, 1000);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(rk_buf_append_u8(&buf, (uint8_t)i), RK_OK);
        assert_true(buf.cap <= 1000);
    }
    assert_int_equal(rk_buf_append_u8(&buf, 0), RK_ELIMIT);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(buf.data[i], (uint8_t)i);
    }
    rk_buf_deinit(&buf);
}

static void test_reserve_then_fill(void **state)
{
    (void)state;
    struct rk_buf buf;
    rk_buf_init(&buf, 4096);
    assert_int_equal(rk_buf_reserve(&buf, 300), RK_OK);
    memset(buf.data, 'x', 300);
    buf.len += 300;
    assert_int_equal(rk_buf_reserve(&buf, 4096 - 300), RK_OK);
    assert_int_equal(rk_buf_reserve(&buf, 4096 - 299), RK_ELIMIT);
    assert_int_equal(buf.data[299], 'x');
    rk_buf_deinit(&buf);
}

static void test_consume(void **state)
{
    (void)state;
    struct rk_buf buf;
    rk_buf_init(&buf, 100);
    assert_int_equal(rk_buf_append(&buf, "abcdef", 6), RK_OK);
    rk_buf_consume(&buf, 0);
    rk_buf_consume(&buf, 2);
    assert_int_equal(buf.len, 4);
    assert_memory_equal(buf.data, "cdef", 4);
    rk_buf_consume(&buf, 4);
    assert_int_equal(buf.len, 0);
    rk_buf_deinit(&buf);
}

static void test_cleanse_leaves_no_byte(void **state)
{
    (void)state;
    struct rk_buf buf;
    rk_buf_init(&buf, 100);
    assert_int_equal(rk_buf_append(&buf, "secret", 6), RK_OK);
    rk_buf_consume(&buf, 3); /* the tail of "secret" still lies behind len */
    rk_buf_cleanse(&buf);
    assert_int_equal(buf.len, 0);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(buf.data[i], 0);
    }
    rk_buf_deinit(&buf);
    rk_buf_cleanse(&buf);
}

static void test_clear_keeps_and_take_moves(void **state)
{
    (void)state;
    struct rk_buf buf;
    size_t len = 99;
    rk_buf_init(&buf, 100);
    assert_int_equal(rk_buf_append(&buf, "abc", 3), RK_OK);
    uint8_t *before = buf.data;
    rk_buf_clear(&buf);
    assert_int_equal(rk_buf_append(&buf, "de", 2), RK_OK);
    assert_ptr_equal(buf.data, before);
    uint8_t *taken = rk_buf_take(&buf, &len);
    assert_int_equal(len, 2);
    assert_memory_equal(taken, "de", 2);
    free(taken);
    assert_int_equal(buf.len, 0);
    assert_int_equal(buf.max, 100);
    assert_int_equal(rk_buf_append(&buf, "f", 1), RK_OK);
    rk_buf_deinit(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends_in_order_little_endian),
        cmocka_unit_test(test_the_cap_is_exact_and_appends_are_whole),
        cmocka_unit_test(test_grows_to_a_cap_that_is_no_power_of_two),
        cmocka_unit_test(test_reserve_then_fill),
        cmocka_unit_test(test_consume),
        cmocka_unit_test(test_cleanse_leaves_no_byte),
        cmocka_unit_test(test_clear_keeps_and_take_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
