#include <rekey/base/counter.h>

static rk_counter *counter_of(struct rk_tally *tally, int32_t key)
{
    for (size_t i = 0; i < RK_TALLY_SLOTS && key != RK_TALLY_OTHER; i++) {
        int32_t here = atomic_load_explicit(&tally->slot[i].key, memory_order_relaxed);
        if (here == RK_TALLY_OTHER) {
            atomic_store_explicit(&tally->slot[i].key, key, memory_order_relaxed);
        }
        if (here == RK_TALLY_OTHER || here == key) {
            return &tally->slot[i].n;
        }
    }
    return &tally->other;
}

void rk_tally_add(struct rk_tally *tally, int32_t key)
{
    rk_counter_add(counter_of(tally, key), 1);
}

int32_t rk_tally_at(const struct rk_tally *tally, size_t i, uint64_t *n)
{
    if (i >= RK_TALLY_SLOTS) {
        return RK_TALLY_OTHER;
    }
    *n = rk_counter_read(&tally->slot[i].n);
    return atomic_load_explicit(&tally->slot[i].key, memory_order_relaxed);
}

void rk_tally_merge(struct rk_tally *into, const struct rk_tally *from)
{
    int32_t key;
    uint64_t n;
    for (size_t i = 0; (key = rk_tally_at(from, i, &n)) != RK_TALLY_OTHER; i++) {
        rk_counter_add(counter_of(into, key), n);
    }
    rk_counter_add(&into->other, rk_counter_read(&from->other));
}
