#include <rekey/base/network.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <string.h>

static struct sockaddr_storage at(const char *text)
{
    struct sockaddr_storage addr = {.ss_family = AF_INET};
    if (inet_pton(AF_INET, text, &((struct sockaddr_in *)&addr)->sin_addr) != 1) {
        addr.ss_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&addr)->sin6_addr), 1);
    }
    return addr;
}

static void test_contains(void **state)
{
    (void)state;
    static const struct {
        const char *network;
        const char *address;
        bool inside;
    } cases[] = {
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"10.0.0.0/8", "::ffff:10.1.2.3", true}, /* IPv4 on a socket of both families */
        {"10.0.0.0/8", "::10.1.2.3", false},
        {"192.0.2.128/25", "192.0.2.128", true},
        {"192.0.2.128/25", "192.0.2.127", false},
        {"192.0.2.1", "192.0.2.1", true},
        {"192.0.2.1", "192.0.2.0", false},
        {"0.0.0.0/0", "203.0.113.9", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "203.0.113.9", true},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"::1", "::1", true},
        {"::1/128", "::2", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_network network;
        struct sockaddr_storage addr = at(cases[i].address);
        assert_true(rk_network_parse(cases[i].network, &network));
        assert_int_equal(rk_network_contains(&network, &addr), cases[i].inside);
    }
}

static void test_other_families_are_outside(void **state)
{
    (void)state;
    struct rk_network network;
    const struct sockaddr_storage path = {.ss_family = AF_UNIX};
    assert_true(rk_network_parse("::/0", &network));
    assert_false(rk_network_contains(&network, &path));
}

static void test_what_is_no_network(void **state)
{
    (void)state;
    const char *bad[] = {
        "",       "/8",           "10.0.0.0/33",   "10.0.0.1/8",  "10.0.0.0/", "10.0.0/8",
        "::/129", "::1/127",      "10.0.0.0/-1",   "10.0.0.0/8x", "localhost", "10.0.0.0/0008",
        "[::1]",  "10.0.0.0/8/8", "2001:db8::1/32"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct rk_network network;
        assert_false(rk_network_parse(bad[i], &network));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contains),
        cmocka_unit_test(test_other_families_are_outside),
        cmocka_unit_test(test_what_is_no_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
