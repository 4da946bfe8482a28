/*
 * The life of a session: accepted; the client's prologue (PROXY header, TLS); connected to its
 * member; open; closed; reaped. Whoever does not get through the prologue costs the member no
 * connection.
 *
 * Nobody frees a session inside a handler: rk_session_close marks it, closes its sockets and puts
 * it on the context's dead list; the reaper frees it when the loop's turn is over.
 */
#include "session_internal.h"

#include <errno.h>
#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <rekey/net/prologue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A rewritten message may be sent while the bytes up to the high watermark still wait. */
#define OUT_SLACK_BYTES (2u * RK_SCRATCH_BYTES)

void rk_session_set_timer(struct rk_session *session, uint64_t ms)
{
    if (ms == 0) {
        (void)event_del(&session->timer);
        return;
    }
    const struct timeval tv = {.tv_sec = (time_t)(ms / 1000),
                               .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    (void)event_add(&session->timer, &tv);
}

static bool is_open(const struct rk_session *session)
{
    return session->client.state == RK_CONN_OPEN && session->upstream.state == RK_CONN_OPEN;
}

static uint64_t quiet_ms(const struct rk_session *session)
{
    return (rk_clock_mono_us() - session->active_us) / 1000;
}

static uint32_t ending_ms(const struct rk_session *session)
{
    uint32_t ms = session->ctx->limits.drain_timeout_ms;
    return ms > 0 ? ms : 1;
}

/* One side has ended: the rest may take its time, but not stand still. */
static void expect_end(struct rk_session *session)
{
    session->unsent_seen = rk_conn_unsent(&session->client);
    rk_session_set_timer(session, ending_ms(session));
}

static void on_ending(struct rk_session *session)
{
    if (rk_conn_unsent(&session->client) == session->unsent_seen &&
        quiet_ms(session) >= ending_ms(session)) {
        rk_session_close(session, "session_timeout",
                         session->last_words    ? "client does not take its last reply"
                         : session->request.eof ? "client left and the member did not answer"
                                                : "the member did not answer before its "
                                                  "connections were given up");
    } else {
        expect_end(session);
    }
}

static void on_unopened(struct rk_session *session)
{
    if (session->client.state != RK_CONN_OPEN) {
        rk_session_close(session, "session_timeout", "client PROXY header or TLS handshake");
    } else if (session->upstream.state == RK_CONN_IDLE) {
        rk_upstream_connect(session);
    } else {
        rk_upstream_next(session, "no connection within limits.connect_timeout_ms");
    }
}

/* One timer serves the phases in turn: the client's prologue, connecting, the first message,
 * idleness, and the last words after either side has ended. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct rk_session *session = arg;
    if (!is_open(session)) {
        on_unopened(session);
        return;
    }
    if (session->last_words || session->request.eof || session->retiring) {
        on_ending(session);
        return;
    }
    if (!session->greeted) {
        rk_session_close(session, "session_timeout", "no complete first message");
        return;
    }
    uint64_t idle_ms = session->ctx->limits.idle_timeout_ms;
    uint64_t quiet = quiet_ms(session);
    if (idle_ms == 0 || session->pending.count > 0 || session->request.waiting) {
        rk_session_set_timer(session, idle_ms);
    } else if (quiet >= idle_ms) {
        rk_session_close(session, "session_idle", NULL);
    } else {
        rk_session_set_timer(session, idle_ms - quiet);
    }
}

size_t rk_session_out_max(const struct rk_context *ctx)
{
    return (size_t)ctx->limits.buffer_high_bytes + ctx->limits.message_bytes_max + OUT_SLACK_BYTES;
}

static void on_client_opened(void *owner)
{
    struct rk_session *session = owner;
    session->ready_us = rk_clock_mono_us();
    rk_upstream_connect(session);
}

static void on_upstream_opened(void *owner)
{
    struct rk_session *session = owner;
    session->active_us = rk_clock_mono_us();
    rk_session_set_timer(session, session->ctx->limits.handshake_timeout_ms);
    rk_flow_update(session);
}

static void on_client_readable(void *owner)
{
    struct rk_session *session = owner;
    bool greeted = session->greeted;
    rk_flow_readable(session, &session->request);
    if (session->closed || session->last_words) {
        return;
    }
    if (session->request.eof) {
        /* mongod ends the connection when it sees the end; a member that hangs does not. */
        expect_end(session);
    } else if (!greeted && session->greeted && !session->retiring) {
        rk_session_set_timer(session, session->ctx->limits.idle_timeout_ms);
    }
}

