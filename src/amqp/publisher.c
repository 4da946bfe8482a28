/*
 * Order: a message waits in the queue, then for its confirm in flight, and is settled once. Both
 * lists and all batches are under the lock; the link is the thread's alone.
 */
#include "publisher.h"

#include <assert.h>
#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_MAX 100000u /* messages; of an offer, all ranges that were cut ahead */
#define FLIGHT_MAX 256u   /* unconfirmed; few enough for the socket's buffers to take them */

/* Messages that somebody waits for. */
struct batch {
    size_t refs;
    size_t left; /* not settled yet */
    size_t n;
    bool given_up; /* nobody waits any more */
    bool *confirmed;
};

struct post {
    struct post *next;
    const char *key; /* routing key, a constant */
    enum rk_amqp_kind kind;
    struct rk_buf body;
    struct batch *batch; /* NULL: nobody waits */
    size_t index;        /* in the batch */
    uint64_t tag;
    uint64_t seq; /* once published: the broker's number for it */
};

struct list {
    struct post *first;
    struct post **last;
    size_t n;
};

enum outcome { CONFIRMED, REFUSED, LOST };
#define OUTCOMES 3u
static const char *const outcomes[OUTCOMES] = {"confirmed", "refused", "lost"};

struct rk_publisher {
    struct rk_amqp_line line;
    rk_settled_fn *settled;
    void *arg;
    _Atomic bool connected;
    _Atomic bool blocked;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a batch was settled, or it is over */
    bool stopped;
    struct list queue;
    struct list flight;
    uint64_t seq;

    rk_counter published[RK_AMQP_KINDS];
    rk_counter settled_as[OUTCOMES];
    rk_counter blocks;
    rk_counter returns;
    rk_counter dropped; /* not taken */
};

static void list_init(struct list *list)
{
    *list = (struct list){.last = &list->first};
}

static void list_add(struct list *list, struct post *post)
{
    post->next = NULL;
    *list->last = post;
    list->last = &post->next;
    list->n++;
}

static struct post *list_take(struct list *list, struct post **at)
{
    struct post *post = *at;
    *at = post->next;
    if (list->last == &post->next) {
        list->last = at;
    }
    list->n--;
    return post;
}

static void batch_unref(struct batch *batch)
{
    if (batch != NULL && --batch->refs == 0) {
        free(batch->confirmed);
        free(batch);
    }
}

static void post_free(struct post *post)
{
    rk_buf_deinit(&post->body);
    free(post);
}

/* Under the lock, which is let go while somebody is told. */
static void settle(struct rk_publisher *p, struct post *post, enum outcome outcome)
{
    rk_counter_add(&p->settled_as[outcome], 1);
    if (post->batch != NULL) {
        post->batch->confirmed[post->index] = outcome == CONFIRMED;
        if (--post->batch->left == 0) {
            pthread_cond_broadcast(&p->changed);
        }
        batch_unref(post->batch);
    }
    uint64_t tag = post->tag;
    post_free(post);
    if (tag != 0) {
        pthread_mutex_unlock(&p->lock);
        p->settled(p->arg, tag, outcome == CONFIRMED);
        pthread_mutex_lock(&p->lock);
    }
}

/* With the connection goes what was not confirmed on it. */
static void settle_all(struct rk_publisher *p)
{
    pthread_mutex_lock(&p->lock);
    while (p->flight.n > 0) {
        settle(p, list_take(&p->flight, &p->flight.first), LOST);
    }
    while (p->queue.n > 0) {
        settle(p, list_take(&p->queue, &p->queue.first), LOST);
    }
    pthread_mutex_unlock(&p->lock);
}

