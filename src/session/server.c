#include <rekey/session/server.h>

#include "session_internal.h"

#include <rekey/base/clock.h>
#include <rekey/net/listener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct acceptor {
    struct rk_server *server;
    struct rk_context *ctx;
    size_t member;
    struct rk_listener *listener;
};

struct rk_server {
    size_t n_workers;
    struct rk_context *contexts;
    struct acceptor *acceptors; /* one for each member */
    size_t n_acceptors;
    struct rk_tls *listener_tls;
    struct rk_tls *upstream_tls;
    _Atomic size_t sessions;
};

/* A connection on its way from the worker that accepted it to the one that will serve it. */
struct handover {
    struct rk_context *ctx;
    size_t member;
    int fd;
    char peer[RK_PEER_MAX];
};

static void on_handover(void *arg)
{
    struct handover *handover = arg;
    rk_session_accept(handover->ctx, handover->member, handover->fd, handover->peer);
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
    const struct acceptor *acceptor = arg;
    if (acceptor->ctx->draining || !rk_session_admit(acceptor->ctx, peer)) {
        (void)close(fd);
        return;
    }
    struct rk_context *ctx = least_loaded(acceptor->server, acceptor->ctx);
    (void)atomic_fetch_add(&ctx->load, 1);
    if (ctx == acceptor->ctx) {
        rk_session_accept(ctx, acceptor->member, fd, peer);
        return;
    }
    struct handover *handover = malloc(sizeof *handover);
    if (handover != NULL) {
        *handover = (struct handover){.ctx = ctx, .member = acceptor->member, .fd = fd};
        (void)snprintf(handover->peer, sizeof handover->peer, "%s", peer);
    }
    if (handover == NULL || rk_worker_post(ctx->worker, on_handover, handover) != RK_OK) {
        free(handover);
        rk_session_leave(ctx);
        (void)close(fd);
    }
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    rk_session_reap(arg);
}

static struct rk_compressors compressors(const enum rk_compressor *list, unsigned count)
{
    struct rk_compressors set = {0};
    for (unsigned i = 0; i < count; i++) {
        rk_compressors_add(&set, list[i]);
    }
    return set;
}

static struct rk_compression_settings
compression_settings(const struct rk_config_compression *config)
{
    return (struct rk_compression_settings){
        .levels = {.zlib = (int)config->zlib_level, .zstd = (int)config->zstd_level},
        .message_bytes_min = config->message_bytes_min,
        .message_bytes_max = config->message_bytes_max,
        .client = compressors(config->client, config->client_count),
        .upstream = compressors(config->upstream, config->upstream_count),
    };
}

static enum rk_status context_init(struct rk_context *ctx, struct rk_server *server,
                                   const struct rk_server_config *config, struct rk_error *err)
{
    TAILQ_INIT(&ctx->sessions);
    TAILQ_INIT(&ctx->dead);
    ctx->members = config->members;
    ctx->listener_tls = server->listener_tls;
    ctx->upstream_tls = server->upstream_tls;
    ctx->keys = config->keys;
    ctx->proxy_header_max = config->config->listener.proxy_required
                                ? config->config->listener.proxy_header_bytes_max
                                : 0;
    ctx->limits = config->config->limits;
    ctx->compression = compression_settings(&config->config->compression);
    ctx->policies = rk_policy_set_ref(config->config->policies);
    ctx->sessions_total = &server->sessions;
    rk_buf_init(&ctx->inflated, RK_FRAME_LEN_MAX);
    rk_buf_init(&ctx->out, RK_FRAME_LEN_MAX);
    rk_buf_init(&ctx->packed, rk_codec_bound(RK_FRAME_LEN_MAX));
    rk_buf_init(&ctx->crypt.scratch, RK_FRAME_LEN_MAX);
    rk_histogram_init(&ctx->foreground);
    ctx->scratch = malloc(RK_SCRATCH_BYTES);
    ctx->codec = rk_codec_new();
    if (ctx->scratch == NULL || ctx->codec == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for a worker");
    }
    enum rk_status status = rk_aead_new(&ctx->crypt.aead, err);
    if (status == RK_OK) {
        status = rk_worker_new(&ctx->worker, err);
    }
    if (status != RK_OK) {
        return status;
    }
    ctx->base = rk_worker_base(ctx->worker);
    ctx->reap = event_new(ctx->base, -1, 0, on_reap, ctx);
    return ctx->reap != NULL ? RK_OK : rk_error_set(err, RK_ENOMEM, "out of memory for a worker");
}

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

