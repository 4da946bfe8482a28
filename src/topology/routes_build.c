/*
 * Which servers a route may lead to, from what the monitor saw last.
 */
#include "topology_internal.h"

#include <stdlib.h>
#include <string.h>

struct build {
    const struct rk_server_seen *servers;
    size_t n_servers;
    struct rk_names *names;
    uint32_t window_ms;
};

static bool has_role(const struct rk_server_seen *server, enum rk_role role)
{
    switch (server->type) {
    case RK_SERVER_ROUTER:
    case RK_SERVER_STANDALONE:
        return true;
    case RK_SERVER_PRIMARY:
        return role == RK_ROLE_PRIMARY;
    case RK_SERVER_SECONDARY:
        return role == RK_ROLE_SECONDARY;
    default:
        return false;
    }
}

static bool leads_to(const struct rk_route *route, const char *address)
{
    for (size_t i = 0; route != NULL && i < route->n_endpoints; i++) {
        if (strcmp(route->endpoints[i]->address, address) == 0) {
            return true;
        }
    }
    return false;
}

static void add(struct build *b, struct rk_route *route, const char *address)
{
    const struct rk_name *name = rk_names_find(b->names, address);
    if (name != NULL && (name->endpoint->n > 0 || route->role == RK_ROLE_MEMBER)) {
        route->endpoints[route->n_endpoints++] = rk_endpoint_ref(name->endpoint);
    }
}

/* All servers with the role; of secondaries only the near ones. One that was near before stays
 * until it is twice as far as the window: a change moves clients and costs them their cursors. */
static void add_role(struct build *b, struct rk_route *route, enum rk_role role,
                     const struct rk_route *before)
{
    int64_t nearest = INT64_MAX;
    for (size_t i = 0; i < b->n_servers; i++) {
        if (has_role(&b->servers[i], role) && b->servers[i].rtt_ms < nearest) {
            nearest = b->servers[i].rtt_ms;
        }
    }
    for (size_t i = 0; i < b->n_servers; i++) {
        const struct rk_server_seen *server = &b->servers[i];
        int64_t window =
            leads_to(before, server->address) ? 2 * (int64_t)b->window_ms : (int64_t)b->window_ms;
        if (has_role(server, role) &&
            (role == RK_ROLE_PRIMARY || server->rtt_ms - nearest <= window)) {
            add(b, route, server->address);
        }
    }
}

static bool is_seen(const struct build *b, const char *address)
{
    for (size_t i = 0; i < b->n_servers; i++) {
        if (strcmp(b->servers[i].address, address) == 0 &&
            b->servers[i].type != RK_SERVER_UNKNOWN) {
            return true;
        }
    }
    return false;
}

/* Servers that had the role when they were seen last, and that nobody has replaced. */
static void add_unseen(const struct build *b, struct rk_route *route, const struct rk_route *before)
{
    for (size_t i = 0; before != NULL && i < before->n_endpoints; i++) {
        if (!is_seen(b, before->endpoints[i]->address)) {
            route->endpoints[route->n_endpoints++] = rk_endpoint_ref(before->endpoints[i]);
        }
    }
}

static bool build_route(struct build *b, const struct rk_route_spec *spec,
                        const struct rk_routes *before, struct rk_route *route)
{
    const struct rk_route *former = before != NULL ? rk_routes_find(before, spec->id) : NULL;
    if (former != NULL && former->role != spec->role) {
        former = NULL; /* what it led to was for another role */
    }
    size_t room = b->n_servers + (former != NULL ? former->n_endpoints : 0) + 1;
    route->id = spec->id;
    route->role = spec->role;
    route->listen = strdup(spec->listen);
    route->advertise = strdup(spec->advertise);
    route->address = spec->address != NULL ? strdup(spec->address) : NULL;
    route->endpoints = calloc(room, sizeof(struct rk_endpoint *));
    if (route->listen == NULL || route->advertise == NULL || route->endpoints == NULL ||
        (spec->address != NULL && route->address == NULL)) {
        return false;
    }
    switch (spec->role) {
    case RK_ROLE_MEMBER:
        add(b, route, spec->address);
        break;
    case RK_ROLE_PRIMARY:
    case RK_ROLE_SECONDARY:
        add_role(b, route, spec->role, former);
        break;
    case RK_ROLE_SECONDARY_PREFERRED:
        add_role(b, route, RK_ROLE_SECONDARY, former);
        if (route->n_endpoints == 0) {
            add_role(b, route, RK_ROLE_PRIMARY, former);
        }
        break;
    }
    if (route->n_endpoints == 0 && spec->role != RK_ROLE_MEMBER) {
        add_unseen(b, route, former);
    }
    return true;
}

struct rk_routes *rk_routes_build(const struct rk_route_spec *specs, size_t n_specs,
                                  const struct rk_server_seen *servers, size_t n_servers,
                                  struct rk_names *names, uint32_t latency_window_ms,
                                  const struct rk_routes *before)
{
    struct build b = {
        .servers = servers, .n_servers = n_servers, .names = names, .window_ms = latency_window_ms};
    struct rk_routes *routes = rk_routes_new(n_specs);
    for (size_t i = 0; routes != NULL && i < n_specs; i++) {
        if (!build_route(&b, &specs[i], before, &routes->route[i])) {
            rk_routes_unref(routes);
            return NULL;
        }
    }
    return routes;
}
