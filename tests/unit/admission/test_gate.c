#include <rekey/admission/gate.h>
#include <rekey/base/clock.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A foreground whose operations the test makes up. */
struct foreground {
    pthread_mutex_t lock;
    struct rk_histogram histogram;
};

static void sense(void *arg, struct rk_histogram_snapshot *into)
{
    struct foreground *f = arg;
    pthread_mutex_lock(&f->lock);
    rk_histogram_add_to(&f->histogram, into);
    pthread_mutex_unlock(&f->lock);
}

static void operate(struct foreground *f, unsigned n, uint64_t us)
{
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < n; i++) {
        rk_histogram_record(&f->histogram, us);
    }
    pthread_mutex_unlock(&f->lock);
}

static struct foreground *foreground(void)
{
    static struct foreground f;
    pthread_mutex_init(&f.lock, NULL);
    rk_histogram_init(&f.histogram);
    return &f;
}

static struct rk_gate *start(const struct rk_gate_config *config, struct foreground *f)
{
    struct rk_gate *gate = NULL;
    struct rk_error err;
    assert_int_equal(rk_gate_start(config, f != NULL ? sense : NULL, f, &gate, &err), RK_OK);
    return gate;
}

static uint64_t ms_since(uint64_t start_us)
{
    return (rk_clock_mono_us() - start_us) / 1000;
}

/* Waits up to two seconds for a condition on the gate's state. */
#define WAIT_FOR(gate, condition)                                                                  \
    do {                                                                                           \
        struct rk_gate_state now = rk_gate_state(gate);                                            \
        for (int i = 0; i < 400 && !(condition); i++) {                                            \
            usleep(5000);                                                                          \
            now = rk_gate_state(gate);                                                             \
        }                                                                                          \
        assert_true(condition);                                                                    \
    } while (0)

static const struct rk_gate_config guarded = {
    .p99_limit_ms = 10, .interval_ms = 10, .samples_min = 20, .rate_min = 100};

static void test_no_limit_lets_everything_through(void **state)
{
    (void)state;
    struct rk_gate_config config = {.interval_ms = 1000};
    struct rk_gate *gate = start(&config, NULL);
    uint64_t from = rk_clock_mono_us();
    for (int i = 0; i < 1000; i++) {
        assert_true(rk_gate_take(gate, 100000, NULL));
    }
    assert_true(ms_since(from) < 1000);
    assert_false(rk_gate_state(gate).limited);
    rk_gate_stop(gate);
}

static void test_the_rate_holds_in_the_long_run(void **state)
{
    (void)state;
    struct rk_gate_config config = {.interval_ms = 1000, .max_rate = 1000};
    struct rk_gate *gate = start(&config, NULL);
    uint64_t from = rk_clock_mono_us();
    /* Batches larger than the bucket pass, and the next one pays for them. */
    for (int i = 0; i < 4; i++) {
        assert_true(rk_gate_take(gate, 200, NULL));
    }
    assert_true(ms_since(from) >= 550);
    assert_true(ms_since(from) < 5000);
    rk_gate_stop(gate);
}

static void test_cancel_is_seen(void **state)
{
    (void)state;
    struct rk_gate_config config = {.interval_ms = 1000, .pause = true};
    struct rk_gate *gate = start(&config, NULL);
    const _Atomic bool cancel = true;
    assert_false(rk_gate_take(gate, 1, &cancel));
    rk_gate_stop(gate);
}

struct waiter {
    struct rk_gate *gate;
    _Atomic bool granted;
};

static void *take_one(void *arg)
{
    struct waiter *waiter = arg;
    waiter->granted = rk_gate_take(waiter->gate, 1, NULL);
    return NULL;
}

static bool is_set(void *arg)
{
    return atomic_load((_Atomic bool *)arg);
}

static void test_the_brake_holds_until_it_is_let_go(void **state)
{
    (void)state;
    const struct rk_gate_config config = {.interval_ms = 1000};
    struct waiter waiter = {.gate = start(&config, NULL)};
    _Atomic bool brake = true;
    pthread_t thread;
    rk_gate_set_brake(waiter.gate, is_set, &brake);
    pthread_create(&thread, NULL, take_one, &waiter);
    usleep(150000);
    assert_true(rk_gate_state(waiter.gate).paused);
    assert_false(waiter.granted);
    atomic_store(&brake, false);
    pthread_join(thread, NULL);
    assert_true(waiter.granted);
    assert_false(rk_gate_state(waiter.gate).paused);
    rk_gate_stop(waiter.gate);
}

static void test_pause_holds_until_it_is_lifted(void **state)
{
    (void)state;
    struct rk_gate_config config = {.interval_ms = 1000, .pause = true};
    struct waiter waiter = {.gate = start(&config, NULL)};
    pthread_t thread;
    pthread_create(&thread, NULL, take_one, &waiter);
    usleep(50000);
    assert_true(rk_gate_state(waiter.gate).paused);
    config.pause = false;
    rk_gate_reconfigure(waiter.gate, &config);
    pthread_join(thread, NULL);
    assert_true(waiter.granted);
    rk_gate_stop(waiter.gate);
}

