/*
 * The coordinator: finds jobs, cuts and offers ranges, renews leases, closes finished jobs.
 */
#include "dead_letters_internal.h"
#include "engine_internal.h"
#include "job_state_internal.h"

#include <rekey/base/clock.h>
#include <rekey/jobs/proof.h>
#include <rekey/log/log.h>

#include <stdlib.h>
#include <string.h>

#define RENEWALS_PER_LEASE 3u

/* Documents in a hint. One takes its _id, a type and a key of up to four digits. */
#define SHARED_MAX 4096u
_Static_assert(SHARED_MAX *(RK_HOT_ID_MAX + 6u) + 5u <= RK_HINT_IDS_MAX, "all fit into it");

/* Hands the jobs to the sweepers and stops those whose job is no longer among them. */
static void publish(struct rk_engine *engine, const struct rk_job_view *jobs, size_t n_jobs,
                    bool retries)
{
    pthread_mutex_lock(&engine->lock);
    memcpy(engine->jobs, jobs, n_jobs * sizeof *jobs);
    engine->n_jobs = n_jobs;
    engine->retries_waiting = retries;
    if (n_jobs == 0 || engine->controls.held) {
        engine->hinted_us = rk_clock_mono_us();
    }
    rk_engine_stop_unwanted(engine);
    pthread_mutex_unlock(&engine->lock);
}

static bool has_policy(struct rk_engine *engine, const struct rk_ns *ns)
{
    pthread_mutex_lock(&engine->lock);
    bool found = rk_policy_find(engine->policies, ns->db, strlen(ns->db), ns->coll,
                                strlen(ns->coll)) != NULL;
    pthread_mutex_unlock(&engine->lock);
    return found;
}

/* What readers find is of use to sweepers that would do something about it. */
static void want_hot(struct rk_engine *engine, enum rk_sweep_mode mode, size_t n_jobs)
{
    if (engine->hot != NULL) {
        rk_hot_set_wanted(engine->hot,
                          mode == RK_SWEEP_LAZY || (mode == RK_SWEEP_BOTH && n_jobs > 0));
    }
}

static void wake_sweepers(struct rk_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->ticks++;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
}

struct coordinator {
    struct rk_engine *engine;
    mongoc_client_t *client;
    struct rk_job_view *jobs;
    bool prepared;                    /* indexes are there */
    bool failing;                     /* said so in the log already */
    struct rk_policy_set *remembered; /* policies whose namespaces were noted; NULL: none yet */
    uint64_t renewed_us;
    uint64_t stood_in_us; /* when jobs that others plan were last looked at */
    uint64_t cut_us;      /* when that was of use; 0: never */
    struct rk_buf ids;    /* of hot documents */
};

static void renew(struct rk_engine *engine, const struct rk_lease *lease)
{
    bson_oid_t ids[RK_ENGINE_THREADS_MAX];
    size_t n = 0;
    struct rk_error err;
    pthread_mutex_lock(&engine->lock);
    for (unsigned i = 0; i < RK_ENGINE_THREADS_MAX; i++) {
        if (engine->sweepers[i].holds) {
            ids[n++] = engine->sweepers[i].held;
        }
    }
    pthread_mutex_unlock(&engine->lock);
    if (n > 0 && rk_range_renew(lease, ids, n, &err) != RK_OK) {
        rk_log(RK_LOG_WARN, "lease_renewal_failed", RK_S("error", err.message));
    }
}

static uint64_t renewal_us(const struct rk_engine_settings *settings)
{
    return (uint64_t)settings->lease_ms * 1000u / RENEWALS_PER_LEASE;
}

static void renew_if_due(struct coordinator *c)
{
    struct rk_engine_settings settings = rk_engine_settings_now(c->engine);
    uint64_t now = rk_clock_mono_us();
    if (now - c->renewed_us >= renewal_us(&settings)) {
        struct rk_lease lease = rk_engine_lease(c->engine, c->client, &settings);
        renew(c->engine, &lease);
        c->renewed_us = now;
    }
}

static void between_sessions(void *arg)
{
    renew_if_due(arg);
}

/* Cutting may take long where collections are large or many; leases must not run out meanwhile. */
static void range_cut(void *arg)
{
    struct coordinator *c = arg;
    wake_sweepers(c->engine);
    renew_if_due(c);
    rk_controls_refresh_if_due(c->engine, c->client);
}

static bool is_held(struct rk_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    bool held = engine->controls.held;
    pthread_mutex_unlock(&engine->lock);
    return held;
}

/* Cuts the job's next ranges unless work is held up, or closes it when nothing is left. */
static enum rk_status advance_job(struct coordinator *c, const struct rk_lease *lease,
                                  const struct rk_engine_settings *settings,
                                  const struct rk_job_view *job, bool held, uint32_t *cut,
                                  struct rk_error *err)
{
    struct rk_planner_settings plan = {settings->range_docs, settings->ranges_ahead, range_cut, c};
    *cut = 0;
    if (!job->plan_complete && held) {
        return RK_OK;
    }
    if (!job->plan_complete) {
        return rk_planner_step(lease, &job->id, &job->ns, &plan, cut, err);
    }
    return rk_job_close_if_done(lease, job, err);
}

