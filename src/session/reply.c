/*
 * Replies: matched to the request that they answer, decrypted or rewritten where that request
 * asked for it, forwarded as they come otherwise. Answers of our own wait here for their turn.
 */
#include "session_internal.h"

#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <rekey/policy/reply.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MSG_FLAGS_END 20u
#define LOCAL_REPLY_MAX 4096u
#define CODE_HOST_UNREACHABLE 6
#define CODE_CURSOR_NOT_FOUND 43
#define CODE_OPERATION_FAILED 96
/* How often hello replies with unknown members are logged, per worker. */
#define UNKNOWN_MEMBERS_LOG_US 60000000u

static bool send_client(struct rk_session *session, const void *data, size_t len)
{
    if (rk_conn_send(&session->client, data, len) != RK_OK) {
        rk_session_close(session, "session_send_failed", session->client.stream.why);
        return false;
    }
    return true;
}

/* Sends a reply that was made here, compressed as its request was. */
static enum rk_step send_reply(struct rk_session *session, const struct rk_pending *head,
                               const uint8_t *data, size_t len)
{
    uint8_t compressor = rk_compressed_choice(&session->compression.client, head->compressor);
    return rk_compressed_send(session, &session->client, compressor, data, len) ? RK_STEP_DONE
                                                                                : RK_STEP_CLOSE;
}

/* Sends our own answers that have come to the front of the queue. */
static bool send_locals(struct rk_session *session)
{
    struct rk_pending *head;
    while ((head = rk_pending_head(&session->pending)) != NULL && head->local) {
        if (!send_client(session, head->reply, head->reply_len)) {
            return false;
        }
        rk_pending_pop(&session->pending);
    }
    return true;
}

/* Is this request's round-trip a fair measure of how loaded the member is? */
static bool is_foreground(const struct rk_command_info *info)
{
    return info->klass != RK_CLASS_OTHER && strcmp(info->name, "getMore") != 0;
}

/* At the first sight of the reply: what decrypting it, keys and a slow client cost comes later. */
static void measure(struct rk_session *session, struct rk_pending *head)
{
    if (head->sent_us != 0 && is_foreground(&head->info)) {
        rk_histogram_record(&session->ctx->foreground, rk_clock_mono_us() - head->sent_us);
    }
    head->sent_us = 0;
}

/* The reply to the head of the queue is complete. */
static bool finish(struct rk_session *session, int32_t reply_id, bool more_to_come)
{
    struct rk_pending *head = rk_pending_head(&session->pending);
    if (more_to_come) {
        head->expected = reply_id;
        return true;
    }
    rk_pending_pop(&session->pending);
    if (!send_locals(session)) {
        return false;
    }
    if (session->request.waiting && !rk_key_wait_pending(&session->request)) {
        rk_flow_resume(session, &session->request);
    }
    return !session->closed;
}

enum rk_step rk_reply_local(struct rk_session *session, const struct rk_frame *request,
                            const struct rk_error *err)
{
    struct rk_buf reply;
    rk_buf_init(&reply, LOCAL_REPLY_MAX);
    enum rk_step step = RK_STEP_DONE;
    struct rk_pending *pending;
    enum rk_status status = request->opcode == RK_OP_QUERY
                                ? rk_reply_error_to_query(&reply, request->request_id, err)
                                : rk_reply_error(&reply, 0, request->request_id, err);
    if (status != RK_OK) {
        rk_session_close(session, "session_out_of_memory", "no memory for an error reply");
        step = RK_STEP_CLOSE;
    } else if (session->pending.count == 0) {
        step = send_client(session, reply.data, reply.len) ? RK_STEP_DONE : RK_STEP_CLOSE;
    } else if ((pending = rk_pending_push(&session->pending)) == NULL) {
        rk_session_close(session, "session_out_of_memory", "no memory for an error reply");
        step = RK_STEP_CLOSE;
    } else {
        pending->local = true;
        pending->reply = rk_buf_take(&reply, &pending->reply_len);
    }
    rk_buf_deinit(&reply);
    return step;
}

