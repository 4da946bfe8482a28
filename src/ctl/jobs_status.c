/* rekeyctl status, jobs. */
#include "jobs_internal.h"

#include <rekey/base/clock.h>
#include <rekey/jobs/settings.h>

#include <bson/bson.h>
#include <getopt.h>
#include <mongoc/mongoc.h>
#include <stdlib.h>
#include <string.h>

#define JOBS_MAX 1000u
#define BAR_WIDTH 24

const char *rk_ctl_number(int64_t n, char out[RK_CTL_NUMBER_LEN])
{
    char digits[RK_CTL_NUMBER_LEN];
    size_t len = (size_t)snprintf(digits, sizeof digits, "%lld", (long long)n);
    size_t o = 0;
    for (size_t i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0 && digits[i - 1] != '-') {
            out[o++] = ',';
        }
        out[o++] = digits[i];
    }
    out[o] = '\0';
    return out;
}

bool rk_ctl_job_goes_on(const struct rk_job *job)
{
    return strcmp(job->state, "planning") == 0 || strcmp(job->state, "running") == 0 ||
           strcmp(job->state, "paused") == 0;
}

static double fraction(const struct rk_job *job)
{
    if (strcmp(job->state, "complete") == 0) {
        return 1;
    }
    if (job->documents_estimated == 0) {
        return 0;
    }
    double part = (double)job->counts.scanned / (double)job->documents_estimated;
    return part > 1 ? 1 : part;
}

double rk_ctl_job_rate(const struct rk_job *job)
{
    int64_t end = job->completed_at_ms != 0 ? job->completed_at_ms : rk_clock_wall_ms();
    int64_t ms = end - job->started_at_ms;
    return job->started_at_ms == 0 || ms <= 0 ? -1
                                              : (double)job->counts.scanned * 1000.0 / (double)ms;
}

static int64_t eta_s(const struct rk_job *job, double rate)
{
    int64_t left = job->documents_estimated - job->counts.scanned;
    if (strcmp(job->state, "running") != 0 || rate < 0.01 || left < 0) {
        return -1;
    }
    double seconds = (double)left / rate;
    return seconds > 1e9 ? -1 : (int64_t)seconds + (left > 0);
}

static void print_eta(FILE *out, int64_t seconds)
{
    if (seconds >= 86400) {
        (void)fprintf(out, "  ETA %lldd %02lldh", (long long)(seconds / 86400),
                      (long long)(seconds % 86400 / 3600));
    } else if (seconds >= 3600) {
        (void)fprintf(out, "  ETA %lld:%02lld:%02lld", (long long)(seconds / 3600),
                      (long long)(seconds % 3600 / 60), (long long)(seconds % 60));
    } else if (seconds >= 0) {
        (void)fprintf(out, "  ETA %lld:%02lld", (long long)(seconds / 60),
                      (long long)(seconds % 60));
    }
}

void rk_ctl_print_progress(FILE *out, const struct rk_job *job, double rate_docs_per_s,
                           const char *end)
{
    char bar[BAR_WIDTH + 1];
    char done[RK_CTL_NUMBER_LEN];
    char all[RK_CTL_NUMBER_LEN];
    char rate[RK_CTL_NUMBER_LEN];
    double part = fraction(job);
    int filled = (int)(part * BAR_WIDTH);
    memset(bar, '#', (size_t)filled);
    memset(bar + filled, '-', (size_t)(BAR_WIDTH - filled));
    bar[BAR_WIDTH] = '\0';
    (void)fprintf(out, "%s  %s  [%s] %5.1f%%  %s/%s docs", job->ns, job->state, bar, part * 100,
                  rk_ctl_number(job->counts.scanned, done),
                  rk_ctl_number(job->documents_estimated, all));
    if (rate_docs_per_s >= 0) {
        (void)fprintf(out, "  %s/s", rk_ctl_number((int64_t)rate_docs_per_s, rate));
    }
    print_eta(out, eta_s(job, rate_docs_per_s));
    (void)fputs(end, out);
}

