/*
 * The sweep's throttle: a token bucket that sweeper threads draw documents from, and the guard
 * that halves its rate while the foreground is slow.
 *
 * Thread-safe. Foreground latencies come from the workers' histograms through a sensor callback;
 * they are upstream round-trips seen by the proxy itself, crypto excluded.
 *
 * The guard looks every interval_ms at the operations that completed since its last judgement.
 * p99 above the limit: the rate is halved, from the measured rate when there was no limit, down
 * to rate_min. Below: it grows by a twentieth of the ceiling (max_rate, or what the sweep did
 * before the first halving) until it is back. Fewer than samples_min operations are no ground
 * for a judgement: the window is left open, and after ten intervals the foreground counts as
 * quiet and the rate grows.
 */
#ifndef REKEY_ADMISSION_GATE_H
#define REKEY_ADMISSION_GATE_H

#include <rekey/base/metrics.h>
#include <rekey/base/status.h>
#include <stdbool.h>

struct rk_gate_config {
    bool pause;
    uint32_t max_rate;     /* docs/s; 0: no limit */
    uint32_t p99_limit_ms; /* 0: no guard */
    uint32_t interval_ms;
    uint32_t samples_min;
    uint32_t rate_min; /* docs/s that halving never goes below; 0: it may stop the sweep */
};

enum rk_gate_hold {
    RK_GATE_OPEN,
    RK_GATE_OUTSIDE_WINDOW,
    RK_GATE_NO_SETTINGS, /* there are settings that cannot be understood, and might forbid it */
};

/* Whether the hours allow to sweep, by a clock that is not this machine's. */
struct rk_gate_hours {
    enum rk_gate_hold hold;
    uint64_t open_us; /* open: for how long at most, should nobody say otherwise; UINT64_MAX */
    char why[200];    /* "outside the window until Mon 22:00 (UTC)"; empty: open */
};

/* Adds the foreground's counters so far to *into. Called on the gate's thread. */
typedef void rk_gate_sensor_fn(void *arg, struct rk_histogram_snapshot *into);

struct rk_gate_state {
    bool paused;            /* by configuration, by the brake or by the hours */
    bool pause;             /* by configuration */
    bool braked;            /* by the brake */
    enum rk_gate_hold hold; /* by the hours, or by settings that make no sense */
    bool held_back;         /* by the guard: rate is below what the configuration allows */
    bool limited;           /* false: rate_docs_per_s says nothing */
    double rate_docs_per_s; /* allowed now; 0 and limited: the guard has stopped the sweep */
    uint64_t p99_us;        /* of the last window that was judged */
    uint64_t samples;       /* in it */
    uint64_t halvings;      /* since start */
    uint32_t max_rate;      /* docs/s; 0: no limit */
    uint32_t p99_limit_ms;  /* 0: no guard */
};

struct rk_gate;

/* sensor may be NULL: no guard. */
RK_MUST_CHECK enum rk_status rk_gate_start(const struct rk_gate_config *config,
                                           rk_gate_sensor_fn *sensor, void *arg,
                                           struct rk_gate **out, struct rk_error *err);
/* Wakes and refuses every waiter, stops the guard. Nobody may call rk_gate_take afterwards. */
void rk_gate_stop(struct rk_gate *gate);
/* Sweeps nothing while brake returns true, which is asked before every grant. Call it before the
 * first rk_gate_take; brake may be called on any thread and must not block. */
typedef bool rk_gate_brake_fn(void *arg);
void rk_gate_set_brake(struct rk_gate *gate, rk_gate_brake_fn *brake, void *arg);
/* Takes effect at once, for those who wait as well. */
void rk_gate_reconfigure(struct rk_gate *gate, const struct rk_gate_config *config);

/* Holds until the next call; a gate is open at start. */
void rk_gate_set_hours(struct rk_gate *gate, const struct rk_gate_hours *hours);

/* Waits until n documents may be swept. False when the gate was stopped, or when cancelled
 * (*cancel, checked at least every 100 ms) became true. */
bool rk_gate_take(struct rk_gate *gate, uint32_t n, const _Atomic bool *cancel);
/* Of the last grant, documents that were not swept after all. */
void rk_gate_give_back(struct rk_gate *gate, uint32_t n);

/* How many documents were really processed under the last grant feeds the unlimited-rate guard:
 * when max_rate is 0 and the p99 is above the limit, halving starts from the measured rate. */
void rk_gate_report(struct rk_gate *gate, uint32_t docs);

struct rk_gate_state rk_gate_state(struct rk_gate *gate);
/* The throttle's figures, and why it is what it is. Any thread. */
void rk_gate_metrics(struct rk_gate *gate, struct rk_metrics *m);

#endif
