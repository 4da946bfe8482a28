/* rekeyctl start --dry-run: what would be done, and how long it might take. */
#include "jobs_internal.h"

#include <rekey/config/sweep.h>
#include <rekey/jobs/estimate.h>
#include <rekey/jobs/settings.h>

#include <bson/bson.h>
#include <mongoc/mongoc.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY_JOBS 100u
#define SCAN_DISCOUNT 10.0 /* of a document that is only read, as sweepers have it */
#define MINUTE_S 60.0

struct dry_run {
    struct rk_ctl *ctl;
    mongoc_client_t *client;
    struct rk_estimate_options options;
    struct rk_sweep_now now;
    double measured; /* documents a second of the last job that was done; 0: none yet */
    bson_t *array;
    uint32_t n;
};

/* Of the newest complete job. */
static enum rk_status read_measured(struct dry_run *run, struct rk_error *err)
{
    struct rk_job *jobs = NULL;
    size_t n = 0;
    const struct rk_job_filter all = {.only_active = false};
    enum rk_status status = rk_jobs_list(run->client, run->ctl->config->upstream.state_db, &all,
                                         HISTORY_JOBS, &jobs, &n, err);
    for (size_t i = 0; status == RK_OK && i < n && run->measured == 0; i++) {
        double rate = rk_ctl_job_rate(&jobs[i]);
        if (strcmp(jobs[i].state, "complete") == 0 && jobs[i].counts.scanned > 0 && rate > 0) {
            run->measured = rate;
        }
    }
    free(jobs);
    return status;
}

/* Seconds from now on, with the hours in which nothing is swept; negative: not known. */
static int64_t duration_s(const struct dry_run *run, double work_docs, double rate)
{
    const struct rk_window window = rk_config_sweep_window(&run->now.sweep);
    if (rate <= 0) {
        return -1;
    }
    double seconds = work_docs / rate;
    uint64_t minutes = (uint64_t)(seconds / MINUTE_S);
    if (window.n == 0) {
        return (int64_t)seconds;
    }
    return (int64_t)rk_window_elapse(&window, run->now.week_minute, minutes + 1) * 60;
}

static void append_estimate(struct dry_run *run, const char *ns, const struct rk_estimate *e,
                            const int64_t durations[2])
{
    char buf[16];
    const char *index;
    bson_t doc;
    bson_t keys;
    size_t len = bson_uint32_to_string(run->n++, &index, buf, sizeof buf);
    bson_append_document_begin(run->array, index, (int)len, &doc);
    BSON_APPEND_UTF8(&doc, "ns", ns);
    BSON_APPEND_INT64(&doc, "documents", e->documents);
    BSON_APPEND_INT64(&doc, "bytes", e->bytes);
    BSON_APPEND_INT64(&doc, "sampled", e->sampled);
    BSON_APPEND_INT64(&doc, "needing", e->needing);
    BSON_APPEND_INT64(&doc, "documentsNeeding", rk_estimate_needing(e));
    BSON_APPEND_INT64(&doc, "current", e->current);
    BSON_APPEND_INT64(&doc, "legacy", e->legacy);
    BSON_APPEND_INT64(&doc, "plaintext", e->plaintext);
    BSON_APPEND_DOCUMENT_BEGIN(&doc, "keys", &keys);
    for (size_t i = 0; i < e->n_keys; i++) {
        (void)snprintf(buf, sizeof buf, "%u", e->keys[i].id);
        BSON_APPEND_INT64(&keys, buf, e->keys[i].values);
    }
    bson_append_document_end(&doc, &keys);
    uint32_t range_docs = run->now.sweep.range_docs;
    BSON_APPEND_INT64(&doc, "ranges", (e->documents + range_docs - 1) / range_docs);
    BSON_APPEND_INT64(&doc, "secondsAtMaxRate", durations[0]);
    BSON_APPEND_INT64(&doc, "secondsAtMeasuredRate", durations[1]);
    bson_append_document_end(run->array, &doc);
}

