/*
 * Work on one range: batch by batch, with checkpoints, until it is done, given back, lost or
 * failed.
 */
#include "counts_internal.h"
#include "engine_internal.h"

#include <rekey/base/backoff.h>
#include <rekey/base/clock.h>
#include <rekey/log/log.h>

#include <string.h>

#define CHECKPOINT_INTERVAL_US 500000u
#define BATCHES_PER_S 4u /* at a limited rate, so that the foreground never meets a long burst */

uint32_t rk_sweeper_backoff_ms(const struct rk_engine_settings *settings, unsigned failures)
{
    uint64_t ms = 0;
    for (unsigned i = 0; i < failures && ms < settings->retry_backoff_max_ms; i++) {
        ms = rk_backoff_next(ms, settings->retry_backoff_ms, settings->retry_backoff_max_ms);
    }
    return (uint32_t)rk_backoff_jittered(ms);
}

uint32_t rk_sweeper_batch_limit(const struct rk_sweeper *s,
                                const struct rk_engine_settings *settings)
{
    struct rk_gate_state gate = rk_gate_state(s->engine->gate);
    uint32_t limit = settings->batch_docs;
    double share = gate.rate_docs_per_s / BATCHES_PER_S;
    if (gate.limited && share < (double)limit) {
        limit = share < 1 ? 1 : (uint32_t)share;
    }
    return limit;
}

/* Says that the range is this sweeper's, unless the job was stopped in the meantime. */
static void hold(struct rk_sweeper *s, const struct rk_range *range, const bson_oid_t *job)
{
    struct rk_engine *engine = s->engine;
    pthread_mutex_lock(&engine->lock);
    s->holds = true;
    s->held = range->id;
    s->job = *job;
    s->slot = range->slot;
    atomic_store(&s->cancel, engine->stopping || !rk_engine_wants(engine, job, range->slot));
    pthread_mutex_unlock(&engine->lock);
}

static void let_go(struct rk_sweeper *s)
{
    pthread_mutex_lock(&s->engine->lock);
    s->holds = false;
    atomic_store(&s->cancel, s->engine->stopping);
    pthread_mutex_unlock(&s->engine->lock);
}

/* Work on one range. */
struct work {
    const struct rk_job_view *job;
    struct rk_range *range;
    struct rk_lease lease;
    struct rk_engine_settings settings;
    unsigned failures; /* in a row */
    bool exhausted;    /* everything is done, only the checkpoint is missing */
    uint64_t checkpoint_us;
    uint64_t since_us; /* it is as large as it is now */
    uint32_t limit;    /* documents of the next batch */
    int64_t rewritten; /* of them, in attempts that failed */
};

enum work_step { WORK_GO_ON, WORK_OVER };

/* What failed attempts at the batch have rewritten was found current by the last one. */
static void count_batch(struct work *work, struct rk_sweep_counts *done)
{
    int64_t ours =
        work->rewritten < done->already_current ? work->rewritten : done->already_current;
    done->swept += ours;
    done->already_current -= ours;
    work->rewritten = 0;
    rk_sweep_counts_add(&work->range->counts, done);
}

