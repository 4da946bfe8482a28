#include <rekey/topology/routes.h>

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct rk_endpoint *rk_endpoint_new(const char *address, const struct rk_sockaddr *sockaddrs,
                                    size_t n)
{
    struct rk_hostport name = {.host = ""};
    size_t len = strlen(address);
    bool path = rk_address_is_path(address);
    if (len >= (path ? sizeof name.host : RK_ADDRESS_MAX) ||
        (!path && !rk_hostport_parse(address, &name))) {
        return NULL;
    }
    if (path) {
        memcpy(name.host, address, len + 1); /* no certificate names it: verifying fails */
    }
    struct rk_endpoint *endpoint = calloc(1, sizeof *endpoint);
    if (endpoint == NULL) {
        return NULL;
    }
    atomic_init(&endpoint->refs, 1);
    memcpy(endpoint->address, address, len + 1);
    memcpy(endpoint->host, name.host, sizeof endpoint->host);
    endpoint->n = n < RK_ENDPOINT_SOCKADDRS_MAX ? n : RK_ENDPOINT_SOCKADDRS_MAX;
    if (endpoint->n > 0) {
        memcpy(endpoint->sockaddrs, sockaddrs, endpoint->n * sizeof sockaddrs[0]);
    }
    return endpoint;
}

struct rk_endpoint *rk_endpoint_ref(struct rk_endpoint *endpoint)
{
    (void)atomic_fetch_add(&endpoint->refs, 1);
    return endpoint;
}

void rk_endpoint_unref(struct rk_endpoint *endpoint)
{
    if (endpoint != NULL && atomic_fetch_sub(&endpoint->refs, 1) == 1) {
        free(endpoint);
    }
}

struct rk_routes *rk_routes_new(size_t n)
{
    struct rk_routes *routes = calloc(1, sizeof *routes);
    if (routes == NULL) {
        return NULL;
    }
    atomic_init(&routes->refs, 1);
    routes->n = n;
    routes->route = calloc(n > 0 ? n : 1, sizeof *routes->route);
    if (routes->route == NULL) {
        free(routes);
        return NULL;
    }
    return routes;
}

struct rk_routes *rk_routes_ref(struct rk_routes *routes)
{
    (void)atomic_fetch_add(&routes->refs, 1);
    return routes;
}

void rk_routes_unref(struct rk_routes *routes)
{
    if (routes == NULL || atomic_fetch_sub(&routes->refs, 1) != 1) {
        return;
    }
    for (size_t i = 0; i < routes->n; i++) {
        struct rk_route *route = &routes->route[i];
        for (size_t e = 0; e < route->n_endpoints; e++) {
            rk_endpoint_unref(route->endpoints[e]);
        }
        free(route->endpoints);
        free(route->listen);
        free(route->advertise);
        free(route->address);
    }
    free(routes->route);
    free(routes);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool same_route(const struct rk_route *a, const struct rk_route *b)
{
    return a->id == b->id && a->role == b->role && same_text(a->listen, b->listen) &&
           same_text(a->advertise, b->advertise) && same_text(a->address, b->address) &&
           a->n_endpoints == b->n_endpoints &&
           memcmp(a->endpoints, b->endpoints, a->n_endpoints * sizeof a->endpoints[0]) == 0;
}

bool rk_routes_same(const struct rk_routes *a, const struct rk_routes *b)
{
    bool same = a->n == b->n;
    for (size_t i = 0; i < a->n && same; i++) {
        same = same_route(&a->route[i], &b->route[i]);
    }
    return same;
}

const struct rk_route *rk_routes_find(const struct rk_routes *routes, unsigned id)
{
    for (size_t i = 0; i < routes->n; i++) {
        if (routes->route[i].id == id) {
            return &routes->route[i];
        }
    }
    return NULL;
}

const char *rk_routes_map(const struct rk_routes *routes, const char *address, size_t len)
{
    for (size_t i = 0; i < routes->n; i++) {
        const struct rk_route *route = &routes->route[i];
        if (route->role == RK_ROLE_MEMBER && strlen(route->address) == len &&
            strncasecmp(route->address, address, len) == 0) {
            return route->advertise;
        }
    }
    return NULL;
}

/* FNV-1a, and a finaliser (MurmurHash3's) that spreads it over all bits: weights are compared. */
static uint64_t weight(const char *client, size_t client_len, const char *server)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < client_len; i++) {
        hash = (hash ^ (unsigned char)client[i]) * 0x100000001b3u;
    }
    for (const char *p = server; *p != '\0'; p++) {
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3u;
    }
    hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu;
    hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53u;
    return hash ^ (hash >> 33);
}

struct rk_endpoint *rk_route_pick(const struct rk_route *route, const char *client, size_t choice)
{
    const char *port = strrchr(client, ':');
    size_t host_len = port != NULL ? (size_t)(port - client) : strlen(client);
    struct rk_endpoint *best = NULL;
    uint64_t below = UINT64_MAX; /* of the choice before */
    for (size_t round = 0; round <= choice; round++) {
        uint64_t most = 0;
        best = NULL;
        for (size_t i = 0; i < route->n_endpoints; i++) {
            uint64_t w = weight(client, host_len, route->endpoints[i]->address);
            if (w < below && (best == NULL || w > most)) {
                best = route->endpoints[i];
                most = w;
            }
        }
        if (best == NULL) {
            return NULL;
        }
        below = most;
    }
    return best;
}
