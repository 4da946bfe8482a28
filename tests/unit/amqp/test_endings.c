/* Deliveries that are out: counted, bounded, and of one connection. */
#include "../../../src/amqp/endings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct rk_endings endings;
static struct rk_ending taken[RK_ENDINGS_MAX];

static int set_up(void **state)
{
    (void)state;
    rk_endings_init(&endings);
    rk_endings_renew(&endings);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rk_endings_deinit(&endings);
    return 0;
}

static uint64_t hand_on(uint64_t delivery)
{
    uint64_t tag = 0;
    assert_true(rk_endings_hand_on(&endings, 0, delivery, &tag));
    return tag;
}

static void no_more_are_out_than_were_asked_for(void **state)
{
    (void)state;
    uint64_t tag;
    assert_false(rk_endings_hand_on(&endings, 0, 1, &tag));
    rk_endings_ask(&endings, 1);
    rk_endings_ask(&endings, 1);
    uint64_t first = hand_on(1);
    uint64_t second = hand_on(2);
    assert_false(rk_endings_hand_on(&endings, 0, 3, &tag));
    assert_true(rk_endings_add(&endings, second, RK_HINT_RETURN));
    assert_true(rk_endings_add(&endings, first, RK_HINT_DONE));
    /* The broker does not know yet. */
    assert_false(rk_endings_hand_on(&endings, 0, 3, &tag));
    assert_int_equal(rk_endings_take(&endings, taken), 2);
    assert_int_equal(rk_ending_delivery(taken[0].tag), 2);
    assert_int_equal(taken[0].end, RK_HINT_RETURN);
    assert_int_equal(rk_ending_delivery(taken[1].tag), 1);
    assert_int_equal(taken[1].end, RK_HINT_DONE);
    assert_int_equal(rk_endings_take(&endings, taken), 0);
    (void)hand_on(3);
}

static void there_is_room_for_all_that_may_be_asked_for(void **state)
{
    (void)state;
    uint64_t tag;
    rk_endings_ask(&endings, RK_ENDINGS_MAX - 1);
    rk_endings_ask(&endings, SIZE_MAX);
    for (uint64_t i = 1; i <= RK_ENDINGS_MAX; i++) {
        assert_true(rk_endings_add(&endings, hand_on(i), RK_HINT_LATER));
    }
    assert_false(rk_endings_hand_on(&endings, 0, RK_ENDINGS_MAX + 1, &tag));
    /* Twice is a mistake, but one that breaks nothing. */
    assert_false(rk_endings_add(&endings, endings.list[0].tag, RK_HINT_DONE));
    assert_int_equal(rk_endings_take(&endings, taken), RK_ENDINGS_MAX);
    assert_int_equal(rk_counter_read(&endings.ended[RK_HINT_LATER]), RK_ENDINGS_MAX);
    assert_int_equal(rk_counter_read(&endings.ended[RK_HINT_DONE]), 0);
}

static void those_of_a_former_connection_are_not_told(void **state)
{
    (void)state;
    uint64_t tag;
    rk_endings_ask(&endings, 2);
    uint64_t former = hand_on(1);
    assert_true(rk_endings_add(&endings, hand_on(2), RK_HINT_DONE));
    rk_endings_renew(&endings);
    assert_int_equal(rk_endings_take(&endings, taken), 0);
    assert_false(rk_endings_add(&endings, former, RK_HINT_DONE));
    assert_false(rk_endings_hand_on(&endings, 0, 1, &tag)); /* nothing is asked for yet */
    rk_endings_ask(&endings, 2);
    assert_true(rk_endings_add(&endings, hand_on(1), RK_HINT_DONE));
    assert_int_equal(rk_endings_take(&endings, taken), 1);
}

static void a_tag_tells_what_it_was_made_of(void **state)
{
    (void)state;
    const uint32_t retries[][2] = {{0, 0}, {254, 254}, {255, 255}, {1000000, 255}};
    const uint64_t delivery = (UINT64_C(1) << 40) - 1;
    rk_endings_ask(&endings, 4);
    for (size_t i = 0; i < 4; i++) {
        uint64_t tag = 0;
        assert_true(rk_endings_hand_on(&endings, retries[i][0], delivery, &tag));
        assert_int_equal(rk_ending_retries(tag), retries[i][1]);
        assert_true(rk_ending_delivery(tag) == delivery);
        assert_true(rk_endings_add(&endings, tag, RK_HINT_DONE));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(no_more_are_out_than_were_asked_for),
        TEST(there_is_room_for_all_that_may_be_asked_for),
        TEST(those_of_a_former_connection_are_not_told),
        TEST(a_tag_tells_what_it_was_made_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
