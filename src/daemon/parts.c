/* The parts of rekeyd, started in the order of their dependencies. */
#include "daemon_internal.h"

#include <rekey/base/clock.h>
#include <rekey/jobs/settings.h>
#include <rekey/keys/mongo.h>
#include <rekey/vault/provider.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Leases are held under it, and heartbeats sent. */
static void instance_name(char *out, size_t size)
{
    char host[128] = "unknown";
    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(out, size, "%s:%d:%08x", host, (int)getpid(), (unsigned)rk_clock_mono_us());
}

static enum rk_status start_topology(struct rk_daemon *d, struct rk_error *err)
{
    const struct rk_config_upstream *upstream = &d->config->upstream;
    const struct rk_topology_settings settings = {
        .resolve_interval_ms = upstream->resolve_interval_ms,
        .monitor_interval_ms = upstream->monitor_interval_ms,
        .latency_window_ms = upstream->latency_window_ms,
        .start_timeout_ms = d->config->limits.connect_timeout_ms,
    };
    size_t n = 0;
    struct rk_route_spec *specs = rk_server_route_specs(d->config, &n);
    if (specs == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    rk_topology_identify(NULL, specs, n);
    const char *uri = upstream->topology == RK_CONFIG_SINGLE ? upstream->uri : NULL;
    enum rk_status status = rk_topology_start(uri, &settings, specs, n, &d->topology, err);
    free(specs);
    return status;
}

static enum rk_status open_provider(struct rk_daemon *d, struct rk_error *err)
{
    const struct rk_config_keys *config = &d->config->keys;
    enum rk_status status = rk_provider_open(config, &d->provider, err);
    if (status != RK_OK) {
        return status;
    }
    status = d->provider.ops->ready(d->provider.self, err);
    if (status == RK_OK || !config->start_degraded) {
        return status;
    }
    rk_log(RK_LOG_ERROR, "started_degraded", RK_S("reason", err->message),
           RK_S("effect", "protected fields fail until the key provider answers"));
    return RK_OK;
}

static enum rk_status start_keys(struct rk_daemon *d, struct rk_error *err)
{
    const struct rk_config *config = d->config;
    if (rk_policy_set_empty(config->policies)) {
        return RK_OK; /* a plain proxy: no keys, no sweeps, no connection of its own */
    }
    enum rk_status status = rk_mongo_pool_new(config->upstream.uri, "rekeyd", 0, &d->pool, err);
    if (status == RK_OK) {
        status = open_provider(d, err);
    }
    if (status == RK_OK) {
        const struct rk_key_service_config keys = {
            .client_pool = d->pool,
            .state_db = config->upstream.state_db,
            .provider = d->provider,
            .refresh_interval_ms = config->keys.refresh_interval_ms,
            .negative_cache_ms = config->keys.negative_cache_ms,
            .create_first_key = config->keys.create_first_key,
            .create_tenant_keys = config->keys.create_tenant_keys,
            .tenants_max = config->keys.tenants_max,
            .instance = d->instance,
            .instance_lease_ms = config->keys.instance_lease_ms,
            .cursor_grace_ms = config->keys.cursor_grace_ms,
            .rotation = {.after_days = config->keys.rotate_after_days,
                         .after_encryptions = config->keys.rotate_after_encryptions,
                         .lease = config->keys.encryption_lease},
        };
        status = rk_key_service_start(&keys, &d->keys, err);
    }
    return status;
}

static enum rk_status start_catalog(struct rk_daemon *d, struct rk_error *err)
{
    if (d->pool == NULL) {
        return RK_OK;
    }
    const struct rk_catalog_config catalog = {
        .client_pool = d->pool,
        .policies = d->config->policies,
        .interval_ms = d->config->upstream.catalog_interval_ms,
        .start_timeout_ms = d->config->limits.connect_timeout_ms,
    };
    return rk_catalog_start(&catalog, &d->catalog, err);
}

static void on_catalog(void *arg, struct rk_policy_set *policies)
{
    rk_server_set_policies(arg, policies);
}

static bool old_reads_wanted(void *arg)
{
    return rk_hot_wanted(arg);
}

static void note_old_read(void *arg, const char *ns, uint8_t type, const void *id, uint32_t len)
{
    rk_hot_note(arg, ns, type, id, len);
}

static enum rk_status make_hot(struct rk_daemon *d, struct rk_error *err)
{
    const struct rk_hot_config config = {.docs_max = d->config->sweep.hot_docs_max,
                                         .repeat_ms = d->config->sweep.hot_repeat_ms};
    d->hot = d->keys != NULL ? rk_hot_new(&config) : NULL;
    return d->keys == NULL || d->hot != NULL ? RK_OK
                                             : rk_error_set(err, RK_ENOMEM, "out of memory");
}

static enum rk_status start_server(struct rk_daemon *d, struct rk_error *err)
{
    enum rk_status made = make_hot(d, err);
    if (made != RK_OK) {
        return made;
    }
    struct rk_policy_set *policies = d->catalog != NULL ? rk_catalog_policies(d->catalog)
                                                        : rk_policy_set_ref(d->config->policies);
    const struct rk_server_config server = {
        .config = d->config,
        .policies = policies,
        .topology = d->topology,
        .keys = d->keys,
        .old_reads = {old_reads_wanted, d->hot != NULL ? note_old_read : NULL, d->hot},
    };
    enum rk_status status = rk_server_start(&server, &d->server, err);
    rk_policy_set_unref(policies);
    if (status == RK_OK && d->catalog != NULL) {
        rk_catalog_watch(d->catalog, on_catalog, d->server);
    }
    return status;
}

static void foreground_sensor(void *arg, struct rk_histogram_snapshot *into)
{
    rk_server_foreground(arg, into);
}

/* The keys in memory would do, but an outage of the provider is no time for mass writes. */
static bool provider_is_away(void *arg)
{
    const struct rk_daemon *d = arg;
    return !d->provider.ops->available(d->provider.self);
}

static enum rk_status start_sweeper(struct rk_daemon *d, struct rk_error *err)
{
    const struct rk_gate_config gate = rk_sweep_gate_config(&d->config->sweep);
    enum rk_status status = rk_gate_start(&gate, foreground_sensor, d->server, &d->gate, err);
    if (status != RK_OK) {
        return status;
    }
    rk_gate_set_brake(d->gate, provider_is_away, d);
    if (d->config->sweep.transport == RK_CONFIG_TRANSPORT_AMQP) {
        status = rk_amqp_new(&d->config->amqp, d->config->sweep.threads, &d->amqp, err);
        if (status != RK_OK) {
            return status;
        }
    }
    const struct rk_engine_config engine = {
        .client_pool = d->pool,
        .state_db = d->config->upstream.state_db,
        .instance = d->instance,
        .keys = d->keys,
        .gate = d->gate,
        .transport = rk_amqp_transport(d->amqp),
        .hot = d->hot,
        .policies = d->config->policies,
        .sweep = d->config->sweep,
    };
    return rk_engine_start(&engine, &d->engine, err);
}

static bool deliver(void *engine, const struct rk_hint *hint)
{
    return rk_engine_deliver(engine, hint);
}

static enum rk_status start_transport(struct rk_daemon *d, struct rk_error *err)
{
    return d->amqp != NULL ? rk_amqp_start(d->amqp, deliver, d->engine, err) : RK_OK;
}

enum rk_status rk_daemon_start(struct rk_daemon *d, struct rk_error *err)
{
    instance_name(d->instance, sizeof d->instance);
    enum rk_status status = rk_daemon_listen(d, err);
    if (status == RK_OK) {
        status = start_topology(d, err);
    }
    if (status == RK_OK) {
        status = start_keys(d, err);
    }
    if (status == RK_OK) {
        status = start_catalog(d, err);
    }
    if (status == RK_OK) {
        status = start_server(d, err);
    }
    if (status == RK_OK && d->keys != NULL) {
        status = start_sweeper(d, err);
    }
    if (status == RK_OK) {
        status = start_transport(d, err);
    }
    return status;
}

void rk_daemon_stop(struct rk_daemon *d)
{
    rk_admin_stop(d->admin);
    rk_amqp_stop(d->amqp);
    rk_engine_stop(d->engine);
    rk_amqp_free(d->amqp);
    rk_catalog_stop(d->catalog);
    if (d->gate != NULL) {
        rk_gate_stop(d->gate);
    }
    rk_server_stop(d->server);
    if (d->keys != NULL) {
        rk_key_service_stop(d->keys);
    }
    rk_server_free(d->server);
    rk_hot_free(d->hot);
    if (d->provider.ops != NULL) {
        d->provider.ops->free(d->provider.self);
    }
    if (d->pool != NULL) {
        mongoc_client_pool_destroy(d->pool);
    }
    rk_topology_stop(d->topology);
}