static void print_details(const struct rk_job *job)
{
    char n[7][RK_CTL_NUMBER_LEN];
    (void)printf(
        "  job %s: swept %s, already current %s, gone %s, rejected %s, changed meanwhile %s, dead "
        "letters %s, not encrypted %s\n",
        job->id, rk_ctl_number(job->counts.swept, n[0]),
        rk_ctl_number(job->counts.already_current, n[1]), rk_ctl_number(job->counts.gone, n[2]),
        rk_ctl_number(job->counts.rejected, n[3]), rk_ctl_number(job->counts.changed_again, n[4]),
        rk_ctl_number(job->counts.dead_lettered, n[5]), rk_ctl_number(job->counts.plaintext, n[6]));
    (void)printf("  ranges: %lld done, %lld running, %lld failed, of %lld%s\n",
                 (long long)job->ranges_done, (long long)job->ranges_running,
                 (long long)job->ranges_failed, (long long)job->ranges,
                 job->plan_complete ? "" : " cut so far");
    if (job->verified_at_ms != 0) {
        char when[RK_CTL_TIME_LEN];
        (void)printf("  verified by %s at %s, proof %s\n", job->verified_by,
                     rk_ctl_time(job->verified_at_ms, when), job->proof);
    }
    if (job->error[0] != '\0') {
        (void)printf("  error: %s\n", job->error);
    }
    if (job->range_error[0] != '\0') {
        (void)printf("  trouble: %s\n", job->range_error);
    }
}

static void append_job(bson_t *array, uint32_t i, const struct rk_job *job)
{
    char buf[16];
    const char *key;
    bson_t doc;
    char when[RK_CTL_TIME_LEN];
    size_t len = bson_uint32_to_string(i, &key, buf, sizeof buf);
    double rate = rk_ctl_job_rate(job);
    bson_append_document_begin(array, key, (int)len, &doc);
    BSON_APPEND_UTF8(&doc, "id", job->id);
    BSON_APPEND_UTF8(&doc, "ns", job->ns);
    BSON_APPEND_UTF8(&doc, "transform", job->transform);
    BSON_APPEND_UTF8(&doc, "state", job->state);
    BSON_APPEND_INT64(&doc, "priority", (int64_t)job->terms.priority);
    BSON_APPEND_INT64(&doc, "concurrency", (int64_t)job->terms.concurrency);
    BSON_APPEND_UTF8(&doc, "createdBy", job->created_by);
    BSON_APPEND_UTF8(&doc, "createdAt", rk_ctl_time(job->created_at_ms, when));
    BSON_APPEND_UTF8(&doc, "startedAt", rk_ctl_time(job->started_at_ms, when));
    BSON_APPEND_UTF8(&doc, "completedAt", rk_ctl_time(job->completed_at_ms, when));
    BSON_APPEND_UTF8(&doc, "verifiedAt", rk_ctl_time(job->verified_at_ms, when));
    BSON_APPEND_UTF8(&doc, "verifiedBy", job->verified_by);
    BSON_APPEND_UTF8(&doc, "proof", job->proof);
    BSON_APPEND_BOOL(&doc, "planComplete", job->plan_complete);
    BSON_APPEND_DOUBLE(&doc, "progress", fraction(job));
    BSON_APPEND_DOUBLE(&doc, "docsPerSecond", rate < 0 ? 0 : rate);
    BSON_APPEND_INT64(&doc, "etaSeconds", eta_s(job, rate));
    BSON_APPEND_INT64(&doc, "documents", job->documents_estimated);
    BSON_APPEND_INT64(&doc, "ranges", job->ranges);
    BSON_APPEND_INT64(&doc, "rangesDone", job->ranges_done);
    BSON_APPEND_INT64(&doc, "rangesRunning", job->ranges_running);
    BSON_APPEND_INT64(&doc, "rangesFailed", job->ranges_failed);
    BSON_APPEND_INT64(&doc, "scanned", job->counts.scanned);
    BSON_APPEND_INT64(&doc, "swept", job->counts.swept);
    BSON_APPEND_INT64(&doc, "alreadyCurrent", job->counts.already_current);
    BSON_APPEND_INT64(&doc, "gone", job->counts.gone);
    BSON_APPEND_INT64(&doc, "rejected", job->counts.rejected);
    BSON_APPEND_INT64(&doc, "changedAgain", job->counts.changed_again);
    BSON_APPEND_INT64(&doc, "deadLettered", job->counts.dead_lettered);
    BSON_APPEND_INT64(&doc, "plaintext", job->counts.plaintext);
    BSON_APPEND_UTF8(&doc, "error", job->error);
    BSON_APPEND_UTF8(&doc, "rangeError", job->range_error);
    bson_append_document_end(array, &doc);
}

