/* Cursors that belong to a key set: found again, forgotten, and never more than allowed. */
#include "../../../src/session/cursors_internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define HOUR_US (60ull * 60 * 1000000) /* longer than a cursor lives unused */
#define APART 4096                     /* ids this far apart share a bucket */

static struct rk_cursors *cursors;

static int open_book(void **state)
{
    (void)state;
    cursors = rk_cursors_new();
    return cursors == NULL;
}

static int close_book(void **state)
{
    (void)state;
    rk_cursors_free(cursors);
    return 0;
}

static void test_found_until_forgotten(void **state)
{
    (void)state;
    for (int64_t i = 1; i <= 100; i++) {
        assert_true(rk_cursors_add(cursors, i * APART, (uint64_t)i, 100, 0));
    }
    assert_int_equal(rk_cursors_use(cursors, 7, 0), 0);
    rk_cursors_forget(cursors, 7);
    for (int64_t i = 1; i <= 100; i++) {
        assert_int_equal(rk_cursors_use(cursors, i * APART, 0), i);
        rk_cursors_forget(cursors, i * APART);
        assert_int_equal(rk_cursors_use(cursors, i * APART, 0), 0);
    }
}

static void test_the_last_to_take_an_id_has_it(void **state)
{
    (void)state;
    assert_true(rk_cursors_add(cursors, INT64_MAX, 1, 1, 0));
    assert_true(rk_cursors_add(cursors, INT64_MAX, 2, 1, 0));
    assert_int_equal(rk_cursors_use(cursors, INT64_MAX, 0), 2);
}

static void test_no_more_than_allowed(void **state)
{
    (void)state;
    assert_true(rk_cursors_add(cursors, 1, 1, 2, 0));
    assert_true(rk_cursors_add(cursors, 2, 1, 2, 0));
    assert_false(rk_cursors_add(cursors, 3, 1, 2, HOUR_US / 2));
    assert_int_equal(rk_cursors_use(cursors, 1, HOUR_US / 2), 1);
    /* Of the two, the first is in use. */
    assert_true(rk_cursors_add(cursors, 3, 1, 2, HOUR_US));
    assert_int_equal(rk_cursors_use(cursors, 1, HOUR_US), 1);
    assert_int_equal(rk_cursors_use(cursors, 2, HOUR_US), 0);
    assert_int_equal(rk_cursors_use(cursors, 3, HOUR_US), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_found_until_forgotten, open_book, close_book),
        cmocka_unit_test_setup_teardown(test_the_last_to_take_an_id_has_it, open_book, close_book),
        cmocka_unit_test_setup_teardown(test_no_more_than_allowed, open_book, close_book),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
