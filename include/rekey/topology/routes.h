/*
 * Where each listener leads: an immutable, reference-counted picture of the topology, made by
 * rekey/topology/topology.h and read by the workers without a lock.
 *
 *   mirror  a route leads to one member of the configuration
 *   single  a route leads to whichever server has its role now
 */
#ifndef REKEY_TOPOLOGY_ROUTES_H
#define REKEY_TOPOLOGY_ROUTES_H

#include <rekey/base/hostport.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define RK_ENDPOINT_SOCKADDRS_MAX 8u
#define RK_ADDRESS_MAX 272u /* "[host]:port" and its NUL */

enum rk_role {
    RK_ROLE_MEMBER,              /* mirror: the member of the route's address */
    RK_ROLE_PRIMARY,             /* the primary; any mongos; the standalone */
    RK_ROLE_SECONDARY,           /* a secondary; any mongos; the standalone */
    RK_ROLE_SECONDARY_PREFERRED, /* a secondary; the primary while there is none */
};

struct rk_sockaddr {
    struct sockaddr_storage addr;
    socklen_t len;
};

/* A mongod or mongos and where its name leads. Immutable, shared by routes and sessions. */
struct rk_endpoint {
    _Atomic unsigned refs;
    char address[RK_ADDRESS_MAX]; /* as the replica set configuration spells it */
    char host[256];               /* of address: what its certificate must name */
    size_t n;                     /* 0: the name does not resolve */
    struct rk_sockaddr sockaddrs[RK_ENDPOINT_SOCKADDRS_MAX]; /* by preference */
};

/* NULL when out of memory or when address is neither host:port nor a path. */
struct rk_endpoint *rk_endpoint_new(const char *address, const struct rk_sockaddr *sockaddrs,
                                    size_t n);
struct rk_endpoint *rk_endpoint_ref(struct rk_endpoint *endpoint);
void rk_endpoint_unref(struct rk_endpoint *endpoint); /* NULL is fine */

struct rk_route {
    unsigned id; /* of the listener, as long as its address stays */
    enum rk_role role;
    char *listen;
    char *advertise; /* what clients are told */
    char *address;   /* RK_ROLE_MEMBER: its member, else NULL */
    struct rk_endpoint **endpoints;
    size_t n_endpoints; /* RK_ROLE_MEMBER: always 1 */
};

struct rk_routes {
    _Atomic unsigned refs;
    size_t n;
    struct rk_route *route;
};

/* Room for n routes, all zero; owned by one reference. NULL: out of memory. */
struct rk_routes *rk_routes_new(size_t n);
struct rk_routes *rk_routes_ref(struct rk_routes *routes);
void rk_routes_unref(struct rk_routes *routes); /* NULL is fine */

/* Do both lead the same listeners to the same endpoints (the same objects, in the same order)? */
bool rk_routes_same(const struct rk_routes *a, const struct rk_routes *b);

/* NULL: there is no such listener any more. */
const struct rk_route *rk_routes_find(const struct rk_routes *routes, unsigned id);

/* mirror: the advertised address of a member (compared without case), NULL if unknown. */
const char *rk_routes_map(const struct rk_routes *routes, const char *address, size_t len);

/*
 * The server for a client ("host:port" as logs have it): choice 0, or the next one after a choice
 * could not be reached. NULL: no more. All connections of one host are given the same server, so
 * that a driver, for which the route is one server, finds its cursors and sessions on every
 * connection of its pool; different hosts are spread (rendezvous hashing).
 */
struct rk_endpoint *rk_route_pick(const struct rk_route *route, const char *client, size_t choice);

#endif