static void context_deinit(struct rk_context *ctx)
{
    if (ctx->reap != NULL) {
        event_free(ctx->reap);
    }
    rk_worker_free(ctx->worker);
    rk_aead_free(ctx->crypt.aead);
    rk_keyset_unref(ctx->crypt.keys);
    rk_buf_cleanse(&ctx->crypt.scratch);
    rk_buf_deinit(&ctx->crypt.scratch);
    rk_codec_free(ctx->codec);
    rk_buf_deinit(&ctx->inflated);
    rk_buf_deinit(&ctx->out);
    rk_buf_deinit(&ctx->packed);
    rk_policy_set_unref(ctx->policies);
    if (ctx->scratch != NULL) {
        explicit_bzero(ctx->scratch, RK_SCRATCH_BYTES);
        free(ctx->scratch);
    }
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

/* One listener for each member, spread over the workers: on_accept evens connections out. */
static enum rk_status listen_all(struct rk_server *server, const struct rk_server_config *config,
                                 struct rk_error *err)
{
    size_t members = rk_members_count(config->members);
    for (size_t m = 0; m < members; m++) {
        struct acceptor *acceptor = &server->acceptors[m];
        acceptor->server = server;
        acceptor->ctx = &server->contexts[m % server->n_workers];
        acceptor->member = m;
        const struct rk_listener_config listener = {
            .address = rk_members_listen(config->members, m),
            .backlog = (int)config->config->limits.listen_backlog,
            .socket_mode = config->config->listener.socket_mode,
            .networks = config->config->listener.proxy_networks,
            .n_networks = config->config->listener.proxy_networks_count,
            .fn = on_accept,
            .arg = acceptor,
        };
        enum rk_status status =
            rk_listener_new(acceptor->ctx->worker, &listener, &acceptor->listener, err);
        if (status != RK_OK) {
            return status;
        }
        server->n_acceptors++;
    }
    return RK_OK;
}

static size_t worker_count(const struct rk_config_limits *limits)
{
    if (limits->workers != 0) {
        return limits->workers;
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 0 ? (size_t)cores : 1;
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
    server->acceptors = calloc(rk_members_count(config->members), sizeof *server->acceptors);
    enum rk_status status = server->contexts != NULL && server->acceptors != NULL
                                ? make_tls(server, config->config, err)
                                : rk_error_set(err, RK_ENOMEM, "out of memory for the server");
    for (size_t i = 0; status == RK_OK && i < n; i++) {
        server->n_workers++;
        status = context_init(&server->contexts[i], server, config, err);
    }
    if (status == RK_OK) {
        status = listen_all(server, config, err);
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

struct reload {
    struct rk_context *ctx;
    struct rk_policy_set *policies;
    struct rk_config_limits limits;
    struct rk_compression_settings compression;
};

static void on_reload(void *arg)
{
    struct reload *reload = arg;
    rk_policy_set_unref(reload->ctx->policies);
    reload->ctx->policies = reload->policies;
    reload->ctx->limits = reload->limits;
    reload->ctx->compression = reload->compression;
    free(reload);
}

void rk_server_reload(struct rk_server *server, const struct rk_config *config)
{
    for (size_t i = 0; i < server->n_workers; i++) {
        struct reload *reload = malloc(sizeof *reload);
        if (reload == NULL) {
            abort(); /* half of the workers under new policies would be worse than a restart */
        }
        *reload = (struct reload){.ctx = &server->contexts[i],
                                  .policies = rk_policy_set_ref(config->policies),
                                  .limits = config->limits,
                                  .compression = compression_settings(&config->compression)};
        if (rk_worker_post(reload->ctx->worker, on_reload, reload) != RK_OK) {
            abort();
        }
    }
}

struct drain {
    struct rk_server *server;
    struct rk_context *ctx;
};

static void on_drain(void *arg)
{
    struct drain *drain = arg;
    struct rk_context *ctx = drain->ctx;
    ctx->draining = true;
    for (size_t i = 0; i < drain->server->n_acceptors; i++) {
        struct acceptor *acceptor = &drain->server->acceptors[i];
        if (acceptor->ctx == ctx) {
            rk_listener_free(acceptor->listener);
            acceptor->listener = NULL;
        }
    }
    struct rk_session *session = TAILQ_FIRST(&ctx->sessions);
    while (session != NULL) {
        struct rk_session *next = TAILQ_NEXT(session, link);
        if (rk_session_idle(session)) {
            rk_session_close_after_flush(session);
        }
        session = next;
    }
    free(drain);
}

void rk_server_drain(struct rk_server *server)
{
    for (size_t i = 0; i < server->n_workers; i++) {
        struct drain *drain = malloc(sizeof *drain);
        if (drain == NULL) {
            continue; /* rk_server_stop will close what is left */
        }
        *drain = (struct drain){.server = server, .ctx = &server->contexts[i]};
        if (rk_worker_post(drain->ctx->worker, on_drain, drain) != RK_OK) {
            free(drain);
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
    for (size_t i = 0; i < server->n_workers; i++) {
        struct rk_context *ctx = &server->contexts[i];
        if (ctx->worker != NULL) {
            rk_worker_stop(ctx->worker);
            rk_worker_join(ctx->worker);
            close_sessions(ctx);
        }
    }
    for (size_t i = 0; i < server->n_acceptors; i++) {
        rk_listener_free(server->acceptors[i].listener);
        server->acceptors[i].listener = NULL;
    }
}

void rk_server_free(struct rk_server *server)
{
    if (server == NULL) {
        return;
    }
    for (size_t i = 0; i < server->n_workers; i++) {
        context_deinit(&server->contexts[i]);
    }
    rk_tls_free(server->listener_tls);
    rk_tls_free(server->upstream_tls);
    free(server->acceptors);
    free(server->contexts);
    free(server);
}

void rk_server_foreground(const struct rk_server *server, struct rk_histogram_snapshot *into)
{
    for (size_t i = 0; i < server->n_workers; i++) {
        rk_histogram_add_to(&server->contexts[i].foreground, into);
    }
}
