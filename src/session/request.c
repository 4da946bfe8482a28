/*
 * Requests: forwarded as they come where no policy concerns them, rewritten where one does,
 * answered here where one forbids them.
 */
#include "session_internal.h"

#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <rekey/policy/reply.h>
#include <stdio.h>
#include <string.h>

/* Everything up to and including the OP_MSG flags. */
#define MSG_FLAGS_END 20u

/* What a request waits for its reply with, besides what rk_command_info says. */
struct expected {
    struct rk_hello_offer offer;
    struct rk_reader reader;
};

/* Remembers a request, unless its flags say that it gets no reply, and takes what its reply needs
 * from info and expected. False when out of memory. */
static bool expect_reply(struct rk_session *session, const struct rk_frame *frame, uint32_t flags,
                         const struct rk_command_info *info, struct expected *expected)
{
    struct rk_readers *readers = session->ctx->readers;
    if ((flags & RK_MSG_MORE_TO_COME) != 0) {
        rk_write_errors_free(info->write_errors);
        return true;
    }
    struct rk_pending *pending = rk_pending_push(&session->pending);
    if (pending == NULL) {
        rk_write_errors_free(info->write_errors);
        if (readers != NULL) {
            rk_readers_leave(readers, &expected->reader);
        }
        rk_session_close(session, "session_out_of_memory", "no memory for a pending request");
        return false;
    }
    pending->expected = frame->request_id;
    pending->sent_us = rk_clock_mono_us();
    pending->info = *info;
    pending->reader = expected->reader;
    pending->readers = readers;
    if (readers != NULL && info->cursor_id != 0 && info->reply == RK_REPLY_SCAN) {
        rk_readers_enter_cursor(readers, info->cursor_id, pending->sent_us, &pending->reader);
    }
    pending->exhaust = (flags & RK_MSG_EXHAUST_ALLOWED) != 0;
    pending->compressor = session->compression.request;
    pending->offer = expected->offer;
    if (info->policy != NULL || info->reply == RK_REPLY_SCAN) {
        pending->policies = rk_policy_set_ref(session->ctx->policies);
    }
    return true;
}

static enum rk_step send_replacement(struct rk_session *session)
{
    const struct rk_session_compression *c = &session->compression;
    const struct rk_buf *out = &session->ctx->out;
    rk_counter_add(&session->ctx->counters.rewritten, 1);
    return rk_compressed_send(session, &session->upstream,
                              rk_compressed_choice(&c->upstream, c->request), out->data, out->len)
               ? RK_STEP_DONE
               : RK_STEP_CLOSE;
}

/* A refused request. Without a reply channel (w:0) it can only be dropped: never forwarded. */
static enum rk_step refuse(struct rk_session *session, const struct rk_frame *frame, bool has_reply,
                           const struct rk_command_info *info, const struct rk_error *err)
{
    rk_log(has_reply ? RK_LOG_DEBUG : RK_LOG_WARN,
           has_reply ? "request_refused" : "unacknowledged_request_dropped",
           RK_S("client", session->peer), RK_S("command", info->name), RK_S("db", info->db),
           RK_S("collection", info->coll), RK_I("code", err->code), RK_S("reason", err->message));
    rk_tally_add(&session->ctx->counters.refused, err->code);
    return has_reply ? rk_reply_local(session, frame, err) : RK_STEP_DONE;
}

/* Sends on what no policy concerns. Only the compressors that a hello offers may have to change
 * (it is whole then). */
static enum rk_step go_on(struct rk_session *session, const uint8_t *data,
                          const struct rk_frame *frame, uint32_t flags,
                          const struct rk_command_info *info, struct expected *expected)
{
    const struct rk_session_compression *c = &session->compression;
    struct rk_buf *out = &session->ctx->out;
    struct rk_error err = {0};
    rk_buf_clear(out);
    if (info->reply == RK_REPLY_HELLO && rk_hello_refused(data, frame->len, &err)) {
        return refuse(session, frame, (flags & RK_MSG_MORE_TO_COME) == 0, info, &err);
    }
    if (info->reply == RK_REPLY_HELLO &&
        rk_hello_offer(&c->client_allowed, &c->upstream_allowed, data, frame->len, out,
                       &expected->offer) != RK_OK) {
        rk_session_close(session, "session_out_of_memory", "no memory for a hello");
        return RK_STEP_CLOSE;
    }
    if (!expect_reply(session, frame, flags, info, expected)) {
        return RK_STEP_CLOSE;
    }
    if (out->len > 0) {
        return send_replacement(session);
    }
    rk_counter_add(&session->ctx->counters.forwarded, 1);
    return RK_STEP_PASS;
}

