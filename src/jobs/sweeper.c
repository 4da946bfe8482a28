/*
 * A sweeper thread: claims a range, works through it batch by batch, claims the next.
 */
#include "counts_internal.h"
#include "dead_letters_internal.h"
#include "engine_internal.h"

#include <rekey/log/log.h>

#include <stdlib.h>
#include <string.h>

#define COMMAND_MAX (18u << 20)

static bool sweeper_init(struct rk_sweeper *s)
{
    struct rk_error err;
    for (size_t i = 0; i < 2; i++) {
        rk_plan_init(&s->plans[i]);
        rk_scan_batch_init(&s->batches[i]);
    }
    rk_buf_init(&s->command, COMMAND_MAX);
    rk_buf_init(&s->ids, RK_IDS_MAX);
    s->client = mongoc_client_pool_pop(s->engine->client_pool);
    s->transaction = (struct rk_transaction){.client = s->client};
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
    rk_buf_deinit(&s->ids);
    rk_aead_free(s->aead);
    rk_keyset_unref(s->keys);
    rk_policy_set_unref(s->policies);
    rk_transaction_deinit(&s->transaction);
    mongoc_client_pool_push(s->engine->client_pool, s->client);
}

const struct rk_policy *rk_sweeper_policy(struct rk_sweeper *s, const struct rk_ns *ns)
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

struct rk_lease rk_sweeper_lease(struct rk_sweeper *s, const struct rk_engine_settings *settings)
{
    struct rk_lease lease = rk_engine_lease(s->engine, s->client, settings);
    if (settings->transactions && rk_transaction_possible(&s->transaction)) {
        lease.session = rk_transaction_session(&s->transaction);
    }
    return lease;
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
    const struct rk_policy *policy = claimed ? rk_sweeper_policy(s, &letter.ns) : NULL;
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

/* Tells whoever plans that what was cut is being used up. Should it fail, the planner will see by
 * itself, a while later. */
static void ask_for_more(struct rk_sweeper *s, const struct rk_job_view *job)
{
    const struct rk_transport *transport = &s->engine->transport;
    struct rk_hint plan = {.kind = RK_HINT_PLAN, .job = job->id};
    struct rk_error err;
    size_t sent = 0;
    memcpy(plan.ns, job->ns.full, sizeof plan.ns);
    if (transport->ops->offer(transport->self, &plan, 1, &sent, &err) != RK_OK) {
        rk_log(RK_LOG_INFO, "planning_not_asked_for", RK_S("ns", job->ns.full),
               RK_S("error", err.message));
    }
}

/* A range that somebody cut. jobStatus says whether it is still to be done. */
static enum rk_hint_end work_offered(struct rk_sweeper *s, const struct rk_hint *hint,
                                     struct rk_range *range, const struct rk_job_view *jobs,
                                     size_t n_jobs, const struct rk_engine_settings *settings)
{
    struct rk_error err;
    struct rk_lease lease = rk_sweeper_lease(s, settings);
    const struct rk_job_view *job = NULL;
    for (size_t i = 0; i < n_jobs && job == NULL; i++) {
        job = bson_oid_equal(&jobs[i].id, &hint->job) ? &jobs[i] : NULL;
    }
    if (job == NULL) {
        /* Not heard of yet; or it has ended or is paused, and its ranges will be offered again. */
        return hint->attempts == 0 ? RK_HINT_LATER : RK_HINT_DONE;
    }
    if (hint->is_meta) {
        ask_for_more(s, job);
    }
    if (rk_sweeper_policy(s, &job->ns) == NULL) {
        return RK_HINT_LATER; /* for an instance that knows the namespace */
    }
    enum rk_status status =
        rk_range_claim_one(&lease, &job->id, &hint->range, job->concurrency, range, &err);
    if (status == RK_OK) {
        rk_sweeper_work_range(s, job, range, settings);
    } else if (status == RK_ELIMIT) {
        return RK_HINT_BUSY;
    } else if (status != RK_ENOENT) {
        rk_log(RK_LOG_WARN, "range_claim_failed", RK_S("ns", job->ns.full),
               RK_S("error", err.message));
        return RK_HINT_LATER;
    }
    return RK_HINT_DONE;
}

/* Takes the next hint that came, if any. */
static bool work_hint(struct rk_sweeper *s, struct rk_range *range, const struct rk_job_view *jobs,
                      size_t n_jobs, const struct rk_engine_settings *settings)
{
    struct rk_engine *engine = s->engine;
    struct rk_hint hint;
    enum rk_hint_end end = RK_HINT_DONE;
    pthread_mutex_lock(&engine->lock);
    bool found = rk_inbox_take(&engine->inbox, &hint);
    pthread_mutex_unlock(&engine->lock);
    if (!found) {
        return false;
    }
    if (hint.kind == RK_HINT_DOCS) {
        const struct rk_buf ids = {.data = hint.ids, .len = hint.ids_len};
        rk_sweeper_work_docs(s, settings, hint.ns, &ids);
    } else if (settings->mode == RK_SWEEP_LAZY) {
        end = RK_HINT_LATER;
    } else {
        end = work_offered(s, &hint, range, jobs, n_jobs, settings);
    }
    engine->transport.ops->end(engine->transport.self, &hint, end);
    return true;
}

/* Claims a range straight from jobStatus and works on it. */
static bool claim_and_work(struct rk_sweeper *s, struct rk_range *range,
                           const struct rk_job_view *jobs, size_t n_jobs,
                           const struct rk_engine_settings *settings)
{
    struct rk_error err;
    struct rk_lease lease = rk_sweeper_lease(s, settings);
    for (size_t i = 0; i < n_jobs; i++) {
        if (rk_sweeper_policy(s, &jobs[i].ns) == NULL) {
            continue;
        }
        enum rk_status status =
            rk_range_claim(&lease, &jobs[i].id, jobs[i].concurrency, range, &err);
        if (status == RK_OK) {
            rk_sweeper_work_range(s, &jobs[i], range, settings);
            return true;
        }
        if (status != RK_ENOENT && status != RK_ELIMIT) {
            rk_log(RK_LOG_WARN, "range_claim_failed", RK_S("ns", jobs[i].ns.full),
                   RK_S("error", err.message));
            rk_engine_sleep(s->engine, rk_sweeper_backoff_ms(settings, 1), &s->cancel);
        }
    }
    return false;
}

/* Finds something to do and does it. False when there was nothing. */
static bool work_once(struct rk_sweeper *s, struct rk_range *range, struct rk_job_view *jobs)
{
    struct rk_engine *engine = s->engine;
    pthread_mutex_lock(&engine->lock);
    const struct rk_engine_settings settings = engine->settings;
    size_t n_jobs = engine->n_jobs;
    bool retries = engine->retries_waiting;
    bool held = engine->controls.held;
    memcpy(jobs, engine->jobs, n_jobs * sizeof *jobs);
    pthread_mutex_unlock(&engine->lock);
    struct rk_lease lease = rk_engine_lease(engine, s->client, &settings);
    if (s->index >= settings.threads || held) {
        return false;
    }
    bool claims = settings.mode != RK_SWEEP_LAZY && rk_engine_claims(engine);
    return rk_sweeper_work_hot(s, &settings) || work_hint(s, range, jobs, n_jobs, &settings) ||
           (claims && claim_and_work(s, range, jobs, n_jobs, &settings)) ||
           (retries && retry_dead_letter(s, &lease));
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
