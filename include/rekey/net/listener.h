/*
 * A listening socket on a worker's loop: TCP or a Unix socket. An address has one listener, on one
 * worker; whoever takes its connections hands them on to the worker that shall serve them.
 */
#ifndef REKEY_NET_LISTENER_H
#define REKEY_NET_LISTENER_H

#include <rekey/net/socket.h>
#include <rekey/net/worker.h>

struct rk_listener;

/* fd: non-blocking, close-on-exec, TCP_NODELAY set; the callee owns it. peer: as rk_peer_format
 * has it. */
typedef void rk_accept_fn(void *arg, int fd, const char *peer);

struct rk_listener_config {
    const char *address; /* "host:port", or the path of a Unix socket */
    int backlog;
    mode_t socket_mode;    /* of a Unix socket's file */
    char *const *networks; /* who may connect ("10.0.0.0/8"); none: everybody. Unix sockets are
                              guarded by their mode alone */
    unsigned n_networks;
    rk_accept_fn *fn;
    void *arg;
};

/* Resolves and binds at once; accepts from rk_listener_start on. Any thread. */
RK_MUST_CHECK enum rk_status rk_listener_new(struct rk_worker *worker,
                                             const struct rk_listener_config *config,
                                             struct rk_listener **out, struct rk_error *err);
/* On the worker's thread, or when it does not run. */
RK_MUST_CHECK enum rk_status rk_listener_start(struct rk_listener *listener);
/* The same; before it was started, any thread. */
void rk_listener_free(struct rk_listener *listener);

#endif
