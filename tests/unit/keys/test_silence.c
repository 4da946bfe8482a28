#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../../src/keys/silence_internal.h"

#include <stdio.h>
#include <unistd.h>

static void test_who_is_seen_for_the_first_time_is_not_silent(void **state)
{
    (void)state;
    struct rk_silence silence = {0};
    assert_false(rk_silence_lasts(&silence, "a", -1000000, 60000));
    assert_false(rk_silence_lasts(&silence, "a", -1000000, 60000));
    rk_silence_deinit(&silence);
}

static void test_silence_is_counted_from_the_first_look_at_a_heartbeat(void **state)
{
    (void)state;
    struct rk_silence silence = {0};
    assert_false(rk_silence_lasts(&silence, "a", 1, 60));
    assert_false(rk_silence_lasts(&silence, "b", 1, 60));
    usleep(70000);
    assert_true(rk_silence_lasts(&silence, "a", 1, 60));
    assert_false(rk_silence_lasts(&silence, "a", 1, 60000));
    assert_false(rk_silence_lasts(&silence, "b", 2, 60)); /* it has been heard of */
    assert_false(rk_silence_lasts(&silence, "c", 1, 60));
    assert_true(rk_silence_lasts(&silence, "a", 1, 60));
    rk_silence_deinit(&silence);
}

static void test_nothing_lasts_no_time(void **state)
{
    (void)state;
    struct rk_silence silence = {0};
    assert_true(rk_silence_lasts(&silence, "ended", 0, 0));
    rk_silence_deinit(&silence);
}

static void test_many(void **state)
{
    (void)state;
    struct rk_silence silence = {0};
    char name[16];
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof name, "i%d", i);
        assert_false(rk_silence_lasts(&silence, name, i, 30));
    }
    usleep(40000);
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof name, "i%d", i);
        assert_true(rk_silence_lasts(&silence, name, i, 30));
    }
    rk_silence_deinit(&silence);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_is_seen_for_the_first_time_is_not_silent),
        cmocka_unit_test(test_silence_is_counted_from_the_first_look_at_a_heartbeat),
        cmocka_unit_test(test_nothing_lasts_no_time),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
