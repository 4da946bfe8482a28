/* rekeyctl start, pause, resume, cancel; and the table of all job commands. */
#include "jobs_internal.h"

#include <rekey/jobs/transform.h>

#include <bson/bson.h>
#include <errno.h>
#include <getopt.h>
#include <mongoc/mongoc.h>
#include <stdlib.h>
#include <string.h>

#define JOBS_MAX 1000u
#define DRY_RUN_SAMPLE 1000
#define DRY_RUN_SAMPLE_MAX 1000000
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

/* What the command line asks for; which: RK_JOB_TERM_... that it says. */
struct request {
    const char *transform;
    bool wait;
    bool dry_run;
    uint32_t sample; /* documents of each collection, of a dry run */
    struct rk_job_terms terms;
    unsigned which;
};

/* The command line's, or those of the policy that decides about the namespace. */
static struct rk_job_terms terms_for(const struct rk_ctl *ctl, const struct request *request,
                                     const char *ns)
{
    const char *dot = strchr(ns, '.');
    const struct rk_policy *policy =
        rk_policy_find(ctl->config->policies, ns, (size_t)(dot - ns), dot + 1, strlen(dot + 1));
    const struct rk_config_terms *own = rk_config_terms(ctl->config, policy->ns);
    struct rk_job_terms terms = request->terms;
    if ((request->which & RK_JOB_TERM_PRIORITY) == 0) {
        terms.priority = own->priority;
    }
    if ((request->which & RK_JOB_TERM_CONCURRENCY) == 0) {
        terms.concurrency = own->concurrency;
    }
    return terms;
}