/* Statements of an unacknowledged batch that go nowhere: nobody else would ever learn of them. */
static void log_dropped(struct rk_session *session, const struct rk_command_info *info)
{
    size_t n = rk_write_errors_count(info->write_errors);
    if (n > 0) {
        rk_log(RK_LOG_WARN, "unacknowledged_statements_dropped", RK_S("client", session->peer),
               RK_S("command", info->name), RK_S("db", info->db), RK_S("collection", info->coll),
               RK_I("statements", (int64_t)n));
    }
}

/* Does its cursor wait for what is to come? One that is mistaken for a finite one holds the next
 * key up, no more. */
static bool is_endless(const struct rk_msg *msg)
{
    struct rk_bson_view body, pipeline, stage;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    if (!rk_bson_view_init(&body, msg->body, msg->body_len)) {
        return false;
    }
    if (rk_bson_find(&body, "tailable", &elem)) {
        return rk_bson_elem_truthy(&elem);
    }
    if (!rk_bson_find(&body, "pipeline", &elem) || !rk_bson_elem_view(&elem, &pipeline)) {
        return false;
    }
    rk_bson_iter_init(&iter, &pipeline);
    return rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && rk_bson_elem_view(&elem, &stage) &&
           rk_bson_find(&stage, "$changeStream", &elem);
}

/* Rewrites a request for the present keys, and takes a place among their readers for it. */
static enum rk_verdict rewrite(struct rk_session *session, const uint8_t *data,
                               const struct rk_frame *frame, const struct rk_msg *msg,
                               struct rk_command_info *info, struct rk_reader *reader,
                               struct rk_error *err)
{
    struct rk_context *ctx = session->ctx;
    bool has_reply = (msg->flags & RK_MSG_MORE_TO_COME) == 0;
    for (;;) {
        rk_key_wait_prepare(session, &session->request);
        enum rk_verdict verdict = rk_command_rewrite(ctx->policies, &ctx->crypt, data, frame->len,
                                                     msg, &ctx->out, info, err);
        bool goes_on = verdict == RK_VERDICT_FORWARD || verdict == RK_VERDICT_REPLACE;
        if (!goes_on || !info->keys_bound || !has_reply ||
            rk_readers_enter(ctx->readers, ctx->keys_generation, is_endless(msg), reader)) {
            return verdict;
        }
        /* A key has come meanwhile. */
        rk_write_errors_free(info->write_errors);
        *info = (struct rk_command_info){.write_errors = NULL};
    }
}

/* A complete OP_MSG that peeking could not decide on. */
static enum rk_step whole_msg(struct rk_session *session, const uint8_t *data,
                              const struct rk_frame *frame)
{
    struct rk_msg msg;
    const char *why = "";
    if (rk_msg_parse(data, frame->len, &msg, &why) != RK_PARSE_OK) {
        rk_session_close(session, "session_malformed", why);
        return RK_STEP_CLOSE;
    }
    struct rk_command_info info = {0};
    struct rk_error err = {0};
    bool has_reply = (msg.flags & RK_MSG_MORE_TO_COME) == 0;
    if (rk_key_wait_failed(&session->request, &err)) {
        return refuse(session, frame, has_reply, &info, &err);
    }
    struct expected expected = {.offer.made = false};
    enum rk_verdict verdict = rewrite(session, data, frame, &msg, &info, &expected.reader, &err);
    rk_count_values(session->ctx);
    switch (verdict) {
    case RK_VERDICT_HOLD:
        return rk_key_wait_start(session, &session->request);
    case RK_VERDICT_REJECT:
        return refuse(session, frame, has_reply, &info, &err);
    case RK_VERDICT_FORWARD:
    case RK_VERDICT_REPLACE:
        break;
    }
    if (info.warning != NULL) {
        rk_log(RK_LOG_WARN, "request_warning", RK_S("client", session->peer),
               RK_S("command", info.name), RK_S("db", info.db), RK_S("collection", info.coll),
               RK_S("reason", info.warning));
    }
    if (!has_reply) {
        log_dropped(session, &info);
    }
    if (verdict == RK_VERDICT_FORWARD) {
        return go_on(session, data, frame, msg.flags, &info, &expected);
    }
    return expect_reply(session, frame, msg.flags, &info, &expected) ? send_replacement(session)
                                                                     : RK_STEP_CLOSE;
}

