/* What server.c, context.c and acceptor.c share. */
#ifndef REKEY_SESSION_SERVER_INTERNAL_H
#define REKEY_SESSION_SERVER_INTERNAL_H

#include "session_internal.h"

#include <rekey/net/listener.h>
#include <rekey/session/server.h>

struct rk_server {
    size_t n_workers;
    struct rk_context *contexts;
    struct rk_topology *topology;
    struct rk_tls *listener_tls;
    struct rk_tls *upstream_tls;
    _Atomic size_t sessions;
};

/* A context after rk_context_init, failed or not, needs rk_context_deinit. */
RK_MUST_CHECK enum rk_status rk_context_init(struct rk_context *ctx, struct rk_server *server,
                                             const struct rk_server_config *config,
                                             struct rk_error *err);
/* Runs what is still posted to the worker. */
void rk_context_deinit(struct rk_context *ctx);
/* On the worker, between messages: lets go of all keys but these; the next message takes a set. */
void rk_context_drop_keys(struct rk_context *ctx, const struct rk_keyset *keys);
struct rk_compression_settings
rk_compression_settings_of(const struct rk_config_compression *config);

/* A listener, on one worker: connections are evened out over all. On the main thread until it is
 * started, the worker's then. */
struct rk_acceptor {
    TAILQ_ENTRY(rk_acceptor) link;
    struct rk_server *server;
    struct rk_context *ctx;
    unsigned route_id;
    struct rk_listener *listener;
};

/* Binds listeners for those of specs whose id is not in routes (NULL: for all) and appends them to
 * opened. On failure those already opened are still there. */
RK_MUST_CHECK enum rk_status
rk_acceptors_open(struct rk_server *server, const struct rk_route_spec *specs, size_t n,
                  const struct rk_routes *routes, const struct rk_config *config,
                  struct rk_acceptor_list *opened, struct rk_error *err);
/* Each to its worker, where it starts to accept. Takes them. */
void rk_acceptors_start(struct rk_acceptor_list *opened);
void rk_acceptors_free(struct rk_acceptor_list *acceptors);
/* On the worker: closes the listeners that have no route any more. */
void rk_acceptors_prune(struct rk_context *ctx);

#endif
