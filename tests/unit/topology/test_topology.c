/* The picture of the topology: members, names, reconfiguring, who is given which server. */
#include <rekey/topology/topology.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

#define MEMBER(a, c, l, d)                                                                         \
    {                                                                                              \
        .role = RK_ROLE_MEMBER, .address = (a), .connect = (c), .listen = (l), .advertise = (d)    \
    }

static const struct rk_topology_settings settings = {.resolve_interval_ms = 60000,
                                                     .start_timeout_ms = 20000};

static struct rk_topology *start(struct rk_route_spec *specs, size_t n)
{
    struct rk_topology *topology = NULL;
    rk_topology_identify(NULL, specs, n);
    assert_int_equal(rk_topology_start(NULL, &settings, specs, n, &topology, NULL), RK_OK);
    return topology;
}

static void maps_addresses_without_case(void **state)
{
    (void)state;
    struct rk_route_spec specs[] = {
        MEMBER("Db1.example:27017", "127.0.0.1:1", "127.0.0.1:1001", "proxy:1"),
        MEMBER("127.0.0.1:27018", "127.0.0.1:27018", "127.0.0.1:1002", "127.0.0.1:1002"),
    };
    struct rk_topology *topology = start(specs, 2);
    struct rk_routes *routes = rk_topology_routes(topology);
    assert_string_equal(rk_routes_map(routes, "db1.EXAMPLE:27017", 17), "proxy:1");
    assert_string_equal(rk_routes_map(routes, "127.0.0.1:27018", 15), "127.0.0.1:1002");
    assert_null(rk_routes_map(routes, "127.0.0.1:27020", 15));
    assert_null(rk_routes_map(routes, "127.0.0.1:2701", 14));
    rk_routes_unref(routes);
    rk_topology_stop(topology);
}

static const struct rk_endpoint *only_endpoint(const struct rk_routes *routes, unsigned id)
{
    const struct rk_route *route = rk_routes_find(routes, id);
    assert_non_null(route);
    assert_int_equal(route->n_endpoints, 1);
    return route->endpoints[0];
}

static void resolves_names_numbers_and_paths(void **state)
{
    (void)state;
    struct rk_route_spec specs[] = {
        MEMBER("db1:27017", "/tmp/mongodb-27017.sock", "a:1", "a:1"),
        MEMBER("[::1]:27019", "[::1]:27019", "a:2", "a:2"),
        MEMBER("localhost:27017", "localhost:27017", "a:3", "a:3"),
        MEMBER("nobody.invalid:27017", "nobody.invalid:27017", "a:4", "a:4"),
    };
    struct rk_topology *topology = start(specs, 4);
    struct rk_routes *routes = rk_topology_routes(topology);
    const struct rk_endpoint *found = only_endpoint(routes, specs[0].id);
    const struct sockaddr_un *path = (const struct sockaddr_un *)&found->sockaddrs[0].addr;
    assert_int_equal(found->n, 1);
    assert_int_equal(path->sun_family, AF_UNIX);
    assert_string_equal(path->sun_path, "/tmp/mongodb-27017.sock");
    assert_string_equal(found->host, "db1");
    found = only_endpoint(routes, specs[1].id);
    assert_int_equal(found->n, 1);
    assert_int_equal(found->sockaddrs[0].addr.ss_family, AF_INET6);
    assert_string_equal(found->host, "::1");
    assert_in_range(only_endpoint(routes, specs[2].id)->n, 1, RK_ENDPOINT_SOCKADDRS_MAX);
    /* One that does not resolve has its place all the same: clients are told why. */
    assert_int_equal(only_endpoint(routes, specs[3].id)->n, 0);
    rk_routes_unref(routes);
    rk_topology_stop(topology);
}

static void refuses_what_is_no_address(void **state)
{
    (void)state;
    const char *bad[] = {"db1",    "db1:",        "db1:0",      "db1:65536",
                         ":27017", "db1:27017:1", "[::1]27017", "db1:2701x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(rk_endpoint_new(bad[i], NULL, 0));
    }
}

static unsigned pictures;

static void count_pictures(void *arg, struct rk_routes *routes)
{
    *(size_t *)arg = routes->n;
    pictures++;
}

