/*
 * Listeners, and which worker serves a connection.
 */
#include "server_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A connection on its way from the worker that accepted it to the one that will serve it. */
struct handover {
    struct rk_context *ctx;
    unsigned route_id;
    int fd;
    char peer[RK_PEER_MAX];
};

static void on_handover(void *arg)
{
    struct handover *handover = arg;
    rk_session_accept(handover->ctx, handover->route_id, handover->fd, handover->peer);
    free(handover);
}

static struct rk_context *least_loaded(struct rk_server *server, struct rk_context *own)
{
    struct rk_context *best = own;
    size_t least = atomic_load(&own->load);
    for (size_t i = 0; i < server->n_workers; i++) {
        size_t load = atomic_load(&server->contexts[i].load);
        if (load < least) {
            best = &server->contexts[i];
            least = load;
        }
    }
    return best;
}

/* A connection is given to the worker with the fewest sessions, once in its life. */
static void on_accept(void *arg, int fd, const char *peer)
{
    const struct rk_acceptor *acceptor = arg;
    if (acceptor->ctx->draining || !rk_session_admit(acceptor->ctx, peer)) {
        (void)close(fd);
        return;
    }
    struct rk_context *ctx = least_loaded(acceptor->server, acceptor->ctx);
    (void)atomic_fetch_add(&ctx->load, 1);
    if (ctx == acceptor->ctx) {
        rk_session_accept(ctx, acceptor->route_id, fd, peer);
        return;
    }
    struct handover *handover = malloc(sizeof *handover);
    if (handover != NULL) {
        *handover = (struct handover){.ctx = ctx, .route_id = acceptor->route_id, .fd = fd};
        (void)snprintf(handover->peer, sizeof handover->peer, "%s", peer);
    }
    if (handover == NULL || rk_worker_post(ctx->worker, on_handover, handover) != RK_OK) {
        free(handover);
        rk_session_leave(ctx);
        (void)close(fd);
    }
}

static void acceptor_free(struct rk_acceptor *acceptor)
{
    rk_listener_free(acceptor->listener);
    free(acceptor);
}

void rk_acceptors_free(struct rk_acceptor_list *acceptors)
{
    struct rk_acceptor *acceptor;
    while ((acceptor = TAILQ_FIRST(acceptors)) != NULL) {
        TAILQ_REMOVE(acceptors, acceptor, link);
        acceptor_free(acceptor);
    }
}

static enum rk_status open_one(struct rk_context *ctx, struct rk_server *server,
                               const struct rk_route_spec *spec, const struct rk_config *config,
                               struct rk_acceptor_list *opened, struct rk_error *err)
{
    struct rk_acceptor *acceptor = calloc(1, sizeof *acceptor);
    if (acceptor == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for a listener");
    }
    acceptor->server = server;
    acceptor->ctx = ctx;
    acceptor->route_id = spec->id;
    const struct rk_listener_config listener = {
        .address = spec->listen,
        .backlog = (int)config->limits.listen_backlog,
        .socket_mode = config->listener.socket_mode,
        .networks = config->listener.proxy_networks,
        .n_networks = config->listener.proxy_networks_count,
        .fn = on_accept,
        .arg = acceptor,
    };
    enum rk_status status = rk_listener_new(ctx->worker, &listener, &acceptor->listener, err);
    if (status != RK_OK) {
        free(acceptor);
        return status;
    }
    TAILQ_INSERT_TAIL(opened, acceptor, link);
    return RK_OK;
}

enum rk_status rk_acceptors_open(struct rk_server *server, const struct rk_route_spec *specs,
                                 size_t n, const struct rk_routes *routes,
                                 const struct rk_config *config, struct rk_acceptor_list *opened,
                                 struct rk_error *err)
{
    enum rk_status status = RK_OK;
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        if (routes != NULL && rk_routes_find(routes, specs[i].id) != NULL) {
            continue;
        }
        struct rk_context *ctx = &server->contexts[specs[i].id % server->n_workers];
        status = open_one(ctx, server, &specs[i], config, opened, err);
    }
    return status;
}

static void on_start(void *arg)
{
    struct rk_acceptor *acceptor = arg;
    if (acceptor->ctx->draining || rk_listener_start(acceptor->listener) != RK_OK) {
        acceptor_free(acceptor);
        return;
    }
    TAILQ_INSERT_TAIL(&acceptor->ctx->acceptors, acceptor, link);
}

void rk_acceptors_start(struct rk_acceptor_list *opened)
{
    struct rk_acceptor *acceptor;
    while ((acceptor = TAILQ_FIRST(opened)) != NULL) {
        TAILQ_REMOVE(opened, acceptor, link);
        if (rk_worker_post(acceptor->ctx->worker, on_start, acceptor) != RK_OK) {
            abort(); /* out of memory for 24 bytes: half of the listeners would be worse */
        }
    }
}

void rk_acceptors_prune(struct rk_context *ctx)
{
    struct rk_acceptor *acceptor = TAILQ_FIRST(&ctx->acceptors);
    while (acceptor != NULL) {
        struct rk_acceptor *next = TAILQ_NEXT(acceptor, link);
        if (rk_routes_find(ctx->routes, acceptor->route_id) == NULL) {
            TAILQ_REMOVE(&ctx->acceptors, acceptor, link);
            acceptor_free(acceptor);
        }
        acceptor = next;
    }
}