/* True when ranges were cut. */
static bool advance_jobs(struct coordinator *c, const struct rk_lease *lease,
                         const struct rk_engine_settings *settings, size_t n_jobs)
{
    struct rk_engine *engine = c->engine;
    bool any = false;
    for (size_t i = 0; i < n_jobs; i++) {
        struct rk_error err;
        uint32_t cut = 0;
        if (!has_policy(engine, &c->jobs[i].ns)) {
            continue; /* another instance's configuration knows it */
        }
        renew_if_due(c);
        if (advance_job(c, lease, settings, &c->jobs[i], is_held(engine), &cut, &err) != RK_OK) {
            /* Said for each job, and the others go on. */
            rk_log(RK_LOG_WARN, "job_planning_failed", RK_S("ns", c->jobs[i].ns.full),
                   RK_S("error", err.message));
        }
        any = any || cut > 0;
    }
    return any;
}

/* Who has the planner's place may not know the namespaces of all jobs. So the others look now and
 * then, too; who cut something has the job's planner lease, and goes on with it. */
static bool stands_in(struct coordinator *c, const struct rk_engine_settings *settings)
{
    uint64_t now = rk_clock_mono_us();
    uint64_t lease_us = (uint64_t)settings->lease_ms * 1000u;
    bool due = now - c->stood_in_us >= lease_us || (c->cut_us != 0 && now - c->cut_us < lease_us);
    c->stood_in_us = due ? now : c->stood_in_us;
    return due;
}

/* Tells the other instances what there is to do, of jobs of lesser priority once nothing waits of
 * those of a higher one. A transport that takes nothing is tried again at the next poll: each
 * attempt may take it a while. */
static void offer_ranges(struct coordinator *c, const struct rk_lease *lease,
                         const struct rk_engine_settings *settings, size_t n_jobs)
{
    const struct rk_transport *transport = &c->engine->transport;
    bool busy = false;
    for (size_t i = 0; i < n_jobs && rk_engine_has_transport(c->engine); i++) {
        struct rk_error err;
        bool waits = false;
        if (busy && c->jobs[i].priority < c->jobs[i - 1].priority) {
            return;
        }
        renew_if_due(c);
        rk_controls_refresh_if_due(c->engine, c->client);
        if (rk_offers_step(lease, &c->jobs[i], transport, settings->ranges_ahead, &waits, &err) !=
            RK_OK) {
            rk_log(RK_LOG_WARN, "ranges_not_offered", RK_S("ns", c->jobs[i].ns.full),
                   RK_S("error", err.message));
            return;
        }
        /* One that has all it may have does not keep others waiting. */
        busy = busy || (waits && has_policy(c->engine, &c->jobs[i].ns));
    }
}

/* Who plans, of several instances with a transport, is for the transport to say. */
static bool is_planner(const struct rk_engine *engine)
{
    const struct rk_transport *t = &engine->transport;
    return !rk_engine_has_transport(engine) || t->ops->plans(t->self);
}

/* Hints that would lie here, and the planner's place, are for instances that can work. */
static void want_hints(struct rk_engine *engine, const struct rk_engine_settings *settings,
                       bool able)
{
    const struct rk_transport *t = &engine->transport;
    bool works = able && !is_held(engine);
    if (t->ops != NULL) {
        t->ops->want(t->self, works && settings->mode != RK_SWEEP_LAZY, works, settings->threads);
    }
}

/* More documents than a batch of this instance's wait: others may have time for them. */
static void share_hot(struct coordinator *c, const struct rk_engine_settings *settings)
{
    struct rk_engine *engine = c->engine;
    char ns[sizeof(((struct rk_ns *)0)->full)];
    uint32_t max = settings->batch_docs < SHARED_MAX ? settings->batch_docs : SHARED_MAX;
    uint32_t n = 0;
    while (engine->hot != NULL && rk_engine_has_transport(engine) &&
           rk_hot_waiting(engine->hot) > settings->batch_docs &&
           rk_hot_take(engine->hot, max, ns, &c->ids, &n) == RK_OK && n > 0) {
        (void)engine->transport.ops->offer_docs(engine->transport.self, ns, c->ids.data,
                                                (uint32_t)c->ids.len);
    }
}

/* Starts the sweeper threads that the settings ask for and that were never started. */
static void start_sweepers(struct rk_engine *engine, uint32_t threads)
{
    for (unsigned i = 0; i < threads && i < RK_ENGINE_THREADS_MAX; i++) {
        struct rk_sweeper *s = &engine->sweepers[i];
        if (!s->started) {
            s->engine = engine;
            s->index = i;
            s->started = pthread_create(&s->thread, NULL, rk_sweeper_main, s) == 0;
            if (!s->started) {
                rk_log(RK_LOG_ERROR, "sweeper_failed", RK_S("error", "cannot start a thread"));
                return;
            }
        }
    }
}

