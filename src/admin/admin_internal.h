/*
 *   admin.c    connections: accepted, read, answered, ended
 *   request.c  the head of a request
 *   pages.c    what the paths answer
 *   probe.c    does a server take connections
 *
 * Everything belongs to the admin thread, but for what the mutex guards.
 */
#ifndef REKEY_ADMIN_INTERNAL_H
#define REKEY_ADMIN_INTERNAL_H

#include "request.h"

#include <pthread.h>
#include <rekey/admin/admin.h>
#include <rekey/net/conn.h>
#include <rekey/net/listener.h>
#include <rekey/net/tls.h>
#include <sys/queue.h>

/* ---- probe.c ---- */

struct rk_probe;
/* reachable: at least one server takes connections. On the loop's thread. */
typedef void rk_probe_fn(void *arg, bool reachable);
struct rk_probe *rk_probe_new(struct event_base *base, uint32_t timeout_ms, rk_probe_fn *fn,
                              void *arg);
void rk_probe_free(struct rk_probe *probe); /* NULL is fine */
/* Calls fn, at once if somebody asked a moment ago, and once for all who ask meanwhile. */
void rk_probe_ask(struct rk_probe *probe, struct rk_topology *topology);

/* ---- admin.c ---- */

struct rk_admin_client {
    TAILQ_ENTRY(rk_admin_client) link;
    struct rk_admin *admin;
    struct rk_conn conn;
    struct event deadline;
    struct rk_buf in;
    bool closed;
    bool eof; /* it says no more */
    bool answered;
    bool head_only; /* HEAD */
    bool waits;     /* for the probe */
    char peer[RK_PEER_MAX];
};
TAILQ_HEAD(rk_admin_clients, rk_admin_client);

struct rk_admin {
    const struct rk_config_admin *config;
    struct rk_worker *worker;
    struct rk_listener *listener;
    struct rk_tls *tls; /* NULL: plain */
    struct rk_probe *probe;
    struct rk_admin_clients clients;
    struct rk_admin_clients dead; /* freed at the end of the loop's turn */
    struct event *reap;
    unsigned n_clients;
    struct rk_tally answers; /* by status */

    pthread_mutex_t lock; /* over everything below */
    struct rk_admin_collector {
        rk_metrics_fn *fn;
        void *arg;
    } collectors[RK_ADMIN_COLLECTORS_MAX];
    size_t n_collectors;
    rk_admin_missing_fn *missing; /* NULL: not started yet */
    void *missing_arg;
    struct rk_topology *topology;
};

/* Sends an answer and ends the writing side. type: of body; NULL: text. */
void rk_admin_answer(struct rk_admin_client *client, int status, const char *type, const void *body,
                     size_t len);
/* The same with a line of text that says what the status means. */
void rk_admin_answer_status(struct rk_admin_client *client, int status);

/* ---- pages.c ---- */

void rk_admin_serve(struct rk_admin_client *client, const struct rk_admin_request *request);
/* The probe's end: for a client that waits for it. */
void rk_admin_serve_ready(struct rk_admin_client *client, bool reachable);
/* Can tokens be checked? */
RK_MUST_CHECK enum rk_status rk_admin_check_token(const struct rk_config_admin *config,
                                                  struct rk_error *err);

#endif
