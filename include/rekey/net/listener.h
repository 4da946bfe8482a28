/*
 * A listening socket on a worker's loop. Every worker opens its own with SO_REUSEPORT, so that
 * the kernel spreads connections and no socket is shared.
 */
#ifndef REKEY_NET_LISTENER_H
#define REKEY_NET_LISTENER_H

#include <rekey/base/hostport.h>
#include <rekey/net/worker.h>

struct rk_listener;

/* fd: non-blocking, close-on-exec, TCP_NODELAY set; the callee owns it. peer: "address:port". */
typedef void rk_accept_fn(void *arg, int fd, const char *peer);

/* address: "host:port"; numeric or a name that resolves here. Resolves and binds at once (call it
 * before the worker starts). */
RK_MUST_CHECK enum rk_status rk_listener_new(struct rk_worker *worker, const char *address,
                                             int backlog, rk_accept_fn *fn, void *arg,
                                             struct rk_listener **out, struct rk_error *err);
/* On the worker's thread, or when it does not run. */
void rk_listener_free(struct rk_listener *listener);

#endif
