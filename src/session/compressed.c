/*
 * OP_COMPRESSED on either side. What a policy may concern is unpacked into the worker's memory and
 * handled like any other message; where the verdict is to forward it and the other side has
 * negotiated the same compressor, the bytes go on as they came. What Rekey writes itself is
 * compressed as the message that it stands for was: the request that it replaces or answers.
 */
#include "session_internal.h"

#include <assert.h>
#include <stdio.h>

static void close_malformed(struct rk_session *session, const struct rk_flow *flow,
                            const char *what)
{
    char why[128];
    (void)snprintf(why, sizeof why, "%s sent a compressed message %s",
                   flow == &session->request ? "client" : "upstream", what);
    rk_session_close(session, "session_malformed", why);
}

/* A client keeps to what it was told. A member may use what it likes: mongod answers in the
 * compressor of the request, negotiated or not. */
static bool may_send(const struct rk_session *session, const struct rk_flow *flow, uint8_t id)
{
    return flow == &session->reply || rk_compressors_has(&session->compression.client, id);
}

enum rk_step rk_compressed_look(struct rk_session *session, const struct rk_flow *flow,
                                const uint8_t *data, size_t avail, struct rk_compressed *compressed)
{
    const char *why = "";
    switch (rk_compressed_parse(data, avail, session->ctx->limits.message_bytes_max, compressed,
                                &why)) {
    case RK_PARSE_INCOMPLETE:
        return RK_STEP_MORE;
    case RK_PARSE_MALFORMED:
        break;
    case RK_PARSE_OK:
        if (may_send(session, flow, compressed->compressor)) {
            return RK_STEP_DONE;
        }
        why = "in a compressor that was not negotiated";
        break;
    }
    close_malformed(session, flow, why);
    return RK_STEP_CLOSE;
}

uint8_t rk_compressed_choice(const struct rk_compressors *negotiated, uint8_t wanted)
{
    if (wanted == RK_COMPRESSOR_NOOP || negotiated->n == 0) {
        return RK_COMPRESSOR_NOOP;
    }
    return rk_compressors_has(negotiated, wanted) ? wanted : negotiated->ids[0];
}

bool rk_compressed_worth(const struct rk_session *session, const struct rk_conn *to,
                         uint8_t compressor, size_t len)
{
    const struct rk_compression_settings *settings = &session->ctx->compression;
    size_t min = to == &session->client ? settings->message_bytes_min : 0;
    return compressor != RK_COMPRESSOR_NOOP && len >= min && len <= settings->message_bytes_max;
}

bool rk_compressed_send(struct rk_session *session, struct rk_conn *to, uint8_t compressor,
                        const uint8_t *data, size_t len)
{
    struct rk_context *ctx = session->ctx;
    /* Where packing fails (memory) or does not pay, plain bytes are as good. A request pays even if
     * it grows: mongod compresses its reply if the request was. */
    if (rk_compressed_worth(session, to, compressor, len) &&
        rk_codec_pack(ctx->codec, (enum rk_compressor)compressor, &ctx->compression.levels, data,
                      len, &ctx->packed) == RK_OK &&
        (to == &session->upstream || ctx->packed.len < len)) {
        data = ctx->packed.data;
        len = ctx->packed.len;
    }
    if (rk_conn_send(to, data, len) != RK_OK) {
        rk_session_close(session, "session_send_failed", to->stream.why);
        return false;
    }
    return true;
}

/* Sends on a message whose verdict is to pass: as it came (outer), or what was inside. */
static enum rk_step forward(struct rk_session *session, struct rk_flow *flow,
                            const struct rk_frame *outer, const uint8_t *data, uint8_t compressor)
{
    const struct rk_buf *inner = &session->ctx->inflated;
    const struct rk_compressors *negotiated =
        flow == &session->request ? &session->compression.upstream : &session->compression.client;
    uint8_t choice = rk_compressed_choice(negotiated, compressor);
    bool as_it_came = choice == compressor && compressor != RK_COMPRESSOR_NOOP;
    bool sent = as_it_came
                    ? rk_compressed_send(session, flow->to, RK_COMPRESSOR_NOOP, data, outer->len)
                    : rk_compressed_send(session, flow->to, choice, inner->data, inner->len);
    if (sent && flow->on_passed != NULL) {
        flow->on_passed(session);
    }
    return session->closed ? RK_STEP_CLOSE : RK_STEP_DONE;
}

enum rk_step rk_compressed_message(struct rk_session *session, struct rk_flow *flow,
                                   const uint8_t *data, const struct rk_frame *outer,
                                   const struct rk_compressed *compressed,
                                   rk_message_handler handler)
{
    struct rk_context *ctx = session->ctx;
    /* One read may hold many messages that are large inside. */
    if (rk_conn_unsent(flow->to) > ctx->limits.buffer_high_bytes) {
        return RK_STEP_WAIT;
    }
    switch (rk_codec_unpack(ctx->codec, compressed, &ctx->inflated)) {
    case RK_OK:
        break;
    case RK_EINVAL:
        close_malformed(session, flow, "that is not what its head declares");
        return RK_STEP_CLOSE;
    default:
        rk_session_close(session, "session_out_of_memory", "no memory for a compressed message");
        return RK_STEP_CLOSE;
    }
    enum rk_step step = handler(session, ctx->inflated.data, ctx->inflated.len, &compressed->frame);
    assert(step != RK_STEP_MORE); /* it has all there is */
    return step == RK_STEP_PASS ? forward(session, flow, outer, data, compressed->compressor)
                                : step;
}
