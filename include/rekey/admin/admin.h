/*
 * HTTP for those who watch rekeyd, on a thread of its own:
 *
 *   /metrics   figures in Prometheus' text format; asks for the token where there is one
 *   /healthz   200 while the process lives
 *   /readyz    200 when clients may be sent here, else 503; the body names what is missing
 *
 * GET and HEAD, HTTP/1.0 and 1.1, one request a connection. Requests, connections and the time that
 * a connection may take are bounded by the configuration; who is slow loses its connection.
 */
#ifndef REKEY_ADMIN_ADMIN_H
#define REKEY_ADMIN_ADMIN_H

#include <rekey/base/metrics.h>
#include <rekey/config/config.h>
#include <rekey/topology/topology.h>

struct rk_admin;

/* Listens from now on; /readyz says that rekeyd is starting. config must outlive it; its address
 * NULL: nobody listens, *out is NULL, which all functions take. */
RK_MUST_CHECK enum rk_status rk_admin_start(const struct rk_config_admin *config,
                                            struct rk_admin **out, struct rk_error *err);
/* Ends the thread and drops what is under way. What was collected from may go afterwards. */
void rk_admin_stop(struct rk_admin *admin);

#define RK_ADMIN_COLLECTORS_MAX 16u
/* fn writes figures of arg whenever /metrics is asked for, on the admin thread. At most
 * RK_ADMIN_COLLECTORS_MAX. */
void rk_admin_collect(struct rk_admin *admin, rk_metrics_fn *fn, void *arg);

/* Why clients should not be sent here: two constants for people and programs. */
struct rk_admin_missing {
    const char *what;
    const char *why;
};
#define RK_ADMIN_MISSING_MAX 8u
/* Fills out and returns how many; 0: ready. On the admin thread. */
typedef size_t rk_admin_missing_fn(void *arg, struct rk_admin_missing out[RK_ADMIN_MISSING_MAX]);

/* Started: from now on /readyz asks fn, and whether a server behind topology takes connections. */
void rk_admin_started(struct rk_admin *admin, struct rk_topology *topology, rk_admin_missing_fn *fn,
                      void *arg);

#endif