/* basic.ack or basic.nack. */
static void on_confirm(struct rk_publisher *p, uint64_t seq, bool multiple, enum outcome outcome)
{
    pthread_mutex_lock(&p->lock);
    struct post **at = &p->flight.first;
    while (*at != NULL && (*at)->seq <= seq) {
        if (!multiple && (*at)->seq < seq) {
            at = &(*at)->next;
            continue;
        }
        struct post *post = list_take(&p->flight, at);
        if (outcome == REFUSED) {
            rk_log(RK_LOG_WARN, "amqp_nacked", RK_S("queue", post->key),
                   RK_S("kind", rk_amqp_kind_name(post->kind)));
        }
        settle(p, post, outcome);
        if (multiple) {
            at = &p->flight.first; /* the lock was let go */
        } else {
            break;
        }
    }
    pthread_mutex_unlock(&p->lock);
}

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
    }
    atomic_store(&p->blocked, blocked);
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
        on_confirm(p, ack->delivery_tag, ack->multiple != 0, CONFIRMED);
        return RK_OK;
    }
    case AMQP_BASIC_NACK_METHOD: {
        const amqp_basic_nack_t *nack = decoded;
        on_confirm(p, nack->delivery_tag, nack->multiple != 0, REFUSED);
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

static enum rk_status publish(struct rk_publisher *p, const struct post *post, struct rk_error *err)
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

/* The next one to publish, in flight by then; NULL: none, or not now. */
static struct post *next_post(struct rk_publisher *p)
{
    struct post *post = NULL;
    pthread_mutex_lock(&p->lock);
    while (post == NULL && p->queue.n > 0 && p->flight.n < FLIGHT_MAX &&
           !atomic_load(&p->blocked)) {
        post = list_take(&p->queue, &p->queue.first);
        if (post->batch != NULL && post->batch->given_up) {
            settle(p, post, LOST);
            post = NULL;
            continue;
        }
        post->seq = ++p->seq;
        list_add(&p->flight, post);
    }
    pthread_mutex_unlock(&p->lock);
    return post;
}

static enum rk_status confirm_select(struct rk_publisher *p, struct rk_error *err)
{
    (void)amqp_confirm_select(p->line.link.conn, RK_AMQP_CHANNEL);
    p->seq = 0;
    return rk_amqp_check_reply(amqp_get_rpc_reply(p->line.link.conn), "asking for confirms", err);
}

static enum rk_status serve(void *self, struct rk_error *err)
{
    struct rk_publisher *p = self;
    enum rk_status status = confirm_select(p, err);
    atomic_store(&p->connected, status == RK_OK);
    while (status == RK_OK && !rk_amqp_line_stopping(&p->line)) {
        struct post *post;
        status = read_frames(p, err);
        while (status == RK_OK && (post = next_post(p)) != NULL) {
            status = publish(p, post, err);
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
    set_blocked(p, false, amqp_empty_bytes);
    settle_all(p);
}

/* ---- other threads */

bool rk_publisher_ready(const struct rk_publisher *p)
{
    return atomic_load(&p->connected) && !atomic_load(&p->blocked);
}

bool rk_publisher_connected(const struct rk_publisher *p)
{
    return atomic_load(&p->connected);
}

uint64_t rk_publisher_losses(const struct rk_publisher *p)
{
    return rk_counter_read(&p->line.link.losses);
}

static struct post *post_new(const char *key, const struct rk_amqp_message *message)
{
    struct post *post = calloc(1, sizeof *post);
    if (post == NULL) {
        return NULL;
    }
    post->key = key;
    post->kind = message->kind;
    rk_buf_init(&post->body, RK_AMQP_BODY_MAX);
    if (rk_amqp_message_put(&post->body, message) != RK_OK) {
        post_free(post);
        return NULL;
    }
    return post;
}

static bool takes(const struct rk_publisher *p, size_t n)
{
    return !p->stopped && atomic_load(&p->connected) && p->queue.n + n <= QUEUE_MAX;
}

bool rk_publisher_leave(struct rk_publisher *p, const char *key,
                        const struct rk_amqp_message *message, uint64_t tag)
{
    struct post *post = post_new(key, message);
    pthread_mutex_lock(&p->lock);
    bool taken = post != NULL && takes(p, 1);
    if (taken) {
        post->tag = tag;
        list_add(&p->queue, post);
    } else {
        rk_counter_add(&p->dropped, 1);
    }
    pthread_mutex_unlock(&p->lock);
    if (taken) {
        rk_amqp_line_wake(&p->line);
    } else if (post != NULL) {
        post_free(post);
    }
    return taken;
}

static struct batch *batch_new(size_t n)
{
    struct batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL) {
        return NULL;
    }
    batch->refs = n + 1;
    batch->left = n;
    batch->n = n;
    batch->confirmed = calloc(n, sizeof *batch->confirmed);
    if (batch->confirmed == NULL) {
        free(batch);
        return NULL;
    }
    return batch;
}

/* Queues the messages; false when memory runs out or the queue has no room, and then none is. */
static bool queue_batch(struct rk_publisher *p, const struct rk_amqp_message *messages, size_t n,
                        struct batch *batch)
{
    struct list made;
    list_init(&made);
    for (size_t i = 0; i < n; i++) {
        struct post *post = post_new(
            messages[i].kind == RK_AMQP_PLAN ? RK_AMQP_PLAN_KEY : RK_AMQP_COLD_KEY, &messages[i]);
        if (post == NULL) {
            break;
        }
        post->batch = batch;
        post->index = i;
        list_add(&made, post);
    }
    pthread_mutex_lock(&p->lock);
    bool taken = made.n == n && takes(p, n);
    while (made.n > 0) {
        struct post *post = list_take(&made, &made.first);
        if (taken) {
            list_add(&p->queue, post);
        } else {
            post_free(post);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return taken;
}

/* Until all are settled, or for amqp.confirm_timeout_ms. */
static void wait_settled(struct rk_publisher *p, struct batch *batch)
{
    uint64_t until = rk_clock_mono_us() + (uint64_t)p->line.link.config->confirm_timeout_ms * 1000u;
    const struct timespec at = {.tv_sec = (time_t)(until / 1000000u),
                                .tv_nsec = (long)(until % 1000000u) * 1000};
    while (batch->left > 0 && !p->stopped &&
           pthread_cond_timedwait(&p->changed, &p->lock, &at) == 0) {
    }
    batch->given_up = true;
}

enum rk_status rk_publisher_offer(struct rk_publisher *p, const struct rk_amqp_message *messages,
                                  size_t n, size_t *sent, struct rk_error *err)
{
    *sent = 0;
    if (n == 0) {
        return RK_OK;
    }
    struct batch *batch = batch_new(n);
    if (batch == NULL || !queue_batch(p, messages, n, batch)) {
        if (batch != NULL) {
            free(batch->confirmed);
            free(batch);
        }
        return rk_error_set(err, RK_EIO, "amqp: the broker takes no messages at present");
    }
    rk_amqp_line_wake(&p->line);
    pthread_mutex_lock(&p->lock);
    wait_settled(p, batch);
    while (*sent < n && batch->confirmed[*sent]) {
        (*sent)++;
    }
    batch_unref(batch);
    pthread_mutex_unlock(&p->lock);
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
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&p->lock, NULL);
    list_init(&p->queue);
    list_init(&p->flight);
    *out = p;
    return RK_OK;
}

enum rk_status rk_publisher_start(struct rk_publisher *p, rk_settled_fn *settled, void *arg,
                                  struct rk_error *err)
{
    static const struct rk_amqp_line_ops ops = {.serve = serve, .over = over};
    p->settled = settled;
    p->arg = arg;
    return rk_amqp_line_start(&p->line, &ops, p, err);
}

void rk_publisher_stop(struct rk_publisher *p)
{
    pthread_mutex_lock(&p->lock);
    p->stopped = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    rk_amqp_line_stop(&p->line);
}

void rk_publisher_free(struct rk_publisher *p)
{
    if (p == NULL) {
        return;
    }
    assert(!p->line.started && p->queue.n == 0 && p->flight.n == 0);
    rk_amqp_line_deinit(&p->line);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
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
    for (unsigned i = 0; i < OUTCOMES; i++) {
        rk_metric(m, rk_counter_read(&p->settled_as[i]), RK_L("result", outcomes[i]));
    }
    rk_metrics_one(m, "rekey_amqp_not_sent_total", RK_METRIC_COUNTER,
                   "Messages that may get lost and that were not sent: no connection, or blocked.",
                   (double)rk_counter_read(&p->dropped));
    rk_metrics_one(m, "rekey_amqp_returned_total", RK_METRIC_COUNTER,
                   "Messages that came back, since no queue was there to take them.",
                   (double)rk_counter_read(&p->returns));
    rk_metrics_one(m, "rekey_amqp_blocked", RK_METRIC_GAUGE,
                   "1 while the broker takes no messages: it is short of memory or disk.",
                   atomic_load(&p->blocked));
    rk_metrics_one(m, "rekey_amqp_blocked_total", RK_METRIC_COUNTER,
                   "How often the broker has stopped taking messages.",
                   (double)rk_counter_read(&p->blocks));
}
