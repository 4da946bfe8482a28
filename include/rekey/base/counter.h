/*
 * Counters that one thread (or whoever holds a lock) writes and any thread reads. Adding is a plain
 * load, add and store: what it costs on the way of every message is nothing that could be measured.
 * Reading them is not one moment for all, and need not be.
 */
#ifndef REKEY_BASE_COUNTER_H
#define REKEY_BASE_COUNTER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic uint64_t rk_counter;

static inline uint64_t rk_counter_read(const rk_counter *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline void rk_counter_set(rk_counter *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

/* The one writer's. */
static inline void rk_counter_add(rk_counter *counter, uint64_t n)
{
    rk_counter_set(counter, rk_counter_read(counter) + n);
}

/* Where several threads write; a locked instruction, for what is rare. */
static inline void rk_counter_add_shared(rk_counter *counter, uint64_t n)
{
    (void)atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* Counters by a small number that is known at run time only, such as an error code. What finds no
 * place any more is counted under RK_TALLY_OTHER. */
#define RK_TALLY_SLOTS 64u
#define RK_TALLY_OTHER 0

struct rk_tally {
    struct {
        _Atomic int32_t key; /* RK_TALLY_OTHER: a free place, and so are all behind it */
        rk_counter n;
    } slot[RK_TALLY_SLOTS];
    rk_counter other;
};

/* The one writer's. */
void rk_tally_add(struct rk_tally *tally, int32_t key);
/* Adds what from has counted to into, whose writer calls. */
void rk_tally_merge(struct rk_tally *into, const struct rk_tally *from);
/* The key of place i (RK_TALLY_OTHER: no more) and its count so far. */
int32_t rk_tally_at(const struct rk_tally *tally, size_t i, uint64_t *n);

#endif
