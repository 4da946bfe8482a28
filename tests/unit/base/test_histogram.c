#include <rekey/base/histogram.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

static struct rk_histogram histogram;

static int reset(void **state)
{
    (void)state;
    rk_histogram_init(&histogram);
    return 0;
}

static struct rk_histogram_snapshot snapshot(void)
{
    struct rk_histogram_snapshot s = {0};
    rk_histogram_add_to(&histogram, &s);
    return s;
}

static void test_empty(void **state)
{
    (void)state;
    struct rk_histogram_snapshot s = snapshot();
    assert_int_equal(rk_histogram_total(&s), 0);
    assert_int_equal(rk_histogram_quantile(&s, 0.99), 0);
}

/* Every value is reported as the upper edge of its bucket: never less, at most 1/32 more. */
static void test_any_value_is_reported_within_its_bucket(void **state)
{
    (void)state;
    for (uint64_t v = 0; v < (1ull << 36); v = v < 5000 ? v + 1 : v + v / 7) {
        rk_histogram_init(&histogram);
        rk_histogram_record(&histogram, v);
        struct rk_histogram_snapshot s = snapshot();
        uint64_t reported = rk_histogram_quantile(&s, 0.5);
        assert_true(reported >= v);
        assert_true(reported - v <= v / 32);
    }
}

static void test_values_past_the_end_count_in_the_last_bucket(void **state)
{
    (void)state;
    rk_histogram_record(&histogram, UINT64_MAX);
    rk_histogram_record(&histogram, 1ull << 36);
    struct rk_histogram_snapshot s = snapshot();
    assert_int_equal(rk_histogram_total(&s), 2);
    assert_int_equal(rk_histogram_quantile(&s, 1.0), (1ull << 36) - 1);
}

static void test_quantiles(void **state)
{
    (void)state;
    for (uint64_t v = 1; v <= 1000; v++) {
        rk_histogram_record(&histogram, v);
    }
    struct rk_histogram_snapshot s = snapshot();
    assert_int_equal(rk_histogram_total(&s), 1000);
    assert_int_equal(rk_histogram_quantile(&s, 0.0), 1);
    assert_in_range(rk_histogram_quantile(&s, 0.5), 500, 517);
    assert_in_range(rk_histogram_quantile(&s, 0.99), 990, 1023);
    assert_in_range(rk_histogram_quantile(&s, 1.0), 1000, 1023);
}

static void test_windows_and_merging(void **state)
{
    (void)state;
    static struct rk_histogram other;
    rk_histogram_init(&other);
    rk_histogram_record(&histogram, 10);
    struct rk_histogram_snapshot before = snapshot();
    rk_histogram_record(&histogram, 20);
    rk_histogram_record(&other, 30);
    struct rk_histogram_snapshot now = snapshot();
    rk_histogram_add_to(&other, &now);
    assert_int_equal(rk_histogram_total(&now), 3);
    rk_histogram_subtract(&now, &before);
    assert_int_equal(rk_histogram_total(&now), 2);
    assert_int_equal(rk_histogram_quantile(&now, 0.0), 20);
    assert_int_equal(rk_histogram_quantile(&now, 1.0), 30);
    assert_int_equal(now.sum_us, 50);
}

static void test_values_up_to_an_edge(void **state)
{
    (void)state;
    for (uint64_t v = 1; v <= 1000; v++) {
        rk_histogram_record(&histogram, v);
    }
    struct rk_histogram_snapshot s = snapshot();
    assert_int_equal(s.sum_us, 500500);
    assert_int_equal(rk_histogram_below(&s, 0), 0);
    assert_int_equal(rk_histogram_below(&s, 20), 20);
    assert_in_range(rk_histogram_below(&s, 500), 480, 500);
    assert_int_equal(rk_histogram_below(&s, UINT64_MAX), 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_empty, reset),
        cmocka_unit_test_setup(test_any_value_is_reported_within_its_bucket, reset),
        cmocka_unit_test_setup(test_values_past_the_end_count_in_the_last_bucket, reset),
        cmocka_unit_test_setup(test_quantiles, reset),
        cmocka_unit_test_setup(test_windows_and_merging, reset),
        cmocka_unit_test_setup(test_values_up_to_an_edge, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
