/*
 * The token bucket may go into debt: a grant is given whole as soon as the balance is positive,
 * and the next one waits until the debt is paid. So a batch larger than the bucket still
 * passes, and the long-run rate holds.
 *
 * Invariants under the lock: limited says whether rate applies; ceiling is where recovery ends.
 * The guard thread judges and wakes the waiters; waiters refill the bucket themselves.
 */
#include <rekey/admission/gate.h>
#include <rekey/base/clock.h>

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define BURST_S 0.1         /* of unused rate that is kept */
#define WAIT_MAX_US 50000u  /* a waiter looks at *cancel at least this often */
#define QUIET_INTERVALS 10u /* without enough samples, until recovery starts */
#define RECOVERY_STEPS 20.0 /* from nothing to the ceiling */
#define RATE_STOPPED 1.0    /* docs/s below which halving stops the sweep */
#define MEASURED_WEIGHT 0.3 /* of the newest interval in the measured rate */

struct rk_gate {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* configuration, rate or stopping */
    pthread_t guard;
    struct rk_gate_config config;
    rk_gate_sensor_fn *sensor;
    void *sensor_arg;
    rk_gate_brake_fn *brake;
    void *brake_arg;
    enum rk_gate_hold hold;
    uint64_t open_until_us; /* the window closes then; UINT64_MAX: it does not */
    bool stopping;
    unsigned waiters; /* inside rk_gate_take */

    bool limited;
    double rate;
    double ceiling;
    double tokens;
    uint64_t refilled_us;

    uint64_t reported;    /* documents since measured_us */
    uint64_t measured_us; /* when the measured rate was last brought up to date */
    double measured;      /* docs/s, smoothed */

    struct rk_histogram_snapshot judged; /* the foreground's counters at the last judgement */
    unsigned quiet_intervals;
    uint64_t p99_us;
    uint64_t samples;
    uint64_t halvings;
};

static bool same_config(const struct rk_gate_config *a, const struct rk_gate_config *b)
{
    return a->pause == b->pause && a->max_rate == b->max_rate &&
           a->p99_limit_ms == b->p99_limit_ms && a->interval_ms == b->interval_ms &&
           a->samples_min == b->samples_min && a->rate_min == b->rate_min;
}

static void apply_config(struct rk_gate *gate, const struct rk_gate_config *config)
{
    if (same_config(&gate->config, config)) {
        return;
    }
    bool guard_keeps = config->p99_limit_ms != 0 && config->max_rate == gate->config.max_rate;
    gate->config = *config;
    if (guard_keeps) {
        return; /* a reload that concerns something else must not undo the guard's work */
    }
    gate->limited = config->max_rate != 0;
    gate->rate = gate->ceiling = (double)config->max_rate;
    gate->tokens = 0; /* nor does a debt made at the old rate count at the new one */
}

static void wait_until(struct rk_gate *gate, uint64_t deadline_us)
{
    struct timespec at = {.tv_sec = (time_t)(deadline_us / 1000000u),
                          .tv_nsec = (long)(deadline_us % 1000000u) * 1000};
    (void)pthread_cond_timedwait(&gate->changed, &gate->lock, &at);
}

static void refill(struct rk_gate *gate)
{
    uint64_t now = rk_clock_mono_us();
    gate->tokens += gate->rate * (double)(now - gate->refilled_us) / 1e6;
    gate->refilled_us = now;
    double burst = gate->rate * BURST_S < 1 ? 1 : gate->rate * BURST_S;
    if (gate->tokens > burst) {
        gate->tokens = burst;
    }
}

void rk_gate_set_brake(struct rk_gate *gate, rk_gate_brake_fn *brake, void *arg)
{
    pthread_mutex_lock(&gate->lock);
    gate->brake = brake;
    gate->brake_arg = arg;
    pthread_mutex_unlock(&gate->lock);
}

static enum rk_gate_hold hold_now(const struct rk_gate *gate)
{
    bool over = gate->hold == RK_GATE_OPEN && rk_clock_mono_us() >= gate->open_until_us;
    return over ? RK_GATE_OUTSIDE_WINDOW : gate->hold;
}

