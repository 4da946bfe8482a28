/* Following jobs to their end, with progress bars. */
#include "jobs_internal.h"

#include <rekey/base/clock.h>
#include <rekey/jobs/settings.h>

#include <mongoc/mongoc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX 1000u
#define FOLLOW_INTERVAL_MS 500u
#define FOLLOW_RESTS 4u /* as long as the totals took */
#define HINT_AFTER_MS 15000
#define PLAIN_LINE_INTERVAL_US 2000000u /* where no terminal redraws a line */
#define UNREACHABLE_MAX_US 60000000u
#define RATE_WEIGHT 0.3

struct follow {
    struct rk_ctl *ctl;
    mongoc_client_t *client;
    const char (*ids)[RK_JOB_ID_LEN];
    size_t n_ids;
    FILE *out;
    bool redraw;
    bool quiet;
    bool hinted;
    char held[256]; /* why nothing is swept, as told last */
    size_t lines;   /* drawn last time */
    double rates[JOBS_MAX];
    int64_t scanned[JOBS_MAX];
    uint64_t looked_us;
    uint64_t printed_us;
};

static void measure(struct follow *f, const struct rk_job *jobs, size_t n)
{
    uint64_t now = rk_clock_mono_us();
    for (size_t i = 0; i < n && f->looked_us != 0 && now > f->looked_us; i++) {
        double rate =
            (double)(jobs[i].counts.scanned - f->scanned[i]) * 1e6 / (double)(now - f->looked_us);
        f->rates[i] = f->rates[i] < 0 ? rate : RATE_WEIGHT * rate + (1 - RATE_WEIGHT) * f->rates[i];
    }
    for (size_t i = 0; i < n; i++) {
        f->scanned[i] = jobs[i].counts.scanned;
    }
    f->looked_us = now;
}

static void draw(struct follow *f, const struct rk_job *jobs, size_t n, bool last)
{
    uint64_t now = rk_clock_mono_us();
    if (f->quiet || (!f->redraw && !last && now - f->printed_us < PLAIN_LINE_INTERVAL_US)) {
        return;
    }
    f->printed_us = now;
    if (f->redraw && f->lines > 0) {
        (void)fprintf(f->out, "\033[%zuA", f->lines); /* back up over what was drawn */
    }
    for (size_t i = 0; i < n; i++) {
        double rate = rk_ctl_job_goes_on(&jobs[i]) ? f->rates[i] : rk_ctl_job_rate(&jobs[i]);
        rk_ctl_print_progress(f->out, &jobs[i], rate, f->redraw ? "\033[K\n" : "\n");
    }
    f->lines = n;
    (void)fflush(f->out);
}

static bool any_goes_on(const struct rk_job *jobs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (rk_ctl_job_goes_on(&jobs[i])) {
            return true;
        }
    }
    return false;
}

static enum rk_ctl_exit outcome(const struct follow *f, const struct rk_job *jobs, size_t n)
{
    enum rk_ctl_exit code = RK_CTL_OK;
    for (size_t i = 0; i < n; i++) {
        if (f->ids != NULL && strcmp(jobs[i].state, "complete") != 0) {
            (void)fprintf(stderr, "rekeyctl: job %s over %s is %s%s%s\n", jobs[i].id, jobs[i].ns,
                          jobs[i].state, jobs[i].range_error[0] != '\0' ? ": " : "",
                          jobs[i].range_error);
            code = RK_CTL_FAILED;
        }
    }
    if (code == RK_CTL_OK && f->ids != NULL) {
        return rk_ctl_print_jobs(f->ctl, jobs, n);
    }
    return code;
}

