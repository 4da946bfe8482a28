#include "topology_internal.h"

#include <pthread.h>
#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct rk_topology {
    pthread_mutex_t lock; /* guards everything below but settings and monitor */
    pthread_cond_t wake;  /* for the thread: there is something to do */
    pthread_cond_t ready; /* every name was looked up once */
    unsigned refs;        /* the owner's, and the thread's while it cannot be waited for */
    pthread_t thread;
    bool started;
    bool stopping;
    bool looking; /* the thread is in a look-up, which may take its time */
    struct rk_topology_settings settings;
    bool single;
    struct rk_monitor *monitor; /* single */
    struct rk_route_spec *specs;
    size_t n_specs;
    unsigned last_id;
    struct rk_server_seen *servers;
    size_t n_servers;
    uint64_t latency_due_us;
    struct rk_names names;
    struct rk_routes *routes;
    rk_topology_fn *changed;
    void *arg;
};

static void unref(struct rk_topology *t)
{
    if (--t->refs > 0) {
        (void)pthread_mutex_unlock(&t->lock);
        return;
    }
    (void)pthread_mutex_unlock(&t->lock);
    rk_routes_unref(t->routes);
    rk_names_deinit(&t->names);
    free(t->servers);
    rk_route_specs_free(t->specs, t->n_specs);
    (void)pthread_cond_destroy(&t->ready);
    (void)pthread_cond_destroy(&t->wake);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}

/* The names that specs and servers need, and no others. Locked. */
static bool want_names(struct rk_topology *t, const struct rk_route_spec *specs, size_t n)
{
    bool ok = true;
    rk_names_unmark(&t->names);
    for (size_t i = 0; i < n && ok; i++) {
        ok = specs[i].address == NULL ||
             rk_names_want(&t->names, specs[i].address, specs[i].connect);
    }
    for (size_t i = 0; i < t->n_servers && ok; i++) {
        ok = rk_names_want(&t->names, t->servers[i].address, t->servers[i].address);
    }
    /* libmongoc lists only whom it sees: one that is gone for the moment keeps its addresses. */
    for (size_t i = 0; t->single && i < t->routes->n && ok; i++) {
        const struct rk_route *route = &t->routes->route[i];
        for (size_t e = 0; e < route->n_endpoints && ok; e++) {
            const char *address = route->endpoints[e]->address;
            ok = rk_names_want(&t->names, address, address);
        }
    }
    return ok;
}

static struct rk_routes *build(struct rk_topology *t, const struct rk_route_spec *specs, size_t n)
{
    return rk_routes_build(specs, n, t->servers, t->n_servers, &t->names,
                           t->settings.latency_window_ms, t->routes);
}

/* Takes routes. Locked, so that watchers see pictures in order. */
static void publish(struct rk_topology *t, struct rk_routes *routes)
{
    rk_routes_unref(t->routes);
    t->routes = routes;
    if (t->changed != NULL) {
        t->changed(t->arg, routes);
    }
}

/* After a change of names or servers. Locked. A picture that is no other is not told of: who was
 * led to a second choice would be moved. Out of memory: the former one stays until the next change.
 */
static void rebuild(struct rk_topology *t)
{
    struct rk_routes *routes = build(t, t->specs, t->n_specs);
    if (routes == NULL) {
        rk_log(RK_LOG_ERROR, "topology_out_of_memory", RK_S("effect", "it stays as it was"));
    } else if (rk_routes_same(routes, t->routes)) {
        rk_routes_unref(routes);
    } else {
        publish(t, routes);
    }
}

/* On a thread of libmongoc's. */
static void on_servers(void *arg, const struct rk_server_seen *servers, size_t n)
{
    struct rk_topology *t = arg;
    struct rk_server_seen *copy = calloc(n > 0 ? n : 1, sizeof *copy);
    if (copy == NULL) {
        return; /* the next change brings them */
    }
    if (n > 0) {
        memcpy(copy, servers, n * sizeof *copy);
    }
    (void)pthread_mutex_lock(&t->lock);
    free(t->servers);
    t->servers = copy;
    t->n_servers = n;
    if (want_names(t, t->specs, t->n_specs)) {
        rk_names_forget(&t->names);
    }
    rebuild(t);
    (void)pthread_cond_signal(&t->wake);
    (void)pthread_mutex_unlock(&t->lock);
}

/* Round-trip times drift without a change that libmongoc would tell of. Locked; unlocks meanwhile:
 * libmongoc's own lock is always taken first. */
