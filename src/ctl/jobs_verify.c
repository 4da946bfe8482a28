/* rekeyctl verify: what lies under which key, by a full scan. */
#include "jobs_internal.h"

#include <rekey/jobs/key_wait.h>
#include <rekey/jobs/verify.h>
#include <rekey/keys/service.h>
#include <rekey/vault/provider.h>

#include <bson/bson.h>
#include <getopt.h>
#include <mongoc/mongoc.h>
#include <stdlib.h>
#include <unistd.h>

#define SAMPLE_DEFAULT 1000u
#define SAMPLE_MAX 1000000000u

struct request {
    const char *only;
    bool deep;
    uint32_t sample;
};

struct report {
    struct rk_verify_result *results;
    size_t n;
    uint32_t current_key;
};

void rk_ctl_show_progress(void *arg, const char *ns, int64_t documents, int64_t estimated)
{
    char done[RK_CTL_NUMBER_LEN];
    char all[RK_CTL_NUMBER_LEN];
    (void)arg;
    (void)fprintf(stderr, "\r%s  %s/%s docs\033[K", ns, rk_ctl_number(documents, done),
                  rk_ctl_number(estimated, all));
}

static bool holds(const struct report *report)
{
    for (size_t i = 0; i < report->n; i++) {
        if (!rk_verify_holds(&report->results[i])) {
            return false;
        }
    }
    return true;
}

static void append_field(bson_t *fields, uint32_t i, const struct rk_verify_field *f)
{
    char buf[16];
    const char *key;
    bson_t doc;
    bson_t keys;
    size_t len = bson_uint32_to_string(i, &key, buf, sizeof buf);
    bson_append_document_begin(fields, key, (int)len, &doc);
    BSON_APPEND_UTF8(&doc, "path", f->path);
    BSON_APPEND_INT64(&doc, "current", f->current);
    BSON_APPEND_INT64(&doc, "oldKey", f->old_key);
    BSON_APPEND_INT64(&doc, "mismatched", f->mismatched);
    BSON_APPEND_INT64(&doc, "legacy", f->legacy);
    BSON_APPEND_INT64(&doc, "plaintext", f->plaintext);
    BSON_APPEND_INT64(&doc, "null", f->null);
    BSON_APPEND_INT64(&doc, "undecryptable", f->undecryptable);
    BSON_APPEND_INT64(&doc, "opened", f->opened);
    BSON_APPEND_DOCUMENT_BEGIN(&doc, "keys", &keys);
    for (size_t k = 0; k < f->n_keys; k++) {
        len = bson_uint32_to_string(f->keys[k].id, &key, buf, sizeof buf);
        bson_append_int64(&keys, key, (int)len, f->keys[k].values);
    }
    bson_append_document_end(&doc, &keys);
    bson_append_document_end(fields, &doc);
}

