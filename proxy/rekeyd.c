/*
 * rekeyd: loads the configuration, starts the parts in the order of their dependencies, then
 * waits for signals. SIGHUP reloads, SIGTERM and SIGINT drain.
 *
 * The main thread runs its own small event loop: signals and the drain's deadline. Everything else
 * has threads of its own.
 */
#include <event2/event.h>
#include <getopt.h>
#include <mongoc/mongoc.h>
#include <rekey/admission/gate.h>
#include <rekey/base/clock.h>
#include <rekey/catalog/catalog.h>
#include <rekey/config/config.h>
#include <rekey/jobs/engine.h>
#include <rekey/keys/mongo.h>
#include <rekey/keys/secrets.h>
#include <rekey/keys/service.h>
#include <rekey/session/server.h>
#include <rekey/topology/topology.h>
#include <rekey/vault/provider.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define SECURE_HEAP_BYTES (1u << 18)
#define DRAIN_POLL_US 20000
/* Descriptors beyond two per connection: listeners, event loops, libmongoc, logs. */
#define SPARE_FILES 512u
#define N_WATCHED 3u

struct daemon {
    const char *config_path;
    struct rk_config *config;
    struct rk_topology *topology;
    mongoc_client_pool_t *pool;
    struct rk_provider provider;
    struct rk_key_service *keys;
    struct rk_catalog *catalog;
    struct rk_server *server;
    struct rk_gate *gate;
    struct rk_engine *engine;
    struct event_base *base;
    struct event *watched[N_WATCHED]; /* signals */
    struct event *drain_timer;
    uint64_t drain_deadline_us;
    char instance[160]; /* unique to this process */
};

static void usage(FILE *out)
{
    (void)fputs("usage: rekeyd [-c rekey.yaml]\n"
                "  -c, --config FILE  configuration (default: rekey.yaml, or $REKEY_CONFIG)\n"
                "  -V, --version\n"
                "  -h, --help\n"
                "SIGHUP reloads the configuration, SIGTERM drains and ends.\n",
                out);
}

/* Returns -1 to go on, else the exit code. */
static int parse_args(int argc, char **argv, struct daemon *d)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *from_env = getenv("REKEY_CONFIG");
    d->config_path = from_env != NULL ? from_env : "rekey.yaml";
    int opt;
    while ((opt = getopt_long(argc, argv, "c:Vh", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            d->config_path = optarg;
            break;
        case 'V':
            (void)printf("rekeyd %s\n", RK_VERSION);
            return 0;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (optind != argc) {
        usage(stderr);
        return 2;
    }
    return -1;
}

static void raise_file_limit(const struct rk_config *config)
{
    struct rlimit limit;
    rlim_t need = (rlim_t)config->limits.connections_max * 2 + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= need) {
        return;
    }
    limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < need) {
        rk_log(RK_LOG_WARN, "file_limit_low", RK_I("limit", limit.rlim_cur), RK_I("needed", need),
               RK_S("advice", "raise the open file limit or lower limits.connections_max"));
    }
}

/* Leases are held under it, and heartbeats sent. */
static void instance_name(char *out, size_t size)
{
    char host[128] = "unknown";
    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(out, size, "%s:%d:%08x", host, (int)getpid(), (unsigned)rk_clock_mono_us());
}

static enum rk_status start_topology(struct daemon *d, struct rk_error *err)
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

static enum rk_status open_provider(struct daemon *d, struct rk_error *err)
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

static enum rk_status start_keys(struct daemon *d, struct rk_error *err)
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
            .instance = d->instance,
            .instance_lease_ms = config->keys.instance_lease_ms,
        };
        status = rk_key_service_start(&keys, &d->keys, err);
    }
    return status;
}

static enum rk_status start_catalog(struct daemon *d, struct rk_error *err)
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

static enum rk_status start_server(struct daemon *d, struct rk_error *err)
{
    struct rk_policy_set *policies = d->catalog != NULL ? rk_catalog_policies(d->catalog)
                                                        : rk_policy_set_ref(d->config->policies);
    const struct rk_server_config server = {
        .config = d->config, .policies = policies, .topology = d->topology, .keys = d->keys};
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
    const struct daemon *d = arg;
    return !d->provider.ops->available(d->provider.self);
}

static struct rk_gate_config gate_config(const struct rk_config_sweep *sweep)
{
    return (struct rk_gate_config){
        .pause = sweep->pause,
        .max_rate = sweep->max_rate,
        .p99_limit_ms = sweep->guard.p99_limit_ms,
        .interval_ms = sweep->guard.interval_ms,
        .samples_min = sweep->guard.samples_min,
        .rate_min = sweep->guard.rate_min,
    };
}

