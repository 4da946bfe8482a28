/*
 * The engine's life, and what its threads share.
 *
 * Lock order: only the gate's lock is taken under the engine's; nobody holds either while talking
 * to mongod.
 */
#include "engine_internal.h"

#include <rekey/base/clock.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SILENT_OFFERS 2u /* intervals of offers after which a transport is not waited for */

struct rk_engine_settings rk_engine_settings_now(struct rk_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    struct rk_engine_settings settings = engine->settings;
    pthread_mutex_unlock(&engine->lock);
    return settings;
}

struct rk_lease rk_engine_lease(const struct rk_engine *engine, mongoc_client_t *client,
                                const struct rk_engine_settings *settings)
{
    return (struct rk_lease){
        .client = client,
        .state_db = engine->state_db,
        .owner = engine->instance,
        .lease_ms = settings->lease_ms,
        .wtimeout_ms = settings->write_timeout_ms,
    };
}

void rk_engine_nudge(struct rk_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->nudged = true;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
}

void rk_engine_timed_wait(struct rk_engine *engine, uint64_t deadline_us)
{
    struct timespec at = {.tv_sec = (time_t)(deadline_us / 1000000u),
                          .tv_nsec = (long)(deadline_us % 1000000u) * 1000};
    (void)pthread_cond_timedwait(&engine->changed, &engine->lock, &at);
}

void rk_engine_sleep(struct rk_engine *engine, uint32_t ms, const _Atomic bool *cancel)
{
    uint64_t deadline = rk_clock_mono_us() + (uint64_t)ms * 1000u;
    pthread_mutex_lock(&engine->lock);
    while (!engine->stopping && !atomic_load(cancel) && rk_clock_mono_us() < deadline) {
        rk_engine_timed_wait(engine, deadline);
    }
    pthread_mutex_unlock(&engine->lock);
}

bool rk_engine_wants(const struct rk_engine *engine, const bson_oid_t *job, int64_t slot)
{
    bool wanted = false;
    for (size_t i = 0; i < engine->n_jobs && !engine->controls.held; i++) {
        wanted = wanted || (bson_oid_equal(&engine->jobs[i].id, job) &&
                            rk_slot_valid(slot, engine->jobs[i].concurrency));
    }
    return wanted;
}

void rk_engine_stop_unwanted(struct rk_engine *engine)
{
    for (unsigned i = 0; i < RK_ENGINE_THREADS_MAX; i++) {
        struct rk_sweeper *s = &engine->sweepers[i];
        if (s->holds && (!rk_engine_wants(engine, &s->job, s->slot) ||
                         i >= engine->settings.threads || engine->settings.mode == RK_SWEEP_LAZY)) {
            atomic_store(&s->cancel, true);
        }
    }
}

bool rk_engine_has_transport(const struct rk_engine *engine)
{
    const struct rk_transport *t = &engine->transport;
    return t->ops != NULL && t->ops->ready(t->self);
}

bool rk_engine_claims(struct rk_engine *engine)
{
    const struct rk_transport *t = &engine->transport;
    if (!rk_engine_has_transport(engine)) {
        return true;
    }
    pthread_mutex_lock(&engine->lock);
    uint64_t silent_us = rk_clock_mono_us() - engine->hinted_us;
    pthread_mutex_unlock(&engine->lock);
    return silent_us > (uint64_t)t->ops->offer_again_ms(t->self) * SILENT_OFFERS * 1000u;
}

static void engine_free(struct rk_engine *engine)
{
    pthread_mutex_destroy(&engine->lock);
    pthread_cond_destroy(&engine->changed);
    rk_policy_set_unref(engine->policies);
    free(engine->state_db);
    free(engine->instance);
    free(engine);
}

