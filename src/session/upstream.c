/*
 * The upstream side of a session: which server its route leads to, connecting, waiting for a
 * server where none has the route's role, and what becomes of a session whose route now leads
 * elsewhere.
 */
#include "session_internal.h"

#include <errno.h>
#include <rekey/base/clock.h>
#include <rekey/net/socket.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* How soon a connection that is held looks for a server again, if no new routes come before. */
#define RETRY_MS 500u

static int connect_socket(const struct rk_sockaddr *address, bool *connected)
{
    int fd = socket(address->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    rk_socket_tune(fd);
    *connected = connect(fd, (const struct sockaddr *)&address->addr, address->len) == 0;
    if (!*connected && errno != EINPROGRESS) {
        int saved = errno;
        (void)close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static bool adopt_upstream(struct rk_session *session, int fd, bool connected)
{
    struct rk_context *ctx = session->ctx;
    struct rk_stream stream;
    if (ctx->upstream_tls == NULL) {
        rk_stream_init_plain(&stream, fd);
    } else if (rk_stream_init_tls(&stream, fd, ctx->upstream_tls, session->endpoint->host) !=
               RK_OK) {
        (void)close(fd);
        return false;
    }
    if (rk_conn_init(&session->upstream, ctx->base, &stream, connected, rk_session_out_max(ctx),
                     ctx->limits.buffer_low_bytes, &rk_session_upstream_handlers,
                     session) != RK_OK) {
        return false;
    }
    rk_session_set_timer(session, ctx->limits.connect_timeout_ms);
    rk_conn_start(&session->upstream);
    return true;
}

static void forget_endpoint(struct rk_session *session)
{
    rk_endpoint_unref(session->endpoint);
    session->endpoint = NULL;
    session->sockaddr_next = 0;
}

void rk_upstream_deinit(struct rk_session *session)
{
    rk_conn_deinit(&session->upstream);
    forget_endpoint(session);
}

/* Nobody can be reached. A member is down: its client must know. A role will have somebody again,
 * and a driver that is held for an election sees no error of it. */
static void wait_for_server(struct rk_session *session, const struct rk_route *route,
                            const char *why)
{
    uint64_t waited_ms = (rk_clock_mono_us() - session->ready_us) / 1000;
    uint64_t wait_ms = session->ctx->limits.server_wait_timeout_ms;
    if (route->role == RK_ROLE_MEMBER || waited_ms >= wait_ms) {
        rk_session_close(session, "upstream_unreachable",
                         why != NULL ? why
                                     : "no server with the role of this listener within "
                                       "limits.server_wait_timeout_ms");
        return;
    }
    rk_session_set_timer(session, wait_ms - waited_ms < RETRY_MS ? wait_ms - waited_ms : RETRY_MS);
}

/* Takes the next server that the route names; the last one stays, for the log. */
static bool next_endpoint(struct rk_session *session, const struct rk_route *route)
{
    struct rk_endpoint *endpoint = rk_route_pick(route, session->peer, session->choice);
    if (endpoint == NULL) {
        return false;
    }
    forget_endpoint(session);
    session->choice++;
    session->endpoint = rk_endpoint_ref(endpoint);
    return true;
}

void rk_upstream_next(struct rk_session *session, const char *why)
{
    const struct rk_route *route = rk_routes_find(session->ctx->routes, session->route_id);
    rk_conn_deinit(&session->upstream);
    if (route == NULL) {
        rk_session_close(session, NULL, NULL); /* its listener is gone */
        return;
    }
    do {
        while (session->endpoint != NULL && session->sockaddr_next < session->endpoint->n) {
            bool connected = false;
            int fd =
                connect_socket(&session->endpoint->sockaddrs[session->sockaddr_next++], &connected);
            if (fd < 0) {
                why = strerror(errno);
            } else if (adopt_upstream(session, fd, connected)) {
                return;
            } else {
                why = "no memory or no TLS";
            }
        }
        if (session->endpoint != NULL && session->endpoint->n == 0) {
            why = "its name does not resolve";
        }
    } while (next_endpoint(session, route));
    wait_for_server(session, route, why);
}

void rk_upstream_connect(struct rk_session *session)
{
    forget_endpoint(session);
    session->choice = 0;
    rk_upstream_next(session, NULL);
}

void rk_upstream_reroute(struct rk_session *session)
{
    if (session->client.state != RK_CONN_OPEN) {
        return; /* it will connect to whatever there is then */
    }
    const struct rk_route *route = rk_routes_find(session->ctx->routes, session->route_id);
    const struct rk_endpoint *wanted =
        route != NULL ? rk_route_pick(route, session->peer, 0) : NULL;
    bool stays = wanted != NULL && session->upstream.state != RK_CONN_IDLE &&
                 strcmp(wanted->address, session->endpoint->address) == 0;
    if (stays) {
        return;
    }
    if (session->greeted) {
        rk_session_retire(session);
    } else {
        rk_upstream_connect(session); /* nothing has been said to the other one yet */
        rk_flow_update(session);
    }
}
