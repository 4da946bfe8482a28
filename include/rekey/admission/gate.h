/*
 * The sweep's throttle: a token bucket that sweeper threads draw documents from, and the guard
 * that halves its rate while the foreground is slow.
 *
 * Thread-safe. Foreground latencies come from the workers' histograms through a sensor callback;
 * they are upstream round-trips seen by the proxy itself, crypto excluded.
 */
#ifndef REKEY_ADMISSION_GATE_H
#define REKEY_ADMISSION_GATE_H

#include <rekey/base/histogram.h>
#include <rekey/base/status.h>
#include <stdbool.h>

struct rk_gate_config {
    bool pause;
    uint32_t max_rate; /* docs/s; 0: no limit */
    uint32_t p99_limit_ms;
    uint32_t interval_ms;
    uint32_t samples_min;
    uint32_t rate_min;
};

/* Adds the foreground's counters so far to *into. Called on the gate's thread. */
typedef void rk_gate_sensor_fn(void *arg, struct rk_histogram_snapshot *into);

struct rk_gate_state {
    bool paused;
    double rate_docs_per_s; /* allowed now; 0 with !paused: unlimited */
    uint64_t p99_us;        /* of the last window */
    uint64_t samples;       /* in the last window */
    uint64_t halvings;      /* since start */
};

struct rk_gate;

RK_MUST_CHECK enum rk_status rk_gate_start(const struct rk_gate_config *config,
                                           rk_gate_sensor_fn *sensor, void *arg,
                                           struct rk_gate **out, struct rk_error *err);
void rk_gate_stop(struct rk_gate *gate); /* wakes and releases every waiter */
void rk_gate_reconfigure(struct rk_gate *gate, const struct rk_gate_config *config);

/* Waits until n documents may be swept. False when the gate was stopped, or when cancelled
 * (*cancel, checked at least every 100 ms) became true. */
bool rk_gate_take(struct rk_gate *gate, uint32_t n, const _Atomic bool *cancel);

/* How many documents were really processed under the last grant feeds the unlimited-rate guard:
 * when max_rate is 0 and the p99 is above the limit, halving starts from the measured rate. */
void rk_gate_report(struct rk_gate *gate, uint32_t docs);

struct rk_gate_state rk_gate_state(struct rk_gate *gate);

#endif
