/* rekeyctl start, pause, resume, cancel; and the table of all job commands. */
#include "jobs_internal.h"

#include <bson/bson.h>
#include <getopt.h>
#include <mongoc/mongoc.h>
#include <stdlib.h>
#include <string.h>

#define JOBS_MAX 1000u
#define SETTLE_REFRESHES 2u /* of the key service of every instance */
#define SETTLE_EXTRA_MS 1000u

enum rk_ctl_exit rk_ctl_job_fail(const struct rk_error *err)
{
    enum rk_ctl_exit code = rk_ctl_fail(err);
    return err->status == RK_EIO ? RK_CTL_UNREACHABLE : code;
}

struct started {
    char (*ids)[RK_JOB_ID_LEN];
    size_t n;
    size_t active;  /* namespaces that had a job already */
    size_t refused; /* those that cannot be swept */
};

static void show_warning(void *arg, const char *text)
{
    (void)arg;
    (void)fprintf(stderr, "rekeyctl: warning: %s\n", text);
}

static enum rk_ctl_exit start_each(struct rk_ctl *ctl, mongoc_client_t *client,
                                   const char *transform, char **namespaces, size_t n,
                                   struct started *started)
{
    struct rk_error err;
    struct rk_job_spec spec = {
        .transform = transform,
        .actor = ctl->actor,
        .settle_ms = ctl->config->keys.refresh_interval_ms * SETTLE_REFRESHES + SETTLE_EXTRA_MS,
        .policies = ctl->config->policies,
        .warn = show_warning,
    };
    for (size_t i = 0; i < n; i++) {
        spec.ns = namespaces[i];
        enum rk_status status = rk_jobs_create(client, ctl->config->upstream.state_db, &spec,
                                               started->ids[started->n], &err);
        if (status == RK_EREFUSED || status == RK_ESTATE) {
            (void)fprintf(stderr, "rekeyctl: %s\n", err.message);
            started->refused += status == RK_EREFUSED;
            started->active += status == RK_ESTATE;
        } else if (status != RK_OK) {
            return rk_ctl_job_fail(&err);
        } else {
            if (!ctl->json) {
                (void)printf("started job %s over %s\n", started->ids[started->n], namespaces[i]);
                (void)fflush(stdout);
            }
            started->n++;
        }
    }
    return started->n == 0 && started->active > 0 ? RK_CTL_STATE : RK_CTL_OK;
}

static enum rk_ctl_exit print_started(const struct started *started)
{
    bson_t doc = BSON_INITIALIZER;
    bson_t jobs;
    BSON_APPEND_ARRAY_BEGIN(&doc, "started", &jobs);
    for (size_t i = 0; i < started->n; i++) {
        char buf[16];
        const char *key;
        size_t len = bson_uint32_to_string((uint32_t)i, &key, buf, sizeof buf);
        bson_append_utf8(&jobs, key, (int)len, started->ids[i], -1);
    }
    bson_append_array_end(&doc, &jobs);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_ctl_exit start(struct rk_ctl *ctl, const char *transform, const char *only,
                              bool wait)
{
    struct rk_error err;
    char **namespaces = NULL;
    size_t n = 0;
    struct started started = {0};
    enum rk_ctl_exit code = RK_CTL_OK;
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    if (rk_jobs_namespaces(client, ctl->config->policies, only, &namespaces, &n, &err) != RK_OK) {
        code = rk_ctl_job_fail(&err);
        goto done;
    }
    started.ids = calloc(n + 1, sizeof *started.ids);
    if (started.ids == NULL) {
        (void)rk_error_set(&err, RK_ENOMEM, "out of memory");
        code = rk_ctl_fail(&err);
        goto done;
    }
    if (n == 0) {
        (void)fprintf(stderr, "rekeyctl: no protected collection exists; nothing to do\n");
    }
    code = start_each(ctl, client, transform, namespaces, n, &started);
    if (code == RK_CTL_OK && ctl->json && !wait) {
        code = print_started(&started);
    } else if (code == RK_CTL_OK && wait) {
        code = rk_ctl_follow(ctl, started.ids, started.n, false);
    }
    if (code == RK_CTL_OK && started.refused > 0) {
        code = RK_CTL_FAILED; /* the others are under way, or done */
    }
done:
    free(started.ids);
    rk_jobs_namespaces_free(namespaces, n);
    mongoc_client_pool_push(ctl->client_pool, client);
    return code;
}

static enum rk_ctl_exit run_start(struct rk_ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"transform", required_argument, NULL, 't'},
                                            {"wait", no_argument, NULL, 'w'},
                                            {NULL, 0, NULL, 0}};
    const char *transform = "reencrypt";
    bool wait = false;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 't') {
            transform = optarg;
        } else if (option == 'w') {
            wait = true;
        } else {
            return RK_CTL_USAGE;
        }
    }
    if (argc - optind > 1) {
        return rk_ctl_usage("start takes one namespace at most");
    }
    return start(ctl, transform, optind < argc ? argv[optind] : NULL, wait);
}

static const char *done_word(enum rk_job_action action)
{
    static const char *const words[] = {
        [RK_JOB_PAUSE] = "paused",
        [RK_JOB_RESUME] = "resumed",
        [RK_JOB_CANCEL] = "cancelled",
    };
    return words[action];
}

