/* PROXY protocol headers, byte by byte after haproxy's doc/proxy-protocol.txt, section 2.2. */
#include <rekey/wire/proxy_header.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define SIGNATURE 0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A

/* clang-format off */
static const uint8_t v4_header[] = {
    SIGNATURE,
    0x21,                   /* version 2, PROXY */
    0x11,                   /* TCP over IPv4 */
    0x00, 0x14,             /* 12 of addresses, 8 of TLVs */
    0xC0, 0x00, 0x02, 0x01, /* 192.0.2.1 */
    0xC0, 0x00, 0x02, 0x02,
    0xD9, 0x03,             /* port 55555 */
    0x69, 0x89,
    0x04, 0x00, 0x05,       /* PP2_TYPE_NOOP of 5 bytes */
    1, 2, 3, 4, 5,
};
static const uint8_t v6_header[] = {
    SIGNATURE,
    0x21,
    0x21,                   /* TCP over IPv6 */
    0x00, 0x24,
    0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, /* 2001:db8::1 */
    0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    0x00, 0x50,
    0x69, 0x89,
};
static const uint8_t local_header[] = {SIGNATURE, 0x20, 0x00, 0x00, 0x00};
static const uint8_t unspecified_header[] = {SIGNATURE, 0x21, 0x00, 0x00, 0x03, 9, 9, 9};
/* clang-format on */

static struct rk_proxy_header parsed(const uint8_t *data, size_t len)
{
    struct rk_proxy_header header;
    size_t need = 0;
    const char *why = NULL;
    assert_int_equal(rk_proxy_header_parse(data, len, &header, &need, &why), RK_PARSE_OK);
    return header;
}

static void test_tcp_over_ipv4(void **state)
{
    (void)state;
    struct rk_proxy_header header = parsed(v4_header, sizeof v4_header);
    const struct sockaddr_in *source = (const struct sockaddr_in *)&header.source;
    assert_int_equal(header.len, sizeof v4_header);
    assert_true(header.has_source);
    assert_int_equal(source->sin_family, AF_INET);
    assert_int_equal(ntohl(source->sin_addr.s_addr), 0xC0000201);
    assert_int_equal(ntohs(source->sin_port), 55555);
    assert_int_equal(header.source_len, sizeof *source);
}

static void test_tcp_over_ipv6(void **state)
{
    (void)state;
    struct rk_proxy_header header = parsed(v6_header, sizeof v6_header);
    const struct sockaddr_in6 *source = (const struct sockaddr_in6 *)&header.source;
    char text[INET6_ADDRSTRLEN];
    assert_int_equal(header.len, sizeof v6_header);
    assert_int_equal(source->sin6_family, AF_INET6);
    assert_non_null(inet_ntop(AF_INET6, &source->sin6_addr, text, sizeof text));
    assert_string_equal(text, "2001:db8::1");
    assert_int_equal(ntohs(source->sin6_port), 80);
}

static void test_unix_socket(void **state)
{
    (void)state;
    uint8_t data[RK_PROXY_SEEN_MAX] = {SIGNATURE, 0x21, 0x31, 0x00, 0xD8};
    memcpy(data + 16, "/run/app.sock", 13);
    struct rk_proxy_header header = parsed(data, sizeof data);
    assert_int_equal(header.len, sizeof data);
    assert_int_equal(header.source.ss_family, AF_UNIX);
    assert_string_equal(((struct sockaddr_un *)&header.source)->sun_path, "/run/app.sock");
}

static void test_connections_that_speak_for_themselves(void **state)
{
    (void)state;
    struct rk_proxy_header header = parsed(local_header, sizeof local_header);
    assert_false(header.has_source);
    assert_int_equal(header.len, 16);
    header = parsed(unspecified_header, sizeof unspecified_header);
    assert_false(header.has_source);
    assert_int_equal(header.len, 19);
    /* LOCAL with a family and addresses, which are to be skipped unseen. */
    uint8_t local[sizeof v4_header];
    memcpy(local, v4_header, sizeof local);
    local[12] = 0x20;
    header = parsed(local, 16);
    assert_false(header.has_source);
    assert_int_equal(header.len, sizeof v4_header);
}

