#include "outbox.h"

#include "link.h"

#include <assert.h>
#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <stdlib.h>

#define QUEUE_MAX 100000u /* messages; of an offer, all ranges that were cut ahead */
#define FLIGHT_MAX 256u   /* unconfirmed; few enough for the socket's buffers to take them */

/* Messages that somebody waits for. */
struct rk_batch {
    size_t refs;
    size_t left; /* not settled yet */
    size_t n;
    bool given_up; /* nobody waits any more */
    bool *confirmed;
};

static void list_init(struct rk_post_list *list)
{
    *list = (struct rk_post_list){.last = &list->first};
}

static void list_add(struct rk_post_list *list, struct rk_post *post)
{
    post->next = NULL;
    *list->last = post;
    list->last = &post->next;
    list->n++;
}

static struct rk_post *list_take(struct rk_post_list *list, struct rk_post **at)
{
    struct rk_post *post = *at;
    *at = post->next;
    if (list->last == &post->next) {
        list->last = at;
    }
    list->n--;
    return post;
}

static void batch_unref(struct rk_batch *batch)
{
    if (batch != NULL && --batch->refs == 0) {
        free(batch->confirmed);
        free(batch);
    }
}

static void post_free(struct rk_post *post)
{
    rk_buf_deinit(&post->body);
    free(post);
}

/* Those that nobody waits for share RK_OUTBOX_LEFT_MAX. With a tag they are as few as deliveries.
 */
static size_t left_bytes(const struct rk_post *post)
{
    return post->batch == NULL && post->tag == 0 ? post->body.len : 0;
}

void rk_outbox_init(struct rk_outbox *o)
{
    pthread_condattr_t attr;
    *o = (struct rk_outbox){.open = false};
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&o->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&o->lock, NULL);
    list_init(&o->queue);
    list_init(&o->flight);
}

void rk_outbox_deinit(struct rk_outbox *o)
{
    assert(!o->open && o->queue.n == 0 && o->flight.n == 0);
    pthread_cond_destroy(&o->changed);
    pthread_mutex_destroy(&o->lock);
}

/* ---- publisher's thread */

/* Under the lock, which is let go while somebody is told. */
static void settle(struct rk_outbox *o, struct rk_post *post, enum rk_outcome outcome)
{
    rk_counter_add(&o->settled_as[outcome], 1);
    o->left -= left_bytes(post);
    if (post->batch != NULL) {
        post->batch->confirmed[post->index] = outcome == RK_POST_CONFIRMED;
        if (--post->batch->left == 0) {
            pthread_cond_broadcast(&o->changed);
        }
        batch_unref(post->batch);
    }
    uint64_t tag = post->tag;
    post_free(post);
    if (tag != 0) {
        pthread_mutex_unlock(&o->lock);
        o->settled(o->arg, tag, outcome == RK_POST_CONFIRMED);
        pthread_mutex_lock(&o->lock);
    }
}

void rk_outbox_open(struct rk_outbox *o)
{
    pthread_mutex_lock(&o->lock);
    o->open = true;
    o->seq = 0;
    pthread_mutex_unlock(&o->lock);
}

const struct rk_post *rk_outbox_next(struct rk_outbox *o)
{
    struct rk_post *post = NULL;
    pthread_mutex_lock(&o->lock);
    while (post == NULL && o->queue.n > 0 && o->flight.n < FLIGHT_MAX) {
        post = list_take(&o->queue, &o->queue.first);
        if (post->batch != NULL && post->batch->given_up) {
            settle(o, post, RK_POST_LOST);
            post = NULL;
            continue;
        }
        post->seq = ++o->seq;
        post->taken_us = rk_clock_mono_us();
        list_add(&o->flight, post);
    }
    pthread_mutex_unlock(&o->lock);
    return post;
}

void rk_outbox_confirm(struct rk_outbox *o, uint64_t seq, bool multiple, enum rk_outcome outcome)
{
    pthread_mutex_lock(&o->lock);
    struct rk_post **at = &o->flight.first;
    while (*at != NULL && (*at)->seq <= seq) {
        if (!multiple && (*at)->seq < seq) {
            at = &(*at)->next;
            continue;
        }
        struct rk_post *post = list_take(&o->flight, at);
        if (outcome == RK_POST_REFUSED) {
            rk_log(RK_LOG_WARN, "amqp_nacked", RK_S("queue", post->key),
                   RK_S("kind", rk_amqp_kind_name(post->kind)));
        }
        settle(o, post, outcome);
        if (!multiple) {
            break;
        }
        at = &o->flight.first; /* the lock was let go */
    }
    pthread_mutex_unlock(&o->lock);
}

