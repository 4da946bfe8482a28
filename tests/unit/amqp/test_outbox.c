/* What is left to be published is settled once, whatever becomes of it. No connection is needed. */
#include "../../../src/amqp/outbox.h"

#include <rekey/base/clock.h>
#include <rekey/bson/rewrite.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#include <string.h>
#include <time.h>

#define FOR_EVER_MS 60000u

static struct rk_outbox outbox;
static char told[256]; /* "7+ 9-": 7 was confirmed, 9 was not */

static void on_settled(void *arg, uint64_t tag, bool confirmed)
{
    assert_ptr_equal(arg, &outbox);
    size_t len = strlen(told);
    (void)snprintf(told + len, sizeof told - len, "%s%llu%c", len > 0 ? " " : "",
                   (unsigned long long)tag, confirmed ? '+' : '-');
}

static int set_up(void **state)
{
    (void)state;
    rk_outbox_init(&outbox);
    outbox.settled = on_settled;
    outbox.arg = &outbox;
    told[0] = '\0';
    rk_outbox_open(&outbox);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rk_outbox_close(&outbox);
    assert_int_equal(outbox.left, 0);
    rk_outbox_deinit(&outbox);
    return 0;
}

static struct rk_amqp_message range(void)
{
    struct rk_amqp_message m = {.kind = RK_AMQP_RANGE};
    memcpy(m.ns, "app.people", sizeof "app.people");
    return m;
}

static bool leave(uint64_t tag)
{
    const struct rk_amqp_message m = range();
    return rk_outbox_leave(&outbox, "retry.1s", &m, tag);
}

static struct rk_batch *queue(size_t n)
{
    const struct rk_amqp_message messages[3] = {range(), range(), range()};
    struct rk_batch *batch = rk_outbox_queue(&outbox, messages, n);
    assert_non_null(batch);
    return batch;
}

/* Takes all that may be published now. */
static unsigned take(void)
{
    unsigned n = 0;
    for (const struct rk_post *post; (post = rk_outbox_next(&outbox)) != NULL; n++) {
        assert_true(post->body.len > 0);
    }
    return n;
}

static void each_is_settled_once(void **state)
{
    (void)state;
    for (uint64_t tag = 1; tag <= 6; tag++) {
        assert_true(leave(tag));
    }
    assert_int_equal(take(), 6);
    rk_outbox_confirm(&outbox, 5, false, RK_POST_CONFIRMED);
    assert_string_equal(told, "5+");
    rk_outbox_confirm(&outbox, 2, true, RK_POST_REFUSED);
    assert_string_equal(told, "5+ 1- 2-");
    rk_outbox_confirm(&outbox, 2, false, RK_POST_CONFIRMED); /* no longer there */
    rk_outbox_confirm(&outbox, 4, true, RK_POST_CONFIRMED);
    assert_string_equal(told, "5+ 1- 2- 3+ 4+");
    assert_true(leave(7));
    rk_outbox_close(&outbox); /* 6 is in flight, 7 in the queue */
    assert_string_equal(told, "5+ 1- 2- 3+ 4+ 6- 7-");
    assert_int_equal(rk_counter_read(&outbox.settled_as[RK_POST_CONFIRMED]), 3);
    assert_int_equal(rk_counter_read(&outbox.settled_as[RK_POST_REFUSED]), 2);
    assert_int_equal(rk_counter_read(&outbox.settled_as[RK_POST_LOST]), 2);
}

static void numbers_begin_anew_with_each_connection(void **state)
{
    (void)state;
    assert_true(leave(1));
    assert_int_equal(take(), 1);
    rk_outbox_close(&outbox);
    assert_false(leave(2));
    assert_int_equal(rk_counter_read(&outbox.dropped), 1);
    rk_outbox_open(&outbox);
    assert_true(leave(3));
    assert_int_equal(rk_outbox_next(&outbox)->seq, 1);
    rk_outbox_confirm(&outbox, 1, false, RK_POST_CONFIRMED);
    assert_string_equal(told, "1- 3+");
}