/* Before anything can be written for long under new policies. */
static enum rk_status remember_policies(struct coordinator *c, struct rk_error *err)
{
    struct rk_engine *engine = c->engine;
    pthread_mutex_lock(&engine->lock);
    struct rk_policy_set *now = rk_policy_set_ref(engine->policies);
    pthread_mutex_unlock(&engine->lock);
    enum rk_status status =
        now == c->remembered ? RK_OK : rk_proof_remember(c->client, engine->state_db, now, err);
    if (status != RK_OK) {
        rk_policy_set_unref(now);
        return status;
    }
    rk_policy_set_unref(c->remembered);
    c->remembered = now;
    return RK_OK;
}

static enum rk_status tick(struct coordinator *c, const struct rk_engine_settings *settings,
                           struct rk_error *err)
{
    struct rk_engine *engine = c->engine;
    struct rk_lease lease = rk_engine_lease(engine, c->client, settings);
    enum rk_status status = RK_OK;
    size_t n_jobs = 0;
    bool retries = false;
    if (!c->prepared) {
        status = rk_jobs_prepare(c->client, engine->state_db, err);
        c->prepared = status == RK_OK;
    }
    if (status == RK_OK) {
        status = rk_controls_refresh(engine, c->client, err);
    }
    if (status == RK_OK) {
        status = remember_policies(c, err);
    }
    if (status == RK_OK) {
        status = rk_job_load_active(&lease, c->jobs, RK_JOBS_MAX, &n_jobs, err);
    }
    if (status == RK_OK) {
        status = rk_dead_letters_waiting(&lease, &retries, err);
    }
    for (size_t i = 0; status == RK_OK && settings->transactions && i < n_jobs; i++) {
        renew_if_due(c);
        status = rk_dead_sessions_end(&lease, &c->jobs[i].id, between_sessions, c, err);
    }
    if (status != RK_OK) {
        return status;
    }
    publish(engine, c->jobs, n_jobs, retries);
    rk_threshold_check(engine, &lease, c->jobs, n_jobs);
    want_hot(engine, settings->mode, n_jobs);
    share_hot(c, settings);
    bool plans = is_planner(engine) && settings->mode != RK_SWEEP_LAZY;
    if (plans || (settings->mode != RK_SWEEP_LAZY && stands_in(c, settings))) {
        bool cut = advance_jobs(c, &lease, settings, n_jobs);
        c->cut_us = cut && !plans ? rk_clock_mono_us() : c->cut_us;
    }
    if (plans) {
        offer_ranges(c, &lease, settings, n_jobs);
    }
    return RK_OK;
}

static void report(struct coordinator *c, enum rk_status status, const struct rk_error *err)
{
    if (status != RK_OK && !c->failing) {
        rk_log(RK_LOG_WARN, "job_engine_waiting", RK_S("error", err->message));
    } else if (status == RK_OK && c->failing) {
        rk_log(RK_LOG_INFO, "job_engine_running", RK_B("ready", true));
    }
    c->failing = status != RK_OK;
}

static void coordinate(struct coordinator *c)
{
    struct rk_engine *engine = c->engine;
    struct rk_error err;
    pthread_mutex_lock(&engine->lock);
    while (!engine->stopping) {
        struct rk_engine_settings settings = engine->settings;
        engine->nudged = false;
        pthread_mutex_unlock(&engine->lock);
        uint64_t poll_us = (uint64_t)settings.poll_interval_ms * 1000u;
        uint64_t wait_us = poll_us < renewal_us(&settings) ? poll_us : renewal_us(&settings);
        start_sweepers(engine, settings.threads);
        renew_if_due(c);
        enum rk_status status = tick(c, &settings, &err);
        report(c, status, &err);
        want_hints(engine, &settings, status == RK_OK);
        uint64_t deadline = rk_clock_mono_us() + wait_us;
        wake_sweepers(engine);
        pthread_mutex_lock(&engine->lock);
        while (!engine->stopping && !engine->nudged && rk_clock_mono_us() < deadline) {
            rk_engine_timed_wait(engine, deadline);
        }
    }
    pthread_mutex_unlock(&engine->lock);
}

void *rk_coordinator_main(void *arg)
{
    struct rk_engine *engine = arg;
    uint64_t now = rk_clock_mono_us();
    struct coordinator c = {.engine = engine, .renewed_us = now, .stood_in_us = now};
    c.jobs = calloc(RK_JOBS_MAX, sizeof *c.jobs);
    c.client = mongoc_client_pool_pop(engine->client_pool);
    rk_buf_init(&c.ids, RK_HINT_IDS_MAX);
    if (c.jobs != NULL) {
        coordinate(&c);
    } else {
        rk_log(RK_LOG_ERROR, "job_engine_failed", RK_S("error", "out of memory"));
    }
    mongoc_client_pool_push(engine->client_pool, c.client);
    rk_policy_set_unref(c.remembered);
    rk_buf_deinit(&c.ids);
    free(c.jobs);
    return NULL;
}
