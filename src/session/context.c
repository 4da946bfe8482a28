/*
 * A worker's share of the server: made before its thread starts, freed after it has ended.
 */
#include "server_internal.h"

#include <stdlib.h>
#include <string.h>

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

struct rk_compression_settings
rk_compression_settings_of(const struct rk_config_compression *config)
{
    return (struct rk_compression_settings){
        .levels = {.zlib = (int)config->zlib_level, .zstd = (int)config->zstd_level},
        .message_bytes_min = config->message_bytes_min,
        .message_bytes_max = config->message_bytes_max,
        .client = compressors(config->client, config->client_count),
        .upstream = compressors(config->upstream, config->upstream_count),
    };
}

enum rk_status rk_context_init(struct rk_context *ctx, struct rk_server *server,
                               const struct rk_server_config *config, struct rk_error *err)
{
    TAILQ_INIT(&ctx->sessions);
    TAILQ_INIT(&ctx->dead);
    TAILQ_INIT(&ctx->acceptors);
    ctx->routes = rk_topology_routes(config->topology);
    ctx->listener_tls = server->listener_tls;
    ctx->upstream_tls = server->upstream_tls;
    ctx->keys = config->keys;
    ctx->old_reads = config->old_reads;
    ctx->readers = config->keys != NULL ? rk_key_service_readers(config->keys) : NULL;
    ctx->proxy_header_max = config->config->listener.proxy_required
                                ? config->config->listener.proxy_header_bytes_max
                                : 0;
    ctx->limits = config->config->limits;
    ctx->compression = rk_compression_settings_of(&config->config->compression);
    ctx->policies = rk_policy_set_ref(config->policies);
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

void rk_context_drop_keys(struct rk_context *ctx, const struct rk_keyset *keys)
{
    rk_keyset_unref(ctx->crypt.keys);
    ctx->crypt.keys = NULL;
    rk_aead_forget(ctx->crypt.aead, keys);
}

void rk_context_deinit(struct rk_context *ctx)
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
    rk_routes_unref(ctx->routes);
    if (ctx->scratch != NULL) {
        explicit_bzero(ctx->scratch, RK_SCRATCH_BYTES);
        free(ctx->scratch);
    }
}
