/* rekeyctl dead-letters list, retry, discard; show is in jobs_dead_letter.c. */
#include "jobs_internal.h"

#include <rekey/jobs/dead_letters.h>

#include <bson/bson.h>
#include <getopt.h>
#include <mongoc/mongoc.h>
#include <string.h>

#define LIST_MAX 1000u
#define REASON_MAX 300u

struct listing {
    bool json;
    uint32_t n;
    bool truncated; /* there are more than LIST_MAX */
    bson_t *array;  /* with json */
    struct rk_ctl_table *table;
    enum rk_status status;
};

static void add_json(struct listing *listing, const bson_t *entry)
{
    char buf[16];
    const char *key;
    bson_t doc;
    size_t len = bson_uint32_to_string(listing->n, &key, buf, sizeof buf);
    bson_append_document_begin(listing->array, key, (int)len, &doc);
    rk_ctl_append_letter(&doc, entry);
    bson_append_document_end(listing->array, &doc);
}

static void add_row(struct listing *listing, const bson_t *entry)
{
    char attempts[RK_CTL_NUMBER_LEN];
    char when[RK_CTL_TIME_LEN];
    char id[RK_CTL_LETTER_ID_LEN];
    char *doc_id = rk_ctl_letter_doc_id(entry);
    const char *const cells[] = {
        rk_ctl_letter_id(entry, id),
        rk_ctl_letter_text(entry, "ns"),
        doc_id != NULL ? doc_id : "",
        rk_ctl_letter_text(entry, "path"),
        rk_ctl_letter_text(entry, "reason"),
        rk_ctl_number(rk_ctl_letter_number(entry, "attempts"), attempts),
        rk_ctl_time(rk_ctl_letter_date(entry, "lastSeen"), when),
        rk_ctl_letter_state(entry),
    };
    if (listing->status == RK_OK) {
        listing->status = rk_ctl_table_row(listing->table, cells);
    }
    bson_free(doc_id);
}

static void add(void *arg, const bson_t *entry)
{
    struct listing *listing = arg;
    if (listing->n == LIST_MAX) {
        listing->truncated = true;
        return;
    }
    if (listing->json) {
        add_json(listing, entry);
    } else {
        add_row(listing, entry);
    }
    listing->n++;
}

static enum rk_ctl_exit print(struct listing *listing)
{
    if (listing->json) {
        bson_t doc = BSON_INITIALIZER;
        BSON_APPEND_ARRAY(&doc, "deadLetters", listing->array);
        BSON_APPEND_BOOL(&doc, "truncated", listing->truncated);
        enum rk_ctl_exit code = rk_ctl_print_json(&doc);
        bson_destroy(&doc);
        return code;
    }
    if (listing->status != RK_OK) {
        struct rk_error err;
        (void)rk_error_set(&err, listing->status, "cannot print the dead letters: %s",
                           rk_status_name(listing->status));
        return rk_ctl_fail(&err);
    }
    if (listing->n == 0) {
        (void)printf("no dead letters\n");
    } else {
        rk_ctl_table_print(listing->table);
    }
    if (listing->truncated) {
        (void)printf("there are more: these %u are those that were seen last\n", LIST_MAX);
    }
    return RK_CTL_OK;
}

enum rk_ctl_exit rk_ctl_run_dead_letters(struct rk_ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"all", no_argument, NULL, 'a'}, {NULL, 0, NULL, 0}};
    static const char *const headers[] = {"ID",     "NAMESPACE", "DOCUMENT",  "PATH",
                                          "REASON", "ATTEMPTS",  "LAST SEEN", "STATE"};
    struct rk_error err;
    struct listing listing = {.json = ctl->json};
    bool all = false;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 'a') {
            return RK_CTL_USAGE;
        }
        all = true;
    }
    if (argc - optind > 1) {
        return rk_ctl_usage("dead-letters list takes one namespace at most");
    }
    listing.array = bson_new();
    listing.status = rk_ctl_table_new(headers, sizeof headers / sizeof headers[0], &listing.table);
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status = rk_dead_letters_list(client, ctl->config->upstream.state_db,
                                                 optind < argc ? argv[optind] : NULL, all,
                                                 LIST_MAX + 1, add, &listing, &err);
    mongoc_client_pool_push(ctl->client_pool, client);
    enum rk_ctl_exit code = status == RK_OK ? print(&listing) : rk_ctl_job_fail(&err);
    rk_ctl_table_free(listing.table);
    bson_destroy(listing.array);
    return code;
}

