#include "endings.h"

#include <string.h>

/* A tag: which connection, how often it was put off, the broker's number of the delivery. */
#define GENERATION_BITS 16u
#define RETRIES_BITS 8u
#define DELIVERY_BITS (64u - GENERATION_BITS - RETRIES_BITS)
#define LOW(bits) ((UINT64_C(1) << (bits)) - 1)

uint32_t rk_ending_retries(uint64_t tag)
{
    return (uint32_t)(tag >> DELIVERY_BITS & LOW(RETRIES_BITS));
}

uint64_t rk_ending_delivery(uint64_t tag)
{
    return tag & LOW(DELIVERY_BITS);
}

static bool is_current(const struct rk_endings *e, uint64_t tag)
{
    return tag >> (RETRIES_BITS + DELIVERY_BITS) == (e->generation & LOW(GENERATION_BITS));
}

void rk_endings_init(struct rk_endings *e)
{
    memset(e, 0, sizeof *e);
    pthread_mutex_init(&e->lock, NULL);
}

void rk_endings_deinit(struct rk_endings *e)
{
    pthread_mutex_destroy(&e->lock);
}

void rk_endings_renew(struct rk_endings *e)
{
    pthread_mutex_lock(&e->lock);
    e->generation++;
    e->n = 0;
    pthread_mutex_unlock(&e->lock);
    e->asked = 0;
    e->out = 0;
}

void rk_endings_ask(struct rk_endings *e, size_t n)
{
    e->asked = n < RK_ENDINGS_MAX - e->asked ? e->asked + n : RK_ENDINGS_MAX;
}

bool rk_endings_hand_on(struct rk_endings *e, uint32_t retries, uint64_t delivery, uint64_t *tag)
{
    uint64_t most = LOW(RETRIES_BITS);
    if (e->out >= e->asked) {
        return false;
    }
    e->out++;
    *tag = (e->generation & LOW(GENERATION_BITS)) << (RETRIES_BITS + DELIVERY_BITS) |
           (retries < most ? retries : most) << DELIVERY_BITS | (delivery & LOW(DELIVERY_BITS));
    return true;
}

size_t rk_endings_take(struct rk_endings *e, struct rk_ending *to)
{
    pthread_mutex_lock(&e->lock);
    size_t n = e->n;
    memcpy(to, e->list, n * sizeof *to);
    e->n = 0;
    pthread_mutex_unlock(&e->lock);
    e->out -= n < e->out ? n : e->out;
    return n;
}

bool rk_endings_add(struct rk_endings *e, uint64_t tag, enum rk_hint_end end)
{
    pthread_mutex_lock(&e->lock);
    /* Each delivery ends once, and no more are handed on than there is room for, unless generations
     * have come round; then the broker keeps one until the next connection. */
    bool current = is_current(e, tag) && e->n < RK_ENDINGS_MAX;
    if (current) {
        e->list[e->n++] = (struct rk_ending){tag, end};
        rk_counter_add(&e->ended[end], 1);
    }
    pthread_mutex_unlock(&e->lock);
    return current;
}
