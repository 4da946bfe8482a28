/*
 * A sweeper thread: claims a range, works through it batch by batch, claims the next.
 */
#include "counts_internal.h"
#include "dead_letters_internal.h"
#include "engine_internal.h"

#include <rekey/base/backoff.h>
#include <rekey/base/clock.h>
#include <rekey/log/log.h>

#include <stdlib.h>
#include <string.h>

#define CHECKPOINT_INTERVAL_US 500000u
#define BATCHES_PER_S 4u /* at a limited rate, so that the foreground never meets a long burst */
#define COMMAND_MAX (18u << 20)

static bool sweeper_init(struct rk_sweeper *s)
{
    struct rk_error err;
    for (size_t i = 0; i < 2; i++) {
        rk_plan_init(&s->plans[i]);
        rk_scan_batch_init(&s->batches[i]);
    }
    rk_buf_init(&s->command, COMMAND_MAX);
    s->client = mongoc_client_pool_pop(s->engine->client_pool);
    if (rk_aead_new(&s->aead, &err) != RK_OK) {
        rk_log(RK_LOG_ERROR, "sweeper_failed", RK_S("error", err.message));
        return false;
    }
    return true;
}

static void sweeper_deinit(struct rk_sweeper *s)
{
    for (size_t i = 0; i < 2; i++) {
        rk_plan_deinit(&s->plans[i]);
        rk_scan_batch_deinit(&s->batches[i]);
    }
    rk_buf_deinit(&s->command);
    rk_aead_free(s->aead);
    rk_keyset_unref(s->keys);
    rk_policy_set_unref(s->policies);
    mongoc_client_pool_push(s->engine->client_pool, s->client);
}

static uint32_t backoff_ms(const struct rk_engine_settings *settings, unsigned failures)
{
    uint64_t ms = 0;
    for (unsigned i = 0; i < failures && ms < settings->retry_backoff_max_ms; i++) {
        ms = rk_backoff_next(ms, settings->retry_backoff_ms, settings->retry_backoff_max_ms);
    }
    return (uint32_t)rk_backoff_jittered(ms);
}

/* The policy for ns as it is configured now, or NULL; valid until the next call. */
static const struct rk_policy *policy_for(struct rk_sweeper *s, const struct rk_ns *ns)
{
    struct rk_engine *engine = s->engine;
    pthread_mutex_lock(&engine->lock);
    if (s->policies != engine->policies) {
        rk_policy_set_unref(s->policies);
        s->policies = rk_policy_set_ref(engine->policies);
    }
    pthread_mutex_unlock(&engine->lock);
    return rk_policy_find(s->policies, ns->db, strlen(ns->db), ns->coll, strlen(ns->coll));
}

static uint32_t batch_limit(struct rk_sweeper *s, const struct rk_engine_settings *settings)
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
    bool runnable = false;
    pthread_mutex_lock(&engine->lock);
    for (size_t i = 0; i < engine->n_jobs; i++) {
        runnable = runnable || bson_oid_equal(&engine->jobs[i].id, job);
    }
    s->holds = true;
    s->held = range->id;
    s->job = *job;
    atomic_store(&s->cancel, engine->stopping || !runnable);
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
};

enum work_step { WORK_GO_ON, WORK_OVER };

static enum rk_status next_batch(struct rk_sweeper *s, struct work *work,
                                 const struct rk_policy *policy, struct rk_error *err)
{
    struct rk_range *range = work->range;
    struct rk_sweep_counts done = {0};
    struct rk_id last;
    rk_id_init(&last);
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
                 .limit = batch_limit(s, &work->settings)},
    };
    enum rk_status status =
        rk_sweep_batch(s, &work->lease, &task, &done, &last, &work->exhausted, err);
    rk_sweep_counts_add(&range->counts, &done);
    if (status == RK_OK && last.type != 0) {
        status = rk_id_set(&range->position, last.type, last.value.data, last.value.len);
    }
    if (status == RK_OK) {
        range->attempts = 0;
    } else {
        work->exhausted = false;
    }
    rk_id_deinit(&last);
    pthread_mutex_lock(&s->engine->lock);
    rk_sweep_counts_add(&s->engine->counts, &done);
    pthread_mutex_unlock(&s->engine->lock);
    return status;
}