void rk_outbox_date_anew(struct rk_outbox *o)
{
    pthread_mutex_lock(&o->lock);
    for (struct rk_post *post = o->flight.first; post != NULL; post = post->next) {
        post->taken_us = rk_clock_mono_us();
    }
    pthread_mutex_unlock(&o->lock);
}

void rk_outbox_close(struct rk_outbox *o)
{
    pthread_mutex_lock(&o->lock);
    o->open = false;
    while (o->flight.n > 0) {
        settle(o, list_take(&o->flight, &o->flight.first), RK_POST_LOST);
    }
    while (o->queue.n > 0) {
        settle(o, list_take(&o->queue, &o->queue.first), RK_POST_LOST);
    }
    pthread_mutex_unlock(&o->lock);
}

/* ---- any thread */

static struct rk_post *post_new(const char *key, const struct rk_amqp_message *message)
{
    struct rk_post *post = calloc(1, sizeof *post);
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

static bool takes(const struct rk_outbox *o, size_t n)
{
    return !o->stopped && o->open && o->queue.n + n <= QUEUE_MAX;
}

bool rk_outbox_leave(struct rk_outbox *o, const char *key, const struct rk_amqp_message *message,
                     uint64_t tag)
{
    struct rk_post *post = post_new(key, message);
    if (post != NULL) {
        post->tag = tag;
    }
    pthread_mutex_lock(&o->lock);
    bool taken = post != NULL && takes(o, 1) && o->left + left_bytes(post) <= RK_OUTBOX_LEFT_MAX;
    if (taken) {
        o->left += left_bytes(post);
        list_add(&o->queue, post);
    } else {
        rk_counter_add(&o->dropped, 1);
    }
    pthread_mutex_unlock(&o->lock);
    if (!taken && post != NULL) {
        post_free(post);
    }
    return taken;
}

static struct rk_batch *batch_new(size_t n)
{
    struct rk_batch *batch = calloc(1, sizeof *batch);
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

struct rk_batch *rk_outbox_queue(struct rk_outbox *o, const struct rk_amqp_message *messages,
                                 size_t n)
{
    struct rk_post_list made;
    struct rk_batch *batch = batch_new(n);
    list_init(&made);
    for (size_t i = 0; i < n && batch != NULL; i++) {
        struct rk_post *post = post_new(
            messages[i].kind == RK_AMQP_PLAN ? RK_AMQP_PLAN_KEY : RK_AMQP_COLD_KEY, &messages[i]);
        if (post == NULL) {
            break;
        }
        post->batch = batch;
        post->index = i;
        list_add(&made, post);
    }
    pthread_mutex_lock(&o->lock);
    bool taken = batch != NULL && made.n == n && takes(o, n);
    while (made.n > 0) {
        struct rk_post *post = list_take(&made, &made.first);
        if (taken) {
            list_add(&o->queue, post);
        } else {
            post_free(post);
        }
    }
    pthread_mutex_unlock(&o->lock);
    if (!taken && batch != NULL) {
        free(batch->confirmed);
        free(batch);
    }
    return taken ? batch : NULL;
}

size_t rk_outbox_wait(struct rk_outbox *o, struct rk_batch *batch, uint32_t timeout_ms)
{
    uint64_t until = rk_clock_mono_us() + (uint64_t)timeout_ms * 1000u;
    const struct timespec at = {.tv_sec = (time_t)(until / 1000000u),
                                .tv_nsec = (long)(until % 1000000u) * 1000};
    size_t confirmed = 0;
    pthread_mutex_lock(&o->lock);
    while (batch->left > 0 && !o->stopped &&
           pthread_cond_timedwait(&o->changed, &o->lock, &at) == 0) {
    }
    batch->given_up = true;
    while (confirmed < batch->n && batch->confirmed[confirmed]) {
        confirmed++;
    }
    batch_unref(batch);
    pthread_mutex_unlock(&o->lock);
    return confirmed;
}

uint64_t rk_outbox_oldest_ms(struct rk_outbox *o)
{
    pthread_mutex_lock(&o->lock);
    const struct rk_post *oldest = o->flight.first;
    uint64_t ms = oldest != NULL ? (rk_clock_mono_us() - oldest->taken_us) / 1000u : 0;
    pthread_mutex_unlock(&o->lock);
    return ms;
}

void rk_outbox_stop(struct rk_outbox *o)
{
    pthread_mutex_lock(&o->lock);
    o->stopped = true;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
}
