#include <rekey/base/backoff.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_pauses_double_up_to_the_limit(void **state)
{
    (void)state;
    assert_int_equal(rk_backoff_next(0, 100, 450), 100);
    assert_int_equal(rk_backoff_next(100, 100, 450), 200);
    assert_int_equal(rk_backoff_next(200, 100, 450), 400);
    assert_int_equal(rk_backoff_next(400, 100, 450), 450);
    assert_int_equal(rk_backoff_next(450, 100, 450), 450);
    assert_int_equal(rk_backoff_next(0, 100, 50), 50);
    assert_true(rk_backoff_next(UINT64_MAX, 100, UINT64_MAX) == UINT64_MAX);
}

static void test_jitter_takes_half_at_most(void **state)
{
    (void)state;
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t pause_us = rk_backoff_jittered(1000001);
        least = pause_us < least ? pause_us : least;
        most = pause_us > most ? pause_us : most;
    }
    /* All of 1000 in one half of the range: once in 2^999 runs. */
    assert_in_range(least, 500001, 750000);
    assert_in_range(most, 750001, 1000001);
    assert_int_equal(rk_backoff_jittered(0), 0);
    assert_in_range(rk_backoff_jittered(1), 1, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pauses_double_up_to_the_limit),
        cmocka_unit_test(test_jitter_takes_half_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
