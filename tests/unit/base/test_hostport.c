#include <rekey/base/hostport.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void test_addresses_as_mongodb_spells_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *host; /* NULL: refused */
        const char *port;
    } cases[] = {
        {"db1.example.net:27017", "db1.example.net", "27017"},
        {"127.0.0.1:1", "127.0.0.1", "1"},
        {"[::1]:65535", "::1", "65535"},
        {"h:65536", NULL, NULL},
        {"h:0", NULL, NULL},
        {"h:", NULL, NULL},
        {"h:-1", NULL, NULL},
        {"h:+1", NULL, NULL},
        {"h: 1", NULL, NULL},
        {"h:1x", NULL, NULL},
        {"h:123456", NULL, NULL},
        {"h", NULL, NULL},
        {"", NULL, NULL},
        {":1", NULL, NULL},
        {"::1:27017", NULL, NULL},
        {"[::1]", NULL, NULL},
        {"[::1]27017", NULL, NULL},
        {"[]:1", NULL, NULL},
        {"[::1:27017", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_hostport out;
        assert_int_equal(rk_hostport_parse(cases[i].text, &out), cases[i].host != NULL);
        if (cases[i].host != NULL) {
            assert_string_equal(out.host, cases[i].host);
            assert_string_equal(out.port, cases[i].port);
        }
    }
}

static void test_a_host_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct rk_hostport out;
    char text[300];
    memset(text, 'h', sizeof text);
    memcpy(text + 255, ":1", 3);
    assert_true(rk_hostport_parse(text, &out));
    assert_int_equal(strlen(out.host), 255);
    memset(text, 'h', sizeof text);
    memcpy(text + 256, ":1", 3);
    assert_false(rk_hostport_parse(text, &out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_as_mongodb_spells_them),
        cmocka_unit_test(test_a_host_that_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