static enum rk_step rewrite_hello(struct rk_session *session, const struct rk_pending *head,
                                  const uint8_t *data, const struct rk_frame *frame)
{
    struct rk_context *ctx = session->ctx;
    struct rk_session_compression *compression = &session->compression;
    const struct rk_hello_offer *offer = &head->offer;
    bool caps = !rk_policy_set_empty(ctx->policies);
    const struct rk_route *route = rk_routes_find(ctx->routes, session->route_id);
    if (route == NULL) {
        rk_session_close(session, NULL, NULL); /* its listener is gone */
        return RK_STEP_CLOSE;
    }
    const struct rk_hello_rules rules = {
        .routes = ctx->routes,
        .route = route,
        .message_bytes_max = caps ? ctx->limits.advertised_message_bytes_max : 0,
        .batch_docs_max = caps ? ctx->limits.advertised_batch_docs_max : 0,
        .compression = offer->made ? offer->client : compression->client,
    };
    struct rk_hello_seen seen;
    if (rk_hello_rewrite(&rules, data, frame->len, &ctx->out, &seen) != RK_OK) {
        rk_session_close(session, "session_malformed", "upstream sent a malformed hello reply");
        return RK_STEP_CLOSE;
    }
    if (seen.ok && offer->made) {
        compression->client = offer->client;
        compression->upstream = rk_compressors_common(&offer->upstream, &seen.compression);
    }
    uint64_t now = rk_clock_mono_us();
    if (seen.unknown > 0 && now - ctx->unknown_members_logged_us > UNKNOWN_MEMBERS_LOG_US) {
        ctx->unknown_members_logged_us = now;
        rk_log(RK_LOG_WARN, "hello_unknown_members", RK_S("member", rk_session_member(session)),
               RK_I("left_out", seen.unknown),
               RK_S("advice", "add every member of the replica set to upstream.members, spelled "
                              "as in the replica set configuration"));
    }
    return send_reply(session, head, ctx->out.data, ctx->out.len);
}

/* A reply that cannot be decrypted becomes an error in the place of the data. */
static enum rk_step send_error(struct rk_session *session, const struct rk_frame *frame,
                               bool more_to_come, const struct rk_error *err)
{
    struct rk_context *ctx = session->ctx;
    rk_tally_add(&ctx->counters.replies_refused, err->code);
    rk_buf_clear(&ctx->out);
    if (rk_reply_error(&ctx->out, frame->request_id, frame->response_to, err) != RK_OK ||
        !send_client(session, ctx->out.data, ctx->out.len)) {
        rk_session_close(session, "session_out_of_memory", "no memory for an error reply");
        return RK_STEP_CLOSE;
    }
    if (more_to_come) {
        rk_session_close_after_flush(session); /* the stream behind it cannot be taken back */
    }
    return RK_STEP_DONE;
}

/* False: the reply is of an error, or has no cursor. */
static bool find_cursor(const struct rk_msg *msg, int64_t *id)
{
    struct rk_bson_view body, view;
    struct rk_bson_elem elem;
    return rk_bson_view_init(&body, msg->body, msg->body_len) &&
           rk_bson_find(&body, "cursor", &elem) && rk_bson_elem_view(&elem, &view) &&
           rk_bson_find(&view, "id", &elem) && rk_bson_elem_int(&elem, id);
}

/* Did the getMore end its cursor? */
static bool is_closed(const struct rk_msg *msg, bool there, int64_t id)
{
    struct rk_bson_view body;
    struct rk_bson_elem elem;
    int64_t code = 0;
    if (there) {
        return id == 0;
    }
    return rk_bson_view_init(&body, msg->body, msg->body_len) &&
           rk_bson_find(&body, "code", &elem) && rk_bson_elem_int(&elem, &code) &&
           code == CODE_CURSOR_NOT_FOUND;
}

static bool is_error(const struct rk_msg *msg)
{
    struct rk_bson_view body;
    struct rk_bson_elem elem;
    return rk_bson_view_init(&body, msg->body, msg->body_len) && rk_bson_find(&body, "ok", &elem) &&
           !rk_bson_elem_truthy(&elem);
}

/* What may have missed values is no answer: drivers resume a stream after the one error, and send a
 * read again after the other. */
static bool refuse_outdated(const struct rk_pending *head, struct rk_error *err)
{
    (void)rk_error_set_code(
        err, RK_ESTATE, head->info.cursor_id != 0 ? CODE_CURSOR_NOT_FOUND : CODE_HOST_UNREACHABLE,
        "the data keys changed while this %s, and its query compares protected fields; run it "
        "again",
        head->info.cursor_id != 0 ? "cursor was open" : "command ran");
    return false;
}