static enum rk_ctl_exit start_each(struct rk_ctl *ctl, mongoc_client_t *client,
                                   const struct request *request, char **namespaces, size_t n,
                                   struct started *started)
{
    struct rk_error err;
    struct rk_job_spec spec = {
        .transform = request->transform,
        .actor = ctl->actor,
        .settle_ms = ctl->config->keys.refresh_interval_ms * SETTLE_REFRESHES + SETTLE_EXTRA_MS,
        .policies = ctl->config->policies,
        .warn = show_warning,
    };
    for (size_t i = 0; i < n; i++) {
        spec.ns = namespaces[i];
        spec.terms = terms_for(ctl, request, namespaces[i]);
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

static enum rk_ctl_exit start(struct rk_ctl *ctl, const struct request *request, const char *only)
{
    struct rk_error err;
    char **namespaces = NULL;
    size_t n = 0;
    struct started started = {0};
    enum rk_ctl_exit code = RK_CTL_OK;
    if (rk_transform_find(request->transform) == NULL) {
        (void)rk_error_set(&err, RK_EINVAL, "there is no transform \"%s\"", request->transform);
        return rk_ctl_job_fail(&err);
    }
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
    if (request->dry_run) {
        code = rk_ctl_dry_run(ctl, strcmp(request->transform, "encrypt") == 0, request->sample,
                              namespaces, n);
        goto done;
    }
    if (n == 0) {
        (void)fprintf(stderr, "rekeyctl: no protected collection exists; nothing to do\n");
    }
    code = start_each(ctl, client, request, namespaces, n, &started);
    if (code == RK_CTL_OK && ctl->json && !request->wait) {
        code = print_started(&started);
    } else if (code == RK_CTL_OK && request->wait) {
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

static bool take_number(const char *text, long min, long max, long *out)
{
    char *end;
    errno = 0;
    *out = strtol(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *out >= min && *out <= max;
}

/* priority and concurrency, as options and as arguments of `jobs set`; RK_CTL_OK: taken. */
static enum rk_ctl_exit take_term(struct request *request, const char *name, const char *text)
{
    long number;
    if (strcmp(name, "priority") == 0) {
        if (!take_number(text, -RK_CONFIG_PRIORITY_MAX, RK_CONFIG_PRIORITY_MAX, &number)) {
            return rk_ctl_usage("priority must be from -%d to %d, not %s", RK_CONFIG_PRIORITY_MAX,
                                RK_CONFIG_PRIORITY_MAX, text);
        }
        request->terms.priority = (int32_t)number;
        request->which |= RK_JOB_TERM_PRIORITY;
        return RK_CTL_OK;
    }
    if (strcmp(name, "concurrency") == 0) {
        if (!take_number(text, 0, (long)RK_CONFIG_CONCURRENCY_MAX, &number)) {
            return rk_ctl_usage("concurrency must be from 0 (no limit) to %u, not %s",
                                RK_CONFIG_CONCURRENCY_MAX, text);
        }
        request->terms.concurrency = (uint32_t)number;
        request->which |= RK_JOB_TERM_CONCURRENCY;
        return RK_CTL_OK;
    }
    return rk_ctl_usage("a job has priority and concurrency, and no %s", name);
}

static enum rk_ctl_exit run_jobs_set(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    struct request request = {.which = 0};
    if (argc < 3) {
        return rk_ctl_usage("jobs set takes a job id, and priority=N or concurrency=N");
    }
    for (int i = 2; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals == NULL) {
            return rk_ctl_usage("jobs set takes NAME=N, got %s", argv[i]);
        }
        *equals = '\0';
        enum rk_ctl_exit code = take_term(&request, argv[i], equals + 1);
        if (code != RK_CTL_OK) {
            return code;
        }
    }
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status = rk_jobs_set(client, ctl->config->upstream.state_db, argv[1],
                                        &request.terms, request.which, ctl->actor, &err);
    mongoc_client_pool_push(ctl->client_pool, client);
    if (status != RK_OK) {
        return rk_ctl_job_fail(&err);
    }
    if (!ctl->json) {
        (void)printf("changed job %s\n", argv[1]);
        return RK_CTL_OK;
    }
    bson_t doc = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&doc, "changed", argv[1]);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_ctl_exit run_start(struct rk_ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"transform", required_argument, NULL, 't'},
                                            {"wait", no_argument, NULL, 'w'},
                                            {"dry-run", no_argument, NULL, 'd'},
                                            {"sample", required_argument, NULL, 's'},
                                            {"priority", required_argument, NULL, 'p'},
                                            {"concurrency", required_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    struct request request = {.transform = "reencrypt", .sample = DRY_RUN_SAMPLE};
    long sample;
    enum rk_ctl_exit code = RK_CTL_OK;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 't') {
            request.transform = optarg;
        } else if (option == 'w') {
            request.wait = true;
        } else if (option == 'd') {
            request.dry_run = true;
        } else if (option == 's') {
            if (!take_number(optarg, 1, DRY_RUN_SAMPLE_MAX, &sample)) {
                code =
                    rk_ctl_usage("sample must be from 1 to %d, not %s", DRY_RUN_SAMPLE_MAX, optarg);
            } else {
                request.sample = (uint32_t)sample;
            }
        } else if (option == 'p' || option == 'c') {
            code = take_term(&request, option == 'p' ? "priority" : "concurrency", optarg);
        } else {
            code = RK_CTL_USAGE;
        }
        if (code != RK_CTL_OK) {
            return code;
        }
    }
    if (argc - optind > 1) {
        return rk_ctl_usage("start takes one namespace at most");
    }
    return start(ctl, &request, optind < argc ? argv[optind] : NULL);
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

/* Is it a job over that namespace: "db.coll", or "db.*"; NULL: over any? */
static bool is_over(const struct rk_job *job, const char *ns)
{
    size_t len = ns != NULL ? strlen(ns) : 0;
    bool wildcard = len > 2 && strcmp(ns + len - 2, ".*") == 0;
    return ns == NULL || strcmp(job->ns, ns) == 0 ||
           (wildcard && strncmp(job->ns, ns, len - 1) == 0);
}

/* Does it to every active job over ns whose state allows it; the others are no failure. */
static enum rk_ctl_exit act_on_all(struct rk_ctl *ctl, mongoc_client_t *client,
                                   enum rk_job_action action, const char *ns, int64_t *n_done)
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
        if (!is_over(&jobs[i], ns)) {
            continue;
        }
        enum rk_status status = rk_jobs_act(client, state_db, jobs[i].id, action, ctl->actor, &err);
        if (status == RK_OK) {
            (*n_done)++;
        } else if (status != RK_ESTATE && status != RK_ENOENT) {
            code = rk_ctl_job_fail(&err);
        }
    }
    free(jobs);
    if (code == RK_CTL_OK && ns != NULL && *n_done == 0) {
        (void)fprintf(stderr, "rekeyctl: there is no job over %s to %s\n", ns,
                      rk_job_action_name(action));
        return RK_CTL_STATE;
    }
    return code;
}

static enum rk_ctl_exit run_action(struct rk_ctl *ctl, int argc, char **argv,
                                   enum rk_job_action action)
{
    struct rk_error err;
    int64_t n_done = 0;
    enum rk_ctl_exit code = RK_CTL_OK;
    if (argc != 2) {
        return rk_ctl_usage("%s takes a job id, a namespace, or --all", rk_job_action_name(action));
    }
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    bool all = strcmp(argv[1], "all") == 0 || strcmp(argv[1], "--all") == 0;
    if (all || strchr(argv[1], '.') != NULL) {
        code = act_on_all(ctl, client, action, all ? NULL : argv[1], &n_done);
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
    {"jobs", "set", "JOB [priority=N] [concurrency=N]",
     "say how a job stands to others: higher priorities first; ranges at once on all instances",
     RK_CTL_NEEDS_SERVER, run_jobs_set},
    {NULL, "jobs", "", "list jobs, past ones too, newest first", RK_CTL_NEEDS_SERVER,
     rk_ctl_run_jobs},
    {NULL, "start",
     "[NAMESPACE] [--transform encrypt] [--wait] [--priority N] [--concurrency N] "
     "[--dry-run [--sample N]]",
     "sweep every protected collection, or those of one namespace, to the current key; or encrypt "
     "what never was",
     RK_CTL_NEEDS_SERVER, run_start},
    {NULL, "pause", "JOB|NAMESPACE|--all", "stop working on a job until it is resumed",
     RK_CTL_NEEDS_SERVER, run_pause},
    {NULL, "resume", "JOB|NAMESPACE|--all", "go on with a paused job, or try a failed one again",
     RK_CTL_NEEDS_SERVER, run_resume},
    {NULL, "cancel", "JOB|NAMESPACE|--all", "end a job for good; what it has swept stays swept",
     RK_CTL_NEEDS_SERVER, run_cancel},
    {NULL, "verify",
     "[NAMESPACE] [--deep] [--sample N] [--read-preference WHOM] [--max-rate N] [--restart]",
     "count every protected value by key and sign off the jobs; fails unless all are current",
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
