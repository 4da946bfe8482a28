/* Who holds a new key up, and whose replies are no answer any more. */
#include "../../../src/keys/readers_internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <rekey/base/clock.h>
#include <stdlib.h>

#define HOUR_US (60ull * 60 * 1000000) /* longer than a cursor lives unused */
#define APART 4096                     /* ids this far apart share a bucket */

static struct rk_readers *readers;

static int open_book(void **state)
{
    (void)state;
    readers = rk_readers_new();
    return readers == NULL;
}

static int close_book(void **state)
{
    (void)state;
    rk_readers_free(readers);
    return 0;
}

static struct rk_reader entered(uint64_t generation, bool endless)
{
    struct rk_reader reader;
    assert_true(rk_readers_enter(readers, generation, endless, &reader));
    return reader;
}

static struct rk_reader entered_cursor(int64_t id)
{
    struct rk_reader reader;
    rk_readers_enter_cursor(readers, id, 0, &reader);
    return reader;
}

static bool is_kept(int64_t id)
{
    struct rk_reader reader = entered_cursor(id);
    bool kept = reader.epoch != NULL;
    rk_readers_leave(readers, &reader);
    return kept;
}

static bool keep(int64_t id, size_t max, uint64_t now_us)
{
    struct rk_reader reader = entered(100, false);
    bool kept = rk_readers_keep_cursor(readers, id, &reader, max, now_us);
    rk_readers_leave(readers, &reader);
    return kept;
}

static void test_a_request_holds_the_next_key_up_until_it_is_through(void **state)
{
    (void)state;
    struct rk_reader before = entered(1, false);
    struct rk_reader another = entered(2, false);
    uint64_t epoch = rk_readers_advance(readers, 3);
    struct rk_reader after = entered(3, false);
    assert_int_equal(rk_readers_before(readers, epoch), 2);
    rk_readers_leave(readers, &before);
    assert_int_equal(rk_readers_before(readers, epoch), 1);
    assert_false(rk_readers_outdated(readers, &another));
    rk_readers_leave(readers, &another);
    rk_readers_leave(readers, &another); /* it has none any more */
    assert_int_equal(rk_readers_before(readers, epoch), 0);
    assert_int_equal(rk_readers_oldest(readers), epoch);
    rk_readers_leave(readers, &after);
    assert_true(rk_readers_oldest(readers) == UINT64_MAX);
}

static void test_nobody_enters_with_former_keys(void **state)
{
    (void)state;
    struct rk_reader reader;
    rk_readers_advance(readers, 5);
    assert_false(rk_readers_enter(readers, 4, false, &reader));
    assert_false(rk_readers_enter(readers, 4, true, &reader));
    assert_true(rk_readers_enter(readers, 6, false, &reader));
    rk_readers_leave(readers, &reader);
}

static void test_a_cursor_keeps_the_place_of_its_command(void **state)
{
    (void)state;
    struct rk_reader find = entered(1, false);
    assert_true(rk_readers_keep_cursor(readers, 7, &find, 10, 0));
    rk_readers_leave(readers, &find);
    uint64_t epoch = rk_readers_advance(readers, 2);
    assert_int_equal(rk_readers_before(readers, epoch), 1);
    struct rk_reader more = entered_cursor(7);
    assert_int_equal(rk_readers_before(readers, epoch), 2);
    rk_readers_forget_cursor(readers, 7); /* closed, with a reply still on its way */
    assert_int_equal(rk_readers_before(readers, epoch), 1);
    rk_readers_leave(readers, &more);
    assert_int_equal(rk_readers_before(readers, epoch), 0);
}

static void test_the_finite_go_on_until_they_are_given_up(void **state)
{
    (void)state;
    struct rk_reader finite = entered(1, false);
    struct rk_reader endless = entered(1, true);
    assert_false(rk_readers_outdated(readers, &endless));
    uint64_t epoch = rk_readers_advance(readers, 2);
    assert_true(rk_readers_outdated(readers, &endless));
    assert_false(rk_readers_outdated(readers, &finite));
    assert_int_equal(rk_readers_before(readers, epoch), 1); /* nobody waits for the endless */
    rk_readers_outdate(readers, epoch);
    assert_true(rk_readers_outdated(readers, &finite));
    struct rk_reader later = entered(2, false);
    assert_false(rk_readers_outdated(readers, &later));
    rk_readers_leave(readers, &finite);
    rk_readers_leave(readers, &endless);
    rk_readers_leave(readers, &later);
}