static enum rk_ctl_exit print_json(const struct report *report)
{
    bson_t doc = BSON_INITIALIZER;
    bson_t namespaces;
    BSON_APPEND_BOOL(&doc, "ok", holds(report));
    BSON_APPEND_INT64(&doc, "currentKey", (int64_t)report->current_key);
    BSON_APPEND_ARRAY_BEGIN(&doc, "namespaces", &namespaces);
    for (size_t i = 0; i < report->n; i++) {
        const struct rk_verify_result *result = &report->results[i];
        char buf[16];
        const char *key;
        bson_t entry;
        bson_t fields;
        size_t len = bson_uint32_to_string((uint32_t)i, &key, buf, sizeof buf);
        bson_append_document_begin(&namespaces, key, (int)len, &entry);
        BSON_APPEND_UTF8(&entry, "ns", result->ns);
        BSON_APPEND_INT64(&entry, "documents", result->documents);
        BSON_APPEND_BOOL(&entry, "ok", rk_verify_holds(result));
        BSON_APPEND_INT64(&entry, "elsewhere", result->elsewhere);
        BSON_APPEND_INT64(&entry, "elsewhereOldKey", result->elsewhere_old_key);
        BSON_APPEND_ARRAY_BEGIN(&entry, "fields", &fields);
        for (size_t j = 0; j < result->n_fields; j++) {
            append_field(&fields, (uint32_t)j, &result->fields[j]);
        }
        bson_append_array_end(&entry, &fields);
        bson_append_document_end(&namespaces, &entry);
    }
    bson_append_array_end(&doc, &namespaces);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_status add_row(struct rk_ctl_table *table, const char *ns,
                              const struct rk_verify_field *f)
{
    char n[8][RK_CTL_NUMBER_LEN];
    const char *const cells[] = {
        ns,
        f->path,
        rk_ctl_number(f->current, n[0]),
        rk_ctl_number(f->old_key, n[1]),
        rk_ctl_number(f->mismatched, n[2]),
        rk_ctl_number(f->legacy, n[3]),
        rk_ctl_number(f->plaintext, n[4]),
        rk_ctl_number(f->undecryptable, n[5]),
        rk_ctl_number(f->null, n[6]),
        rk_ctl_number(f->opened, n[7]),
    };
    return rk_ctl_table_row(table, cells);
}

static void print_elsewhere(const struct report *report)
{
    char all[RK_CTL_NUMBER_LEN];
    char old[RK_CTL_NUMBER_LEN];
    for (size_t i = 0; i < report->n; i++) {
        const struct rk_verify_result *result = &report->results[i];
        if (result->elsewhere > 0) {
            (void)printf("%s: %s encrypted values at paths that no policy protects, %s of them "
                         "not under the current key\n",
                         result->ns, rk_ctl_number(result->elsewhere, all),
                         rk_ctl_number(result->elsewhere_old_key, old));
        }
    }
}

static enum rk_ctl_exit print_table(const struct report *report)
{
    static const char *const headers[] = {"NAMESPACE",  "FIELD",        "CURRENT", "OLD KEY",
                                          "OTHER FORM", "LEGACY",       "PLAIN",   "UNREADABLE",
                                          "NULL",       "OPENED TO SEE"};
    struct rk_ctl_table *table = NULL;
    struct rk_error err;
    int64_t documents = 0;
    char number[RK_CTL_NUMBER_LEN];
    enum rk_status status = rk_ctl_table_new(headers, sizeof headers / sizeof headers[0], &table);
    for (size_t i = 0; i < report->n; i++) {
        const struct rk_verify_result *result = &report->results[i];
        documents += result->documents;
        for (size_t j = 0; status == RK_OK && j < result->n_fields; j++) {
            status = add_row(table, result->ns, &result->fields[j]);
        }
    }
    if (status == RK_OK) {
        rk_ctl_table_print(table);
        print_elsewhere(report);
        (void)printf("%s documents scanned; %s\n", rk_ctl_number(documents, number),
                     holds(report) ? "every value is under the current key"
                                   : "NOT every value is under the current key");
    } else {
        (void)rk_error_set(&err, status, "cannot print the result: %s", rk_status_name(status));
    }
    rk_ctl_table_free(table);
    return status == RK_OK ? RK_CTL_OK : rk_ctl_fail(&err);
}

static enum rk_ctl_exit scan(struct rk_ctl *ctl, mongoc_client_t *client,
                             const struct request *request, const struct rk_keyset *keys,
                             struct rk_key_service *service)
{
    struct rk_error err;
    const struct rk_data_key *current = rk_keyset_current(keys, RK_KEY_NAME_DEFAULT);
    struct report report = {.current_key = current != NULL ? rk_data_key_id(current) : 0};
    char **namespaces = NULL;
    size_t n = 0;
    bool progress = !ctl->json && isatty(STDERR_FILENO) == 1;
    const struct rk_verify_options options = {
        .policies = ctl->config->policies,
        .keys = keys,
        .service = service,
        .deep = request->deep,
        .sample = request->sample,
        .progress = progress ? rk_ctl_show_progress : NULL,
    };
    enum rk_status status =
        rk_jobs_namespaces(client, ctl->config->policies, request->only, &namespaces, &n, &err);
    if (status == RK_OK) {
        report.results = calloc(n + 1, sizeof *report.results);
        status = report.results == NULL ? rk_error_set(&err, RK_ENOMEM, "out of memory") : RK_OK;
    }
    for (size_t i = 0; status == RK_OK && i < n; i++) {
        status =
            rk_verify_namespace(client, namespaces[i], &options, &report.results[report.n++], &err);
    }
    if (progress) {
        (void)fputs("\r\033[K", stderr);
    }
    enum rk_ctl_exit code;
    if (status != RK_OK) {
        code = rk_ctl_job_fail(&err);
    } else {
        code = ctl->json ? print_json(&report) : print_table(&report);
        code = code == RK_CTL_OK && !holds(&report) ? RK_CTL_FAILED : code;
    }
    for (size_t i = 0; i < report.n; i++) {
        rk_verify_result_deinit(&report.results[i]);
    }
    free(report.results);
    rk_jobs_namespaces_free(namespaces, n);
    return code;
}

static enum rk_status wait_for_keys(struct rk_key_service *service,
                                    const struct rk_policy_set *policies, struct rk_error *err)
{
    const _Atomic bool never = false;
    /* That it does not exist is known when the registry was read, too. */
    enum rk_status status = rk_key_wait_name(service, RK_KEY_NAME_DEFAULT, &never, err);
    status = status == RK_ENOENT ? RK_OK : status;
    for (size_t i = 0; i < rk_policy_set_count(policies) && status == RK_OK; i++) {
        status = rk_key_wait_policy(service, rk_policy_set_at(policies, i), &never, err);
    }
    return status;
}

/* With all keys of the registry loaded, as a running instance has them. */
static enum rk_ctl_exit verify(struct rk_ctl *ctl, const struct request *request)
{
    struct rk_error err;
    struct rk_provider provider;
    struct rk_key_service *service = NULL;
    struct rk_keyset *keys = NULL;
    enum rk_ctl_exit code;
    /* What a service has to say in a daemon's log is no news to somebody at a terminal. */
    if (rk_log_open(NULL, RK_LOG_WARN, &err) != RK_OK ||
        rk_provider_open(&ctl->config->keys, &provider, &err) != RK_OK) {
        return rk_ctl_fail(&err);
    }
    const struct rk_key_service_config config = {
        .client_pool = ctl->client_pool,
        .state_db = ctl->config->upstream.state_db,
        .provider = provider,
        .refresh_interval_ms = ctl->config->keys.refresh_interval_ms,
        .negative_cache_ms = ctl->config->keys.negative_cache_ms,
    };
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status = rk_key_service_start(&config, &service, &err);
    if (status == RK_OK) {
        status = wait_for_keys(service, ctl->config->policies, &err);
    }
    if (status == RK_OK) {
        keys = rk_key_service_keyset(service);
        code = scan(ctl, client, request, keys, service);
    } else {
        code = rk_ctl_job_fail(&err);
    }
    rk_keyset_unref(keys);
    rk_key_service_stop(service);
    mongoc_client_pool_push(ctl->client_pool, client);
    provider.ops->free(provider.self);
    return code;
}

enum rk_ctl_exit rk_ctl_run_verify(struct rk_ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"deep", no_argument, NULL, 'd'},
                                            {"sample", required_argument, NULL, 's'},
                                            {NULL, 0, NULL, 0}};
    struct request request = {.sample = SAMPLE_DEFAULT};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        char *end = NULL;
        unsigned long sample;
        switch (option) {
        case 'd':
            request.deep = true;
            break;
        case 's':
            sample = strtoul(optarg, &end, 10);
            if (optarg[0] < '0' || optarg[0] > '9' || *end != '\0' || sample > SAMPLE_MAX) {
                return rk_ctl_usage("--sample takes a number of values, not %s", optarg);
            }
            request.sample = (uint32_t)sample;
            break;
        default:
            return RK_CTL_USAGE;
        }
    }
    if (argc - optind > 1) {
        return rk_ctl_usage("verify takes one namespace at most");
    }
    request.only = optind < argc ? argv[optind] : NULL;
    return verify(ctl, &request);
}
