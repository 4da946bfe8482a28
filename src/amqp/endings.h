/*
 * Deliveries that were handed on: by which tag, how many may be out, and what became of them until
 * the consumer's thread tells the broker. Nothing of the connection is in here.
 */
#ifndef REKEY_AMQP_ENDINGS_H
#define REKEY_AMQP_ENDINGS_H

#include <pthread.h>
#include <rekey/base/counter.h>
#include <rekey/jobs/transport.h>

#define RK_ENDINGS_MAX 512u /* deliveries that can be out at once */
#define RK_HINT_ENDS 5u

struct rk_ending {
    uint64_t tag;
    enum rk_hint_end end;
};

struct rk_endings {
    size_t
        asked;  /* how many the broker may have out; this and the next one are the thread's alone */
    size_t out; /* handed on, and not taken yet */

    pthread_mutex_t lock; /* over everything below; to read generation the thread needs none */
    uint64_t generation;  /* of the connection; from 1 on */
    struct rk_ending list[RK_ENDINGS_MAX];
    size_t n;
    rk_counter ended[RK_HINT_ENDS];
};

void rk_endings_init(struct rk_endings *endings);
void rk_endings_deinit(struct rk_endings *endings);

/* ---- consumer's thread */

/* A new connection: the broker has everything back, and is not asked for anything yet. */
void rk_endings_renew(struct rk_endings *endings);
/* The broker is asked for up to n more at once. */
void rk_endings_ask(struct rk_endings *endings, size_t n);
/* One more is out; tag stands for it. False: the broker was not asked for so many. */
RK_MUST_CHECK bool rk_endings_hand_on(struct rk_endings *endings, uint32_t retries,
                                      uint64_t delivery, uint64_t *tag);
/* Takes what has ended, in that order; to has room for RK_ENDINGS_MAX. */
size_t rk_endings_take(struct rk_endings *endings, struct rk_ending *to);

/* ---- any thread, never waits */

/* False: of a former connection, whose deliveries the broker has back. */
bool rk_endings_add(struct rk_endings *endings, uint64_t tag, enum rk_hint_end end);

/* What a tag was made of; as many retries as fit in there. */
uint32_t rk_ending_retries(uint64_t tag);
uint64_t rk_ending_delivery(uint64_t tag);

#endif