static void listeners_keep_their_id_over_a_change(void **state)
{
    (void)state;
    struct rk_route_spec before[] = {MEMBER("127.0.0.1:1", "127.0.0.1:1", "a:1", "a:1"),
                                     MEMBER("127.0.0.1:2", "127.0.0.1:2", "a:2", "a:2")};
    struct rk_route_spec after[] = {MEMBER("127.0.0.1:3", "127.0.0.1:3", "a:3", "a:3"),
                                    MEMBER("127.0.0.1:9", "127.0.0.1:9", "a:2", "b:2")};
    size_t n = 0;
    struct rk_topology *topology = start(before, 2);
    pictures = 0;
    rk_topology_watch(topology, count_pictures, &n);
    assert_int_equal(pictures, 1);
    assert_int_equal(n, 2);
    rk_topology_identify(topology, after, 2);
    assert_int_equal(after[1].id, before[1].id);
    assert_int_not_equal(after[0].id, before[0].id);
    assert_int_not_equal(after[0].id, before[1].id);
    assert_int_equal(rk_topology_reconfigure(topology, after, 1, NULL), RK_OK);
    assert_int_equal(pictures, 2);
    assert_int_equal(n, 1);
    assert_int_equal(rk_topology_reconfigure(topology, after, 2, NULL), RK_OK);
    struct rk_routes *routes = rk_topology_routes(topology);
    assert_null(rk_routes_find(routes, before[0].id));
    assert_string_equal(only_endpoint(routes, before[1].id)->address, "127.0.0.1:9");
    assert_string_equal(rk_routes_find(routes, before[1].id)->advertise, "b:2");
    rk_routes_unref(routes);
    rk_topology_stop(topology);
}

/* A route to n servers; rk_routes_unref its routes. */
static struct rk_routes *make_route(size_t n)
{
    struct rk_routes *routes = rk_routes_new(1);
    assert_non_null(routes);
    struct rk_route *route = &routes->route[0];
    route->endpoints = calloc(n, sizeof(struct rk_endpoint *));
    assert_non_null(route->endpoints);
    for (size_t i = 0; i < n; i++) {
        char address[32];
        (void)snprintf(address, sizeof address, "db%zu:27017", i);
        route->endpoints[route->n_endpoints++] = rk_endpoint_new(address, NULL, 0);
    }
    return routes;
}

static void a_host_has_one_server_and_hosts_are_spread(void **state)
{
    (void)state;
    enum { N = 3, HOSTS = 300 };
    struct rk_routes *routes = make_route(N);
    unsigned taken[N] = {0};
    for (unsigned i = 0; i < HOSTS; i++) {
        char one[32];
        char two[32];
        (void)snprintf(one, sizeof one, "10.0.%u.%u:1000", i / 100, i % 100);
        (void)snprintf(two, sizeof two, "10.0.%u.%u:2000", i / 100, i % 100);
        const struct rk_endpoint *first = rk_route_pick(&routes->route[0], one, 0);
        assert_ptr_equal(rk_route_pick(&routes->route[0], two, 0), first);
        /* The choices after it are the other servers, each once. */
        const struct rk_endpoint *second = rk_route_pick(&routes->route[0], one, 1);
        const struct rk_endpoint *third = rk_route_pick(&routes->route[0], one, 2);
        assert_ptr_not_equal(first, second);
        assert_ptr_not_equal(second, third);
        assert_ptr_not_equal(first, third);
        assert_null(rk_route_pick(&routes->route[0], one, 3));
        taken[first->address[2] - '0']++;
    }
    for (size_t i = 0; i < N; i++) {
        assert_in_range(taken[i], HOSTS / N / 2, HOSTS / N * 2);
    }
    rk_routes_unref(routes);
}

static void a_server_that_leaves_moves_only_its_clients(void **state)
{
    (void)state;
    struct rk_routes *four = make_route(4);
    struct rk_routes *three = make_route(3);
    for (unsigned i = 0; i < 200; i++) {
        char client[32];
        (void)snprintf(client, sizeof client, "[fd00::%x]:1000", i);
        const char *before = rk_route_pick(&four->route[0], client, 0)->address;
        const char *after = rk_route_pick(&three->route[0], client, 0)->address;
        assert_true(strcmp(before, "db3:27017") == 0 || strcmp(before, after) == 0);
    }
    rk_routes_unref(four);
    rk_routes_unref(three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_addresses_without_case),
        cmocka_unit_test(resolves_names_numbers_and_paths),
        cmocka_unit_test(refuses_what_is_no_address),
        cmocka_unit_test(listeners_keep_their_id_over_a_change),
        cmocka_unit_test(a_host_has_one_server_and_hosts_are_spread),
        cmocka_unit_test(a_server_that_leaves_moves_only_its_clients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