static void test_lists_the_cursors_that_were_given_up(void **state)
{
    (void)state;
    size_t n = 0;
    uint64_t now_us = rk_clock_mono_us();
    struct rk_reader finite = entered(1, false);
    struct rk_reader endless = entered(1, true);
    assert_true(rk_readers_keep_cursor(readers, 1, &endless, 10, now_us));
    assert_true(rk_readers_keep_cursor(readers, 2, &finite, 10, now_us));
    assert_true(rk_readers_keep_cursor(readers, 3, &finite, 10, now_us));
    rk_readers_leave(readers, &finite);
    rk_readers_leave(readers, &endless);
    uint64_t epoch = rk_readers_advance(readers, 2);
    assert_true(keep(4, 10, now_us));
    assert_null(rk_readers_cursors(readers, false, 10, &n));
    assert_int_equal(n, 0);
    rk_readers_outdate(readers, epoch);
    int64_t *ids = rk_readers_cursors(readers, false, 10, &n);
    assert_int_equal(n, 2);
    assert_int_equal(ids[0], 3); /* the last used first */
    assert_int_equal(ids[1], 2);
    free(ids);
    free(rk_readers_cursors(readers, false, 1, &n));
    assert_int_equal(n, 1);
    free(rk_readers_cursors(readers, true, 10, &n));
    assert_int_equal(n, 3);
}

static void test_what_others_gave_up_is_outdated(void **state)
{
    (void)state;
    const int64_t ids[] = {9, -3, INT64_MAX};
    assert_int_equal(rk_readers_set_outlived(readers, ids, 3), RK_OK);
    for (size_t i = 0; i < 3; i++) {
        struct rk_reader reader = entered_cursor(ids[i]);
        assert_true(rk_readers_outdated(readers, &reader));
        rk_readers_leave(readers, &reader);
    }
    struct rk_reader unknown = entered_cursor(8);
    assert_false(rk_readers_outdated(readers, &unknown));
    /* Our own of the same id is meant. */
    assert_true(keep(9, 10, 0));
    struct rk_reader own = entered_cursor(9);
    assert_false(rk_readers_outdated(readers, &own));
    rk_readers_leave(readers, &own);
    assert_int_equal(rk_readers_set_outlived(readers, NULL, 0), RK_OK);
    struct rk_reader forgotten = entered_cursor(-3);
    assert_false(rk_readers_outdated(readers, &forgotten));
}

static void test_found_until_forgotten(void **state)
{
    (void)state;
    for (int64_t i = 1; i <= 100; i++) {
        assert_true(keep(i * APART, 100, 0));
    }
    assert_false(is_kept(7));
    rk_readers_forget_cursor(readers, 7);
    for (int64_t i = 1; i <= 100; i++) {
        assert_true(is_kept(i * APART));
        rk_readers_forget_cursor(readers, i * APART);
        assert_false(is_kept(i * APART));
    }
}

static void test_the_last_to_take_an_id_has_it(void **state)
{
    (void)state;
    assert_true(keep(INT64_MAX, 1, 0));
    uint64_t epoch = rk_readers_advance(readers, 2);
    assert_true(keep(INT64_MAX, 1, 0));
    assert_int_equal(rk_readers_before(readers, epoch), 0);
    assert_int_equal(rk_readers_oldest(readers), epoch);
}

static void test_no_more_than_allowed(void **state)
{
    (void)state;
    struct rk_reader reader;
    assert_true(keep(1, 2, 0));
    assert_true(keep(2, 2, 0));
    assert_false(keep(3, 2, HOUR_US / 2));
    rk_readers_enter_cursor(readers, 1, HOUR_US / 2, &reader);
    rk_readers_leave(readers, &reader);
    /* Of the two, the first is in use. */
    assert_true(keep(3, 2, HOUR_US));
    assert_true(is_kept(1));
    assert_false(is_kept(2));
    assert_true(is_kept(3));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_book, close_book)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_request_holds_the_next_key_up_until_it_is_through),
        TEST(test_nobody_enters_with_former_keys),
        TEST(test_a_cursor_keeps_the_place_of_its_command),
        TEST(test_the_finite_go_on_until_they_are_given_up),
        TEST(test_lists_the_cursors_that_were_given_up),
        TEST(test_what_others_gave_up_is_outdated),
        TEST(test_found_until_forgotten),
        TEST(test_the_last_to_take_an_id_has_it),
        TEST(test_no_more_than_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