static enum rk_ctl_exit print_jobs_json(const struct rk_job *jobs, size_t n, const char *held)
{
    bson_t doc = BSON_INITIALIZER;
    bson_t array;
    if (held != NULL) {
        BSON_APPEND_UTF8(&doc, "held", held);
    }
    BSON_APPEND_ARRAY_BEGIN(&doc, "jobs", &array);
    for (size_t i = 0; i < n; i++) {
        append_job(&array, (uint32_t)i, &jobs[i]);
    }
    bson_append_array_end(&doc, &array);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

/* held: why nothing is swept, "": something is, NULL: not asked. */
static enum rk_ctl_exit print_jobs(struct rk_ctl *ctl, const struct rk_job *jobs, size_t n,
                                   const char *held)
{
    if (ctl->json) {
        return print_jobs_json(jobs, n, held);
    }
    if (held != NULL && held[0] != '\0') {
        (void)printf("nothing is swept now: %s\n", held);
    }
    for (size_t i = 0; i < n; i++) {
        rk_ctl_print_progress(stdout, &jobs[i], rk_ctl_job_rate(&jobs[i]), "\n");
        print_details(&jobs[i]);
    }
    return RK_CTL_OK;
}

enum rk_ctl_exit rk_ctl_print_jobs(struct rk_ctl *ctl, const struct rk_job *jobs, size_t n)
{
    return print_jobs(ctl, jobs, n, NULL);
}

static enum rk_ctl_exit list(struct rk_ctl *ctl, bool only_active, const char *when_none)
{
    struct rk_error err;
    struct rk_job *jobs = NULL;
    size_t n = 0;
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    const struct rk_job_filter filter = {.only_active = only_active};
    struct rk_sweep_now now;
    char held[256] = "";
    const char *state_db = ctl->config->upstream.state_db;
    enum rk_status status = rk_jobs_list(client, state_db, &filter, JOBS_MAX, &jobs, &n, &err);
    if (status == RK_OK && only_active) {
        status = rk_sweep_read(client, state_db, &ctl->config->sweep, &now, &err);
    }
    mongoc_client_pool_push(ctl->client_pool, client);
    if (status != RK_OK) {
        free(jobs);
        return rk_ctl_job_fail(&err);
    }
    if (only_active) {
        rk_ctl_sweep_reason(&now, held, sizeof held);
    }
    enum rk_ctl_exit code = print_jobs(ctl, jobs, n, only_active ? held : NULL);
    if (n == 0 && !ctl->json) {
        (void)printf("%s\n", when_none);
    }
    free(jobs);
    return code;
}

enum rk_ctl_exit rk_ctl_run_status(struct rk_ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"watch", no_argument, NULL, 'w'}, {NULL, 0, NULL, 0}};
    bool watch = false;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 'w') {
            return RK_CTL_USAGE;
        }
        watch = true;
    }
    if (optind < argc) {
        return rk_ctl_usage("status takes no argument, got %s", argv[optind]);
    }
    if (watch && !ctl->json) {
        return rk_ctl_follow(ctl, NULL, 0, true);
    }
    return list(ctl, true, "no job is under way; `rekeyctl start` starts one");
}

enum rk_ctl_exit rk_ctl_run_jobs(struct rk_ctl *ctl, int argc, char **argv)
{
    if (argc > 1) {
        return rk_ctl_usage("jobs takes no argument, got %s", argv[1]);
    }
    return list(ctl, false, "no jobs yet; `rekeyctl start` starts one");
}