static struct rk_engine_settings engine_settings(const struct rk_config_sweep *sweep)
{
    return (struct rk_engine_settings){
        .threads = sweep->threads,
        .range_docs = sweep->range_docs,
        .batch_docs = sweep->batch_docs,
        .ranges_ahead = sweep->ranges_ahead,
        .lease_ms = sweep->lease_ms,
        .poll_interval_ms = sweep->poll_interval_ms,
        .attempts_max = sweep->attempts_max,
        .retry_backoff_ms = sweep->retry_backoff_ms,
        .retry_backoff_max_ms = sweep->retry_backoff_max_ms,
        .write_timeout_ms = sweep->write_timeout_ms,
    };
}

static enum rk_status start_sweeper(struct daemon *d, struct rk_error *err)
{
    const struct rk_gate_config gate = gate_config(&d->config->sweep);
    enum rk_status status = rk_gate_start(&gate, foreground_sensor, d->server, &d->gate, err);
    if (status != RK_OK) {
        return status;
    }
    rk_gate_set_brake(d->gate, provider_is_away, d);
    const struct rk_engine_config engine = {
        .client_pool = d->pool,
        .state_db = d->config->upstream.state_db,
        .instance = d->instance,
        .keys = d->keys,
        .gate = d->gate,
        .policies = d->config->policies,
        .settings = engine_settings(&d->config->sweep),
    };
    return rk_engine_start(&engine, &d->engine, err);
}

static enum rk_status start_parts(struct daemon *d, struct rk_error *err)
{
    instance_name(d->instance, sizeof d->instance);
    enum rk_status status = start_topology(d, err);
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
    return status;
}

static void stop_parts(struct daemon *d)
{
    rk_engine_stop(d->engine);
    rk_catalog_stop(d->catalog);
    if (d->gate != NULL) {
        rk_gate_stop(d->gate);
    }
    rk_server_stop(d->server);
    if (d->keys != NULL) {
        rk_key_service_stop(d->keys);
    }
    rk_server_free(d->server);
    if (d->provider.ops != NULL) {
        d->provider.ops->free(d->provider.self);
    }
    if (d->pool != NULL) {
        mongoc_client_pool_destroy(d->pool);
    }
    rk_topology_stop(d->topology);
}

static void on_drain_poll(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct daemon *d = arg;
    const struct timeval poll = {.tv_sec = 0, .tv_usec = DRAIN_POLL_US};
    size_t left = rk_server_sessions(d->server);
    if (left == 0 || rk_clock_mono_us() >= d->drain_deadline_us) {
        rk_log(RK_LOG_INFO, "drained", RK_I("sessions_cut", left));
        (void)event_base_loopbreak(d->base);
        return;
    }
    (void)event_add(d->drain_timer, &poll);
}

static void on_terminate(evutil_socket_t signal, short what, void *arg)
{
    (void)what;
    struct daemon *d = arg;
    if (d->drain_deadline_us != 0) {
        return;
    }
    uint32_t timeout_ms = d->config->limits.drain_timeout_ms;
    rk_log(RK_LOG_INFO, "draining", RK_I("signal", signal), RK_I("timeout_ms", timeout_ms));
    d->drain_deadline_us = rk_clock_mono_us() + (uint64_t)timeout_ms * 1000;
    rk_server_drain(d->server);
    /* The drain is posted to the workers; the first look comes after they had a chance. */
    const struct timeval poll = {.tv_sec = 0, .tv_usec = DRAIN_POLL_US};
    (void)event_add(d->drain_timer, &poll);
}

static bool may_reload(const struct daemon *d, const struct rk_config *next, struct rk_error *err)
{
    const char *key;
    if (!rk_config_reloadable(d->config, next, &key)) {
        (void)rk_error_set(err, RK_ESTATE, "%s cannot change without a restart", key);
        return false;
    }
    if (d->keys == NULL && !rk_policy_set_empty(next->policies)) {
        (void)rk_error_set(err, RK_ESTATE,
                           "first policies need a restart: rekeyd was started without keys");
        return false;
    }
    return true;
}

/* Out of memory: the former ones stay, which protect what they protected. */
static void take_policies(struct daemon *d, const struct rk_config *next)
{
    struct rk_error err = {0};
    if (d->catalog != NULL &&
        rk_catalog_reconfigure(d->catalog, next->policies, next->upstream.catalog_interval_ms,
                               &err) != RK_OK) {
        rk_log(RK_LOG_ERROR, "policies_not_reloaded", RK_S("reason", err.message));
    }
}

