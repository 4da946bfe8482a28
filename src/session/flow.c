/*
 * Moving bytes from one side to the other. What a read brings is looked at where it lies, in the
 * worker's scratch memory; only the start of a message that is not complete (or has to wait) is
 * copied into the flow's own buffer, which is given back when the message has gone on.
 */
#include "session_internal.h"

#include <rekey/base/clock.h>
#include <rekey/wire/proxy_header.h>

/* Reads in one turn of the loop, so that one busy connection does not starve the others. */
#define READS_PER_TURN 4
/* A worker's rewriting buffer that has grown past this is given back after use. */
#define OUT_KEEP_BYTES (4u * 1024u * 1024u)

/* Sends on what may pass of data; false when the session was closed. */
static bool pass(struct rk_session *session, struct rk_flow *flow, const uint8_t *data, size_t len)
{
    if (rk_conn_send(flow->to, data, len) != RK_OK) {
        rk_session_close(session, "session_send_failed", flow->to->stream.why);
        return false;
    }
    flow->pass_left -= (uint32_t)len;
    if (flow->pass_left == 0 && flow->on_passed != NULL) {
        flow->on_passed(session);
    }
    return !session->closed;
}

/* Why what lies at data is no message. */
static const char *bad_length(const struct rk_session *session, const struct rk_flow *flow,
                              const uint8_t *data, size_t len)
{
    if (flow == &session->reply) {
        return "upstream sent a message length outside the limits";
    }
    if (!session->greeted && session->ctx->proxy_header_max == 0 &&
        rk_proxy_header_begins(data, len)) {
        return "client began with a PROXY header, but listener.proxy_protocol is off";
    }
    return "client sent a message length outside the limits";
}

/* Handles as many messages of data as there are; returns the bytes dealt with. */
static size_t pump(struct rk_session *session, struct rk_flow *flow, const uint8_t *data,
                   size_t len)
{
    size_t off = 0;
    while (off < len && !session->closed && !flow->waiting && !session->last_words) {
        if (flow->pass_left > 0) {
            size_t n = len - off < flow->pass_left ? len - off : flow->pass_left;
            if (!pass(session, flow, data + off, n)) {
                return off;
            }
            off += n;
            continue;
        }
        struct rk_frame frame;
        enum rk_parse parse =
            rk_frame_parse(data + off, len - off, session->ctx->limits.message_bytes_max, &frame);
        if (parse == RK_PARSE_MALFORMED) {
            rk_session_close(session, "session_malformed",
                             bad_length(session, flow, data + off, len - off));
            return off;
        }
        if (parse == RK_PARSE_INCOMPLETE) {
            return off;
        }
        switch (flow->on_message(session, data + off, len - off, &frame)) {
        case RK_STEP_MORE:
        case RK_STEP_CLOSE:
            return off;
        case RK_STEP_WAIT:
            flow->waiting = true;
            return off;
        case RK_STEP_PASS:
            flow->pass_left = frame.len;
            break;
        case RK_STEP_DONE:
            off += frame.len;
            break;
        }
        rk_counter_add(flow->messages, 1);
        rk_counter_add(flow->bytes, frame.len);
        /* What this message waited for does not concern the next one. */
        rk_key_wait_cancel(session, flow);
        flow->n_absent = 0;
    }
    return off;
}

/* Pumps what the flow's own buffer holds. */
static void pump_buffered(struct rk_session *session, struct rk_flow *flow)
{
    if (flow->in.len == 0) {
        return;
    }
    size_t done = pump(session, flow, flow->in.data, flow->in.len);
    if (session->closed) {
        return;
    }
    rk_buf_consume(&flow->in, done);
    if (flow->in.len == 0) {
        rk_buf_deinit(&flow->in);
    }
}

