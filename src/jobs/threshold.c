/*
 * Pauses jobs whose documents fail too often. Each instance judges by what it has looked at itself
 * since it got to know the job, or since the job was resumed: no counter has to be stored, and what
 * failed before a resume counts no longer.
 */
#include "engine_internal.h"

#include <rekey/keys/audit.h>
#include <rekey/log/log.h>
#include <stdio.h>

static struct rk_threshold_window *window_of(struct rk_thresholds *t, const bson_oid_t *job)
{
    for (size_t i = 0; i < t->n; i++) {
        if (bson_oid_equal(&t->windows[i].job, job)) {
            return &t->windows[i];
        }
    }
    return NULL;
}

void rk_threshold_add(struct rk_engine *engine, const bson_oid_t *job,
                      const struct rk_sweep_counts *done)
{
    struct rk_thresholds *t = &engine->thresholds;
    struct rk_threshold_window *w = window_of(t, job);
    if (w == NULL && t->n == RK_JOBS_MAX) {
        return; /* of jobs that are not active any more; the next check forgets those */
    }
    if (w == NULL) {
        w = &t->windows[t->n++];
        *w = (struct rk_threshold_window){.job = *job};
    }
    w->scanned[1] += done->scanned;
    w->rejected[1] += done->rejected;
    if (w->scanned[1] * 2 >= (int64_t)engine->settings.dead_letters.window_docs) {
        w->scanned[0] = w->scanned[1];
        w->rejected[0] = w->rejected[1];
        w->scanned[1] = w->rejected[1] = 0;
    }
}

/* Why the job is to be paused, without what to do about it. False: it goes on. */
static bool judge(const struct rk_config_dead_letters *settings,
                  const struct rk_threshold_window *w, char *why, size_t size)
{
    int64_t scanned = w->scanned[0] + w->scanned[1];
    int64_t rejected = w->rejected[0] + w->rejected[1];
    uint32_t share = settings->pause_share_percent;
    bool many = settings->pause_count != 0 && rejected > (int64_t)settings->pause_count;
    bool large = share != 0 && scanned >= (int64_t)settings->docs_min &&
                 rejected * 100 > scanned * (int64_t)share;
    if (!many && !large) {
        return false;
    }
    (void)snprintf(why, size,
                   "%lld of the last %lld documents could not be processed "
                   "(sweep.dead_letters.%s is %u)",
                   (long long)rejected, (long long)scanned,
                   many ? "pause_count" : "pause_share_percent",
                   many ? settings->pause_count : share);
    return true;
}

struct pausing {
    const struct rk_lease *lease;
    const bson_oid_t *job;
    const char *reason;
    bool paused; /* this call did it; somebody else may have ended or paused the job before */
};

static enum rk_status pause_job(mongoc_client_t *client, const char *state_db, void *arg,
                                struct rk_error *err)
{
    struct pausing *p = arg;
    struct rk_bson_elem elem;
    bson_t reply;
    bson_t *command =
        BCON_NEW("findAndModify", BCON_UTF8("jobs"), "query", "{", "_id", BCON_OID(p->job), "state",
                 "{", "$in", "[", BCON_UTF8("planning"), BCON_UTF8("running"), "]", "}", "}",
                 "update", "{", "$set", "{", "state", BCON_UTF8("paused"), "error",
                 BCON_UTF8(p->reason), "}", "}", "writeConcern", "{", "w", BCON_UTF8("majority"),
                 "wtimeout", BCON_INT64((int64_t)p->lease->wtimeout_ms), "}");
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    p->paused =
        status == RK_OK && rk_bson_find(&view, "value", &elem) && elem.type == RK_BSON_DOCUMENT;
    if (status == RK_OK) {
        (void)rk_error_set(err, RK_OK, "%s%s",
                           p->paused ? "" : "it does not run any more: ", p->reason);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

static enum rk_status pause_audited(const struct rk_lease *lease, const struct rk_job_view *job,
                                    const char *reason, bool *paused, struct rk_error *err)
{
    char id[RK_JOB_ID_LEN];
    struct pausing pausing = {.lease = lease, .job = &job->id, .reason = reason};
    bson_oid_to_string(&job->id, id);
    const struct rk_audit_event event = {
        .actor = "rekeyd", .action = "job.pause", .target = id, .detail = reason};
    enum rk_status status =
        rk_audited(lease->client, lease->state_db, &event, pause_job, &pausing, err);
    *paused = pausing.paused;
    return status;
}

/* Nobody is paused or resumed twice for the same documents. */
static void forget(struct rk_engine *engine, const bson_oid_t *job, bool paused)
{
    struct rk_thresholds *t = &engine->thresholds;
    pthread_mutex_lock(&engine->lock);
    struct rk_threshold_window *w = window_of(t, job);
    if (w != NULL) {
        *w = t->windows[--t->n];
    }
    t->pauses += paused;
    engine->nudged = engine->nudged || paused; /* sweepers are to let go of it */
    pthread_mutex_unlock(&engine->lock);
}

/* Jobs that are not active: what comes after a resume is counted from there. */
static void forget_others(struct rk_engine *engine, const struct rk_job_view *jobs, size_t n_jobs)
{
    struct rk_thresholds *t = &engine->thresholds;
    pthread_mutex_lock(&engine->lock);
    for (size_t i = 0; i < t->n;) {
        bool active = false;
        for (size_t j = 0; j < n_jobs && !active; j++) {
            active = bson_oid_equal(&t->windows[i].job, &jobs[j].id);
        }
        if (active) {
            i++;
        } else {
            t->windows[i] = t->windows[--t->n];
        }
    }
    pthread_mutex_unlock(&engine->lock);
}

void rk_threshold_check(struct rk_engine *engine, const struct rk_lease *lease,
                        const struct rk_job_view *jobs, size_t n_jobs)
{
    forget_others(engine, jobs, n_jobs);
    for (size_t i = 0; i < n_jobs; i++) {
        char why[160];
        char reason[256];
        char id[RK_JOB_ID_LEN];
        struct rk_error err;
        bool paused = false;
        pthread_mutex_lock(&engine->lock);
        const struct rk_threshold_window *w = window_of(&engine->thresholds, &jobs[i].id);
        bool pause = w != NULL && judge(&engine->settings.dead_letters, w, why, sizeof why);
        pthread_mutex_unlock(&engine->lock);
        if (!pause) {
            continue;
        }
        bson_oid_to_string(&jobs[i].id, id);
        (void)snprintf(reason, sizeof reason,
                       "%s: see `rekeyctl dead-letters list`, then `rekeyctl resume %s`", why, id);
        if (pause_audited(lease, &jobs[i], reason, &paused, &err) != RK_OK) {
            rk_log(RK_LOG_WARN, "job_not_paused", RK_S("ns", jobs[i].ns.full),
                   RK_S("error", err.message));
            continue;
        }
        forget(engine, &jobs[i].id, paused);
        if (paused) {
            rk_log(RK_LOG_ERROR, "job_paused", RK_S("ns", jobs[i].ns.full), RK_S("reason", reason));
        }
    }
}