static void test_no_more_than_needed_is_asked_for(void **state)
{
    (void)state;
    const size_t seen = 16 + 12;
    for (size_t avail = 0; avail < sizeof v4_header; avail++) {
        struct rk_proxy_header header;
        size_t need = 0;
        const char *why = NULL;
        enum rk_parse parse = rk_proxy_header_parse(v4_header, avail, &header, &need, &why);
        assert_int_equal(parse, avail < seen ? RK_PARSE_INCOMPLETE : RK_PARSE_OK);
        assert_int_equal(need, avail < 16 ? 16 : seen);
        assert_null(why);
    }
}

static void expect_malformed(const void *data, size_t len, const char *part)
{
    struct rk_proxy_header header;
    size_t need = 0;
    const char *why = NULL;
    assert_int_equal(rk_proxy_header_parse(data, len, &header, &need, &why), RK_PARSE_MALFORMED);
    assert_non_null(strstr(why, part));
}

static void test_headers_that_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t byte;
        const char *why;
    } changes[] = {
        {0, 'x', "no PROXY header"},        {11, 0, "no PROXY header"},
        {12, 0x11, "unknown version"},      {12, 0x31, "unknown version"},
        {12, 0x22, "unknown command"},      {12, 0x2F, "unknown command"},
        {13, 0x12, "that is no stream's"},  {13, 0x10, "that is no stream's"},
        {13, 0x41, "that is no stream's"},  {13, 0x01, "that is no stream's"},
        {15, 11, "too short for its addr"}, {15, 0, "too short for its addr"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        uint8_t data[sizeof v4_header];
        memcpy(data, v4_header, sizeof data);
        data[changes[i].at] = changes[i].byte;
        expect_malformed(data, sizeof data, changes[i].why);
    }
}

static void test_version_1_is_told_apart(void **state)
{
    (void)state;
    static const char line[] = "PROXY TCP4 192.0.2.1 192.0.2.2 55555 27017\r\n";
    struct rk_proxy_header header;
    size_t need = 0;
    const char *why = NULL;
    expect_malformed(line, sizeof line - 1, "version 1");
    expect_malformed(line, 6, "version 1");
    assert_int_equal(rk_proxy_header_parse((const uint8_t *)line, 5, &header, &need, &why),
                     RK_PARSE_INCOMPLETE);
    expect_malformed("PROXIES", 7, "no PROXY header");
    expect_malformed("P0", 2, "no PROXY header");
}

static void test_headers_that_nobody_expects_are_recognised(void **state)
{
    (void)state;
    static const uint8_t line[] = "PROXY TCP4 ";
    static const uint8_t ping[] = {0x2F, 0, 0, 0, 1, 0, 0, 0};
    assert_true(rk_proxy_header_begins(v4_header, sizeof v4_header));
    assert_true(rk_proxy_header_begins(v4_header, 4));
    assert_true(rk_proxy_header_begins(line, sizeof line - 1));
    assert_true(rk_proxy_header_begins(line, 4));
    assert_false(rk_proxy_header_begins(line, 3));
    assert_false(rk_proxy_header_begins((const uint8_t *)"PROXIES", 7));
    assert_false(rk_proxy_header_begins(ping, sizeof ping));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp_over_ipv4),
        cmocka_unit_test(test_tcp_over_ipv6),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_connections_that_speak_for_themselves),
        cmocka_unit_test(test_no_more_than_needed_is_asked_for),
        cmocka_unit_test(test_headers_that_are_refused),
        cmocka_unit_test(test_version_1_is_told_apart),
        cmocka_unit_test(test_headers_that_nobody_expects_are_recognised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
