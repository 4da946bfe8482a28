#include <rekey/base/bytes.h>
#include <rekey/base/clock.h>
#include <rekey/base/status.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

static void test_error_is_filled_and_returned(void **state)
{
    (void)state;
    struct rk_error err;
    assert_int_equal(rk_error_set(&err, RK_EIO, "file %s: %d", "x", 5), RK_EIO);
    assert_int_equal(err.status, RK_EIO);
    assert_int_equal(err.code, 0);
    assert_string_equal(err.message, "file x: 5");
    assert_int_equal(rk_error_set_code(&err, RK_EREFUSED, 31041, "no"), RK_EREFUSED);
    assert_int_equal(err.code, 31041);
    assert_string_equal(err.message, "no");
    assert_int_equal(rk_error_set(NULL, RK_ENOMEM, "nobody reads this"), RK_ENOMEM);
}

static void test_long_messages_are_cut(void **state)
{
    (void)state;
    struct rk_error err;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(rk_error_set(&err, RK_EINVAL, "%s", text), RK_EINVAL);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

static void test_every_status_has_a_name(void **state)
{
    (void)state;
    for (int i = RK_OK; i <= RK_ETIMEOUT; i++) {
        assert_string_not_equal(rk_status_name((enum rk_status)i), "unknown");
        for (int j = RK_OK; j < i; j++) {
            assert_string_not_equal(rk_status_name((enum rk_status)i),
                                    rk_status_name((enum rk_status)j));
        }
    }
}

static void test_bytes_are_little_endian_at_any_alignment(void **state)
{
    (void)state;
    uint8_t bytes[9] = {0};
    rk_store_u32(bytes + 1, 0xFF020304u);
    assert_memory_equal(bytes, "\0\x04\x03\x02\xFF\0\0\0", 9);
    assert_int_equal(rk_load_u32(bytes + 1), 0xFF020304u);
    assert_int_equal(rk_load_i32(bytes + 1), (int32_t)0xFF020304u);
    rk_store_u64(bytes + 1, 0xFF02030405060708u);
    assert_memory_equal(bytes, "\0\x08\x07\x06\x05\x04\x03\x02\xFF", 9);
    assert_true(rk_load_u64(bytes + 1) == 0xFF02030405060708u);
    assert_true(rk_load_i64(bytes + 1) < 0);
}

static void test_size_arithmetic_reports_overflow(void **state)
{
    (void)state;
    size_t sum = 0;
    assert_true(rk_add_size(SIZE_MAX - 1, 1, &sum));
    assert_true(sum == SIZE_MAX);
    assert_false(rk_add_size(SIZE_MAX, 1, &sum));
}

static void test_clocks(void **state)
{
    (void)state;
    uint64_t a = rk_clock_mono_us();
    uint64_t b = rk_clock_mono_us();
    assert_true(b >= a);
    /* 2026-01-01 to 2100-01-01, in milliseconds. */
    assert_in_range(rk_clock_wall_ms(), 1767225600000, 4102444800000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_is_filled_and_returned),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_every_status_has_a_name),
        cmocka_unit_test(test_bytes_are_little_endian_at_any_alignment),
        cmocka_unit_test(test_size_arithmetic_reports_overflow),
        cmocka_unit_test(test_clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