static void print_duration(const char *what, int64_t seconds)
{
    if (seconds >= 0) {
        (void)printf("  %s: %lldd %02lld:%02lld:%02lld\n", what, (long long)(seconds / 86400),
                     (long long)(seconds % 86400 / 3600), (long long)(seconds % 3600 / 60),
                     (long long)(seconds % 60));
    }
}

static void print_estimate(const char *ns, const struct rk_estimate *e, const int64_t durations[2])
{
    char n[3][RK_CTL_NUMBER_LEN];
    (void)printf("%s: %s documents, %s bytes; about %s need work\n", ns,
                 rk_ctl_number(e->documents, n[0]), rk_ctl_number(e->bytes, n[1]),
                 rk_ctl_number(rk_estimate_needing(e), n[2]));
    (void)printf("  of %lld sampled documents %lld need work; values: %lld current, %lld legacy, "
                 "%lld not encrypted\n",
                 (long long)e->sampled, (long long)e->needing, (long long)e->current,
                 (long long)e->legacy, (long long)e->plaintext);
    for (size_t i = 0; i < e->n_keys; i++) {
        (void)printf("  under key %u: %lld values\n", e->keys[i].id, (long long)e->keys[i].values);
    }
    print_duration("one instance at sweep.max_rate", durations[0]);
    print_duration("as fast as the last job", durations[1]);
}

static enum rk_status estimate_one(struct dry_run *run, const char *ns, struct rk_error *err)
{
    struct rk_estimate e;
    enum rk_status status = rk_estimate(run->client, ns, &run->options, &e, err);
    if (status != RK_OK) {
        return status;
    }
    double writes = (double)rk_estimate_needing(&e);
    double work = writes + ((double)e.documents - writes) / SCAN_DISCOUNT;
    const int64_t durations[2] = {
        duration_s(run, work, (double)run->now.sweep.max_rate),
        duration_s(run, (double)e.documents, run->measured),
    };
    if (run->ctl->json) {
        append_estimate(run, ns, &e, durations);
    } else {
        print_estimate(ns, &e, durations);
    }
    return RK_OK;
}

static enum rk_status prepare(struct dry_run *run, struct rk_key_record **keys,
                              struct rk_error *err)
{
    struct rk_registry *registry = NULL;
    const struct rk_config *config = run->ctl->config;
    enum rk_status status =
        rk_registry_new(run->ctl->client_pool, config->upstream.state_db, &registry, err);
    if (status == RK_OK) {
        status = rk_registry_list(registry, keys, &run->options.n_keys, err);
        rk_registry_free(registry);
    }
    run->options.keys = *keys;
    if (status == RK_OK) {
        status =
            rk_sweep_read(run->client, config->upstream.state_db, &config->sweep, &run->now, err);
    }
    return status == RK_OK ? read_measured(run, err) : status;
}

enum rk_ctl_exit rk_ctl_dry_run(struct rk_ctl *ctl, bool encrypt, uint32_t sample,
                                char *const *namespaces, size_t n)
{
    struct rk_error err;
    struct rk_key_record *keys = NULL;
    bson_t doc = BSON_INITIALIZER;
    bson_t array;
    struct dry_run run = {.ctl = ctl, .array = &array};
    enum rk_ctl_exit code = RK_CTL_OK;
    run.options = (struct rk_estimate_options){
        .policies = ctl->config->policies, .encrypt = encrypt, .sample = sample};
    run.client = mongoc_client_pool_pop(ctl->client_pool);
    BSON_APPEND_ARRAY_BEGIN(&doc, "namespaces", &array);
    enum rk_status status = prepare(&run, &keys, &err);
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        status = estimate_one(&run, namespaces[i], &err);
    }
    bson_append_array_end(&doc, &array);
    if (status != RK_OK) {
        code = rk_ctl_job_fail(&err);
    } else if (ctl->json) {
        code = rk_ctl_print_json(&doc);
    }
    bson_destroy(&doc);
    mongoc_client_pool_push(ctl->client_pool, run.client);
    free(keys);
    return code;
}
