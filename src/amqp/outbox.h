/*
 * What others leave to be published: a message waits in the queue, then in flight for its confirm,
 * and is settled once. Nothing of the connection is in here; its thread, the publisher's, opens the
 * outbox for it, takes posts from there, and closes it when the connection is over.
 */
#ifndef REKEY_AMQP_OUTBOX_H
#define REKEY_AMQP_OUTBOX_H

#include <pthread.h>
#include <rekey/amqp/message.h>
#include <rekey/base/counter.h>

/* Bytes of messages that nobody waits for, from being left until they are settled. */
#define RK_OUTBOX_LEFT_MAX (16u << 20)

enum rk_outcome { RK_POST_CONFIRMED, RK_POST_REFUSED, RK_POST_LOST };
#define RK_OUTCOMES 3u

struct rk_batch;

struct rk_post {
    struct rk_post *next;
    const char *key; /* routing key, a constant */
    enum rk_amqp_kind kind;
    struct rk_buf body;
    struct rk_batch *batch; /* NULL: nobody waits */
    size_t index;           /* in the batch */
    uint64_t tag;           /* 0: nobody wants to know */
    uint64_t seq;           /* in flight: the broker's number for it */
    uint64_t taken_us;      /* in flight: since when; rk_clock_mono_us() */
};

struct rk_post_list {
    struct rk_post *first;
    struct rk_post **last;
    size_t n;
};

/* A message that was left with a tag is settled: the broker has it, or it was refused or lost.
 * Publisher's thread. */
typedef void rk_settled_fn(void *arg, uint64_t tag, bool confirmed);

struct rk_outbox {
    rk_settled_fn *settled;
    void *arg;
    rk_counter settled_as[RK_OUTCOMES];
    rk_counter dropped; /* not taken */

    pthread_mutex_t lock;   /* over everything below */
    pthread_cond_t changed; /* a batch was settled, or it is over */
    bool open;
    bool stopped;
    struct rk_post_list queue;
    struct rk_post_list flight;
    size_t left; /* bytes, of RK_OUTBOX_LEFT_MAX */
    uint64_t seq;
};

void rk_outbox_init(struct rk_outbox *outbox);
/* Of one that is closed. */
void rk_outbox_deinit(struct rk_outbox *outbox);

/* ---- publisher's thread */

/* For a connection on which nothing was published yet. */
void rk_outbox_open(struct rk_outbox *outbox);
/* The next one to publish, in flight by then and valid until it is confirmed; NULL: none at
 * present. */
const struct rk_post *rk_outbox_next(struct rk_outbox *outbox);
/* basic.ack or basic.nack: of the seq-th post since opening, or of all up to it. */
void rk_outbox_confirm(struct rk_outbox *outbox, uint64_t seq, bool multiple,
                       enum rk_outcome outcome);
/* The broker reads again what it has let lie for a while: what is in flight counts as taken now. */
void rk_outbox_date_anew(struct rk_outbox *outbox);
/* With the connection goes what was not confirmed on it. */
void rk_outbox_close(struct rk_outbox *outbox);

/* ---- any thread; only while open anything is taken */

/* Leaves one message and does not wait. tag 0: nobody wants to know what became of it. False when
 * it cannot be taken. */
bool rk_outbox_leave(struct rk_outbox *outbox, const char *key,
                     const struct rk_amqp_message *message, uint64_t tag);
/* Queues messages, all or none (NULL); what is returned has to be waited for. */
RK_MUST_CHECK struct rk_batch *rk_outbox_queue(struct rk_outbox *outbox,
                                               const struct rk_amqp_message *messages, size_t n);
/* Until all are settled, or for timeout_ms. How many are confirmed, from the first on. Frees the
 * batch. */
size_t rk_outbox_wait(struct rk_outbox *outbox, struct rk_batch *batch, uint32_t timeout_ms);
/* How long the oldest post in flight has waited for its confirm; 0: there is none. */
uint64_t rk_outbox_oldest_ms(struct rk_outbox *outbox);
/* Ends the waiting for good. */
void rk_outbox_stop(struct rk_outbox *outbox);

#endif