/* Does it to every job whose state allows it; when asked for all, the others are no failure. */
static enum rk_ctl_exit act_on_all(struct rk_ctl *ctl, mongoc_client_t *client,
                                   enum rk_job_action action, int64_t *n_done)
{
    struct rk_error err;
    struct rk_job *jobs = NULL;
    size_t n = 0;
    enum rk_ctl_exit code = RK_CTL_OK;
    const char *state_db = ctl->config->upstream.state_db;
    const struct rk_job_filter active = {.only_active = true};
    if (rk_jobs_list(client, state_db, &active, JOBS_MAX, &jobs, &n, &err) != RK_OK) {
        return rk_ctl_job_fail(&err);
    }
    for (size_t i = 0; i < n && code == RK_CTL_OK; i++) {
        enum rk_status status = rk_jobs_act(client, state_db, jobs[i].id, action, ctl->actor, &err);
        if (status == RK_OK) {
            (*n_done)++;
        } else if (status != RK_ESTATE && status != RK_ENOENT) {
            code = rk_ctl_job_fail(&err);
        }
    }
    free(jobs);
    return code;
}

static enum rk_ctl_exit run_action(struct rk_ctl *ctl, int argc, char **argv,
                                   enum rk_job_action action)
{
    struct rk_error err;
    int64_t n_done = 0;
    enum rk_ctl_exit code = RK_CTL_OK;
    if (argc != 2) {
        return rk_ctl_usage("%s takes a job id, or \"all\"", rk_job_action_name(action));
    }
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    if (strcmp(argv[1], "all") == 0) {
        code = act_on_all(ctl, client, action, &n_done);
    } else if (rk_jobs_act(client, ctl->config->upstream.state_db, argv[1], action, ctl->actor,
                           &err) != RK_OK) {
        code = rk_ctl_job_fail(&err);
    } else {
        n_done = 1;
    }
    mongoc_client_pool_push(ctl->client_pool, client);
    if (code != RK_CTL_OK) {
        return code;
    }
    if (!ctl->json) {
        (void)printf("%s %lld job%s\n", done_word(action), (long long)n_done,
                     n_done == 1 ? "" : "s");
        return RK_CTL_OK;
    }
    bson_t doc = BSON_INITIALIZER;
    BSON_APPEND_INT64(&doc, done_word(action), n_done);
    code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_ctl_exit run_pause(struct rk_ctl *ctl, int argc, char **argv)
{
    return run_action(ctl, argc, argv, RK_JOB_PAUSE);
}

static enum rk_ctl_exit run_resume(struct rk_ctl *ctl, int argc, char **argv)
{
    return run_action(ctl, argc, argv, RK_JOB_RESUME);
}

static enum rk_ctl_exit run_cancel(struct rk_ctl *ctl, int argc, char **argv)
{
    return run_action(ctl, argc, argv, RK_JOB_CANCEL);
}

const struct rk_ctl_command rk_ctl_job_commands[] = {
    {NULL, "status", "[--watch]", "show the jobs that are under way, with progress and rate",
     RK_CTL_NEEDS_SERVER, rk_ctl_run_status},
    {NULL, "jobs", "", "list jobs, past ones too, newest first", RK_CTL_NEEDS_SERVER,
     rk_ctl_run_jobs},
    {NULL, "start", "[NAMESPACE] [--transform encrypt] [--wait]",
     "sweep every protected collection, or those of one namespace, to the current key; or encrypt "
     "what never was",
     RK_CTL_NEEDS_SERVER, run_start},
    {NULL, "pause", "JOB|all", "stop working on a job until it is resumed", RK_CTL_NEEDS_SERVER,
     run_pause},
    {NULL, "resume", "JOB|all", "go on with a paused job, or try a failed one again",
     RK_CTL_NEEDS_SERVER, run_resume},
    {NULL, "cancel", "JOB|all", "end a job for good; what it has swept stays swept",
     RK_CTL_NEEDS_SERVER, run_cancel},
    {NULL, "verify", "[NAMESPACE] [--deep] [--sample N]",
     "count every protected value by key; fails unless all are under the current one",
     RK_CTL_NEEDS_SERVER, rk_ctl_run_verify},
    {"dead-letters", "list", "[NAMESPACE] [--all]", "list values that could not be processed",
     RK_CTL_NEEDS_SERVER, rk_ctl_run_dead_letters},
    {"dead-letters", "show", "ID", "all about one of them but its value", RK_CTL_NEEDS_SERVER,
     rk_ctl_run_dead_letters_show},
    {"dead-letters", "retry", "[ID|NAMESPACE]", "have the running instances try them again",
     RK_CTL_NEEDS_SERVER, rk_ctl_run_dead_letters_retry},
    {"dead-letters", "discard", "ID|--ns NAMESPACE --reason TEXT --confirm",
     "give them up: they stay on record, count no longer, and keep no key alive",
     RK_CTL_NEEDS_SERVER, rk_ctl_run_dead_letters_discard},
    {NULL, NULL, NULL, NULL, RK_CTL_NEEDS_NOTHING, NULL},
};