static void test_the_hours_hold_and_end_by_themselves(void **state)
{
    (void)state;
    const struct rk_gate_config config = {.interval_ms = 1000};
    struct waiter waiter = {.gate = start(&config, NULL)};
    struct rk_gate_hours hours = {.hold = RK_GATE_OUTSIDE_WINDOW};
    const _Atomic bool cancel = true;
    pthread_t thread;
    rk_gate_set_hours(waiter.gate, &hours);
    pthread_create(&thread, NULL, take_one, &waiter);
    usleep(50000);
    assert_true(rk_gate_state(waiter.gate).paused);
    assert_int_equal(rk_gate_state(waiter.gate).hold, RK_GATE_OUTSIDE_WINDOW);
    assert_false(waiter.granted);
    hours = (struct rk_gate_hours){.hold = RK_GATE_OPEN, .open_us = UINT64_MAX};
    rk_gate_set_hours(waiter.gate, &hours);
    pthread_join(thread, NULL);
    assert_true(waiter.granted);
    assert_int_equal(rk_gate_state(waiter.gate).hold, RK_GATE_OPEN);
    /* Nobody says that the window has closed, and still it has. */
    hours.open_us = 20000;
    rk_gate_set_hours(waiter.gate, &hours);
    usleep(30000);
    assert_int_equal(rk_gate_state(waiter.gate).hold, RK_GATE_OUTSIDE_WINDOW);
    assert_false(rk_gate_take(waiter.gate, 1, &cancel));
    hours.hold = RK_GATE_NO_SETTINGS;
    rk_gate_set_hours(waiter.gate, &hours);
    assert_int_equal(rk_gate_state(waiter.gate).hold, RK_GATE_NO_SETTINGS);
    rk_gate_stop(waiter.gate);
}

static void test_stop_refuses_those_who_wait(void **state)
{
    (void)state;
    struct rk_gate_config config = {.interval_ms = 1000, .pause = true};
    struct waiter waiter = {.gate = start(&config, NULL)};
    pthread_t thread;
    pthread_create(&thread, NULL, take_one, &waiter);
    usleep(500000); /* for the thread to wait, which it must not begin after the stop */
    rk_gate_stop(waiter.gate);
    pthread_join(thread, NULL);
    assert_false(waiter.granted);
}

static void test_what_is_given_back_may_be_taken_again(void **state)
{
    (void)state;
    struct rk_gate_config config = {.interval_ms = 1000, .max_rate = 10};
    struct rk_gate *gate = start(&config, NULL);
    assert_true(rk_gate_take(gate, 1000, NULL)); /* a hundred seconds' worth */
    uint64_t from = rk_clock_mono_us();
    rk_gate_give_back(gate, 990);
    assert_true(rk_gate_take(gate, 1, NULL)); /* when those ten are paid */
    assert_in_range(ms_since(from), 500, 5000);
    rk_gate_stop(gate);
}

static void test_a_debt_ends_when_the_rate_changes(void **state)
{
    (void)state;
    struct rk_gate_config config = {.interval_ms = 1000, .max_rate = 10};
    struct rk_gate *gate = start(&config, NULL);
    uint64_t from = rk_clock_mono_us();
    assert_true(rk_gate_take(gate, 1000, NULL)); /* a hundred seconds' worth */
    config.max_rate = 1000;
    rk_gate_reconfigure(gate, &config);
    assert_true(rk_gate_take(gate, 1, NULL));
    assert_true(ms_since(from) < 2000);
    rk_gate_stop(gate);
}

static void test_a_slow_foreground_halves_the_rate_down_to_the_floor(void **state)
{
    (void)state;
    struct foreground *f = foreground();
    struct rk_gate_config config = guarded;
    config.max_rate = 1000;
    struct rk_gate *gate = start(&config, f);
    uint64_t halvings = 0;
    for (int i = 0; i < 200 && rk_gate_state(gate).rate_docs_per_s > 100; i++) {
        operate(f, 50, 20000);
        usleep(15000);
        halvings = rk_gate_state(gate).halvings;
    }
    assert_true(halvings >= 2);
    assert_true(rk_gate_state(gate).rate_docs_per_s >= 100);
    assert_true(rk_gate_state(gate).p99_us >= 20000);
    rk_gate_stop(gate);
}

static void test_the_rate_comes_back_with_a_fast_foreground(void **state)
{
    (void)state;
    struct foreground *f = foreground();
    struct rk_gate_config config = guarded;
    config.max_rate = 1000;
    struct rk_gate *gate = start(&config, f);
    operate(f, 50, 20000);
    WAIT_FOR(gate, now.rate_docs_per_s < 1000);
    for (int i = 0; i < 200 && rk_gate_state(gate).rate_docs_per_s < 1000; i++) {
        operate(f, 50, 500);
        usleep(15000);
    }
    assert_true(rk_gate_state(gate).rate_docs_per_s == 1000);
    assert_true(rk_gate_state(gate).limited);
    rk_gate_stop(gate);
}