static void refresh_latency(struct rk_topology *t)
{
    size_t n = 0;
    (void)pthread_mutex_unlock(&t->lock);
    struct rk_server_seen *now = rk_monitor_look(t->monitor, &n);
    (void)pthread_mutex_lock(&t->lock);
    for (size_t i = 0; now != NULL && i < n; i++) {
        for (size_t s = 0; s < t->n_servers; s++) {
            if (strcmp(t->servers[s].address, now[i].address) == 0) {
                t->servers[s].rtt_ms = now[i].rtt_ms;
            }
        }
    }
    free(now);
    rebuild(t);
}

static bool same_sockaddrs(const struct rk_endpoint *a, const struct rk_endpoint *b)
{
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (a->sockaddrs[i].len != b->sockaddrs[i].len ||
            memcmp(&a->sockaddrs[i].addr, &b->sockaddrs[i].addr, a->sockaddrs[i].len) != 0) {
            return false;
        }
    }
    return true;
}

/* Locked; unlocks while it looks up. */
static void look_up(struct rk_topology *t, const struct rk_name *due)
{
    char address[RK_ADDRESS_MAX];
    char connect[RK_ADDRESS_MAX];
    memcpy(address, due->address, sizeof address);
    memcpy(connect, due->connect, sizeof connect);
    t->looking = true;
    (void)pthread_mutex_unlock(&t->lock);
    struct rk_endpoint *found = rk_names_lookup(address, connect);
    (void)pthread_mutex_lock(&t->lock);
    t->looking = false;
    struct rk_name *name = rk_names_find(&t->names, address);
    if (name == NULL || strcmp(name->connect, connect) != 0 || t->stopping) {
        rk_endpoint_unref(found);
        return;
    }
    bool failed = found == NULL || found->n == 0;
    if (failed && !name->failing) {
        rk_log(RK_LOG_WARN, "member_unresolved", RK_S("member", address),
               RK_S("effect",
                    name->endpoint->n > 0 ? "its former addresses stay" : "it cannot be reached"));
    }
    name->failing = failed;
    name->looked_up = true;
    name->due_us = rk_clock_mono_us() + (uint64_t)t->settings.resolve_interval_ms * 1000;
    if (failed || same_sockaddrs(name->endpoint, found)) {
        rk_endpoint_unref(found);
        return;
    }
    rk_endpoint_unref(name->endpoint);
    name->endpoint = found;
    rebuild(t);
}

static void wait_until(struct rk_topology *t, uint64_t due_us)
{
    if (due_us == UINT64_MAX) {
        (void)pthread_cond_wait(&t->wake, &t->lock);
        return;
    }
    const struct timespec at = {.tv_sec = (time_t)(due_us / 1000000),
                                .tv_nsec = (long)(due_us % 1000000) * 1000};
    (void)pthread_cond_timedwait(&t->wake, &t->lock, &at);
}

static bool all_looked_up(const struct rk_topology *t)
{
    for (size_t i = 0; i < t->names.n; i++) {
        if (!t->names.name[i].looked_up) {
            return false;
        }
    }
    return true;
}

static void *run(void *arg)
{
    struct rk_topology *t = arg;
    (void)pthread_mutex_lock(&t->lock);
    while (!t->stopping) {
        if (all_looked_up(t)) {
            (void)pthread_cond_broadcast(&t->ready);
        }
        const struct rk_name *name = rk_names_next(&t->names);
        uint64_t now = rk_clock_mono_us();
        uint64_t name_due_us = name != NULL ? name->due_us : UINT64_MAX;
        if (name_due_us <= now) {
            look_up(t, name);
        } else if (t->latency_due_us <= now) {
            refresh_latency(t);
            t->latency_due_us = now + (uint64_t)t->settings.resolve_interval_ms * 1000;
        } else {
            wait_until(t, name_due_us < t->latency_due_us ? name_due_us : t->latency_due_us);
        }
    }
    unref(t);
    return NULL;
}

static void wait_ready(struct rk_topology *t)
{
    uint64_t until_us = rk_clock_mono_us() + (uint64_t)t->settings.start_timeout_ms * 1000;
    const struct timespec at = {.tv_sec = (time_t)(until_us / 1000000),
                                .tv_nsec = (long)(until_us % 1000000) * 1000};
    (void)pthread_mutex_lock(&t->lock);
    while (!all_looked_up(t) && rk_clock_mono_us() < until_us) {
        (void)pthread_cond_timedwait(&t->ready, &t->lock, &at);
    }
    (void)pthread_mutex_unlock(&t->lock);
}

