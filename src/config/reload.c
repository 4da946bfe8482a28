#include <rekey/config/config.h>

#include <string.h>

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool same_texts(char *const *a, unsigned n_a, char *const *b, unsigned n_b)
{
    bool same = n_a == n_b;
    for (unsigned i = 0; same && i < n_a; i++) {
        same = same_text(a[i], b[i]);
    }
    return same;
}

static bool same_tls(const struct rk_config_tls *a, const struct rk_config_tls *b)
{
    return a->enabled == b->enabled && a->verify == b->verify &&
           same_text(a->ca_file, b->ca_file) && same_text(a->cert_file, b->cert_file) &&
           same_text(a->key_file, b->key_file);
}

static bool same_listener(const struct rk_config_listener *a, const struct rk_config_listener *b)
{
    return a->socket_mode == b->socket_mode && a->proxy_required == b->proxy_required &&
           a->proxy_header_bytes_max == b->proxy_header_bytes_max &&
           same_texts(a->proxy_networks, a->proxy_networks_count, b->proxy_networks,
                      b->proxy_networks_count);
}

static bool same_legacy(const struct rk_config_vault *a, const struct rk_config_vault *b)
{
    bool same = a->legacy_count == b->legacy_count;
    for (unsigned i = 0; same && i < a->legacy_count; i++) {
        same = same_text(a->legacy[i].name, b->legacy[i].name) &&
               same_text(a->legacy[i].path, b->legacy[i].path) &&
               same_text(a->legacy[i].field, b->legacy[i].field);
    }
    return same;
}

static bool same_transit(const struct rk_config_transit *a, const struct rk_config_transit *b)
{
    return a->coalesce_us == b->coalesce_us && a->batch_values_max == b->batch_values_max &&
           a->batch_bytes_max == b->batch_bytes_max && a->requests_max == b->requests_max;
}

static bool same_vault(const struct rk_config_vault *a, const struct rk_config_vault *b)
{
    return same_texts(a->addresses, a->addresses_count, b->addresses, b->addresses_count) &&
           same_texts(a->redirect_hosts, a->redirect_hosts_count, b->redirect_hosts,
                      b->redirect_hosts_count) &&
           same_legacy(a, b) && same_text(a->ns, b->ns) && same_text(a->ca_file, b->ca_file) &&
           same_text(a->cert_file, b->cert_file) && same_text(a->key_file, b->key_file) &&
           same_text(a->transit_mount, b->transit_mount) && same_text(a->key, b->key) &&
           a->mode == b->mode && same_transit(&a->transit, &b->transit) && a->trim == b->trim &&
           a->auth == b->auth && same_text(a->auth_mount, b->auth_mount) &&
           same_text(a->role_id, b->role_id) && same_text(a->secret_id_file, b->secret_id_file) &&
           same_text(a->secret_id_env, b->secret_id_env) &&
           same_text(a->token_file, b->token_file) &&
           a->connect_timeout_ms == b->connect_timeout_ms &&
           a->request_timeout_ms == b->request_timeout_ms &&
           a->retry_timeout_ms == b->retry_timeout_ms &&
           a->retry_backoff_ms == b->retry_backoff_ms &&
           a->retry_backoff_max_ms == b->retry_backoff_max_ms &&
           a->refused_login_pause_ms == b->refused_login_pause_ms &&
           a->health_interval_ms == b->health_interval_ms &&
           a->revoke_timeout_ms == b->revoke_timeout_ms &&
           a->response_bytes_max == b->response_bytes_max &&
           a->connections_max == b->connections_max;
}

static bool same_keys(const struct rk_config_keys *a, const struct rk_config_keys *b)
{
    return a->provider == b->provider && same_vault(&a->vault, &b->vault) &&
           same_text(a->keyring_file, b->keyring_file) &&
           a->refresh_interval_ms == b->refresh_interval_ms &&
           a->negative_cache_ms == b->negative_cache_ms &&
           a->instance_lease_ms == b->instance_lease_ms &&
           a->rotate_after_days == b->rotate_after_days &&
           a->rotate_after_encryptions == b->rotate_after_encryptions &&
           a->encryption_lease == b->encryption_lease && a->cursor_grace_ms == b->cursor_grace_ms &&
           a->create_first_key == b->create_first_key &&
           a->create_tenant_keys == b->create_tenant_keys && a->tenants_max == b->tenants_max &&
           a->start_degraded == b->start_degraded;
}

static bool same_admin(const struct rk_config_admin *a, const struct rk_config_admin *b)
{
    return same_text(a->address, b->address) && same_text(a->token_file, b->token_file) &&
           same_tls(&a->tls, &b->tls) && a->connections_max == b->connections_max &&
           a->request_bytes_max == b->request_bytes_max &&
           a->request_timeout_ms == b->request_timeout_ms;
}

static bool same_amqp(const struct rk_config_amqp *a, const struct rk_config_amqp *b)
{
    return same_texts(a->addresses, a->addresses_count, b->addresses, b->addresses_count) &&
           same_text(a->vhost, b->vhost) && same_text(a->user, b->user) &&
           same_text(a->password_file, b->password_file) &&
           same_text(a->password_env, b->password_env) && same_tls(&a->tls, &b->tls) &&
           same_text(a->prefix, b->prefix) && a->prefetch == b->prefetch &&
           a->heartbeat_s == b->heartbeat_s && a->connect_timeout_ms == b->connect_timeout_ms &&
           a->confirm_timeout_ms == b->confirm_timeout_ms &&
           a->reconnect_backoff_ms == b->reconnect_backoff_ms &&
           a->reconnect_backoff_max_ms == b->reconnect_backoff_max_ms &&
           a->refeed_interval_ms == b->refeed_interval_ms;
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
        {"sweep.transport", now->sweep.transport == next->sweep.transport},
        {"amqp", same_amqp(&now->amqp, &next->amqp)},
        {"admin", same_admin(&now->admin, &next->admin)},
        {"sweep.hot_docs_max", now->sweep.hot_docs_max == next->sweep.hot_docs_max},
        {"sweep.hot_repeat_ms", now->sweep.hot_repeat_ms == next->sweep.hot_repeat_ms},
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
