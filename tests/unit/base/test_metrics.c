#include <rekey/base/metrics.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

static struct rk_buf out;

static int setup(void **state)
{
    (void)state;
    rk_buf_init(&out, 65536);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rk_buf_deinit(&out);
    return 0;
}

static void assert_written(const char *text)
{
    assert_int_equal(out.len, strlen(text));
    assert_memory_equal(out.data, text, out.len);
}

static void test_families_and_labels(void **state)
{
    (void)state;
    struct rk_metrics m = {.out = &out};
    rk_metrics_one(&m, "a_total", RK_METRIC_COUNTER, "How many.", 12345678901);
    rk_metrics_family(&m, "b", RK_METRIC_GAUGE, "How much.");
    rk_metric(&m, 0.25, RK_L("x", "1"), RK_L("y", "2"));
    rk_metric(&m, -1, RK_L("x", "a\\b\"c\nd"));
    assert_true(rk_metrics_ok(&m));
    assert_written("# HELP a_total How many.\n# TYPE a_total counter\na_total 12345678901\n"
                   "# HELP b How much.\n# TYPE b gauge\nb{x=\"1\",y=\"2\"} 0.25\n"
                   "b{x=\"a\\\\b\\\"c\\nd\"} -1\n");
}

static void test_numbers_that_are_none(void **state)
{
    (void)state;
    struct rk_metrics m = {.out = &out, .family = "x"};
    rk_metric(&m, INFINITY);
    rk_metric(&m, -INFINITY);
    rk_metric(&m, NAN);
    rk_metric(&m, 1e300);
    assert_written("x +Inf\nx -Inf\nx NaN\nx 1e+300\n");
}

static void test_histogram(void **state)
{
    (void)state;
    static struct rk_histogram histogram;
    struct rk_histogram_snapshot snapshot = {0};
    struct rk_metrics m = {.out = &out, .family = "h"};
    rk_histogram_init(&histogram);
    rk_histogram_record(&histogram, 100);
    rk_histogram_record(&histogram, 900);
    rk_histogram_record(&histogram, 20000000);
    rk_histogram_add_to(&histogram, &snapshot);
    rk_metrics_histogram(&m, &snapshot);
    assert_int_equal(rk_buf_append_u8(&out, 0), RK_OK);
    const char *text = (const char *)out.data;
    assert_non_null(strstr(text, "h_bucket{le=\"0.00025\"} 1\nh_bucket{le=\"0.0005\"} 1\n"
                                 "h_bucket{le=\"0.001\"} 2\n"));
    assert_non_null(strstr(text, "h_bucket{le=\"10\"} 2\nh_bucket{le=\"+Inf\"} 3\n"
                                 "h_sum 20.001\nh_count 3\n"));
}

static void test_tally(void **state)
{
    (void)state;
    static struct rk_tally one, two, all;
    struct rk_metrics m = {.out = &out, .family = "t"};
    for (int32_t key = 1; key <= (int32_t)RK_TALLY_SLOTS; key++) {
        rk_tally_add(&one, key);
    }
    rk_tally_add(&one, 1000); /* no place */
    rk_tally_add(&two, 2);
    rk_tally_add(&two, 2);
    rk_tally_add(&two, -7);
    rk_tally_merge(&all, &two);
    rk_metrics_tally(&m, "code", &all);
    assert_written("t{code=\"2\"} 2\nt{code=\"-7\"} 1\n");
    rk_tally_merge(&all, &one);
    uint64_t n = 0;
    assert_int_equal(rk_tally_at(&all, 0, &n), 2);
    assert_int_equal(n, 3);
    /* -7 took the place of one of the others, which is counted with 1000. */
    assert_int_equal(rk_counter_read(&all.other), 2);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct rk_buf small;
    struct rk_metrics m = {.out = &small};
    rk_buf_init(&small, 20);
    rk_metrics_one(&m, "a_total", RK_METRIC_COUNTER, "How many.", 1);
    assert_false(rk_metrics_ok(&m));
    rk_buf_deinit(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_families_and_labels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_numbers_that_are_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_histogram, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tally, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