static enum rk_status checkpoint_if_due(struct work *work, struct rk_error *err)
{
    uint64_t now = rk_clock_mono_us();
    if (!work->exhausted && now - work->checkpoint_us < CHECKPOINT_INTERVAL_US) {
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
    rk_engine_sleep(s->engine, backoff_ms(&work->settings, work->failures), &s->cancel);
    return WORK_GO_ON;
}

static enum work_step work_step(struct rk_sweeper *s, struct work *work)
{
    struct rk_error err;
    enum rk_status status = RK_OK;
    const struct rk_policy *policy = policy_for(s, &work->job->ns);
    if (!work->exhausted && (policy == NULL || atomic_load(&s->cancel))) {
        release(work);
        return WORK_OVER;
    }
    work->settings = rk_engine_settings_now(s->engine);
    work->lease = rk_engine_lease(s->engine, s->client, &work->settings);
    if (!work->exhausted) {
        status = next_batch(s, work, policy, &err);
        if (status == RK_ESTATE) {
            return WORK_GO_ON; /* cancelled: the next step gives the range back */
        }
    }
    if (status == RK_OK) {
        status = checkpoint_if_due(work, &err);
        if (status == RK_ESTATE) {
            return WORK_OVER; /* it is somebody else's by now */
        }
    }
    if (status == RK_OK) {
        work->failures = 0;
        return work->exhausted ? WORK_OVER : WORK_GO_ON;
    }
    if (work->exhausted && atomic_load(&s->cancel)) {
        return WORK_OVER; /* stopping with mongod away: the last batches will be read again */
    }
    return failed(s, work, status, &err);
}

static void work_range(struct rk_sweeper *s, const struct rk_job_view *job, struct rk_range *range,
                       const struct rk_engine_settings *settings)
{
    struct work work = {
        .job = job,
        .range = range,
        .settings = *settings,
        .lease = rk_engine_lease(s->engine, s->client, settings),
        .checkpoint_us = rk_clock_mono_us(),
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

/* Takes up one dead letter that is to be tried again. False when there is none. */
static bool retry_dead_letter(struct rk_sweeper *s, const struct rk_lease *lease)
{
    struct rk_error err;
    struct rk_dead_letter letter;
    struct rk_sweep_counts counts = {0};
    struct rk_id last;
    bool exhausted;
    rk_id_init(&letter.doc);
    rk_id_init(&last);
    enum rk_status status = rk_dead_letters_claim(lease, &letter, &err);
    bool claimed = status == RK_OK;
    const struct rk_policy *policy = claimed ? policy_for(s, &letter.ns) : NULL;
    if (policy != NULL && letter.transform != NULL) {
        struct rk_sweep_task task = {
            .ns = &letter.ns,
            .policy = policy,
            .transform = letter.transform,
            .scan = {.min = &letter.doc, .policy = policy, .limit = 1},
        };
        status = rk_sweep_batch(s, lease, &task, &counts, &last, &exhausted, &err);
        if (status == RK_OK) {
            status = rk_dead_letters_resolve(lease, &letter.id, &err);
        }
    }
    if (status != RK_OK && status != RK_ENOENT && status != RK_ESTATE) {
        rk_log(RK_LOG_WARN, "dead_letter_retry_failed", RK_S("error", err.message));
    }
    rk_id_deinit(&last);
    rk_id_deinit(&letter.doc);
    return claimed;
}

/* Who has nothing to do holds no keys. */
static void drop_keys(struct rk_sweeper *s)
{
    rk_keyset_unref(s->keys);
    s->keys = NULL;
    rk_aead_forget(s->aead, NULL);
}

/* Finds something to do and does it. False when there was nothing. */
static bool work_once(struct rk_sweeper *s, struct rk_range *range, struct rk_job_view *jobs)
{
    struct rk_engine *engine = s->engine;
    struct rk_error err;
    pthread_mutex_lock(&engine->lock);
    size_t n_jobs = engine->n_jobs;
    bool retries = engine->retries_waiting;
    bool idle = s->index >= engine->settings.threads;
    memcpy(jobs, engine->jobs, n_jobs * sizeof *jobs);
    pthread_mutex_unlock(&engine->lock);
    struct rk_engine_settings settings = rk_engine_settings_now(engine);
    struct rk_lease lease = rk_engine_lease(engine, s->client, &settings);
    for (size_t i = 0; !idle && i < n_jobs; i++) {
        if (policy_for(s, &jobs[i].ns) == NULL) {
            continue;
        }
        enum rk_status status = rk_range_claim(&lease, &jobs[i].id, range, &err);
        if (status == RK_OK) {
            work_range(s, &jobs[i], range, &settings);
            return true;
        }
        if (status != RK_ENOENT) {
            rk_log(RK_LOG_WARN, "range_claim_failed", RK_S("ns", jobs[i].ns.full),
                   RK_S("error", err.message));
            rk_engine_sleep(engine, backoff_ms(&settings, 1), &s->cancel);
        }
    }
    return !idle && retries && retry_dead_letter(s, &lease);
}

void *rk_sweeper_main(void *arg)
{
    struct rk_sweeper *s = arg;
    struct rk_engine *engine = s->engine;
    struct rk_range range;
    struct rk_job_view *jobs = calloc(RK_JOBS_MAX, sizeof *jobs);
    bool ready = sweeper_init(s) && jobs != NULL;
    bool worked = false;
    rk_range_init(&range);
    pthread_mutex_lock(&engine->lock);
    while (ready && !engine->stopping) {
        uint64_t seen = engine->ticks;
        pthread_mutex_unlock(&engine->lock);
        bool found = work_once(s, &range, jobs);
        if (!found) {
            drop_keys(s);
        }
        if (!found && worked) {
            rk_engine_nudge(engine); /* ranges have run out: cut more, or close the job */
        }
        worked = found;
        pthread_mutex_lock(&engine->lock);
        while (!found && !engine->stopping && engine->ticks == seen) {
            pthread_cond_wait(&engine->changed, &engine->lock);
        }
    }
    pthread_mutex_unlock(&engine->lock);
    rk_range_deinit(&range);
    free(jobs);
    sweeper_deinit(s);
    return NULL;
}
