#include <rekey/net/listener.h>

#include <errno.h>
#include <rekey/base/network.h>
#include <rekey/log/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Connections taken in one turn of the loop, so that a flood of them does not starve sessions. */
#define ACCEPTS_PER_TURN 16
/* Out of file descriptors: accepting again at once would spin. */
static const struct timeval accept_pause = {.tv_sec = 0, .tv_usec = 100000};

struct rk_listener {
    struct rk_listen_socket socket;
    struct rk_network *networks; /* who may connect; none: everybody */
    unsigned n_networks;
    struct event *event;
    struct event *resume;
    rk_accept_fn *fn;
    void *arg;
    char address[300];
};

static bool may_connect(const struct rk_listener *listener, const struct sockaddr_storage *addr)
{
    bool may = listener->n_networks == 0 || addr->ss_family == AF_UNIX;
    for (unsigned i = 0; i < listener->n_networks && !may; i++) {
        may = rk_network_contains(&listener->networks[i], addr);
    }
    return may;
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct rk_listener *listener = arg;
    (void)event_add(listener->event, NULL);
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct rk_listener *listener = arg;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage addr;
        socklen_t len = sizeof addr;
        int client = accept4(fd, (struct sockaddr *)&addr, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                rk_log(RK_LOG_ERROR, "accept_failed", RK_S("address", listener->address),
                       RK_S("error", strerror(errno)),
                       RK_S("advice", "raise the open file limit (ulimit -n, LimitNOFILE)"));
                (void)event_del(listener->event);
                (void)event_add(listener->resume, &accept_pause);
            }
            return;
        }
        char peer[RK_PEER_MAX];
        rk_socket_tune(client);
        rk_peer_format(client, &addr, len, peer);
        if (may_connect(listener, &addr)) {
            listener->fn(listener->arg, client, peer);
            continue;
        }
        rk_log(RK_LOG_WARN, "connection_refused", RK_S("client", peer),
               RK_S("reason", "not from a network of listener.proxy_networks"));
        (void)close(client);
    }
}

static enum rk_status set_networks(struct rk_listener *listener,
                                   const struct rk_listener_config *config, struct rk_error *err)
{
    if (config->n_networks == 0) {
        return RK_OK;
    }
    listener->networks = calloc(config->n_networks, sizeof *listener->networks);
    if (listener->networks == NULL) {
        return rk_error_set(err, RK_ENOMEM, "listener: out of memory");
    }
    for (unsigned i = 0; i < config->n_networks; i++) {
        if (!rk_network_parse(config->networks[i], &listener->networks[i])) {
            return rk_error_set(err, RK_EINVAL, "\"%s\" is not a network", config->networks[i]);
        }
        listener->n_networks++;
    }
    return RK_OK;
}

enum rk_status rk_listener_new(struct rk_worker *worker, const struct rk_listener_config *config,
                               struct rk_listener **out, struct rk_error *err)
{
    struct rk_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL) {
        return rk_error_set(err, RK_ENOMEM, "listener: out of memory");
    }
    listener->fn = config->fn;
    listener->arg = config->arg;
    (void)snprintf(listener->address, sizeof listener->address, "%s", config->address);
    listener->socket.fd = -1;
    enum rk_status status = set_networks(listener, config, err);
    if (status == RK_OK) {
        status = rk_listen_socket_open(config->address, config->backlog, config->socket_mode,
                                       &listener->socket, err);
    }
    if (status != RK_OK) {
        rk_listener_free(listener);
        return status;
    }
    struct event_base *base = rk_worker_base(worker);
    listener->event =
        event_new(base, listener->socket.fd, EV_READ | EV_PERSIST, on_acceptable, listener);
    listener->resume = evtimer_new(base, on_resume, listener);
    if (listener->event == NULL || listener->resume == NULL) {
        rk_listener_free(listener);
        return rk_error_set(err, RK_ENOMEM, "listener: out of memory");
    }
    *out = listener;
    return RK_OK;
}

enum rk_status rk_listener_start(struct rk_listener *listener)
{
    return event_add(listener->event, NULL) == 0 ? RK_OK : RK_ENOMEM;
}

void rk_listener_free(struct rk_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    if (listener->event != NULL) {
        event_free(listener->event);
    }
    if (listener->resume != NULL) {
        event_free(listener->resume);
    }
    rk_listen_socket_close(&listener->socket);
    free(listener->networks);
    free(listener);
}
