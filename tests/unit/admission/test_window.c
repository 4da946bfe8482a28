#include <rekey/admission/window.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define N(array) (sizeof(array) / sizeof(array)[0])
#define HOUR 60u
#define DAY (24u * HOUR)

static struct rk_window window(const char *const *texts, unsigned n)
{
    struct rk_window w = {.n = n};
    for (unsigned i = 0; i < n; i++) {
        if (!rk_window_parse(texts[i], &w.spans[i])) {
            fail_msg("refused: %s", texts[i]);
        }
    }
    return w;
}

static void check(const struct rk_window *w, uint32_t at, bool open, uint32_t changes_in)
{
    struct rk_window_look look = rk_window_look(w, at);
    char time[RK_WINDOW_TIME_SIZE];
    if (look.open != open || look.changes_in != changes_in) {
        fail_msg("%s: open %d, changes in %u", rk_window_time(at, time), look.open,
                 look.changes_in);
    }
}

static void test_what_is_no_span(void **state)
{
    static const char *const bad[] = {
        "",
        "Mon",
        "Mon-Fri",
        "22:00",
        "22:00-",
        "Mon 22:00-06:00 ",
        " Mon 22:00-06:00",
        "mon 22:00-06:00",
        "Mon-Fri22:00-06:00",
        "Mon-Fry 22:00-06:00",
        "Mon- 22:00-06:00",
        "Mon-Fri 2:00-06:00",
        "Mon-Fri 22:60-06:00",
        "Mon-Fri 22:00-24:01",
        "Mon-Fri 24:00-06:00",
        "Mon-Fri 25:00-06:00",
        "Mon-Fri 06:00-06:00",
        "Mon-Fri 22:00-06:00x",
        "Mon,Tue 22:00-06:00",
    };
    struct rk_window_span span;
    (void)state;
    for (size_t i = 0; i < N(bad); i++) {
        if (rk_window_parse(bad[i], &span)) {
            fail_msg("taken: \"%s\"", bad[i]);
        }
    }
}

static void test_no_span_is_always_open(void **state)
{
    const struct rk_window w = {.n = 0};
    (void)state;
    check(&w, 0, true, RK_WINDOW_NEVER);
    check(&w, RK_WEEK_MINUTES - 1, true, RK_WINDOW_NEVER);
    assert_int_equal(rk_window_elapse(&w, 5, 100000), 100000);
}

static void test_over_midnight(void **state)
{
    static const char *const texts[] = {"Mon-Fri 22:00-06:00"};
    const struct rk_window w = window(texts, N(texts));
    (void)state;
    check(&w, 0, false, 22 * HOUR); /* Monday 00:00: Sunday is none of its days */
    check(&w, 22 * HOUR - 1, false, 1);
    check(&w, 22 * HOUR, true, 8 * HOUR);
    check(&w, DAY, true, 6 * HOUR);
    check(&w, DAY + 6 * HOUR - 1, true, 1);
    check(&w, DAY + 6 * HOUR, false, 16 * HOUR);
    check(&w, 5 * DAY, true, 6 * HOUR); /* Saturday morning is still Friday's */
    check(&w, 5 * DAY + 6 * HOUR, false, 2 * DAY + 16 * HOUR);
    check(&w, RK_WEEK_MINUTES - 1, false, 22 * HOUR + 1);
}

static void test_over_the_end_of_the_week(void **state)
{
    static const char *const texts[] = {"Sat-Mon 20:00-04:00"};
    const struct rk_window w = window(texts, N(texts));
    (void)state;
    check(&w, 0, true, 4 * HOUR); /* since Sunday evening */
    check(&w, 4 * HOUR, false, 16 * HOUR);
    check(&w, DAY, true, 4 * HOUR);
    check(&w, DAY + 4 * HOUR, false, 4 * DAY + 16 * HOUR);
    check(&w, RK_WEEK_MINUTES - 1, true, 4 * HOUR + 1);
}

static void test_spans_that_meet_or_overlap_are_one(void **state)
{
    static const char *const texts[] = {"Mon-Fri 22:00-06:00", "Sat-Sun 00:00-24:00",
                                        "Mon 00:00-05:00", "Mon 04:00-07:00"};
    const struct rk_window w = window(texts, N(texts));
    (void)state;
    check(&w, 0, true, 7 * HOUR);
    check(&w, 7 * HOUR, false, 15 * HOUR);
    check(&w, 4 * DAY + 22 * HOUR, true, 2 * HOUR + 2 * DAY + 7 * HOUR);
}

