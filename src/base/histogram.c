/*
 * Bucket layout: values below 32 have a bucket each; above, the five bits under the highest set
 * bit choose one of 32 buckets of that power of two. 2^36 us (19 hours) is the last edge.
 */
#include <rekey/base/histogram.h>

#define SUB_BITS 5u
#define SUB_COUNT (1u << SUB_BITS)
#define VALUE_MAX ((1ull << 36) - 1)

static size_t bucket_of(uint64_t v)
{
    if (v > VALUE_MAX) {
        v = VALUE_MAX;
    }
    if (v < SUB_COUNT) {
        return (size_t)v;
    }
    unsigned top = 63u - (unsigned)__builtin_clzll(v);
    unsigned shift = top - SUB_BITS;
    return (size_t)(shift + 1u) * SUB_COUNT + (size_t)((v >> shift) - SUB_COUNT);
}

static uint64_t upper_edge(size_t bucket)
{
    if (bucket < SUB_COUNT) {
        return bucket;
    }
    unsigned shift = (unsigned)(bucket / SUB_COUNT) - 1u;
    uint64_t sub = bucket % SUB_COUNT;
    return ((SUB_COUNT + sub + 1u) << shift) - 1u;
}

void rk_histogram_init(struct rk_histogram *h)
{
    for (size_t i = 0; i < RK_HISTOGRAM_BUCKETS; i++) {
        atomic_init(&h->count[i], 0);
    }
    atomic_init(&h->sum_us, 0);
}

void rk_histogram_record(struct rk_histogram *h, uint64_t value_us)
{
    rk_counter_add(&h->count[bucket_of(value_us)], 1);
    rk_counter_add(&h->sum_us, value_us < VALUE_MAX ? value_us : VALUE_MAX);
}

void rk_histogram_add_to(const struct rk_histogram *h, struct rk_histogram_snapshot *into)
{
    for (size_t i = 0; i < RK_HISTOGRAM_BUCKETS; i++) {
        into->count[i] += rk_counter_read(&h->count[i]);
    }
    into->sum_us += rk_counter_read(&h->sum_us);
}

void rk_histogram_subtract(struct rk_histogram_snapshot *a, const struct rk_histogram_snapshot *b)
{
    for (size_t i = 0; i < RK_HISTOGRAM_BUCKETS; i++) {
        a->count[i] -= b->count[i];
    }
    a->sum_us -= b->sum_us;
}

uint64_t rk_histogram_total(const struct rk_histogram_snapshot *s)
{
    uint64_t total = 0;
    for (size_t i = 0; i < RK_HISTOGRAM_BUCKETS; i++) {
        total += s->count[i];
    }
    return total;
}

uint64_t rk_histogram_below(const struct rk_histogram_snapshot *s, uint64_t edge_us)
{
    uint64_t below = 0;
    for (size_t i = 0; i < RK_HISTOGRAM_BUCKETS && upper_edge(i) <= edge_us; i++) {
        below += s->count[i];
    }
    return below;
}

uint64_t rk_histogram_quantile(const struct rk_histogram_snapshot *s, double q)
{
    uint64_t total = rk_histogram_total(s);
    if (total == 0) {
        return 0;
    }
    uint64_t rank = (uint64_t)(q * (double)total);
    if (rank >= total) {
        rank = total - 1;
    }
    uint64_t seen = 0;
    for (size_t i = 0; i < RK_HISTOGRAM_BUCKETS; i++) {
        seen += s->count[i];
        if (seen > rank) {
            return upper_edge(i);
        }
    }
    return VALUE_MAX;
}