/* "<before>2 dead letters<after>", or {field: 2}. */
static enum rk_ctl_exit print_count(const struct rk_ctl *ctl, const char *field, int64_t n,
                                    const char *before, const char *after)
{
    if (!ctl->json) {
        (void)printf("%s%lld dead letter%s%s\n", before, (long long)n, n == 1 ? "" : "s", after);
        return RK_CTL_OK;
    }
    bson_t doc = BSON_INITIALIZER;
    BSON_APPEND_INT64(&doc, field, n);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

enum rk_ctl_exit rk_ctl_run_dead_letters_retry(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    struct rk_dead_letters_which which = {.id = NULL};
    int64_t n = 0;
    if (argc > 2) {
        return rk_ctl_usage("dead-letters retry takes one id, or one namespace, at most");
    }
    if (argc > 1 && strchr(argv[1], '.') != NULL) {
        which.ns = argv[1];
    } else if (argc > 1) {
        which.id = argv[1];
    }
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status =
        rk_dead_letters_retry(client, ctl->config->upstream.state_db, &which, ctl->actor, &n, &err);
    mongoc_client_pool_push(ctl->client_pool, client);
    return status == RK_OK
               ? print_count(ctl, "retrying", n, "the running instances will try ", " again")
               : rk_ctl_job_fail(&err);
}

struct discard {
    struct rk_dead_letters_which which;
    const char *reason;
    bool confirmed;
};

static enum rk_ctl_exit parse_discard(int argc, char **argv, struct discard *out)
{
    static const struct option options[] = {{"ns", required_argument, NULL, 'n'},
                                            {"reason", required_argument, NULL, 'r'},
                                            {"confirm", no_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'n':
            out->which.ns = optarg;
            break;
        case 'r':
            out->reason = optarg;
            break;
        case 'c':
            out->confirmed = true;
            break;
        default:
            return RK_CTL_USAGE;
        }
    }
    out->which.id = argc - optind == 1 ? argv[optind] : NULL;
    if (argc - optind > 1 || (out->which.id != NULL) == (out->which.ns != NULL)) {
        return rk_ctl_usage("dead-letters discard takes one id, or --ns NAMESPACE");
    }
    if (out->reason == NULL || out->reason[0] == '\0' || strlen(out->reason) > REASON_MAX) {
        return rk_ctl_usage("dead-letters discard wants --reason TEXT (at most %u bytes), which "
                            "stays with them and in the audit log",
                            REASON_MAX);
    }
    if (!out->confirmed) {
        return rk_ctl_usage("a discarded value keeps no key alive and is not tried again: say "
                            "--confirm");
    }
    return RK_CTL_OK;
}

enum rk_ctl_exit rk_ctl_run_dead_letters_discard(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    struct discard discard = {.reason = NULL};
    int64_t n = 0;
    enum rk_ctl_exit code = parse_discard(argc, argv, &discard);
    if (code != RK_CTL_OK) {
        return code;
    }
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status =
        rk_dead_letters_discard(client, ctl->config->upstream.state_db, &discard.which, ctl->actor,
                                discard.reason, &n, &err);
    mongoc_client_pool_push(ctl->client_pool, client);
    return status == RK_OK ? print_count(ctl, "discarded", n, "discarded ", "")
                           : rk_ctl_job_fail(&err);
}
