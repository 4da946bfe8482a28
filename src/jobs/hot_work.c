/*
 * Documents that applications have read under an old key, before the ranges in which they lie. They
 * count for no range: the sweep meets them again, and finds them current.
 */
#include "counts_internal.h"
#include "engine_internal.h"

#include <rekey/log/log.h>

/* While jobs are worked on, only what they are about; in lazy mode whatever has a policy. */
static bool is_wanted(struct rk_engine *engine, const char *ns, uint32_t *key_id,
                      struct rk_shard_key *shard_key)
{
    bool wanted = false;
    pthread_mutex_lock(&engine->lock);
    wanted = engine->settings.mode == RK_SWEEP_LAZY;
    for (size_t i = 0; i < engine->n_jobs; i++) {
        const struct rk_job_view *job = &engine->jobs[i];
        if (strcmp(job->ns.full, ns) == 0 && job->transform == &rk_transform_reencrypt) {
            *key_id = job->key_id;
            *shard_key = job->shard_key;
            wanted = wanted || engine->settings.mode == RK_SWEEP_BOTH;
        }
    }
    pthread_mutex_unlock(&engine->lock);
    return wanted;
}

void rk_sweeper_work_docs(struct rk_sweeper *s, const struct rk_engine_settings *settings,
                          const char *ns_text, const struct rk_buf *ids)
{
    struct rk_engine *engine = s->engine;
    struct rk_lease lease = rk_engine_lease(engine, s->client, settings);
    struct rk_sweep_counts done = {0};
    struct rk_error err;
    struct rk_ns ns;
    struct rk_id last;
    bool exhausted;
    uint32_t key_id = 0;
    struct rk_shard_key shard_key = {0}; /* lazy mode has none: mongos asks all shards */
    if (!rk_ns_parse(&ns, ns_text) || !is_wanted(engine, ns_text, &key_id, &shard_key)) {
        return;
    }
    const struct rk_policy *policy = rk_sweeper_policy(s, &ns);
    if (policy == NULL) {
        return;
    }
    rk_id_init(&last);
    const struct rk_sweep_task task = {.ns = &ns,
                                       .policy = policy,
                                       .transform = &rk_transform_reencrypt,
                                       .key_id = key_id,
                                       .scan = {.policy = policy, .shard_key = &shard_key},
                                       .ids = ids};
    enum rk_status status = rk_sweep_batch(s, &lease, &task, &done, &last, &exhausted, &err);
    if (status != RK_OK && status != RK_ESTATE) {
        /* Their next reader, or the sweep, will bring them back. */
        rk_log(RK_LOG_WARN, "hot_documents_failed", RK_S("ns", ns.full),
               RK_S("error", err.message));
    }
    rk_id_deinit(&last);
    pthread_mutex_lock(&engine->lock);
    rk_sweep_counts_add(&engine->hot_counts, &done);
    pthread_mutex_unlock(&engine->lock);
}

bool rk_sweeper_work_hot(struct rk_sweeper *s, const struct rk_engine_settings *settings)
{
    char ns[sizeof(((struct rk_ns *)0)->full)];
    uint32_t n = 0;
    if (s->engine->hot == NULL || rk_hot_waiting(s->engine->hot) == 0 ||
        rk_hot_take(s->engine->hot, rk_sweeper_batch_limit(s, settings), ns, &s->ids, &n) !=
            RK_OK ||
        n == 0) {
        return false;
    }
    rk_sweeper_work_docs(s, settings, ns, &s->ids);
    return true;
}