/* One read. False when there is nothing more to do in this turn. */
static bool read_once(struct rk_session *session, struct rk_flow *flow)
{
    struct rk_context *ctx = session->ctx;
    uint8_t *into = ctx->scratch;
    size_t cap = RK_SCRATCH_BYTES;
    size_t n = 0;
    if (flow->in.len > 0) {
        if (rk_buf_reserve(&flow->in, RK_SCRATCH_BYTES) != RK_OK) {
            rk_session_close(session, "session_out_of_memory", "no memory for a message");
            return false;
        }
        into = flow->in.data + flow->in.len;
        cap = flow->in.cap - flow->in.len;
    }
    switch (rk_conn_read(flow->from, into, cap, &n)) {
    case RK_IO_WAIT:
        return false;
    case RK_IO_EOF:
        flow->eof = true;
        return false;
    case RK_IO_FAIL:
        rk_session_close(session, "session_read_failed", flow->from->stream.why);
        return false;
    case RK_IO_OK:
        break;
    }
    if (flow->in.len > 0) {
        flow->in.len += n;
        pump_buffered(session, flow);
    } else {
        size_t done = pump(session, flow, ctx->scratch, n);
        if (!session->closed && rk_buf_append(&flow->in, ctx->scratch + done, n - done) != RK_OK) {
            rk_session_close(session, "session_out_of_memory", "no memory for a message");
        }
    }
    return !session->closed && n == cap;
}

/* The memory of large messages, at the end of a turn. */
static void give_back(struct rk_context *ctx)
{
    struct rk_buf *bufs[] = {&ctx->inflated, &ctx->out, &ctx->packed};
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++) {
        if (bufs[i]->cap > OUT_KEEP_BYTES) {
            rk_buf_deinit(bufs[i]);
        }
    }
}

void rk_flow_readable(struct rk_session *session, struct rk_flow *flow)
{
    if (session->closed || flow->waiting || flow->eof) {
        return;
    }
    session->active_us = rk_clock_mono_us();
    for (int i = 0; i < READS_PER_TURN && flow->from->reading; i++) {
        if (!read_once(session, flow)) {
            break;
        }
        rk_flow_update(session);
    }
    rk_flow_update(session);
    give_back(session->ctx);
}

void rk_flow_resume(struct rk_session *session, struct rk_flow *flow)
{
    if (session->closed) {
        return;
    }
    flow->waiting = false;
    pump_buffered(session, flow);
    rk_flow_update(session);
    give_back(session->ctx);
}

void rk_flow_drained(struct rk_session *session, struct rk_flow *flow)
{
    if (!session->closed && flow->waiting && !rk_key_wait_pending(flow) &&
        rk_conn_unsent(flow->to) <= session->ctx->limits.buffer_high_bytes) {
        rk_flow_resume(session, flow);
    }
}

static bool may_read(const struct rk_session *session, const struct rk_flow *flow)
{
    return !flow->eof && !flow->waiting && !session->last_words &&
           session->client.state == RK_CONN_OPEN && session->upstream.state == RK_CONN_OPEN;
}

void rk_flow_update(struct rk_session *session)
{
    if (session->closed) {
        return;
    }
    size_t high = session->ctx->limits.buffer_high_bytes;
    bool client_full = rk_conn_unsent(&session->client) > high;
    bool upstream_full = rk_conn_unsent(&session->upstream) > high;
    /* A client that does not read is not read from either: refusals are answered from here. */
    rk_conn_set_reading(&session->client,
                        may_read(session, &session->request) && !client_full && !upstream_full);
    rk_conn_set_reading(&session->upstream, may_read(session, &session->reply) && !client_full);
    /* An end is passed on as a half-close, so that what the other side still says gets through. */
    if (session->request.eof && !session->request.waiting &&
        session->upstream.state == RK_CONN_OPEN) {
        rk_conn_shutdown_write(&session->upstream);
    }
    if (session->reply.eof && !session->reply.waiting) {
        rk_session_close_after_flush(session);
    } else if ((session->ctx->draining || session->retiring) && rk_session_idle(session)) {
        rk_session_close_after_flush(session);
    }
}
