/*
 * Connects to every server that a listener leads to, all at once, and is content with the first
 * that takes the connection. Answers are good for a moment: a probe that is asked for more often
 * costs the servers no more connections.
 */
#include "admin_internal.h"

#include <errno.h>
#include <rekey/base/clock.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ATTEMPTS_MAX 64u
#define GOOD_FOR_US 1000000u

struct attempt {
    struct rk_probe *probe;
    int fd; /* -1: none, or over */
    struct event event;
};

struct rk_probe {
    struct event_base *base;
    struct timeval timeout;
    rk_probe_fn *fn;
    void *arg;
    struct event *timer;
    struct attempt attempts[ATTEMPTS_MAX];
    size_t open; /* attempts under way */
    bool running;
    bool known;
    bool reachable;
    uint64_t known_us;
};

static void give_up(struct attempt *attempt)
{
    if (attempt->fd >= 0) {
        (void)event_del(&attempt->event);
        (void)close(attempt->fd);
        attempt->fd = -1;
        attempt->probe->open--;
    }
}

static void settle(struct rk_probe *probe, bool reachable)
{
    for (size_t i = 0; i < ATTEMPTS_MAX; i++) {
        give_up(&probe->attempts[i]);
    }
    (void)event_del(probe->timer);
    probe->running = false;
    probe->known = true;
    probe->reachable = reachable;
    probe->known_us = rk_clock_mono_us();
    probe->fn(probe->arg, reachable);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    settle(arg, false);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct attempt *attempt = arg;
    struct rk_probe *probe = attempt->probe;
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0) {
        settle(probe, true);
        return;
    }
    give_up(attempt);
    if (probe->open == 0) {
        settle(probe, false);
    }
}

/* True: connected at once. */
static bool attempt_start(struct attempt *attempt, const struct rk_sockaddr *address)
{
    struct rk_probe *probe = attempt->probe;
    int fd = socket(address->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    bool connected = connect(fd, (const struct sockaddr *)&address->addr, address->len) == 0;
    if (!connected && errno == EINPROGRESS &&
        event_assign(&attempt->event, probe->base, fd, EV_WRITE, on_writable, attempt) == 0 &&
        event_add(&attempt->event, NULL) == 0) {
        attempt->fd = fd;
        probe->open++;
        return false;
    }
    (void)close(fd);
    return connected;
}

/* Several routes may lead to the same server. */
static bool seen(const struct rk_routes *routes, size_t route, size_t endpoint)
{
    const struct rk_endpoint *wanted = routes->route[route].endpoints[endpoint];
    for (size_t r = 0; r < route; r++) {
        for (size_t e = 0; e < routes->route[r].n_endpoints; e++) {
            if (routes->route[r].endpoints[e] == wanted) {
                return true;
            }
        }
    }
    return false;
}

/* True: a server has answered already. */
static bool start_all(struct rk_probe *probe, const struct rk_routes *routes)
{
    size_t n = 0;
    for (size_t r = 0; r < routes->n; r++) {
        for (size_t e = 0; e < routes->route[r].n_endpoints; e++) {
            const struct rk_endpoint *endpoint = routes->route[r].endpoints[e];
            for (size_t i = 0; i < endpoint->n && n < ATTEMPTS_MAX && !seen(routes, r, e); i++) {
                if (attempt_start(&probe->attempts[n++], &endpoint->sockaddrs[i])) {
                    return true;
                }
            }
        }
    }
    return false;
}

void rk_probe_ask(struct rk_probe *probe, struct rk_topology *topology)
{
    if (probe->running) {
        return;
    }
    if (probe->known && rk_clock_mono_us() - probe->known_us < GOOD_FOR_US) {
        probe->fn(probe->arg, probe->reachable);
        return;
    }
    struct rk_routes *routes = rk_topology_routes(topology);
    probe->running = true;
    bool reachable = start_all(probe, routes);
    rk_routes_unref(routes);
    if (reachable || probe->open == 0) {
        settle(probe, reachable);
    } else {
        (void)event_add(probe->timer, &probe->timeout);
    }
}

struct rk_probe *rk_probe_new(struct event_base *base, uint32_t timeout_ms, rk_probe_fn *fn,
                              void *arg)
{
    struct rk_probe *probe = calloc(1, sizeof *probe);
    if (probe == NULL) {
        return NULL;
    }
    *probe = (struct rk_probe){
        .base = base,
        .timeout = {.tv_sec = timeout_ms / 1000,
                    .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000},
        .fn = fn,
        .arg = arg,
        .timer = evtimer_new(base, on_timeout, probe),
    };
    for (size_t i = 0; i < ATTEMPTS_MAX; i++) {
        probe->attempts[i] = (struct attempt){.probe = probe, .fd = -1};
    }
    if (probe->timer == NULL) {
        free(probe);
        return NULL;
    }
    return probe;
}

void rk_probe_free(struct rk_probe *probe)
{
    if (probe == NULL) {
        return;
    }
    for (size_t i = 0; i < ATTEMPTS_MAX; i++) {
        give_up(&probe->attempts[i]);
    }
    event_free(probe->timer);
    free(probe);
}