void rk_gate_set_hours(struct rk_gate *gate, const struct rk_gate_hours *hours)
{
    uint64_t now = rk_clock_mono_us();
    pthread_mutex_lock(&gate->lock);
    gate->hold = hours->hold;
    gate->open_until_us = hours->open_us > UINT64_MAX - now ? UINT64_MAX : now + hours->open_us;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static bool is_paused(const struct rk_gate *gate)
{
    return gate->config.pause || hold_now(gate) != RK_GATE_OPEN ||
           (gate->brake != NULL && gate->brake(gate->brake_arg));
}

bool rk_gate_take(struct rk_gate *gate, uint32_t n, const _Atomic bool *cancel)
{
    bool granted = false;
    pthread_mutex_lock(&gate->lock);
    gate->waiters++;
    while (!gate->stopping && !(cancel != NULL && atomic_load(cancel))) {
        refill(gate);
        bool open = !gate->limited || (gate->rate > 0 && gate->tokens > 0);
        bool paused = is_paused(gate);
        if (open && !paused) {
            if (gate->limited) {
                gate->tokens -= (double)n;
            }
            granted = true;
            break;
        }
        uint64_t wait_us = WAIT_MAX_US;
        if (!paused && gate->rate > 0) {
            double debt_us = (1.0 - gate->tokens) / gate->rate * 1e6;
            wait_us = debt_us < (double)wait_us ? (uint64_t)debt_us + 1 : wait_us;
        }
        wait_until(gate, rk_clock_mono_us() + wait_us);
    }
    gate->waiters--;
    if (gate->stopping) {
        pthread_cond_broadcast(&gate->changed);
    }
    pthread_mutex_unlock(&gate->lock);
    return granted;
}

void rk_gate_give_back(struct rk_gate *gate, uint32_t n)
{
    pthread_mutex_lock(&gate->lock);
    if (gate->limited) {
        gate->tokens += (double)n;
        pthread_cond_broadcast(&gate->changed);
    }
    pthread_mutex_unlock(&gate->lock);
}

void rk_gate_report(struct rk_gate *gate, uint32_t docs)
{
    pthread_mutex_lock(&gate->lock);
    gate->reported += docs;
    pthread_mutex_unlock(&gate->lock);
}

static void measure(struct rk_gate *gate)
{
    uint64_t now = rk_clock_mono_us();
    if (now > gate->measured_us) {
        double rate = (double)gate->reported * 1e6 / (double)(now - gate->measured_us);
        gate->measured = gate->measured == 0
                             ? rate
                             : MEASURED_WEIGHT * rate + (1 - MEASURED_WEIGHT) * gate->measured;
    }
    gate->reported = 0;
    gate->measured_us = now;
}

static void halve(struct rk_gate *gate)
{
    double floor_rate = (double)gate->config.rate_min;
    if (!gate->limited) {
        if (gate->measured < RATE_STOPPED || gate->measured <= floor_rate) {
            return; /* hardly anything is being swept: the foreground is slow for another reason */
        }
        gate->limited = true;
        gate->rate = gate->ceiling = gate->measured;
    }
    if (gate->rate <= floor_rate) {
        return; /* max_rate may be set below rate_min; halving must not raise it */
    }
    gate->rate /= 2;
    if (gate->rate < floor_rate) {
        gate->rate = floor_rate;
    }
    if (gate->rate < RATE_STOPPED) {
        gate->rate = 0;
    }
    if (gate->tokens > 0) {
        gate->tokens = 0;
    }
    gate->halvings++;
}

static void recover(struct rk_gate *gate)
{
    if (!gate->limited || gate->rate >= gate->ceiling) {
        return;
    }
    refill(gate); /* what was earned so far was earned at the old rate */
    gate->rate += gate->ceiling / RECOVERY_STEPS;
    if (gate->rate >= gate->ceiling) {
        gate->rate = gate->ceiling;
        gate->limited = gate->config.max_rate != 0;
    }
}

/* now: the foreground's counters; consumed as scratch space. */
static void judge(struct rk_gate *gate, struct rk_histogram_snapshot *now)
{
    struct rk_histogram_snapshot window = *now;
    rk_histogram_subtract(&window, &gate->judged);
    uint64_t samples = rk_histogram_total(&window);
    if (samples < gate->config.samples_min && ++gate->quiet_intervals < QUIET_INTERVALS) {
        return;
    }
    bool quiet = samples < gate->config.samples_min;
    gate->quiet_intervals = 0;
    gate->judged = *now;
    gate->samples = samples;
    gate->p99_us = rk_histogram_quantile(&window, 0.99);
    if (!quiet && gate->p99_us > (uint64_t)gate->config.p99_limit_ms * 1000u) {
        halve(gate);
    } else {
        recover(gate);
    }
}

static void *guard_main(void *arg)
{
    struct rk_gate *gate = arg;
    pthread_mutex_lock(&gate->lock);
    while (!gate->stopping) {
        uint64_t deadline = rk_clock_mono_us() + (uint64_t)gate->config.interval_ms * 1000u;
        while (!gate->stopping && rk_clock_mono_us() < deadline) {
            wait_until(gate, deadline);
        }
        if (gate->stopping) {
            break;
        }
        measure(gate);
        if (gate->sensor != NULL) {
            struct rk_histogram_snapshot now = {0};
            pthread_mutex_unlock(&gate->lock);
            gate->sensor(gate->sensor_arg, &now);
            pthread_mutex_lock(&gate->lock);
            if (gate->config.p99_limit_ms != 0) {
                judge(gate, &now);
            }
        }
        pthread_cond_broadcast(&gate->changed);
    }
    pthread_mutex_unlock(&gate->lock);
    return NULL;
}

enum rk_status rk_gate_start(const struct rk_gate_config *config, rk_gate_sensor_fn *sensor,
                             void *arg, struct rk_gate **out, struct rk_error *err)
{
    assert(config->interval_ms > 0);
    struct rk_gate *gate = calloc(1, sizeof *gate);
    if (gate == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&gate->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&gate->lock, NULL);
    gate->sensor = sensor;
    gate->sensor_arg = arg;
    gate->refilled_us = gate->measured_us = rk_clock_mono_us();
    gate->config = *config;
    gate->open_until_us = UINT64_MAX;
    gate->limited = config->max_rate != 0;
    gate->rate = gate->ceiling = (double)config->max_rate;
    if (sensor != NULL) {
        sensor(arg, &gate->judged);
    }
    if (pthread_create(&gate->guard, NULL, guard_main, gate) != 0) {
        pthread_mutex_destroy(&gate->lock);
        pthread_cond_destroy(&gate->changed);
        free(gate);
        return rk_error_set(err, RK_ENOMEM, "cannot start the sweep's guard thread");
    }
    *out = gate;
    return RK_OK;
}

void rk_gate_stop(struct rk_gate *gate)
{
    if (gate == NULL) {
        return;
    }
    pthread_mutex_lock(&gate->lock);
    gate->stopping = true;
    pthread_cond_broadcast(&gate->changed);
    while (gate->waiters != 0) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    pthread_mutex_unlock(&gate->lock);
    pthread_join(gate->guard, NULL);
    pthread_mutex_destroy(&gate->lock);
    pthread_cond_destroy(&gate->changed);
    free(gate);
}

void rk_gate_reconfigure(struct rk_gate *gate, const struct rk_gate_config *config)
{
    assert(config->interval_ms > 0);
    pthread_mutex_lock(&gate->lock);
    refill(gate);
    apply_config(gate, config);
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

struct rk_gate_state rk_gate_state(struct rk_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    struct rk_gate_state state = {
        .paused = is_paused(gate),
        .pause = gate->config.pause,
        .braked = gate->brake != NULL && gate->brake(gate->brake_arg),
        .hold = hold_now(gate),
        .held_back = gate->limited && (gate->config.max_rate == 0 || gate->rate < gate->ceiling),
        .limited = gate->limited,
        .rate_docs_per_s = gate->rate,
        .p99_us = gate->p99_us,
        .samples = gate->samples,
        .halvings = gate->halvings,
        .max_rate = gate->config.max_rate,
        .p99_limit_ms = gate->config.p99_limit_ms,
    };
    pthread_mutex_unlock(&gate->lock);
    return state;
}
