/*
 * The main thread runs its own small event loop: signals and the drain's deadline. Everything else
 * has threads of its own.
 */
#include "daemon_internal.h"

#include <rekey/base/clock.h>
#include <rekey/daemon/daemon.h>
#include <rekey/keys/mongo.h>
#include <rekey/keys/secrets.h>
#include <signal.h>
#include <stdio.h>

#define SECURE_HEAP_BYTES (1u << 22) /* 16 KiB a thread that encrypts, 256 bytes a key */
#define DRAIN_POLL_US 20000

static void on_drain_poll(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct rk_daemon *d = arg;
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
    struct rk_daemon *d = arg;
    if (d->drain_deadline_us != 0) {
        return;
    }
    uint32_t timeout_ms = d->config->limits.drain_timeout_ms;
    rk_log(RK_LOG_INFO, "draining", RK_I("signal", signal), RK_I("timeout_ms", timeout_ms));
    d->drain_deadline_us = rk_clock_mono_us() + (uint64_t)timeout_ms * 1000;
    atomic_store(&d->draining, true);
    rk_server_drain(d->server);
    /* The drain is posted to the workers; the first look comes after they had a chance. */
    const struct timeval poll = {.tv_sec = 0, .tv_usec = DRAIN_POLL_US};
    (void)event_add(d->drain_timer, &poll);
}

static void on_reload(evutil_socket_t signal, short what, void *arg)
{
    (void)signal;
    (void)what;
    rk_daemon_reload(arg);
}

/* Before anything is started: from the first accepted connection on, SIGTERM drains. */
static enum rk_status watch_signals(struct rk_daemon *d, struct rk_error *err)
{
    d->drain_timer = evtimer_new(d->base, on_drain_poll, d);
    d->watched[0] = evsignal_new(d->base, SIGTERM, on_terminate, d);
    d->watched[1] = evsignal_new(d->base, SIGINT, on_terminate, d);
    d->watched[2] = evsignal_new(d->base, SIGHUP, on_reload, d);
    bool ok = d->drain_timer != NULL;
    for (size_t i = 0; i < RK_DAEMON_SIGNALS && ok; i++) {
        ok = d->watched[i] != NULL && event_add(d->watched[i], NULL) == 0;
    }
    return ok ? RK_OK : rk_error_set(err, RK_ENOMEM, "cannot set up signals");
}

/* Last of all: until then a second SIGTERM must not cut the end short. */
static void unwatch_signals(struct rk_daemon *d)
{
    for (size_t i = 0; i < RK_DAEMON_SIGNALS; i++) {
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

static void log_started(const struct rk_daemon *d, bool locked)
{
    if (!locked) {
        rk_log(RK_LOG_WARN, "keys_not_locked",
               RK_S("advice", "raise RLIMIT_MEMLOCK: keys could reach swap"));
    }
    log_listeners(d->config);
    rk_log(RK_LOG_INFO, "started", RK_S("version", RK_VERSION), RK_S("config", d->config_path),
           RK_I("policies", rk_policy_set_count(d->config->policies)));
}

int rk_daemon_run(const char *config_path)
{
    struct rk_daemon d = {.config_path = config_path};
    struct rk_error err = {0};
    bool locked = false;
    (void)signal(SIGPIPE, SIG_IGN);
    if (rk_secrets_init(SECURE_HEAP_BYTES, &locked, &err) != RK_OK ||
        rk_config_load(config_path, &d.config, &err) != RK_OK ||
        rk_config_check_daemon(d.config, &err) != RK_OK ||
        rk_log_open(d.config->log.file, d.config->log.level, &err) != RK_OK) {
        (void)fprintf(stderr, "rekeyd: %s\n", err.message);
        rk_config_free(d.config);
        return 1;
    }
    d.started_with = d.config;
    rk_log_set_limit(d.config->log.event_lines_per_s);
    rk_daemon_raise_file_limit(d.config);
    rk_mongo_init();
    d.base = event_base_new();
    enum rk_status status =
        d.base != NULL ? watch_signals(&d, &err) : rk_error_set(&err, RK_ENOMEM, "no event loop");
    if (status == RK_OK) {
        status = rk_daemon_start(&d, &err);
    }
    if (status == RK_OK) {
        rk_daemon_watch(&d);
        log_started(&d, locked);
        (void)event_base_dispatch(d.base);
    }
    if (status != RK_OK) {
        rk_log(RK_LOG_ERROR, "start_failed", RK_S("reason", err.message));
        (void)fprintf(stderr, "rekeyd: %s\n", err.message);
    }
    rk_daemon_stop(&d);
    unwatch_signals(&d);
    if (d.base != NULL) {
        event_base_free(d.base);
    }
    rk_mongo_cleanup();
    rk_daemon_free_configs(&d);
    rk_log(RK_LOG_INFO, "stopped", RK_B("clean", status == RK_OK));
    rk_log_close();
    return status == RK_OK ? 0 : 1;
}