static void on_upstream_readable(void *owner)
{
    struct rk_session *session = owner;
    rk_flow_readable(session, &session->reply);
}

static void on_drained(void *owner)
{
    struct rk_session *session = owner;
    if (session->last_words && rk_conn_unsent(&session->client) == 0) {
        rk_session_close(session, NULL, NULL);
        return;
    }
    rk_flow_drained(session, &session->request);
    rk_flow_drained(session, &session->reply);
    rk_flow_update(session);
}

static void on_client_failed(void *owner, const char *why)
{
    rk_session_close(owner, "client_failed", why);
}

static void on_upstream_failed(void *owner, const char *why)
{
    struct rk_session *session = owner;
    if (session->upstream.state == RK_CONN_OPEN) {
        rk_session_close(session, "upstream_failed", why);
        return;
    }
    char reason[sizeof session->upstream.stream.why];
    (void)snprintf(reason, sizeof reason, "%s", why);
    rk_upstream_next(session, reason);
}

static const struct rk_conn_handlers client_handlers = {
    .opened = on_client_opened,
    .readable = on_client_readable,
    .drained = on_drained,
    .failed = on_client_failed,
};

const struct rk_conn_handlers rk_session_upstream_handlers = {
    .opened = on_upstream_opened,
    .readable = on_upstream_readable,
    .drained = on_drained,
    .failed = on_upstream_failed,
};

static void flow_init(struct rk_flow *flow, struct rk_conn *from, struct rk_conn *to,
                      const struct rk_context *ctx)
{
    *flow = (struct rk_flow){.from = from, .to = to};
    rk_buf_init(&flow->in, (size_t)ctx->limits.message_bytes_max + OUT_SLACK_BYTES);
}

bool rk_session_admit(struct rk_context *ctx, const char *peer)
{
    if (atomic_fetch_add(ctx->sessions_total, 1) < ctx->limits.connections_max) {
        return true;
    }
    (void)atomic_fetch_sub(ctx->sessions_total, 1);
    rk_counter_add(&ctx->counters.turned_away, 1);
    rk_log(RK_LOG_WARN, "connection_refused", RK_S("client", peer),
           RK_S("reason", "limits.connections_max is reached"),
           RK_I("connections_max", ctx->limits.connections_max));
    return false;
}

void rk_session_leave(struct rk_context *ctx)
{
    (void)atomic_fetch_sub(&ctx->load, 1);
    (void)atomic_fetch_sub(ctx->sessions_total, 1);
}

static bool adopt_client(struct rk_session *session, int fd)
{
    struct rk_context *ctx = session->ctx;
    struct rk_stream stream;
    if (ctx->listener_tls == NULL) {
        rk_stream_init_plain(&stream, fd);
    } else if (rk_stream_init_tls(&stream, fd, ctx->listener_tls, NULL) != RK_OK) {
        (void)close(fd);
        return false;
    }
    if (ctx->proxy_header_max > 0 &&
        rk_stream_expect_proxy(&stream, ctx->proxy_header_max, session->peer) != RK_OK) {
        rk_stream_deinit(&stream);
        return false;
    }
    return rk_conn_init(&session->client, ctx->base, &stream, true, rk_session_out_max(ctx),
                        ctx->limits.buffer_low_bytes, &client_handlers, session) == RK_OK;
}

