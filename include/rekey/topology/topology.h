/*
 * Keeps the picture of where listeners lead (rekey/topology/routes.h) up to date, on a thread of
 * its own: names are looked up again and again, and in the single topology libmongoc watches the
 * servers behind a connection string. Whoever watches gets every new picture.
 *
 * A server that cannot be seen for the moment keeps the routes that it has until it says that it
 * lost its role or another one has it: a monitoring connection that fails is no reason to drop
 * clients whose own connections work.
 */
#ifndef REKEY_TOPOLOGY_TOPOLOGY_H
#define REKEY_TOPOLOGY_TOPOLOGY_H

#include <rekey/topology/routes.h>

struct rk_route_spec {
    enum rk_role role;
    const char *address; /* RK_ROLE_MEMBER: the member, as the replica set spells it; else NULL */
    const char *connect; /* and how to reach it: host:port, or the path of a Unix socket */
    const char *listen;
    const char *advertise; /* what clients are told */
    unsigned id;           /* by rk_topology_identify */
};

struct rk_topology_settings {
    uint32_t resolve_interval_ms; /* how often names are looked up */
    uint32_t monitor_interval_ms; /* how often servers are looked at that do not report by
                                     themselves */
    uint32_t latency_window_ms;   /* secondaries that are slower than the nearest by more are not
                                     chosen */
    uint32_t start_timeout_ms;    /* how long rk_topology_start waits for names */
};

struct rk_topology;

/* uri: single: the servers' connection string; NULL: mirror. specs: with their ids; copied. Waits
 * (within start_timeout_ms) until every name was looked up once. */
RK_MUST_CHECK enum rk_status rk_topology_start(const char *uri,
                                               const struct rk_topology_settings *settings,
                                               const struct rk_route_spec *specs, size_t n,
                                               struct rk_topology **out, struct rk_error *err);
/* Nobody watches any more. NULL is fine. */
void rk_topology_stop(struct rk_topology *topology);

/* Gives each spec the id of the present route with the same listen address, or a new one. NULL:
 * all are new. */
void rk_topology_identify(struct rk_topology *topology, struct rk_route_spec *specs, size_t n);
/* Other listeners or members from now on. Fails without effect. */
RK_MUST_CHECK enum rk_status rk_topology_reconfigure(struct rk_topology *topology,
                                                     const struct rk_route_spec *specs, size_t n,
                                                     struct rk_error *err);

/* The present picture; rk_routes_unref it. Any thread. */
struct rk_routes *rk_topology_routes(struct rk_topology *topology);

/* Called with the present picture at once and with every new one, in order, on any thread; must
 * not block. routes are borrowed. fn NULL: no more. */
typedef void rk_topology_fn(void *arg, struct rk_routes *routes);
void rk_topology_watch(struct rk_topology *topology, rk_topology_fn *fn, void *arg);

#endif
