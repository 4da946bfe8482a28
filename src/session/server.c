/*
 * The server as a whole: contexts, reloading, draining, the end. Main thread, but for what is
 * posted to the workers.
 */
#include "server_internal.h"

#include <stdlib.h>
#include <unistd.h>

/* After the worker was joined. */
static void close_sessions(struct rk_context *ctx)
{
    struct rk_session *session;
    ctx->draining = true; /* what other workers still hand over is turned away */
    while ((session = TAILQ_FIRST(&ctx->sessions)) != NULL) {
        rk_session_close(session, NULL, NULL);
    }
    rk_session_reap(ctx);
}

static enum rk_status make_tls(struct rk_server *server, const struct rk_config *config,
                               struct rk_error *err)
{
    const struct rk_config_tls *in = &config->listener_tls;
    const struct rk_config_tls *up = &config->upstream.tls;
    enum rk_status status = RK_OK;
    if (in->enabled) {
        const struct rk_tls_config tls = {.ca_file = in->ca_file,
                                          .cert_file = in->cert_file,
                                          .key_file = in->key_file,
                                          .verify = in->verify};
        status = rk_tls_new_server(&tls, &server->listener_tls, err);
    }
    if (status == RK_OK && up->enabled) {
        const struct rk_tls_config tls = {.ca_file = up->ca_file,
                                          .cert_file = up->cert_file,
                                          .key_file = up->key_file,
                                          .verify = up->verify};
        status = rk_tls_new_client(&tls, &server->upstream_tls, err);
    }
    return status;
}

struct new_routes {
    struct rk_context *ctx;
    struct rk_routes *routes;
};

static void on_new_routes(void *arg)
{
    struct new_routes *post = arg;
    struct rk_context *ctx = post->ctx;
    rk_routes_unref(ctx->routes);
    ctx->routes = post->routes;
    free(post);
    rk_acceptors_prune(ctx);
    struct rk_session *session = TAILQ_FIRST(&ctx->sessions);
    while (session != NULL) {
        struct rk_session *next = TAILQ_NEXT(session, link);
        rk_upstream_reroute(session);
        session = next;
    }
}

/* On whichever thread changed the topology. */
static void on_topology(void *arg, struct rk_routes *routes)
{
    const struct rk_server *server = arg;
    for (size_t i = 0; i < server->n_workers; i++) {
        struct new_routes *post = malloc(sizeof *post);
        if (post == NULL) {
            abort(); /* workers that lead to different servers would be worse than a restart */
        }
        *post = (struct new_routes){.ctx = &server->contexts[i], .routes = rk_routes_ref(routes)};
        if (rk_worker_post(post->ctx->worker, on_new_routes, post) != RK_OK) {
            abort();
        }
    }
}

static enum rk_role role_of(const struct rk_config *config, const struct rk_config_member *listener)
{
    if (config->upstream.topology == RK_CONFIG_MIRROR) {
        return RK_ROLE_MEMBER;
    }
    switch (listener->read) {
    case RK_CONFIG_READ_SECONDARY:
        return RK_ROLE_SECONDARY;
    case RK_CONFIG_READ_SECONDARY_PREFERRED:
        return RK_ROLE_SECONDARY_PREFERRED;
    default:
        return RK_ROLE_PRIMARY;
    }
}

struct rk_route_spec *rk_server_route_specs(const struct rk_config *config, size_t *n)
{
    unsigned count;
    const struct rk_config_member *listeners = rk_config_listeners(config, &count);
    struct rk_route_spec *specs = calloc(count, sizeof *specs);
    for (unsigned i = 0; specs != NULL && i < count; i++) {
        specs[i] = (struct rk_route_spec){.role = role_of(config, &listeners[i]),
                                          .address = listeners[i].address,
                                          .connect = listeners[i].connect,
                                          .listen = listeners[i].listen,
                                          .advertise = listeners[i].advertise};
    }
    *n = count;
    return specs;
}

