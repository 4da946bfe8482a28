/*
 * Log-linear latency histogram in the manner of HdrHistogram: 32 linear steps per power of two,
 * so that every value lands in a bucket at most 1/32 (3.2 %) wide. Values are microseconds from 0
 * to 2^36.
 *
 * One thread records; any thread may read (counters are relaxed atomics). Readers take a
 * snapshot and subtract an earlier one to see a window.
 */
#ifndef REKEY_BASE_HISTOGRAM_H
#define REKEY_BASE_HISTOGRAM_H

#include <rekey/base/counter.h>

#define RK_HISTOGRAM_BUCKETS 1056

struct rk_histogram {
    rk_counter count[RK_HISTOGRAM_BUCKETS];
    rk_counter sum_us;
};

struct rk_histogram_snapshot {
    uint64_t sum_us; /* of all values */
    uint64_t count[RK_HISTOGRAM_BUCKETS];
};

void rk_histogram_init(struct rk_histogram *h);
void rk_histogram_record(struct rk_histogram *h, uint64_t value_us);

/* Adds h's counters to *into (start with zeros), so that several recorders can be merged. */
void rk_histogram_add_to(const struct rk_histogram *h, struct rk_histogram_snapshot *into);

/* a - b, bucket by bucket; b must be an earlier snapshot of the same recorders. */
void rk_histogram_subtract(struct rk_histogram_snapshot *a, const struct rk_histogram_snapshot *b);

uint64_t rk_histogram_total(const struct rk_histogram_snapshot *s);
/* How many values are known to be at most edge_us: those of buckets that end there or before. */
uint64_t rk_histogram_below(const struct rk_histogram_snapshot *s, uint64_t edge_us);

/* The upper edge, in microseconds, of the bucket that holds quantile q (0..1); 0 when empty. */
uint64_t rk_histogram_quantile(const struct rk_histogram_snapshot *s, double q);

#endif