void rk_session_accept(struct rk_context *ctx, unsigned route_id, int fd, const char *peer)
{
    struct rk_session *session = ctx->draining ? NULL : calloc(1, sizeof *session);
    if (session == NULL) {
        rk_session_leave(ctx);
        (void)close(fd);
        return;
    }
    session->ctx = ctx;
    session->route_id = route_id;
    session->compression.client_allowed = ctx->compression.client;
    session->compression.upstream_allowed = ctx->compression.upstream;
    session->client.stream.fd = -1;
    session->upstream.stream.fd = -1;
    (void)snprintf(session->peer, sizeof session->peer, "%s", peer);
    rk_counter_add(&ctx->counters.accepted, 1);
    flow_init(&session->request, &session->client, &session->upstream, ctx);
    session->request.messages = &ctx->counters.client_messages;
    session->request.bytes = &ctx->counters.client_bytes;
    session->request.on_message = rk_request_message;
    flow_init(&session->reply, &session->upstream, &session->client, ctx);
    session->reply.messages = &ctx->counters.upstream_messages;
    session->reply.bytes = &ctx->counters.upstream_bytes;
    session->reply.on_message = rk_reply_message;
    session->reply.on_passed = rk_reply_passed;
    (void)event_assign(&session->timer, ctx->base, -1, 0, on_timer, session);
    TAILQ_INSERT_TAIL(&ctx->sessions, session, link);
    if (!adopt_client(session, fd)) {
        rk_session_close(session, "session_out_of_memory", "no memory for a connection");
        return;
    }
    rk_session_set_timer(session, ctx->limits.handshake_timeout_ms);
    rk_conn_start(&session->client);
}

bool rk_session_idle(const struct rk_session *session)
{
    /* A streaming hello waits for news that may never come: it holds nothing up. */
    bool waits =
        session->pending.count > 1 ||
        (session->pending.count == 1 && session->pending.first.info.reply != RK_REPLY_HELLO);
    /* Requests without a reply are done with when the member has them. */
    return !waits && session->request.in.len == 0 && session->request.pass_left == 0 &&
           session->reply.in.len == 0 && session->reply.pass_left == 0 &&
           rk_conn_unsent(&session->upstream) == 0;
}

void rk_session_close_after_flush(struct rk_session *session)
{
    if (session->client.state != RK_CONN_OPEN || rk_conn_unsent(&session->client) == 0) {
        rk_session_close(session, NULL, NULL);
        return;
    }
    if (session->last_words) {
        return;
    }
    session->last_words = true;
    rk_conn_set_reading(&session->client, false);
    rk_conn_set_reading(&session->upstream, false);
    expect_end(session);
}

void rk_session_retire(struct rk_session *session)
{
    if (session->closed || session->retiring) {
        return;
    }
    session->retiring = true;
    if (rk_session_idle(session)) {
        rk_session_close_after_flush(session);
    } else if (!session->last_words) {
        expect_end(session);
    }
}

void rk_session_close(struct rk_session *session, const char *event, const char *why)
{
    if (session->closed) {
        return;
    }
    struct rk_context *ctx = session->ctx;
    if (event != NULL) {
        rk_log(why != NULL ? RK_LOG_WARN : RK_LOG_INFO, event, RK_S("client", session->peer),
               RK_S("member", rk_session_member(session)), RK_S("reason", why));
        rk_count_end(&ctx->counters, event);
    }
    session->closed = true;
    rk_key_wait_cancel(session, &session->request);
    rk_key_wait_cancel(session, &session->reply);
    (void)event_del(&session->timer);
    rk_conn_deinit(&session->client);
    rk_upstream_deinit(session);
    TAILQ_REMOVE(&ctx->sessions, session, link);
    TAILQ_INSERT_TAIL(&ctx->dead, session, link);
    event_active(ctx->reap, EV_TIMEOUT, 1);
}

void rk_session_reap(struct rk_context *ctx)
{
    struct rk_session *session;
    while ((session = TAILQ_FIRST(&ctx->dead)) != NULL) {
        TAILQ_REMOVE(&ctx->dead, session, link);
        rk_pending_deinit(&session->pending);
        rk_buf_cleanse(&session->request.in);
        rk_buf_deinit(&session->request.in);
        rk_buf_deinit(&session->reply.in);
        free(session);
        rk_session_leave(ctx);
    }
}