/* Opens what specs have beyond routes, and starts accepting once committed. */
static enum rk_status listen_for(struct rk_server *server, const struct rk_config *config,
                                 bool reconfigure, struct rk_error *err)
{
    size_t n = 0;
    struct rk_acceptor_list opened = TAILQ_HEAD_INITIALIZER(opened);
    struct rk_routes *now = rk_topology_routes(server->topology);
    struct rk_route_spec *specs = rk_server_route_specs(config, &n);
    enum rk_status status = RK_OK;
    if (specs == NULL) {
        status = rk_error_set(err, RK_ENOMEM, "out of memory for %zu listeners", n);
        goto done;
    }
    rk_topology_identify(server->topology, specs, n);
    status = rk_acceptors_open(server, specs, n, reconfigure ? now : NULL, config, &opened, err);
    if (status == RK_OK && reconfigure) {
        status = rk_topology_reconfigure(server->topology, specs, n, err);
    }
    if (status == RK_OK) {
        /* Behind the new routes in every mailbox, those of handed-over connections included. */
        rk_acceptors_start(&opened);
    }
done:
    rk_acceptors_free(&opened);
    rk_routes_unref(now);
    free(specs);
    return status;
}

static size_t worker_count(const struct rk_config_limits *limits)
{
    if (limits->workers != 0) {
        return limits->workers;
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 0 ? (size_t)cores : 1;
}

struct new_keys {
    struct rk_context *ctx;
    struct rk_keyset *keys;
};

static void on_keys(void *arg)
{
    struct new_keys *post = arg;
    rk_context_drop_keys(post->ctx, post->keys);
    rk_keyset_unref(post->keys);
    free(post);
}

/* On the key service's thread. Whoever has messages takes the new set by itself; this is for idle
 * workers, which would go on holding keys that are not to be held any more. */
static void on_keyset(void *arg, struct rk_keyset *keys)
{
    struct rk_server *server = arg;
    for (size_t i = 0; i < server->n_workers; i++) {
        struct new_keys *post = malloc(sizeof *post);
        if (post == NULL) {
            return; /* they hold them until their next message */
        }
        *post = (struct new_keys){.ctx = &server->contexts[i], .keys = rk_keyset_ref(keys)};
        if (rk_worker_post(post->ctx->worker, on_keys, post) != RK_OK) {
            rk_keyset_unref(keys);
            free(post);
        }
    }
}

enum rk_status rk_server_start(const struct rk_server_config *config, struct rk_server **out,
                               struct rk_error *err)
{
    size_t n = worker_count(&config->config->limits);
    struct rk_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for the server");
    }
    server->contexts = calloc(n, sizeof *server->contexts);
    server->topology = config->topology;
    enum rk_status status = server->contexts != NULL
                                ? make_tls(server, config->config, err)
                                : rk_error_set(err, RK_ENOMEM, "out of memory for the server");
    for (size_t i = 0; status == RK_OK && i < n; i++) {
        server->n_workers++;
        status = rk_context_init(&server->contexts[i], server, config, err);
    }
    if (status == RK_OK) {
        status = listen_for(server, config->config, false, err);
    }
    if (status == RK_OK) {
        rk_topology_watch(server->topology, on_topology, server);
    }
    if (status == RK_OK && config->keys != NULL) {
        rk_key_service_watch(config->keys, on_keyset, server);
    }
    for (size_t i = 0; status == RK_OK && i < n; i++) {
        status = rk_worker_start(server->contexts[i].worker, err);
    }
    if (status != RK_OK) {
        rk_server_stop(server);
        rk_server_free(server);
        return status;
    }
    *out = server;
    return RK_OK;
}

struct new_policies {
    struct rk_context *ctx;
    struct rk_policy_set *policies;
};

static void on_policies(void *arg)
{
    struct new_policies *post = arg;
    rk_policy_set_unref(post->ctx->policies);
    post->ctx->policies = post->policies;
    free(post);
}

