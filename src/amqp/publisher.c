#include "publisher.h"

#include <assert.h>
#include <rekey/log/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of amqp.confirm_timeout_ms: how long a confirm may take before the broker counts as stalled, and
 * before another connection is tried. The message that waits is what finds out that it is over, so
 * a stalled connection is kept for a while. */
#define STALLED_TIMEOUTS 2u
#define LEAVE_TIMEOUTS 20u

static const char *const outcomes[RK_OUTCOMES] = {"confirmed", "refused", "lost"};

struct rk_publisher {
    struct rk_amqp_line line;
    struct rk_outbox outbox;
    _Atomic bool connected;
    _Atomic bool blocked;
    _Atomic bool stalled; /* outlives the connection */
    bool left;            /* the connection on which it did; this and the next: the thread's */
    bool confirms;        /* something was confirmed on this connection */
    rk_counter moves;

    rk_counter published[RK_AMQP_KINDS];
    rk_counter blocks;
    rk_counter stalls;
    rk_counter returns;
};

/* No queue took it: somebody deleted one. Connecting anew declares them. */
static enum rk_status on_return(struct rk_publisher *p, const amqp_basic_return_t *returned,
                                struct rk_error *err)
{
    rk_log(RK_LOG_WARN, "amqp_returned", RK_I("code", returned->reply_code));
    rk_counter_add(&p->returns, 1);
    return rk_error_set(err, RK_EIO, "a message came back: %d %.*s", returned->reply_code,
                        (int)returned->reply_text.len, (const char *)returned->reply_text.bytes);
}

static void set_blocked(struct rk_publisher *p, bool blocked, amqp_bytes_t reason)
{
    char why[128] = "";
    if (reason.bytes != NULL) {
        (void)snprintf(why, sizeof why, "%.*s", (int)reason.len, (const char *)reason.bytes);
    }
    if (blocked && !atomic_load(&p->blocked)) {
        rk_counter_add(&p->blocks, 1);
        rk_log(RK_LOG_WARN, "amqp_blocked", RK_S("address", p->line.link.at), RK_S("reason", why));
    } else if (!blocked && atomic_load(&p->blocked)) {
        rk_log(RK_LOG_INFO, "amqp_unblocked", RK_S("address", p->line.link.at));
        rk_outbox_date_anew(&p->outbox);
    }
    atomic_store(&p->blocked, blocked);
}

static void on_confirm(struct rk_publisher *p, uint64_t seq, bool multiple, enum rk_outcome outcome)
{
    p->confirms = true;
    rk_outbox_confirm(&p->outbox, seq, multiple, outcome);
}

static enum rk_status on_frame(struct rk_publisher *p, const amqp_frame_t *frame,
                               struct rk_error *err)
{
    if (frame->frame_type != AMQP_FRAME_METHOD) {
        return RK_OK;
    }
    const void *decoded = frame->payload.method.decoded;
    switch (frame->payload.method.id) {
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *ack = decoded;
        on_confirm(p, ack->delivery_tag, ack->multiple != 0, RK_POST_CONFIRMED);
        return RK_OK;
    }
    case AMQP_BASIC_NACK_METHOD: {
        const amqp_basic_nack_t *nack = decoded;
        on_confirm(p, nack->delivery_tag, nack->multiple != 0, RK_POST_REFUSED);
        return RK_OK;
    }
    case AMQP_BASIC_RETURN_METHOD:
        return on_return(p, decoded, err);
    case AMQP_CONNECTION_BLOCKED_METHOD:
        set_blocked(p, true, ((const amqp_connection_blocked_t *)decoded)->reason);
        return RK_OK;
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
        set_blocked(p, false, amqp_empty_bytes);
        return RK_OK;
    default:
        return RK_OK;
    }
}

static enum rk_status read_frames(struct rk_publisher *p, struct rk_error *err)
{
    amqp_frame_t frame;
    enum rk_status status;
    while ((status = rk_amqp_link_frame(&p->line.link, &frame, err)) == RK_OK) {
        status = on_frame(p, &frame, err);
        amqp_maybe_release_buffers(p->line.link.conn);
        if (status != RK_OK) {
            return status;
        }
    }
    return status == RK_ENOENT ? RK_OK : status;
}