/*
 * A query keeps the ciphertext of the keys of its time (keys/readers.h). False: the client gets err
 * instead of the reply.
 */
static bool reader_holds(struct rk_session *session, const struct rk_pending *head,
                         const struct rk_msg *msg, struct rk_error *err)
{
    const struct rk_context *ctx = session->ctx;
    const struct rk_reader *reader = &head->reader;
    int64_t asked = head->info.cursor_id;
    int64_t id = 0;
    if (reader->epoch == NULL && !reader->outlived) {
        return true;
    }
    bool there = find_cursor(msg, &id);
    bool outdated = rk_readers_outdated(ctx->readers, reader);
    if (asked != 0 && (outdated || is_closed(msg, there, id))) {
        rk_readers_forget_cursor(ctx->readers, asked);
    }
    if (outdated) {
        return is_error(msg) || refuse_outdated(head, err);
    }
    if (asked != 0 || id == 0 || head->info.klass != RK_CLASS_READ ||
        rk_readers_keep_cursor(ctx->readers, id, reader, ctx->limits.bound_cursors_max,
                               rk_clock_mono_us())) {
        return true;
    }
    if (rk_readers_outdated(ctx->readers, reader)) {
        return refuse_outdated(head, err);
    }
    (void)rk_error_set_code(err, RK_ELIMIT, CODE_OPERATION_FAILED,
                            "too many open cursors compare protected fields; raise "
                            "limits.bound_cursors_max");
    return false;
}

struct old_reply {
    const struct rk_old_reads *to;
    char
        ns[sizeof(((struct rk_command_info *)0)->db) + sizeof(((struct rk_command_info *)0)->coll)];
};

static void on_old_document(void *arg, uint8_t type, const void *id, uint32_t len)
{
    const struct old_reply *old = arg;
    old->to->note(old->to->arg, old->ns, type, id, len);
}

/* Values of this reply lay under an old key: the sweep may take their documents first. */
static void tell_old_reads(struct rk_session *session, const struct rk_pending *head,
                           const struct rk_msg *msg)
{
    const struct rk_context *ctx = session->ctx;
    struct old_reply old = {.to = &ctx->old_reads};
    if (old.to->note == NULL || !old.to->wanted(old.to->arg)) {
        return;
    }
    (void)snprintf(old.ns, sizeof old.ns, "%s.%s", head->info.db, head->info.coll);
    rk_reply_old_documents(ctx->crypt.keys, &head->info, msg, on_old_document, &old);
}

static enum rk_step decrypt(struct rk_session *session, const struct rk_pending *head,
                            const uint8_t *data, const struct rk_frame *frame, bool more_to_come)
{
    struct rk_context *ctx = session->ctx;
    struct rk_msg msg;
    const char *why = "";
    struct rk_error err = {0};
    if (rk_msg_parse(data, frame->len, &msg, &why) != RK_PARSE_OK) {
        rk_session_close(session, "session_malformed", why);
        return RK_STEP_CLOSE;
    }
    if (rk_key_wait_failed(&session->reply, &err)) {
        return send_error(session, frame, more_to_come, &err);
    }
    if (!reader_holds(session, head, &msg, &err)) {
        rk_log(RK_LOG_INFO, "cursor_ended", RK_S("client", session->peer),
               RK_S("command", head->info.name), RK_S("db", head->info.db),
               RK_S("collection", head->info.coll), RK_S("reason", err.message));
        return send_error(session, frame, more_to_come, &err);
    }
    rk_key_wait_prepare(session, &session->reply);
    uint64_t old_before = ctx->crypt.values_old_key;
    enum rk_verdict verdict = rk_reply_rewrite(head->policies, &ctx->crypt, &head->info, data,
                                               frame->len, &msg, &ctx->out, &err);
    rk_count_values(ctx);
    switch (verdict) {
    case RK_VERDICT_HOLD:
        return rk_key_wait_start(session, &session->reply);
    case RK_VERDICT_REJECT:
        rk_log(RK_LOG_WARN, "reply_refused", RK_S("client", session->peer),
               RK_S("command", head->info.name), RK_S("db", head->info.db),
               RK_S("collection", head->info.coll), RK_S("reason", err.message));
        return send_error(session, frame, more_to_come, &err);
    case RK_VERDICT_FORWARD:
        return RK_STEP_PASS;
    case RK_VERDICT_REPLACE:
        break;
    }
    if (ctx->crypt.values_old_key != old_before) {
        tell_old_reads(session, head, &msg);
    }
    return send_reply(session, head, ctx->out.data, ctx->out.len);
}

