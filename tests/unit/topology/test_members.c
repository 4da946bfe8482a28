/* Members: how addresses are parsed, mapped and resolved. */
#include <rekey/topology/members.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

static const struct rk_member_spec specs[] = {
    {.address = "Db1.example:27017", .listen = "127.0.0.1:1", .advertise = "proxy:1"},
    {.address = "127.0.0.1:27018", .listen = "127.0.0.1:2"},
    {.address = "[::1]:27019", .listen = "[::1]:3"},
};

static struct rk_members *make(void)
{
    struct rk_members *members = NULL;
    assert_int_equal(rk_members_new(specs, 3, &members, NULL), RK_OK);
    return members;
}

static void maps_addresses_without_case(void **state)
{
    (void)state;
    struct rk_members *members = make();
    assert_string_equal(rk_members_map(members, "db1.EXAMPLE:27017", 17), "proxy:1");
    assert_string_equal(rk_members_map(members, "127.0.0.1:27018", 15), "127.0.0.1:2");
    assert_null(rk_members_map(members, "127.0.0.1:27020", 15));
    assert_null(rk_members_map(members, "127.0.0.1:2701", 14));
    rk_members_free(members);
}

static void resolves_what_it_can(void **state)
{
    (void)state;
    struct rk_members *members = make();
    struct rk_sockaddr out[RK_MEMBER_ADDRESSES_MAX];
    assert_int_equal(rk_members_sockaddrs(members, 1, out), 0);
    (void)rk_members_resolve(members);
    assert_int_equal(rk_members_sockaddrs(members, 1, out), 1);
    assert_int_equal(out[0].addr.ss_family, AF_INET);
    assert_int_equal(rk_members_sockaddrs(members, 2, out), 1);
    assert_int_equal(out[0].addr.ss_family, AF_INET6);
    assert_string_equal(rk_members_host(members, 2), "::1");
    rk_members_free(members);
}

static void connects_elsewhere_than_to_the_name(void **state)
{
    (void)state;
    const struct rk_member_spec two[] = {
        {.address = "db1:27017", .connect = "/tmp/mongodb-27017.sock", .listen = "127.0.0.1:1"},
        {.address = "db2:27017", .connect = "127.0.0.1:9", .listen = "127.0.0.1:2"},
    };
    struct rk_members *members = NULL;
    struct rk_sockaddr out[RK_MEMBER_ADDRESSES_MAX];
    assert_int_equal(rk_members_new(two, 2, &members, NULL), RK_OK);
    assert_int_equal(rk_members_resolve(members), 0);
    assert_int_equal(rk_members_sockaddrs(members, 0, out), 1);
    const struct sockaddr_un *path = (const struct sockaddr_un *)&out[0].addr;
    assert_int_equal(path->sun_family, AF_UNIX);
    assert_string_equal(path->sun_path, "/tmp/mongodb-27017.sock");
    assert_string_equal(rk_members_host(members, 0), "db1");
    assert_int_equal(rk_members_sockaddrs(members, 1, out), 1);
    assert_int_equal(out[0].addr.ss_family, AF_INET);
    rk_members_free(members);
}

static void refuses_what_is_no_address(void **state)
{
    (void)state;
    const char *bad[] = {"db1",    "db1:",        "db1:0",      "db1:65536",
                         ":27017", "db1:27017:1", "[::1]27017", "db1:2701x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct rk_member_spec spec = {.address = bad[i], .listen = "127.0.0.1:1"};
        struct rk_members *members = NULL;
        struct rk_error err = {0};
        assert_int_equal(rk_members_new(&spec, 1, &members, &err), RK_EINVAL);
        assert_non_null(strstr(err.message, bad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_addresses_without_case),
        cmocka_unit_test(resolves_what_it_can),
        cmocka_unit_test(connects_elsewhere_than_to_the_name),
        cmocka_unit_test(refuses_what_is_no_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