static enum rk_status next_batch(struct rk_sweeper *s, struct work *work,
                                 const struct rk_policy *policy, struct rk_error *err)
{
    struct rk_range *range = work->range;
    struct rk_sweep_counts done = {0};
    struct rk_id last;
    rk_id_init(&last);
    /* Where the primary may be read, it is after a member that was too far behind, or gone. */
    bool again = work->failures > 0 && work->settings.read_mode != MONGOC_READ_SECONDARY;
    const struct rk_scan_from from = {.mode =
                                          again ? MONGOC_READ_PRIMARY : work->settings.read_mode,
                                      .after = range->claimed_at,
                                      .max_time_ms = work->settings.write_timeout_ms};
    /* After a failure the batch stays what it was: of its documents some are known to be rewritten.
     */
    if (work->failures == 0 || work->limit == 0) {
        work->limit = rk_sweeper_batch_limit(s, &work->settings);
    }
    bool snapshot =
        work->settings.transactions && range->has_session && rk_transaction_wanted(&s->transaction);
    struct rk_sweep_task task = {
        .job = &work->job->id,
        .ns = &work->job->ns,
        .policy = policy,
        .transform = work->job->transform,
        .key_id = work->job->key_id,
        .scan = {.min = &range->start,
                 .max = &range->end,
                 .after = &range->position,
                 .policy = policy,
                 .shard_key = &work->job->shard_key,
                 .limit = work->limit,
                 .snapshot = snapshot,
                 .from = snapshot || from.mode != MONGOC_READ_PRIMARY ? &from : NULL},
    };
    enum rk_status status =
        rk_sweep_batch(s, &work->lease, &task, &done, &last, &work->exhausted, err);
    if (status == RK_OK) {
        count_batch(work, &done);
    } else {
        work->rewritten += done.swept;
    }
    if (status == RK_OK && last.type != 0) {
        status = rk_id_set(&range->position, last.type, last.value.data, last.value.len);
    }
    if (status == RK_OK) {
        range->attempts = 0;
    } else {
        work->exhausted = false;
    }
    rk_id_deinit(&last);
    if (status == RK_OK) {
        pthread_mutex_lock(&s->engine->lock);
        rk_sweep_counts_add(&s->engine->counts, &done);
        rk_threshold_add(s->engine, &work->job->id, &done);
        pthread_mutex_unlock(&s->engine->lock);
    }
    return status;
}

static enum rk_status checkpoint_if_due(struct work *work, bool *done, struct rk_error *err)
{
    uint64_t now = rk_clock_mono_us();
    *done = work->exhausted || now - work->checkpoint_us >= CHECKPOINT_INTERVAL_US;
    if (!*done) {
        return RK_OK;
    }
    work->checkpoint_us = now;
    return rk_range_checkpoint(&work->lease, work->range,
                               work->exhausted ? RK_RANGE_DONE : RK_RANGE_GO_ON, NULL, err);
}

static void release(const struct work *work)
{
    struct rk_error err;
    enum rk_status status =
        rk_range_checkpoint(&work->lease, work->range, RK_RANGE_RELEASE, NULL, &err);
    if (status != RK_OK && status != RK_ESTATE) {
        /* Somebody will take it over when the lease runs out. */
        rk_log(RK_LOG_WARN, "range_release_failed", RK_S("ns", work->job->ns.full),
               RK_I("seq", work->range->seq), RK_S("error", err.message));
    }
}

/* Has the range taken long, and is there more of it left, although others have nothing to do? */
static bool is_slow(const struct work *work)
{
    struct rk_error err;
    int64_t pending = 1;
    return work->settings.split_after_ms > 0 &&
           rk_clock_mono_us() - work->since_us >= (uint64_t)work->settings.split_after_ms * 1000u &&
           work->range->docs - work->range->counts.scanned >
               2 * (int64_t)work->settings.batch_docs &&
           rk_ranges_count(&work->lease, &work->job->id, "pending", 1, &pending, &err) == RK_OK &&
           pending == 0;
}

/* False: how far the range goes is not known any more. */
static bool split_if_slow(struct work *work)
{
    struct rk_error err;
    struct rk_range *range = work->range;
    bool split = false;
    if (!is_slow(work)) {
        return true;
    }
    if (rk_range_split(&work->lease, &work->job->ns, range, &split, &err) != RK_OK) {
        rk_log(RK_LOG_WARN, "range_split_failed", RK_S("ns", work->job->ns.full),
               RK_I("seq", range->seq), RK_S("error", err.message));
        return false;
    }
    work->since_us = rk_clock_mono_us();
    if (split) {
        rk_log(RK_LOG_INFO, "range_split", RK_S("ns", work->job->ns.full), RK_I("seq", range->seq),
               RK_I("documents", range->docs), RK_I("documents_split_off", range->split_off.docs));
    }
    return true;
}

/* What was split off, by this owner or one before it, becomes a range before anything else. */
static enum rk_status complete_split(struct rk_sweeper *s, struct work *work, struct rk_error *err)
{
    struct rk_range *range = work->range;
    if (range->split_off.end.type == 0) {
        return RK_OK;
    }
    enum rk_status status =
        rk_range_complete_split(&work->lease, &work->job->id, &work->job->ns, range, err);
    if (status == RK_OK) {
        rk_engine_nudge(s->engine); /* to offer it */
    }
    return status;
}

