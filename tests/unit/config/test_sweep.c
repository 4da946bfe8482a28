/* The section sweep setting by setting, and settings of the fleet laid over those of a file. */
#include "fixture.h"

#include <rekey/config/sweep.h>

static const char *value(const struct rk_config_sweep *sweep, const char *key)
{
    static char out[RK_SWEEP_VALUE_SIZE];
    size_t i = rk_config_sweep_find(key);
    assert_in_range(i, 0, rk_config_sweep_count() - 1);
    return rk_config_sweep_value(sweep, i, out);
}

static uint64_t bit(const char *key)
{
    return UINT64_C(1) << rk_config_sweep_find(key);
}

static void test_every_setting_has_a_key_and_a_value(void **state)
{
    struct rk_config *c = load(UPSTREAM);
    size_t n = rk_config_sweep_count();
    (void)state;
    assert_in_range(n, 15, 64);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(rk_config_sweep_find(rk_config_sweep_key(i)), i);
    }
    assert_int_equal(rk_config_sweep_find("nonsense"), n);
    assert_int_equal(rk_config_sweep_find("p99_limit_ms"),
                     rk_config_sweep_find("guard.p99_limit_ms"));
    assert_string_equal(value(&c->sweep, "window"), "");
    assert_string_equal(value(&c->sweep, "time_zone"), "UTC");
    assert_string_equal(value(&c->sweep, "pause"), "false");
    assert_string_equal(value(&c->sweep, "threads"), "2");
    assert_string_equal(value(&c->sweep, "guard.p99_limit_ms"), "50");
    assert_string_equal(value(&c->sweep, "read_preference"), "primary");
    assert_int_equal(c->sweep_given, 0);
    rk_config_free(c);
}

static void test_what_the_file_gives(void **state)
{
    struct rk_config *c = load(UPSTREAM "sweep:\n  max_rate: 5\n  time_zone: Europe/London\n"
                                        "  guard: {p99_limit_ms: 7}\n"
                                        "  window: [Mon-Fri 22:00-06:00, \"01:00-02:00\"]\n");
    (void)state;
    assert_int_equal(c->sweep_given, bit("max_rate") | bit("time_zone") | bit("window") |
                                         bit("guard.p99_limit_ms"));
    assert_string_equal(value(&c->sweep, "window"), "Mon-Fri 22:00-06:00, 01:00-02:00");
    assert_int_equal(rk_config_sweep_window(&c->sweep).n, 2);
    rk_config_free(c);
}

static void test_the_fleet_wins(void **state)
{
    struct rk_config *c = load(UPSTREAM "sweep: {max_rate: 5, threads: 9}\n");
    struct rk_error err = {0};
    uint64_t given = 1;
    (void)state;
    assert_int_equal(rk_config_sweep_lay(&c->sweep, "{}", &given, &err), RK_OK);
    assert_int_equal(given, 0);
    assert_int_equal(rk_config_sweep_lay(&c->sweep,
                                         "{ \"max_rate\" : 100, \"pause\" : true, \"guard\" : { "
                                         "\"p99_limit_ms\" : 20 }, \"window\" : [ \"Sat "
                                         "00:00-24:00\" ], \"read_preference\" : \"nearest\" }",
                                         &given, &err),
                     RK_OK);
    assert_int_equal(given, bit("max_rate") | bit("pause") | bit("guard.p99_limit_ms") |
                                bit("window") | bit("read_preference"));
    assert_int_equal(c->sweep.max_rate, 100);
    assert_true(c->sweep.pause);
    assert_int_equal(c->sweep.guard.p99_limit_ms, 20);
    assert_int_equal(c->sweep.window_count, 1);
    assert_int_equal(c->sweep.read_preference, RK_CONFIG_SCAN_NEAREST);
    assert_int_equal(c->sweep.threads, 9); /* as the file says */
    assert_int_equal(c->sweep.lease_ms, 15000);
    assert_int_equal(rk_config_sweep_lay(&c->sweep, "{\"window\": []}", &given, &err), RK_OK);
    assert_int_equal(c->sweep.window_count, 0);
    rk_config_free(c);
}

static void test_refused_as_in_a_file_and_without_effect(void **state)
{
    static const struct {
        const char *mapping;
        const char *reason;
    } cases[] = {
        {"{\"pause\": true, \"max_rate\": 100000001}",
         "sweep.max_rate: must be from 0 to 100000000, not 100000001"},
        {"{\"threads\": \"two\"}", "sweep.threads: must be a whole number, not \"two\""},
        {"{\"threads\": 0}", "sweep.threads: must be from 1 to 64, not 0"},
        {"{\"max_rate\": 10.5}", "sweep.max_rate: must be a whole number, not \"10.5\""},
        {"{\"pause\": \"perhaps\"}",
         "sweep.pause: must be one of false, true, no, yes, off, on, not \"perhaps\""},
        {"{\"window\": [\"at night\"]}",
         "sweep.window[0]: must read like \"Mon-Fri 22:00-06:00\", \"Sat 00:00-24:00\" or "
         "\"22:00-06:00\", not \"at night\""},
        {"{\"max_rat\": 1}", "sweep.max_rat: there is no such setting; did you mean \"max_rate\"?"},
        {"{\"lease_ms\": 1000}",
         "sweep.lease_ms: is each instance's own; it cannot be set for the fleet"},
        {"5", "sweep: must be a mapping (\"name: value\" lines)"},
    };
    struct rk_config *c = load(UPSTREAM);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_config_sweep sweep = c->sweep;
        struct rk_error err = {0};
        uint64_t given;
        assert_int_equal(rk_config_sweep_lay(&sweep, cases[i].mapping, &given, &err), RK_EINVAL);
        assert_string_equal(err.message, cases[i].reason);
        assert_memory_equal(&sweep, &c->sweep, sizeof sweep);
    }
    rk_config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_setting_has_a_key_and_a_value),
        cmocka_unit_test(test_what_the_file_gives),
        cmocka_unit_test(test_the_fleet_wins),
        cmocka_unit_test(test_refused_as_in_a_file_and_without_effect),
    };
    return RUN_IN_DIRECTORY(tests);
}