static void on_reload(evutil_socket_t signal, short what, void *arg)
{
    (void)signal;
    (void)what;
    struct daemon *d = arg;
    struct rk_config *next = NULL;
    struct rk_error err = {0};
    if (rk_config_load(d->config_path, &next, &err) != RK_OK ||
        rk_config_check_daemon(next, &err) != RK_OK || !may_reload(d, next, &err) ||
        rk_log_reopen(next->log.level, &err) != RK_OK ||
        rk_server_reload(d->server, next, &err) != RK_OK) {
        enum rk_status level = rk_log_reopen(d->config->log.level, NULL);
        (void)level; /* the level goes back; a file that cannot be reopened stays open */
        rk_log(RK_LOG_ERROR, "reload_refused", RK_S("file", d->config_path),
               RK_S("reason", err.message), RK_S("effect", "the former configuration stays"));
        rk_config_free(next);
        return;
    }
    rk_log_set_limit(next->log.event_lines_per_s);
    take_policies(d, next);
    raise_file_limit(next);
    if (d->gate != NULL) {
        const struct rk_gate_config gate = gate_config(&next->sweep);
        const struct rk_engine_settings engine = engine_settings(&next->sweep);
        rk_gate_reconfigure(d->gate, &gate);
        rk_engine_reconfigure(d->engine, &engine, next->policies);
    }
    rk_config_free(d->config);
    d->config = next;
    rk_server_sync(d->server); /* whoever sees the event may rely on it */
    rk_log(RK_LOG_INFO, "reloaded", RK_S("file", d->config_path));
}

/* Before anything is started: from the first accepted connection on, SIGTERM drains. */
static enum rk_status watch_signals(struct daemon *d, struct rk_error *err)
{
    d->drain_timer = evtimer_new(d->base, on_drain_poll, d);
    d->watched[0] = evsignal_new(d->base, SIGTERM, on_terminate, d);
    d->watched[1] = evsignal_new(d->base, SIGINT, on_terminate, d);
    d->watched[2] = evsignal_new(d->base, SIGHUP, on_reload, d);
    bool ok = d->drain_timer != NULL;
    for (size_t i = 0; i < N_WATCHED && ok; i++) {
        ok = d->watched[i] != NULL && event_add(d->watched[i], NULL) == 0;
    }
    return ok ? RK_OK : rk_error_set(err, RK_ENOMEM, "cannot set up signals");
}

/* Last of all: until then a second SIGTERM must not cut the end short. */
static void unwatch_signals(struct daemon *d)
{
    for (size_t i = 0; i < N_WATCHED; i++) {
        if (d->watched[i] != NULL) {
            event_free(d->watched[i]);
        }
    }
    if (d->drain_timer != NULL) {
        event_free(d->drain_timer);
    }
}

static void log_listeners(const struct rk_config *config)
{
    static const char *const reads[] = {"primary", "secondary", "secondaryPreferred"};
    unsigned n;
    const struct rk_config_member *listeners = rk_config_listeners(config, &n);
    bool single = config->upstream.topology == RK_CONFIG_SINGLE;
    for (unsigned i = 0; i < n; i++) {
        rk_log(RK_LOG_INFO, "listening", RK_S("listen", listeners[i].listen),
               RK_S("advertise", listeners[i].advertise), RK_S("member", listeners[i].address),
               RK_S("read", single ? reads[listeners[i].read] : NULL));
    }
}

static void log_started(const struct daemon *d, bool locked)
{
    if (!locked) {
        rk_log(RK_LOG_WARN, "keys_not_locked",
               RK_S("advice", "raise RLIMIT_MEMLOCK: keys could reach swap"));
    }
    log_listeners(d->config);
    rk_log(RK_LOG_INFO, "started", RK_S("version", RK_VERSION), RK_S("config", d->config_path),
           RK_I("policies", rk_policy_set_count(d->config->policies)));
}

int main(int argc, char **argv)
{
    struct daemon d = {0};
    struct rk_error err = {0};
    bool locked = false;
    int code = parse_args(argc, argv, &d);
    if (code >= 0) {
        return code;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    if (rk_secrets_init(SECURE_HEAP_BYTES, &locked, &err) != RK_OK ||
        rk_config_load(d.config_path, &d.config, &err) != RK_OK ||
        rk_config_check_daemon(d.config, &err) != RK_OK ||
        rk_log_open(d.config->log.file, d.config->log.level, &err) != RK_OK) {
        (void)fprintf(stderr, "rekeyd: %s\n", err.message);
        rk_config_free(d.config);
        return 1;
    }
    rk_log_set_limit(d.config->log.event_lines_per_s);
    raise_file_limit(d.config);
    rk_mongo_init();
    d.base = event_base_new();
    enum rk_status status =
        d.base != NULL ? watch_signals(&d, &err) : rk_error_set(&err, RK_ENOMEM, "no event loop");
    if (status == RK_OK) {
        status = start_parts(&d, &err);
    }
    if (status == RK_OK) {
        log_started(&d, locked);
        (void)event_base_dispatch(d.base);
    }
    if (status != RK_OK) {
        rk_log(RK_LOG_ERROR, "start_failed", RK_S("reason", err.message));
        (void)fprintf(stderr, "rekeyd: %s\n", err.message);
    }
    stop_parts(&d);
    unwatch_signals(&d);
    if (d.base != NULL) {
        event_base_free(d.base);
    }
    rk_mongo_cleanup();
    rk_config_free(d.config);
    rk_log(RK_LOG_INFO, "stopped", RK_B("clean", status == RK_OK));
    rk_log_close();
    return status == RK_OK ? 0 : 1;
}