void rk_server_set_policies(struct rk_server *server, struct rk_policy_set *policies)
{
    for (size_t i = 0; i < server->n_workers; i++) {
        struct new_policies *post = malloc(sizeof *post);
        if (post == NULL) {
            abort(); /* half of the workers under new policies would be worse than a restart */
        }
        *post = (struct new_policies){.ctx = &server->contexts[i],
                                      .policies = rk_policy_set_ref(policies)};
        if (rk_worker_post(post->ctx->worker, on_policies, post) != RK_OK) {
            abort();
        }
    }
}

struct reload {
    struct rk_context *ctx;
    struct rk_config_limits limits;
    struct rk_compression_settings compression;
};

static void on_reload(void *arg)
{
    struct reload *reload = arg;
    reload->ctx->limits = reload->limits;
    reload->ctx->compression = reload->compression;
    free(reload);
}

enum rk_status rk_server_reload(struct rk_server *server, const struct rk_config *config,
                                struct rk_error *err)
{
    enum rk_status status = listen_for(server, config, true, err);
    if (status != RK_OK) {
        return status;
    }
    for (size_t i = 0; i < server->n_workers; i++) {
        struct reload *reload = malloc(sizeof *reload);
        if (reload == NULL) {
            abort(); /* half of the workers under new limits would be worse than a restart */
        }
        *reload = (struct reload){.ctx = &server->contexts[i],
                                  .limits = config->limits,
                                  .compression = rk_compression_settings_of(&config->compression)};
        if (rk_worker_post(reload->ctx->worker, on_reload, reload) != RK_OK) {
            abort();
        }
    }
    return RK_OK;
}

void rk_server_sync(struct rk_server *server)
{
    for (size_t i = 0; i < server->n_workers; i++) {
        if (rk_worker_sync(server->contexts[i].worker) != RK_OK) {
            abort(); /* the same shortage that ends what is posted above */
        }
    }
}

static void on_drain(void *arg)
{
    struct rk_context *ctx = arg;
    ctx->draining = true;
    rk_acceptors_free(&ctx->acceptors);
    struct rk_session *session = TAILQ_FIRST(&ctx->sessions);
    while (session != NULL) {
        struct rk_session *next = TAILQ_NEXT(session, link);
        if (rk_session_idle(session)) {
            rk_session_close_after_flush(session);
        }
        session = next;
    }
}

void rk_server_drain(struct rk_server *server)
{
    for (size_t i = 0; i < server->n_workers; i++) {
        struct rk_context *ctx = &server->contexts[i];
        if (rk_worker_post(ctx->worker, on_drain, ctx) != RK_OK) {
            continue; /* out of memory: rk_server_stop will close what is left */
        }
    }
}

size_t rk_server_sessions(const struct rk_server *server)
{
    return atomic_load(&server->sessions);
}

void rk_server_stop(struct rk_server *server)
{
    if (server == NULL) {
        return;
    }
    rk_topology_watch(server->topology, NULL, NULL);
    if (server->n_workers > 0 && server->contexts[0].keys != NULL) {
        rk_key_service_watch(server->contexts[0].keys, NULL, NULL);
    }
    for (size_t i = 0; i < server->n_workers; i++) {
        struct rk_context *ctx = &server->contexts[i];
        if (ctx->worker != NULL) {
            rk_worker_stop(ctx->worker);
            rk_worker_join(ctx->worker);
            close_sessions(ctx);
            rk_acceptors_free(&ctx->acceptors);
        }
    }
}

void rk_server_free(struct rk_server *server)
{
    if (server == NULL) {
        return;
    }
    for (size_t i = 0; i < server->n_workers; i++) {
        rk_context_deinit(&server->contexts[i]);
    }
    rk_tls_free(server->listener_tls);
    rk_tls_free(server->upstream_tls);
    free(server->contexts);
    free(server);
}

void rk_server_foreground(const struct rk_server *server, struct rk_histogram_snapshot *into)
{
    for (size_t i = 0; i < server->n_workers; i++) {
        rk_histogram_add_to(&server->contexts[i].foreground, into);
    }
}
