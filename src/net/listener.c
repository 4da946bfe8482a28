#include <rekey/net/listener.h>

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <rekey/log/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Connections taken in one turn of the loop, so that a flood of them does not starve sessions. */
#define ACCEPTS_PER_TURN 16
/* Out of file descriptors: accepting again at once would spin. */
static const struct timeval accept_pause = {.tv_sec = 0, .tv_usec = 100000};

struct rk_listener {
    int fd;
    struct event *event;
    struct event *resume;
    rk_accept_fn *fn;
    void *arg;
    char address[300];
};

static void format_peer(const struct sockaddr_storage *addr, socklen_t len, char *out, size_t cap)
{
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    if (getnameinfo((const struct sockaddr *)addr, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        (void)snprintf(out, cap, "unknown");
        return;
    }
    (void)snprintf(out, cap, addr->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
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
        const int on = 1;
        (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        (void)setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        char peer[NI_MAXHOST + NI_MAXSERV + 4];
        format_peer(&addr, len, peer, sizeof peer);
        listener->fn(listener->arg, client, peer);
    }
}

static int open_socket(const struct addrinfo *ai, int backlog)
{
    int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    const int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0 ||
        (ai->ai_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0) ||
        bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, backlog) != 0) {
        int saved = errno;
        (void)close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int open_address(const char *address, int backlog, struct rk_error *err)
{
    struct rk_hostport hp;
    struct addrinfo *list = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    if (!rk_hostport_parse(address, &hp)) {
        (void)rk_error_set(err, RK_EINVAL, "listen address \"%s\" is not host:port", address);
        return -1;
    }
    int failed = getaddrinfo(hp.host, hp.port, &hints, &list);
    if (failed != 0) {
        (void)rk_error_set(err, RK_EINVAL, "listen address \"%s\": %s", address,
                           gai_strerror(failed));
        return -1;
    }
    int fd = -1;
    for (const struct addrinfo *ai = list; ai != NULL && fd < 0; ai = ai->ai_next) {
        fd = open_socket(ai, backlog);
    }
    if (fd < 0) {
        (void)rk_error_set(err, RK_EIO, "cannot listen on %s: %s", address, strerror(errno));
    }
    freeaddrinfo(list);
    return fd;
}

enum rk_status rk_listener_new(struct rk_worker *worker, const char *address, int backlog,
                               rk_accept_fn *fn, void *arg, struct rk_listener **out,
                               struct rk_error *err)
{
    int fd = open_address(address, backlog, err);
    if (fd < 0) {
        return RK_EIO;
    }
    struct rk_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL) {
        (void)close(fd);
        return rk_error_set(err, RK_ENOMEM, "listener: out of memory");
    }
    listener->fd = fd;
    listener->fn = fn;
    listener->arg = arg;
    (void)snprintf(listener->address, sizeof listener->address, "%s", address);
    struct event_base *base = rk_worker_base(worker);
    listener->event = event_new(base, fd, EV_READ | EV_PERSIST, on_acceptable, listener);
    listener->resume = evtimer_new(base, on_resume, listener);
    if (listener->event == NULL || listener->resume == NULL ||
        event_add(listener->event, NULL) != 0) {
        rk_listener_free(listener);
        return rk_error_set(err, RK_ENOMEM, "listener: out of memory");
    }
    *out = listener;
    return RK_OK;
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
    (void)close(listener->fd);
    free(listener);
}