static struct rk_topology *topology_new(const struct rk_topology_settings *settings)
{
    struct rk_topology *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return NULL;
    }
    t->refs = 1;
    t->settings = *settings;
    t->latency_due_us = UINT64_MAX;
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_cond_init(&t->wake, &attr);
    (void)pthread_cond_init(&t->ready, &attr);
    (void)pthread_condattr_destroy(&attr);
    return t;
}

enum rk_status rk_topology_start(const char *uri, const struct rk_topology_settings *settings,
                                 const struct rk_route_spec *specs, size_t n,
                                 struct rk_topology **out, struct rk_error *err)
{
    struct rk_topology *t = topology_new(settings);
    if (t == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for the topology");
    }
    enum rk_status status = rk_topology_reconfigure(t, specs, n, err);
    if (status == RK_OK && uri != NULL) {
        t->single = true;
        t->latency_due_us = 0;
        status =
            rk_monitor_start(uri, settings->monitor_interval_ms, on_servers, t, &t->monitor, err);
    }
    if (status == RK_OK) {
        t->refs++;
        t->started = pthread_create(&t->thread, NULL, run, t) == 0;
        if (!t->started) {
            t->refs--;
            status = rk_error_set(err, RK_EIO, "cannot start the topology's thread");
        }
    }
    if (status != RK_OK) {
        rk_topology_stop(t);
        return status;
    }
    wait_ready(t);
    *out = t;
    return RK_OK;
}

void rk_topology_stop(struct rk_topology *t)
{
    if (t == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&t->lock);
    t->stopping = true;
    bool looking = t->looking;
    (void)pthread_cond_signal(&t->wake);
    (void)pthread_mutex_unlock(&t->lock);
    if (t->started && looking) {
        (void)pthread_detach(t->thread); /* no look-up holds up the end of the process */
    } else if (t->started) {
        (void)pthread_join(t->thread, NULL);
    }
    rk_monitor_stop(t->monitor);
    (void)pthread_mutex_lock(&t->lock);
    unref(t);
}

void rk_topology_identify(struct rk_topology *t, struct rk_route_spec *specs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        specs[i].id = (unsigned)i + 1;
    }
    if (t == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&t->lock);
    unsigned last = t->last_id;
    for (size_t i = 0; i < n; i++) {
        specs[i].id = 0;
        for (size_t s = 0; s < t->n_specs; s++) {
            if (strcmp(specs[i].listen, t->specs[s].listen) == 0) {
                specs[i].id = t->specs[s].id;
            }
        }
        if (specs[i].id == 0) {
            specs[i].id = ++last;
        }
    }
    (void)pthread_mutex_unlock(&t->lock);
}

enum rk_status rk_topology_reconfigure(struct rk_topology *t, const struct rk_route_spec *specs,
                                       size_t n, struct rk_error *err)
{
    struct rk_route_spec *copy = rk_route_specs_copy(specs, n);
    struct rk_routes *routes = NULL;
    (void)pthread_mutex_lock(&t->lock);
    if (copy != NULL && want_names(t, copy, n)) {
        routes = build(t, copy, n);
    }
    if (routes != NULL) {
        rk_names_forget(&t->names);
        rk_route_specs_free(t->specs, t->n_specs);
        t->specs = copy;
        t->n_specs = n;
        for (size_t i = 0; i < n; i++) {
            t->last_id = copy[i].id > t->last_id ? copy[i].id : t->last_id;
        }
        publish(t, routes);
        (void)pthread_cond_signal(&t->wake);
    }
    (void)pthread_mutex_unlock(&t->lock);
    if (routes == NULL) {
        rk_route_specs_free(copy, n);
        return rk_error_set(err, RK_ENOMEM, "out of memory for %zu listeners", n);
    }
    return RK_OK;
}

struct rk_routes *rk_topology_routes(struct rk_topology *t)
{
    (void)pthread_mutex_lock(&t->lock);
    struct rk_routes *routes = rk_routes_ref(t->routes);
    (void)pthread_mutex_unlock(&t->lock);
    return routes;
}

void rk_topology_watch(struct rk_topology *t, rk_topology_fn *fn, void *arg)
{
    (void)pthread_mutex_lock(&t->lock);
    t->changed = fn;
    t->arg = arg;
    if (fn != NULL) {
        fn(arg, t->routes);
    }
    (void)pthread_mutex_unlock(&t->lock);
}