static void test_without_a_limit_halving_starts_from_what_was_done(void **state)
{
    (void)state;
    struct foreground *f = foreground();
    struct rk_gate *gate = start(&guarded, f);
    for (int i = 0; i < 200 && !rk_gate_state(gate).limited; i++) {
        assert_true(rk_gate_take(gate, 100, NULL));
        rk_gate_report(gate, 100);
        operate(f, 50, 20000);
        usleep(5000);
    }
    struct rk_gate_state limited = rk_gate_state(gate);
    assert_true(limited.limited);
    assert_true(limited.rate_docs_per_s >= 100);
    assert_true(limited.rate_docs_per_s < 100 / 0.005); /* less than was asked for */
    /* And the limit is lifted again when nothing runs that could be hurt. */
    WAIT_FOR(gate, !now.limited);
    rk_gate_stop(gate);
}

/* A limit at what was done would be one that is never lifted: there is nothing to come back to. */
static void test_below_the_floor_there_is_nothing_to_halve(void **state)
{
    (void)state;
    struct foreground *f = foreground();
    struct rk_gate_config config = guarded;
    config.rate_min = 1000000;
    struct rk_gate *gate = start(&config, f);
    for (int i = 0; i < 40; i++) {
        assert_true(rk_gate_take(gate, 1, NULL));
        rk_gate_report(gate, 1);
        operate(f, 50, 20000);
        usleep(5000);
    }
    struct rk_gate_state now = rk_gate_state(gate);
    assert_true(now.p99_us >= 20000);
    assert_false(now.limited);
    rk_gate_stop(gate);
}

static void test_few_samples_are_no_ground_for_halving(void **state)
{
    (void)state;
    struct foreground *f = foreground();
    struct rk_gate_config config = guarded;
    config.max_rate = 1000;
    config.samples_min = 1000;
    struct rk_gate *gate = start(&config, f);
    operate(f, 50, 20000);
    usleep(200000);
    assert_int_equal(rk_gate_state(gate).halvings, 0);
    rk_gate_stop(gate);
}

static void test_the_guard_outlives_a_reload_of_something_else(void **state)
{
    (void)state;
    struct foreground *f = foreground();
    struct rk_gate_config config = guarded;
    config.max_rate = 1000;
    config.interval_ms = 20;
    struct rk_gate *gate = start(&config, f);
    operate(f, 50, 20000);
    WAIT_FOR(gate, now.halvings > 0);
    config.interval_ms = 60000;
    rk_gate_reconfigure(gate, &config);
    assert_true(rk_gate_state(gate).rate_docs_per_s < 1000);
    config.max_rate = 2000;
    rk_gate_reconfigure(gate, &config);
    assert_true(rk_gate_state(gate).rate_docs_per_s == 2000);
    rk_gate_stop(gate);
}

static void test_without_a_floor_the_guard_may_stop_the_sweep(void **state)
{
    (void)state;
    struct foreground *f = foreground();
    struct rk_gate_config config = guarded;
    config.max_rate = 4;
    config.rate_min = 0;
    struct rk_gate *gate = start(&config, f);
    for (int i = 0; i < 200 && rk_gate_state(gate).rate_docs_per_s > 0; i++) {
        operate(f, 50, 20000);
        usleep(15000);
    }
    assert_true(rk_gate_state(gate).limited);
    assert_true(rk_gate_state(gate).rate_docs_per_s == 0);
    rk_gate_stop(gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_limit_lets_everything_through),
        cmocka_unit_test(test_the_rate_holds_in_the_long_run),
        cmocka_unit_test(test_cancel_is_seen),
        cmocka_unit_test(test_the_brake_holds_until_it_is_let_go),
        cmocka_unit_test(test_pause_holds_until_it_is_lifted),
        cmocka_unit_test(test_the_hours_hold_and_end_by_themselves),
        cmocka_unit_test(test_stop_refuses_those_who_wait),
        cmocka_unit_test(test_what_is_given_back_may_be_taken_again),
        cmocka_unit_test(test_a_debt_ends_when_the_rate_changes),
        cmocka_unit_test(test_a_slow_foreground_halves_the_rate_down_to_the_floor),
        cmocka_unit_test(test_the_rate_comes_back_with_a_fast_foreground),
        cmocka_unit_test(test_without_a_limit_halving_starts_from_what_was_done),
        cmocka_unit_test(test_below_the_floor_there_is_nothing_to_halve),
        cmocka_unit_test(test_few_samples_are_no_ground_for_halving),
        cmocka_unit_test(test_the_guard_outlives_a_reload_of_something_else),
        cmocka_unit_test(test_without_a_floor_the_guard_may_stop_the_sweep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