static void test_all_week(void **state)
{
    static const char *const each_day[] = {"00:00-24:00"};
    static const char *const around[] = {"Mon-Sun 12:00-11:00", "11:00-12:00"};
    const struct rk_window w[] = {window(each_day, 1), window(around, 2)};
    (void)state;
    for (size_t i = 0; i < N(w); i++) {
        check(&w[i], 0, true, RK_WINDOW_NEVER);
        check(&w[i], 3 * DAY + 7, true, RK_WINDOW_NEVER);
        assert_int_equal(rk_window_elapse(&w[i], 77, 3 * RK_WEEK_MINUTES + 5),
                         3 * RK_WEEK_MINUTES + 5);
    }
}

static void test_one_minute(void **state)
{
    static const char *const texts[] = {"Sun 23:59-24:00"};
    const struct rk_window w = window(texts, N(texts));
    (void)state;
    check(&w, RK_WEEK_MINUTES - 1, true, 1);
    check(&w, 0, false, RK_WEEK_MINUTES - 1);
}

/* Against the definition, minute by minute. */
static void test_every_minute_of_the_week(void **state)
{
    static const char *const texts[] = {"Tue-Wed 23:30-00:15", "Sun-Mon 12:00-11:00",
                                        "Thu 00:00-24:00"};
    const struct rk_window w = window(texts, N(texts));
    bool open[RK_WEEK_MINUTES] = {false};
    (void)state;
    for (unsigned i = 0; i < w.n; i++) {
        for (unsigned day = 0; day < w.spans[i].days; day++) {
            uint32_t start = (w.spans[i].first_day + day) % 7 * DAY + w.spans[i].opens;
            for (uint32_t m = 0; m < w.spans[i].minutes; m++) {
                open[(start + m) % RK_WEEK_MINUTES] = true;
            }
        }
    }
    for (uint32_t at = 0; at < RK_WEEK_MINUTES; at++) {
        uint32_t until = 1;
        while (open[(at + until) % RK_WEEK_MINUTES] == open[at]) {
            until++;
        }
        check(&w, at, open[at], until);
    }
    for (uint32_t at = 0; at < RK_WEEK_MINUTES; at += 1999) {
        uint64_t work = 0;
        for (uint32_t elapsed = 0; elapsed < 2 * RK_WEEK_MINUTES; elapsed++) {
            if (open[(at + elapsed) % RK_WEEK_MINUTES]) {
                work++;
                assert_int_equal(rk_window_elapse(&w, at, work), elapsed + 1);
            }
        }
    }
}

/* Minutes of the 24 hours from a time on that are in the window, by London's clocks. */
static unsigned open_minutes(const char *text, time_t from)
{
    const struct rk_window w = window(&text, 1);
    unsigned n = 0;
    for (unsigned i = 0; i < DAY; i++) {
        time_t at = from + (time_t)i * 60;
        struct tm local;
        assert_non_null(localtime_r(&at, &local));
        uint32_t day = (uint32_t)(local.tm_wday + 6) % 7;
        n += rk_window_look(&w, day * DAY + (uint32_t)local.tm_hour * HOUR + (uint32_t)local.tm_min)
                 .open;
    }
    return n;
}

static void test_an_hour_that_is_left_out_and_one_that_comes_twice(void **state)
{
    const time_t spring = 1774742400; /* 2026-03-29T00:00Z: 01:00 is followed by 02:00 */
    const time_t autumn = 1792881000; /* 2026-10-24T23:50+01:00, a Saturday: 01:00 comes twice */
    (void)state;
    assert_int_equal(setenv("TZ", "GMT0BST,M3.5.0/1,M10.5.0", 1), 0);
    tzset();
    assert_int_equal(open_minutes("Sun 01:00-02:00", spring), 0);
    assert_int_equal(open_minutes("Sun 00:30-01:30", spring), 30);
    assert_int_equal(open_minutes("Sun 00:30-02:30", spring), 60);
    assert_int_equal(open_minutes("Sun 01:00-02:00", autumn), 120);
    assert_int_equal(open_minutes("Sun 01:30-02:30", autumn), 90);
    assert_int_equal(open_minutes("Sat 23:55-00:05", autumn), 10);
}

static void test_names_of_times(void **state)
{
    char time[RK_WINDOW_TIME_SIZE];
    (void)state;
    assert_string_equal(rk_window_time(0, time), "Mon 00:00");
    assert_string_equal(rk_window_time(RK_WEEK_MINUTES - 1, time), "Sun 23:59");
    assert_string_equal(rk_window_time(RK_WEEK_MINUTES + DAY + 61, time), "Tue 01:01");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_no_span),
        cmocka_unit_test(test_no_span_is_always_open),
        cmocka_unit_test(test_over_midnight),
        cmocka_unit_test(test_over_the_end_of_the_week),
        cmocka_unit_test(test_spans_that_meet_or_overlap_are_one),
        cmocka_unit_test(test_all_week),
        cmocka_unit_test(test_one_minute),
        cmocka_unit_test(test_every_minute_of_the_week),
        cmocka_unit_test(test_an_hour_that_is_left_out_and_one_that_comes_twice),
        cmocka_unit_test(test_names_of_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