static void what_nobody_waits_for_is_bounded_in_bytes(void **state)
{
    (void)state;
    struct rk_bson_writer w;
    struct rk_buf ids;
    struct rk_amqp_message m = range();
    size_t taken = 0;
    rk_buf_init(&ids, RK_AMQP_BODY_MAX / 2);
    rk_bson_writer_init(&w, &ids);
    rk_bson_begin(&w);
    for (unsigned i = 0; i < 10000; i++) {
        rk_bson_put_int32(&w, "1234", 7);
    }
    rk_bson_end(&w);
    m.kind = RK_AMQP_DOCUMENTS;
    m.ids = (struct rk_bson_view){ids.data, (uint32_t)ids.len};
    while (rk_outbox_leave(&outbox, "work.hot", &m, 0)) {
        taken++;
    }
    assert_in_range(taken, RK_OUTBOX_LEFT_MAX / ids.len - 2, RK_OUTBOX_LEFT_MAX / ids.len);
    /* Deliveries that are put off, and offers, are few or waited for. */
    assert_true(leave(1));
    struct rk_batch *batch = queue(1);
    assert_int_equal(take(), taken + 2);
    assert_false(rk_outbox_leave(&outbox, "work.hot", &m, 0)); /* in flight it is in memory, too */
    rk_outbox_confirm(&outbox, 1, false, RK_POST_CONFIRMED);
    assert_true(rk_outbox_leave(&outbox, "work.hot", &m, 0));
    rk_outbox_close(&outbox);
    assert_int_equal(rk_outbox_wait(&outbox, batch, FOR_EVER_MS), 0);
    rk_buf_deinit(&ids);
}

static void few_are_in_flight(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        assert_true(leave(0));
    }
    assert_int_equal(take(), 256);
    rk_outbox_confirm(&outbox, 10, true, RK_POST_CONFIRMED);
    assert_int_equal(take(), 10);
}

static void an_offer_tells_what_was_confirmed_from_the_first_on(void **state)
{
    (void)state;
    struct rk_batch *batch = queue(3);
    assert_int_equal(take(), 3);
    rk_outbox_confirm(&outbox, 1, false, RK_POST_CONFIRMED);
    rk_outbox_confirm(&outbox, 2, false, RK_POST_REFUSED);
    rk_outbox_confirm(&outbox, 3, false, RK_POST_CONFIRMED);
    assert_int_equal(rk_outbox_wait(&outbox, batch, FOR_EVER_MS), 1);
}

static void nobody_waits_for_ever(void **state)
{
    (void)state;
    struct rk_batch *batch = queue(2);
    assert_non_null(rk_outbox_next(&outbox));
    assert_int_equal(rk_outbox_wait(&outbox, batch, 1), 0);
    assert_int_equal(take(), 0); /* the second one is of no use any more */
    rk_outbox_confirm(&outbox, 1, false, RK_POST_CONFIRMED);
    batch = queue(2);
    rk_outbox_stop(&outbox);
    assert_int_equal(rk_outbox_wait(&outbox, batch, FOR_EVER_MS), 0);
    assert_false(leave(1));
}

static void only_what_is_in_flight_grows_old(void **state)
{
    (void)state;
    const struct timespec while_ = {.tv_nsec = 20 * 1000 * 1000};
    assert_true(leave(1));
    assert_true(leave(2));
    (void)nanosleep(&while_, NULL);
    assert_int_equal(rk_outbox_oldest_ms(&outbox), 0);
    assert_int_equal(take(), 2);
    (void)nanosleep(&while_, NULL);
    assert_true(rk_outbox_oldest_ms(&outbox) >= 20);
    rk_outbox_confirm(&outbox, 2, false, RK_POST_CONFIRMED);
    assert_true(rk_outbox_oldest_ms(&outbox) >= 20);

    uint64_t before_us = rk_clock_mono_us();
    assert_true(leave(3));
    assert_int_equal(take(), 1);
    rk_outbox_confirm(&outbox, 1, false, RK_POST_CONFIRMED);
    uint64_t oldest_ms = rk_outbox_oldest_ms(&outbox);
    assert_true(oldest_ms <= (rk_clock_mono_us() - before_us) / 1000u);

    (void)nanosleep(&while_, NULL);
    assert_true(rk_outbox_oldest_ms(&outbox) >= 20);
    before_us = rk_clock_mono_us();
    rk_outbox_date_anew(&outbox);
    oldest_ms = rk_outbox_oldest_ms(&outbox);
    assert_true(oldest_ms <= (rk_clock_mono_us() - before_us) / 1000u);
    rk_outbox_close(&outbox);
    assert_int_equal(rk_outbox_oldest_ms(&outbox), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(each_is_settled_once),
        TEST(numbers_begin_anew_with_each_connection),
        TEST(what_nobody_waits_for_is_bounded_in_bytes),
        TEST(few_are_in_flight),
        TEST(an_offer_tells_what_was_confirmed_from_the_first_on),
        TEST(nobody_waits_for_ever),
        TEST(only_what_is_in_flight_grows_old),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