/* After a failure: counts it where it may be the range's own fault, records it, waits. */
static enum work_step failed(struct rk_sweeper *s, struct work *work, enum rk_status status,
                             const struct rk_error *cause)
{
    struct rk_error err;
    struct rk_range *range = work->range;
    bool own_fault = status != RK_EIO;
    work->failures++;
    rk_counter_add_shared(&s->engine->range_failures, 1);
    range->attempts += own_fault;
    bool over = range->attempts >= (int64_t)work->settings.attempts_max;
    rk_log(over ? RK_LOG_ERROR : RK_LOG_WARN, over ? "range_failed" : "range_retry",
           RK_S("ns", work->job->ns.full), RK_I("seq", range->seq), RK_I("code", cause->code),
           RK_I("failures", work->failures), RK_S("error", cause->message));
    enum rk_status recorded = rk_range_checkpoint(
        &work->lease, range, over ? RK_RANGE_FAIL : RK_RANGE_GO_ON, cause->message, &err);
    if (recorded == RK_ESTATE || (over && recorded == RK_OK)) {
        return WORK_OVER;
    }
    rk_engine_sleep(s->engine, rk_sweeper_backoff_ms(&work->settings, work->failures), &s->cancel);
    return WORK_GO_ON;
}

static enum work_step work_step(struct rk_sweeper *s, struct work *work)
{
    struct rk_error err;
    enum rk_status status = RK_OK;
    bool stored = false;
    const struct rk_policy *policy = rk_sweeper_policy(s, &work->job->ns);
    if (!work->exhausted && (policy == NULL || atomic_load(&s->cancel))) {
        release(work);
        return WORK_OVER;
    }
    work->settings = rk_engine_settings_now(s->engine);
    work->lease = rk_engine_lease(s->engine, s->client, &work->settings);
    status = complete_split(s, work, &err);
    if (status == RK_OK && !work->exhausted) {
        rk_sweeper_work_hot(s, &work->settings); /* first, and one batch only: the range goes on */
        policy = rk_sweeper_policy(s, &work->job->ns);
        if (policy == NULL) {
            return WORK_GO_ON; /* the next step gives the range back */
        }
        status = next_batch(s, work, policy, &err);
        if (status == RK_ESTATE) {
            return WORK_GO_ON; /* cancelled: the next step gives the range back */
        }
    }
    if (status == RK_OK) {
        status = checkpoint_if_due(work, &stored, &err);
        if (status == RK_ESTATE) {
            return WORK_OVER; /* it is somebody else's by now */
        }
    }
    if (status == RK_OK) {
        work->failures = 0;
        if (stored && !work->exhausted && !split_if_slow(work)) {
            release(work);
            return WORK_OVER;
        }
        return work->exhausted ? WORK_OVER : WORK_GO_ON;
    }
    if (work->exhausted && atomic_load(&s->cancel)) {
        return WORK_OVER; /* stopping with mongod away: the last batches will be read again */
    }
    return failed(s, work, status, &err);
}

void rk_sweeper_work_range(struct rk_sweeper *s, const struct rk_job_view *job,
                           struct rk_range *range, const struct rk_engine_settings *settings)
{
    struct work work = {
        .job = job,
        .range = range,
        .settings = *settings,
        .lease = rk_engine_lease(s->engine, s->client, settings),
        .checkpoint_us = rk_clock_mono_us(),
        .since_us = rk_clock_mono_us(),
    };
    hold(s, range, &job->id);
    if (range->attempts >= (int64_t)settings->attempts_max) {
        struct rk_error err;
        rk_error_set(&err, RK_EREFUSED,
                     "the range was taken over %lld times without progress; its sweepers died",
                     (long long)range->attempts);
        (void)failed(s, &work, RK_EREFUSED, &err);
    } else {
        while (work_step(s, &work) == WORK_GO_ON) {
        }
    }
    let_go(s);
}