enum rk_status rk_engine_start(const struct rk_engine_config *config, struct rk_engine **out,
                               struct rk_error *err)
{
    struct rk_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&engine->lock, NULL);
    engine->client_pool = config->client_pool;
    engine->keys = config->keys;
    engine->gate = config->gate;
    engine->hot = config->hot;
    engine->transport = config->transport;
    engine->controls = (struct rk_controls){.file = config->sweep, .audited = config->sweep};
    engine->controls.hours.open_us = UINT64_MAX;
    engine->hinted_us = rk_clock_mono_us();
    rk_controls_apply(engine);
    engine->policies = rk_policy_set_ref(config->policies);
    engine->state_db = strdup(config->state_db);
    engine->instance = strdup(config->instance);
    if (engine->state_db == NULL || engine->instance == NULL) {
        engine_free(engine);
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    if (pthread_create(&engine->coordinator, NULL, rk_coordinator_main, engine) != 0) {
        engine_free(engine);
        return rk_error_set(err, RK_ENOMEM, "cannot start the job engine's thread");
    }
    *out = engine;
    return RK_OK;
}

/* Those that nobody has begun with. */
static void return_hints(struct rk_engine *engine)
{
    struct rk_hint hint;
    while (rk_inbox_take(&engine->inbox, &hint)) {
        engine->transport.ops->end(engine->transport.self, &hint, RK_HINT_RETURN);
    }
}

void rk_engine_stop(struct rk_engine *engine)
{
    if (engine == NULL) {
        return;
    }
    pthread_mutex_lock(&engine->lock);
    engine->stopping = true;
    for (unsigned i = 0; i < RK_ENGINE_THREADS_MAX; i++) {
        atomic_store(&engine->sweepers[i].cancel, true);
    }
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    /* The coordinator first: it is the one that starts sweepers. */
    pthread_join(engine->coordinator, NULL);
    for (unsigned i = 0; i < RK_ENGINE_THREADS_MAX; i++) {
        if (engine->sweepers[i].started) {
            pthread_join(engine->sweepers[i].thread, NULL);
        }
    }
    return_hints(engine);
    engine_free(engine);
}

bool rk_engine_deliver(struct rk_engine *engine, const struct rk_hint *hint)
{
    bool taken = true;
    pthread_mutex_lock(&engine->lock);
    if (engine->stopping) {
        taken = false;
    } else if (hint->kind == RK_HINT_PLAN) {
        engine->nudged = true; /* the coordinator looks at all jobs then */
    } else {
        taken = rk_inbox_put(&engine->inbox, hint);
        engine->ticks++;
    }
    if (hint->kind == RK_HINT_RANGE) {
        engine->hinted_us = rk_clock_mono_us();
    }
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    if (taken && hint->kind == RK_HINT_PLAN) {
        struct rk_hint done = *hint;
        engine->transport.ops->end(engine->transport.self, &done, RK_HINT_DONE);
    }
    return taken;
}

void rk_engine_reconfigure(struct rk_engine *engine, const struct rk_config_sweep *sweep,
                           struct rk_policy_set *policies)
{
    struct rk_policy_set *next = rk_policy_set_ref(policies);
    pthread_mutex_lock(&engine->lock);
    struct rk_policy_set *former = engine->policies;
    engine->policies = next;
    engine->controls.file = *sweep;
    engine->controls.generation++;
    rk_controls_apply(engine);
    engine->nudged = true;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    rk_policy_set_unref(former);
}

struct rk_engine_state rk_engine_state(struct rk_engine *engine)
{
    struct rk_engine_state state = {0};
    pthread_mutex_lock(&engine->lock);
    state.counts = engine->counts;
    state.hot_counts = engine->hot_counts;
    state.pauses = engine->thresholds.pauses;
    state.range_failures = rk_counter_read(&engine->range_failures);
    state.transactions_given_up = rk_counter_read(&engine->transactions_given_up);
    for (size_t i = 0; i < engine->n_jobs; i++) {
        const struct rk_ns *ns = &engine->jobs[i].ns;
        state.jobs += rk_policy_find(engine->policies, ns->db, strlen(ns->db), ns->coll,
                                     strlen(ns->coll)) != NULL;
    }
    for (unsigned i = 0; i < RK_ENGINE_THREADS_MAX; i++) {
        state.ranges += engine->sweepers[i].holds;
    }
    pthread_mutex_unlock(&engine->lock);
    return state;
}
