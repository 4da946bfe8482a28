#include "../../../src/admin/request.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <string.h>

static enum rk_parse parse(const char *text, struct rk_admin_request *request)
{
    return rk_admin_request_parse(text, strlen(text), request);
}

static void assert_text(struct rk_admin_text text, const char *wanted)
{
    assert_int_equal(text.len, strlen(wanted));
    assert_memory_equal(text.data, wanted, text.len);
}

static void test_what_programs_send(void **state)
{
    (void)state;
    struct rk_admin_request r;
    assert_int_equal(parse("GET /metrics HTTP/1.1\r\nHost: a:9270\r\nUser-Agent: Prometheus/2.5\r\n"
                           "Accept: text/plain;version=0.0.4;q=1,*/*;q=0.1\r\n"
                           "AUTHORIZATION:  bearer  abc \t\r\n\r\n",
                           &r),
                     RK_PARSE_OK);
    assert_text(r.method, "GET");
    assert_text(r.path, "/metrics");
    assert_text(r.token, "abc");
    assert_int_equal(parse("HEAD /readyz?verbose=1&x HTTP/1.0\r\n\r\n", &r), RK_PARSE_OK);
    assert_text(r.method, "HEAD");
    assert_text(r.path, "/readyz");
    assert_null(r.token.data);
    assert_int_equal(parse("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", &r), RK_PARSE_OK);
    assert_text(r.method, "POST");
}

static void test_a_request_may_come_in_pieces(void **state)
{
    (void)state;
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    struct rk_admin_request r;
    for (size_t n = 0; n < sizeof text - 1; n++) {
        assert_int_equal(rk_admin_request_parse(text, n, &r), RK_PARSE_INCOMPLETE);
    }
    assert_int_equal(rk_admin_request_parse(text, sizeof text - 1, &r), RK_PARSE_OK);
}

static void test_other_schemes_are_no_token(void **state)
{
    (void)state;
    struct rk_admin_request r;
    assert_int_equal(parse("GET / HTTP/1.1\r\nAuthorization: Basic YTpi\r\n\r\n", &r), RK_PARSE_OK);
    assert_non_null(r.token.data);
    assert_int_equal(r.token.len, 0);
    assert_int_equal(parse("GET / HTTP/1.1\r\nAuthorization:\r\n\r\n", &r), RK_PARSE_OK);
    assert_int_equal(r.token.len, 0);
}

static void test_what_is_no_request(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET metrics HTTP/1.1\r\n\r\n",
        "G{T / HTTP/1.1\r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\n\r\n",
        "GET /\x7F HTTP/1.1\r\n\r\n",
        "GET /\n HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
        "GET / HTTP/1.1\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    };
    struct rk_admin_request r;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(bad[i], &r) != RK_PARSE_MALFORMED) {
            fail_msg("taken: %s", bad[i]);
        }
    }
    static const char nul[] = "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n";
    assert_int_equal(rk_admin_request_parse(nul, sizeof nul - 1, &r), RK_PARSE_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_programs_send),
        cmocka_unit_test(test_a_request_may_come_in_pieces),
        cmocka_unit_test(test_other_schemes_are_no_token),
        cmocka_unit_test(test_what_is_no_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