static enum rk_status publish(struct rk_publisher *p, const struct rk_post *post,
                              struct rk_error *err)
{
    char exchange[RK_AMQP_NAME_SIZE];
    amqp_basic_properties_t properties = {
        ._flags =
            AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TYPE_FLAG,
        .content_type = amqp_cstring_bytes("application/bson"),
        .type = amqp_cstring_bytes(rk_amqp_kind_name(post->kind)),
        .delivery_mode = AMQP_DELIVERY_PERSISTENT,
    };
    rk_amqp_name(p->line.link.config, "", exchange);
    rk_counter_add(&p->published[post->kind], 1);
    return rk_amqp_check_status(
        amqp_basic_publish(p->line.link.conn, RK_AMQP_CHANNEL, amqp_cstring_bytes(exchange),
                           amqp_cstring_bytes(post->key), 1, 0, &properties,
                           (amqp_bytes_t){.len = post->body.len, .bytes = post->body.data}),
        "publishing", err);
}

static enum rk_status confirm_select(struct rk_publisher *p, struct rk_error *err)
{
    (void)amqp_confirm_select(p->line.link.conn, RK_AMQP_CHANNEL);
    return rk_amqp_check_reply(amqp_get_rpc_reply(p->line.link.conn), "asking for confirms", err);
}

/* ---- a broker that confirms nothing */

static bool waits_longer(struct rk_publisher *p, uint32_t timeouts)
{
    return rk_outbox_oldest_ms(&p->outbox) >
           (uint64_t)p->line.link.config->confirm_timeout_ms * timeouts;
}

static void set_stalled(struct rk_publisher *p, bool stalled)
{
    if (atomic_exchange(&p->stalled, stalled) == stalled) {
        return;
    }
    if (stalled) {
        rk_counter_add(&p->stalls, 1);
        rk_log(RK_LOG_WARN, "amqp_stalled", RK_S("address", p->line.link.at));
    } else {
        rk_log(RK_LOG_INFO, "amqp_resumed", RK_S("address", p->line.link.at));
        rk_counter_add(&p->moves, p->left);
    }
    p->left = false;
}

/* A broker that blocks the connection has said itself that it reads nothing. */
static enum rk_status watch_confirms(struct rk_publisher *p, struct rk_error *err)
{
    if (atomic_load(&p->blocked)) {
        return RK_OK;
    }
    if (waits_longer(p, STALLED_TIMEOUTS)) {
        set_stalled(p, true);
    } else if (p->confirms) {
        set_stalled(p, false);
    }
    return waits_longer(p, LEAVE_TIMEOUTS)
               ? rk_error_set(err, RK_EIO, "the broker does not confirm what it is sent")
               : RK_OK;
}

/* On a new connection after a stall: nobody else sends anything until something was confirmed. */
static enum rk_status ask_for_confirm(struct rk_publisher *p, struct rk_error *err)
{
    const struct rk_amqp_message place = {.kind = RK_AMQP_PLACE};
    return rk_outbox_leave(&p->outbox, RK_AMQP_PLAN_KEY, &place, 0)
               ? RK_OK
               : rk_error_set(err, RK_EIO, "nothing can be sent");
}

/* ---- the connection */

static enum rk_status serve(void *self, struct rk_error *err)
{
    struct rk_publisher *p = self;
    enum rk_status status = confirm_select(p, err);
    if (status == RK_OK) {
        p->confirms = false;
        rk_outbox_open(&p->outbox);
        atomic_store(&p->connected, true);
        status = atomic_load(&p->stalled) ? ask_for_confirm(p, err) : RK_OK;
    }
    while (status == RK_OK && !rk_amqp_line_stopping(&p->line)) {
        const struct rk_post *post;
        status = read_frames(p, err);
        while (status == RK_OK && !atomic_load(&p->blocked) &&
               (post = rk_outbox_next(&p->outbox)) != NULL) {
            status = publish(p, post, err);
        }
        if (status == RK_OK) {
            status = watch_confirms(p, err);
        }
        if (status == RK_OK) {
            rk_amqp_line_wait(&p->line);
        }
    }
    return status;
}

static void over(void *self)
{
    struct rk_publisher *p = self;
    atomic_store(&p->connected, false);
    p->left = atomic_load(&p->stalled);
    set_blocked(p, false, amqp_empty_bytes);
    rk_outbox_close(&p->outbox);
}

/* ---- other threads */

/* The thread itself may be stuck in writing. */
bool rk_publisher_ready(struct rk_publisher *p)
{
    return atomic_load(&p->connected) && !atomic_load(&p->blocked) && !atomic_load(&p->stalled) &&
           !waits_longer(p, STALLED_TIMEOUTS);
}

uint64_t rk_publisher_moves(const struct rk_publisher *p)
{
    return rk_counter_read(&p->moves);
}

bool rk_publisher_connected(const struct rk_publisher *p)
{
    return atomic_load(&p->connected);
}

uint64_t rk_publisher_losses(const struct rk_publisher *p)
{
    return rk_counter_read(&p->line.link.losses);
}

