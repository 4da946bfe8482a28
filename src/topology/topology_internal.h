/* What the files of the topology area share. */
#ifndef REKEY_TOPOLOGY_INTERNAL_H
#define REKEY_TOPOLOGY_INTERNAL_H

#include <rekey/topology/topology.h>
#include <stdbool.h>

enum rk_server_type {
    RK_SERVER_UNKNOWN, /* not seen (yet, or for the moment) */
    RK_SERVER_PRIMARY,
    RK_SERVER_SECONDARY,
    RK_SERVER_ARBITER,
    RK_SERVER_ROUTER,     /* mongos */
    RK_SERVER_STANDALONE, /* mongod without a replica set */
    RK_SERVER_OTHER,      /* starting, recovering, removed: serves nobody */
    RK_SERVER_TYPES,      /* how many there are */
};

/* A server as its last hello had it. Hidden members are in nobody's hello and so not among them. */
struct rk_server_seen {
    char address[RK_ADDRESS_MAX];
    enum rk_server_type type;
    int64_t rtt_ms;
};

/* specs.c. Copying: NULL when out of memory. */
struct rk_route_spec *rk_route_specs_copy(const struct rk_route_spec *specs, size_t n);
void rk_route_specs_free(struct rk_route_spec *specs, size_t n);

/* monitor.c: libmongoc's monitoring. fn gets all servers whenever one of them changed, in order,
 * on a thread of libmongoc's; it must not call libmongoc. */
struct rk_monitor;
typedef void rk_monitor_fn(void *arg, const struct rk_server_seen *servers, size_t n);
RK_MUST_CHECK enum rk_status rk_monitor_start(const char *uri, uint32_t interval_ms,
                                              rk_monitor_fn *fn, void *arg, struct rk_monitor **out,
                                              struct rk_error *err);
/* The servers with their present round-trip times; *n of them, free() the array. NULL: none. */
struct rk_server_seen *rk_monitor_look(struct rk_monitor *monitor, size_t *n);
void rk_monitor_stop(struct rk_monitor *monitor); /* NULL is fine */

/* names.c: a cache of looked-up names. Not thread-safe: its owner locks. */
struct rk_name {
    char address[RK_ADDRESS_MAX];
    char connect[RK_ADDRESS_MAX]; /* what is looked up */
    struct rk_endpoint *endpoint; /* n == 0 until it resolved for the first time */
    bool looked_up;
    bool failing;
    bool wanted;
    uint64_t due_us;
};
struct rk_names {
    struct rk_name *name;
    size_t n;
};
/* Adds address if need be, and marks it wanted. Numeric addresses and paths are resolved at once.
 * False: out of memory, or no address. */
RK_MUST_CHECK bool rk_names_want(struct rk_names *names, const char *address, const char *connect);
/* Forgets the ones that nobody wanted since rk_names_unmark. */
void rk_names_unmark(struct rk_names *names);
void rk_names_forget(struct rk_names *names);
struct rk_name *rk_names_find(struct rk_names *names, const char *address);
/* The one that is due first; NULL when there is none. */
struct rk_name *rk_names_next(struct rk_names *names);
void rk_names_deinit(struct rk_names *names);
/* Blocks (DNS). An endpoint with what was found; NULL: out of memory. */
struct rk_endpoint *rk_names_lookup(const char *address, const char *connect);

/* routes_build.c: what each route leads to. servers: NULL in the mirror topology. before: the
 * picture so far. NULL: out of memory. */
struct rk_routes *rk_routes_build(const struct rk_route_spec *specs, size_t n_specs,
                                  const struct rk_server_seen *servers, size_t n_servers,
                                  struct rk_names *names, uint32_t latency_window_ms,
                                  const struct rk_routes *before);

#endif
