#include <rekey/config/config.h>

#include <string.h>

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool same_tls(const struct rk_config_tls *a, const struct rk_config_tls *b)
{
    return a->enabled == b->enabled && a->verify == b->verify &&
           same_text(a->ca_file, b->ca_file) && same_text(a->cert_file, b->cert_file) &&
           same_text(a->key_file, b->key_file);
}

static bool same_listener(const struct rk_config_listener *a, const struct rk_config_listener *b)
{
    bool same = a->socket_mode == b->socket_mode && a->proxy_required == b->proxy_required &&
                a->proxy_header_bytes_max == b->proxy_header_bytes_max &&
                a->proxy_networks_count == b->proxy_networks_count;
    for (unsigned i = 0; same && i < a->proxy_networks_count; i++) {
        same = same_text(a->proxy_networks[i], b->proxy_networks[i]);
    }
    return same;
}

static bool same_keys(const struct rk_config_keys *a, const struct rk_config_keys *b)
{
    return same_text(a->provider, b->provider) && same_text(a->keyring_file, b->keyring_file) &&
           a->refresh_interval_ms == b->refresh_interval_ms &&
           a->negative_cache_ms == b->negative_cache_ms &&
           a->create_first_key == b->create_first_key;
}

bool rk_config_reloadable(const struct rk_config *now, const struct rk_config *next,
                          const char **key)
{
    const struct {
        const char *key;
        bool same;
    } fixed[] = {
        {"upstream.uri", same_text(now->upstream.uri, next->upstream.uri)},
        {"upstream.state_db", same_text(now->upstream.state_db, next->upstream.state_db)},
        {"upstream.topology", now->upstream.topology == next->upstream.topology},
        {"upstream.resolve_interval_ms",
         now->upstream.resolve_interval_ms == next->upstream.resolve_interval_ms},
        {"upstream.monitor_interval_ms",
         now->upstream.monitor_interval_ms == next->upstream.monitor_interval_ms},
        {"upstream.latency_window_ms",
         now->upstream.latency_window_ms == next->upstream.latency_window_ms},
        {"upstream.tls", same_tls(&now->upstream.tls, &next->upstream.tls)},
        {"listener_tls", same_tls(&now->listener_tls, &next->listener_tls)},
        {"listener", same_listener(&now->listener, &next->listener)},
        {"limits.workers", now->limits.workers == next->limits.workers},
        {"limits.listen_backlog", now->limits.listen_backlog == next->limits.listen_backlog},
        {"keys", same_keys(&now->keys, &next->keys)},
        {"log.file", same_text(now->log.file, next->log.file)},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        if (!fixed[i].same) {
            *key = fixed[i].key;
            return false;
        }
    }
    return true;
}