bool rk_publisher_leave(struct rk_publisher *p, const char *key,
                        const struct rk_amqp_message *message, uint64_t tag)
{
    bool taken = rk_outbox_leave(&p->outbox, key, message, tag);
    if (taken) {
        rk_amqp_line_wake(&p->line);
    }
    return taken;
}

enum rk_status rk_publisher_offer(struct rk_publisher *p, const struct rk_amqp_message *messages,
                                  size_t n, size_t *sent, struct rk_error *err)
{
    *sent = 0;
    if (n == 0) {
        return RK_OK;
    }
    struct rk_batch *batch =
        rk_publisher_ready(p) ? rk_outbox_queue(&p->outbox, messages, n) : NULL;
    if (batch == NULL) {
        return rk_error_set(err, RK_EIO, "amqp: the broker takes no messages at present");
    }
    rk_amqp_line_wake(&p->line);
    *sent = rk_outbox_wait(&p->outbox, batch, p->line.link.config->confirm_timeout_ms);
    return *sent == n
               ? RK_OK
               : rk_error_set(err, RK_EIO, "amqp: the broker has confirmed %zu of %zu messages",
                              *sent, n);
}

/* ---- life */

enum rk_status rk_publisher_new(const struct rk_config_amqp *config, const char *secret,
                                struct rk_publisher **out, struct rk_error *err)
{
    struct rk_publisher *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    enum rk_status status = rk_amqp_line_init(&p->line, config, secret, "publish", err);
    if (status != RK_OK) {
        free(p);
        return status;
    }
    rk_outbox_init(&p->outbox);
    *out = p;
    return RK_OK;
}

enum rk_status rk_publisher_start(struct rk_publisher *p, rk_settled_fn *settled, void *arg,
                                  struct rk_error *err)
{
    static const struct rk_amqp_line_ops ops = {.serve = serve, .over = over};
    p->outbox.settled = settled;
    p->outbox.arg = arg;
    return rk_amqp_line_start(&p->line, &ops, p, err);
}

void rk_publisher_stop(struct rk_publisher *p)
{
    rk_outbox_stop(&p->outbox);
    rk_amqp_line_stop(&p->line);
}

void rk_publisher_free(struct rk_publisher *p)
{
    if (p == NULL) {
        return;
    }
    assert(!p->line.started);
    rk_amqp_line_deinit(&p->line);
    rk_outbox_deinit(&p->outbox);
    free(p);
}

void rk_publisher_metrics(struct rk_publisher *p, struct rk_metrics *m)
{
    rk_metrics_family(m, "rekey_amqp_published_total", RK_METRIC_COUNTER,
                      "Messages handed to the broker, by kind.");
    for (unsigned i = 0; i < RK_AMQP_KINDS; i++) {
        rk_metric(m, rk_counter_read(&p->published[i]),
                  RK_L("kind", rk_amqp_kind_name((enum rk_amqp_kind)i)));
    }
    rk_metrics_family(m, "rekey_amqp_confirms_total", RK_METRIC_COUNTER,
                      "What became of published messages; all but the confirmed are sent again "
                      "where they matter.");
    for (unsigned i = 0; i < RK_OUTCOMES; i++) {
        rk_metric(m, rk_counter_read(&p->outbox.settled_as[i]), RK_L("result", outcomes[i]));
    }
    rk_metrics_one(
        m, "rekey_amqp_not_sent_total", RK_METRIC_COUNTER,
        "Messages that may get lost and that were not sent: no connection, or too many of them.",
        (double)rk_counter_read(&p->outbox.dropped));
    rk_metrics_one(m, "rekey_amqp_returned_total", RK_METRIC_COUNTER,
                   "Messages that came back, since no queue was there to take them.",
                   (double)rk_counter_read(&p->returns));
    rk_metrics_one(m, "rekey_amqp_blocked", RK_METRIC_GAUGE,
                   "1 while the broker takes no messages: it is short of memory or disk.",
                   atomic_load(&p->blocked));
    rk_metrics_one(m, "rekey_amqp_blocked_total", RK_METRIC_COUNTER,
                   "How often the broker has stopped taking messages.",
                   (double)rk_counter_read(&p->blocks));
    rk_metrics_one(m, "rekey_amqp_stalled", RK_METRIC_GAUGE,
                   "1 while the broker is connected and confirms nothing.",
                   atomic_load(&p->stalled));
    rk_metrics_one(m, "rekey_amqp_stalls_total", RK_METRIC_COUNTER,
                   "How often the broker has stopped confirming.",
                   (double)rk_counter_read(&p->stalls));
}