/* Says why nothing is swept, when that changes: it may be hours until it is. */
static void tell_held(struct follow *f)
{
    struct rk_error err;
    struct rk_sweep_now now;
    char held[sizeof f->held];
    const struct rk_config *config = f->ctl->config;
    if (f->ids == NULL || f->quiet ||
        rk_sweep_read(f->client, config->upstream.state_db, &config->sweep, &now, &err) != RK_OK) {
        return; /* status --watch shows it; what cannot be read now is the next time */
    }
    rk_ctl_sweep_reason(&now, held, sizeof held);
    if (strcmp(held, f->held) != 0) {
        (void)snprintf(f->held, sizeof f->held, "%s", held);
        (void)fprintf(stderr, "rekeyctl: %s%s\n", held[0] != '\0' ? "nothing is swept now: " : "",
                      held[0] != '\0' ? held : "it goes on");
        f->lines = 0;
    }
}

/* Says once that a job does not begin; the reason is most often that nobody is there. */
static void hint(struct follow *f, const struct rk_job *jobs, size_t n)
{
    for (size_t i = 0; i < n && !f->hinted && !f->quiet && f->held[0] == '\0'; i++) {
        if (strcmp(jobs[i].state, "planning") == 0 &&
            rk_clock_wall_ms() - jobs[i].created_at_ms > HINT_AFTER_MS) {
            (void)fprintf(stderr,
                          "rekeyctl: no instance has taken up job %s; is a rekeyd running whose "
                          "policies protect %s?\n",
                          jobs[i].id, jobs[i].ns);
            f->hinted = true;
            f->lines = 0;
        }
    }
}

/* Totals of a job with very many ranges take mongod a while: never more than a part of its time. */
static void rest(uint64_t asking_us)
{
    uint64_t us = FOLLOW_INTERVAL_MS * 1000u;
    if (us < asking_us * FOLLOW_RESTS) {
        us = asking_us * FOLLOW_RESTS;
    }
    const struct timespec pause = {(time_t)(us / 1000000u), (long)(us % 1000000u) * 1000};
    (void)nanosleep(&pause, NULL);
}

static enum rk_ctl_exit follow(struct follow *f)
{
    uint64_t reached_us = rk_clock_mono_us();
    const struct rk_job_filter filter = {
        .only_active = f->ids == NULL, .ids = f->ids, .n_ids = f->n_ids};
    for (;;) {
        struct rk_error err;
        struct rk_job *jobs = NULL;
        size_t n = 0;
        uint64_t asked_us = rk_clock_mono_us();
        enum rk_status status = rk_jobs_list(f->client, f->ctl->config->upstream.state_db, &filter,
                                             JOBS_MAX, &jobs, &n, &err);
        uint64_t now = rk_clock_mono_us();
        if (status == RK_OK) {
            reached_us = now;
            measure(f, jobs, n);
            bool over = !any_goes_on(jobs, n);
            if (!over) {
                tell_held(f);
                hint(f, jobs, n);
            }
            draw(f, jobs, n, over);
            enum rk_ctl_exit code = over ? outcome(f, jobs, n) : RK_CTL_OK;
            free(jobs);
            if (over) {
                return code;
            }
        } else if ((status != RK_EIO && status != RK_ETIMEOUT) ||
                   now - reached_us > UNREACHABLE_MAX_US) {
            return rk_ctl_job_fail(&err);
        }
        rest(now - asked_us);
    }
}

enum rk_ctl_exit rk_ctl_follow(struct rk_ctl *ctl, const char (*ids)[RK_JOB_ID_LEN], size_t n_ids,
                               bool watch)
{
    struct follow *f = calloc(1, sizeof *f);
    if (f == NULL) {
        struct rk_error err;
        (void)rk_error_set(&err, RK_ENOMEM, "out of memory");
        return rk_ctl_fail(&err);
    }
    f->ctl = ctl;
    f->client = mongoc_client_pool_pop(ctl->client_pool);
    f->ids = ids;
    f->n_ids = n_ids;
    f->out = watch ? stdout : stderr;
    f->redraw = isatty(fileno(f->out)) == 1;
    f->quiet = ctl->json;
    for (size_t i = 0; i < JOBS_MAX; i++) {
        f->rates[i] = -1;
    }
    enum rk_ctl_exit code = follow(f);
    mongoc_client_pool_push(ctl->client_pool, f->client);
    free(f);
    return code;
}