/* A reply to the head of the queue that is not compressed, or was not. */
static enum rk_step plain(struct rk_session *session, const uint8_t *data, size_t avail,
                          const struct rk_frame *frame)
{
    struct rk_pending *head = rk_pending_head(&session->pending);
    if (frame->opcode != RK_OP_MSG && frame->opcode != RK_OP_REPLY) {
        rk_session_close(session, "session_malformed", "upstream sent a reply of unknown opcode");
        return RK_STEP_CLOSE;
    }
    if (avail < MSG_FLAGS_END && avail < frame->len) {
        return RK_STEP_MORE;
    }
    bool more_to_come = frame->opcode == RK_OP_MSG && frame->len >= MSG_FLAGS_END &&
                        (rk_load_u32(data + RK_FRAME_HEADER_LEN) & RK_MSG_MORE_TO_COME) != 0;
    session->more_to_come = more_to_come;
    session->passing_id = frame->request_id;
    if (head->info.reply == RK_REPLY_PASS ||
        (head->info.reply == RK_REPLY_SCAN && frame->opcode == RK_OP_REPLY)) {
        return RK_STEP_PASS;
    }
    if (avail < frame->len) {
        return RK_STEP_MORE;
    }
    enum rk_step step = head->info.reply == RK_REPLY_HELLO
                            ? rewrite_hello(session, head, data, frame)
                            : decrypt(session, head, data, frame, more_to_come);
    if (step == RK_STEP_DONE && !finish(session, frame->request_id, more_to_come)) {
        step = RK_STEP_CLOSE;
    }
    return step;
}

/* Without policies on its way and with one reply at most, a message that the client can read goes
 * on as it comes, unpacked by nobody in between. */
static bool passes_packed(const struct rk_session *session, const struct rk_pending *head,
                          const struct rk_compressed *inner)
{
    return head->info.reply == RK_REPLY_PASS && !head->exhaust &&
           rk_compressors_has(&session->compression.client, inner->compressor);
}

static enum rk_step compressed(struct rk_session *session, const struct rk_pending *head,
                               const uint8_t *data, size_t avail, const struct rk_frame *frame)
{
    struct rk_compressed inner;
    enum rk_step step = rk_compressed_look(session, &session->reply, data, avail, &inner);
    if (step != RK_STEP_DONE) {
        return step;
    }
    if (passes_packed(session, head, &inner)) {
        session->more_to_come = false;
        session->passing_id = frame->request_id;
        return RK_STEP_PASS;
    }
    return avail < frame->len
               ? RK_STEP_MORE
               : rk_compressed_message(session, &session->reply, data, frame, &inner, plain);
}

enum rk_step rk_reply_message(struct rk_session *session, const uint8_t *data, size_t avail,
                              const struct rk_frame *frame)
{
    struct rk_pending *head = rk_pending_head(&session->pending);
    if (head == NULL || head->local || head->expected != frame->response_to) {
        rk_session_close(session, "session_malformed", "upstream sent a reply to no request");
        return RK_STEP_CLOSE;
    }
    measure(session, head);
    if (frame->opcode == RK_OP_COMPRESSED) {
        return compressed(session, head, data, avail, frame);
    }
    uint8_t compressor = rk_compressed_choice(&session->compression.client, head->compressor);
    bool pack = rk_compressed_worth(session, &session->client, compressor, frame->len);
    if (pack && avail < frame->len) {
        return RK_STEP_MORE;
    }
    enum rk_step step = plain(session, data, avail, frame);
    if (step != RK_STEP_PASS || !pack) {
        return step;
    }
    step = send_reply(session, head, data, frame->len);
    return step == RK_STEP_DONE && !finish(session, frame->request_id, session->more_to_come)
               ? RK_STEP_CLOSE
               : step;
}

void rk_reply_passed(struct rk_session *session)
{
    (void)finish(session, session->passing_id, session->more_to_come);
}