static void forget_killed(struct rk_session *session, const uint8_t *body, uint32_t len)
{
    struct rk_bson_view view, list;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    int64_t id;
    if (!rk_bson_view_init(&view, body, len) || !rk_bson_find(&view, "cursors", &elem) ||
        !rk_bson_elem_view(&elem, &list)) {
        return;
    }
    rk_bson_iter_init(&iter, &list);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (rk_bson_elem_int(&elem, &id)) {
            rk_readers_forget_cursor(session->ctx->readers, id);
        }
    }
}

static enum rk_step op_msg(struct rk_session *session, const uint8_t *data, size_t avail,
                           const struct rk_frame *frame)
{
    const uint8_t *body;
    uint32_t body_len;
    struct rk_command_info info = {0};
    size_t within = avail < frame->len ? avail : frame->len;
    if (within >= MSG_FLAGS_END && rk_msg_peek_body(data, within, &body, &body_len) &&
        rk_command_peek(session->ctx->policies, body, body_len, &info) &&
        (info.reply != RK_REPLY_HELLO || avail >= frame->len)) {
        if (session->ctx->readers != NULL && strcmp(info.name, "killCursors") == 0) {
            forget_killed(session, body, body_len);
        }
        struct expected expected = {.offer.made = false};
        return go_on(session, data, frame, rk_load_u32(data + RK_FRAME_HEADER_LEN), &info,
                     &expected);
    }
    return avail < frame->len ? RK_STEP_MORE : whole_msg(session, data, frame);
}

static enum rk_step older_opcode(struct rk_session *session, const uint8_t *data, size_t avail,
                                 const struct rk_frame *frame)
{
    struct rk_command_info info = {0};
    struct rk_error err = {0};
    bool has_reply = frame->opcode == RK_OP_QUERY || frame->opcode == RK_OP_GET_MORE;
    if (avail < frame->len) {
        return RK_STEP_MORE;
    }
    enum rk_verdict verdict =
        rk_command_legacy_opcode(session->ctx->policies, data, frame->len, &info, &err);
    if (verdict != RK_VERDICT_FORWARD) {
        if (frame->opcode == RK_OP_QUERY) {
            return refuse(session, frame, true, &info, &err);
        }
        /* The others have no error reply that every driver would read: the end is the answer. */
        rk_session_close(session, "session_refused", err.message);
        return RK_STEP_CLOSE;
    }
    struct expected expected = {.offer.made = false};
    return go_on(session, data, frame, has_reply ? 0 : RK_MSG_MORE_TO_COME, &info, &expected);
}

/* Any request but a compressed one. */
static enum rk_step plain(struct rk_session *session, const uint8_t *data, size_t avail,
                          const struct rk_frame *frame)
{
    return frame->opcode == RK_OP_MSG ? op_msg(session, data, avail, frame)
                                      : older_opcode(session, data, avail, frame);
}

static enum rk_step compressed(struct rk_session *session, const uint8_t *data, size_t avail,
                               const struct rk_frame *frame)
{
    struct rk_compressed inner;
    enum rk_step step = rk_compressed_look(session, &session->request, data, avail, &inner);
    if (step != RK_STEP_DONE) {
        return step;
    }
    if (avail < frame->len) {
        return RK_STEP_MORE;
    }
    session->compression.request = inner.compressor;
    return rk_compressed_message(session, &session->request, data, frame, &inner, plain);
}

enum rk_step rk_request_message(struct rk_session *session, const uint8_t *data, size_t avail,
                                const struct rk_frame *frame)
{
    /* A request that waited for its key had its place already. */
    if (session->request.key_wait == NULL &&
        session->pending.count >= session->ctx->limits.pipeline_max) {
        return RK_STEP_WAIT;
    }
    session->compression.request = RK_COMPRESSOR_NOOP;
    enum rk_step step = frame->opcode == RK_OP_COMPRESSED ? compressed(session, data, avail, frame)
                                                          : plain(session, data, avail, frame);
    if (step != RK_STEP_MORE) {
        session->greeted = true; /* also when it waits: this member is the one that will get it */
    }
    return step;
}
