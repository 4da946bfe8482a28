/* rekeyctl dead-letters list, retry. */
#include "jobs_internal.h"

#include <rekey/jobs/dead_letters.h>

#include <bson/bson.h>
#include <getopt.h>
#include <mongoc/mongoc.h>
#include <string.h>

#define LIST_MAX 1000u

struct listing {
    bool json;
    uint32_t n;
    bson_t *array; /* with json */
    struct rk_ctl_table *table;
    enum rk_status status;
};

static const char *text_of(const bson_t *entry, const char *key)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, entry, key) && BSON_ITER_HOLDS_UTF8(&iter)
               ? bson_iter_utf8(&iter, NULL)
               : "";
}

static int64_t number_of(const bson_t *entry, const char *key)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, entry, key) ? bson_iter_as_int64(&iter) : 0;
}

static int64_t date_of(const bson_t *entry, const char *key)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, entry, key) && BSON_ITER_HOLDS_DATE_TIME(&iter)
               ? bson_iter_date_time(&iter)
               : 0;
}

static bool flag_of(const bson_t *entry, const char *key)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, entry, key) && bson_iter_as_bool(&iter);
}

/* The _id as JSON, since it can be of any type; bson_free it. */
static char *id_of(const bson_t *entry)
{
    bson_t only = BSON_INITIALIZER;
    bson_iter_t iter;
    if (bson_iter_init_find(&iter, entry, "docId")) {
        bson_append_iter(&only, "_id", -1, &iter);
    }
    char *text = bson_as_relaxed_extended_json(&only, NULL);
    bson_destroy(&only);
    return text;
}

static void add_json(struct listing *listing, const bson_t *entry)
{
    char buf[16];
    const char *key;
    bson_t doc;
    bson_iter_t id;
    char when[RK_CTL_TIME_LEN];
    size_t len = bson_uint32_to_string(listing->n, &key, buf, sizeof buf);
    bson_append_document_begin(listing->array, key, (int)len, &doc);
    BSON_APPEND_UTF8(&doc, "ns", text_of(entry, "ns"));
    if (bson_iter_init_find(&id, entry, "docId")) {
        bson_append_iter(&doc, "docId", -1, &id);
    }
    BSON_APPEND_UTF8(&doc, "path", text_of(entry, "path"));
    BSON_APPEND_UTF8(&doc, "reason", text_of(entry, "reason"));
    BSON_APPEND_INT64(&doc, "attempts", number_of(entry, "attempts"));
    BSON_APPEND_UTF8(&doc, "firstSeen", rk_ctl_time(date_of(entry, "firstSeen"), when));
    BSON_APPEND_UTF8(&doc, "lastSeen", rk_ctl_time(date_of(entry, "lastSeen"), when));
    BSON_APPEND_BOOL(&doc, "resolved", flag_of(entry, "resolved"));
    BSON_APPEND_BOOL(&doc, "retry", flag_of(entry, "retry"));
    bson_append_document_end(listing->array, &doc);
}

static void add_row(struct listing *listing, const bson_t *entry)
{
    char attempts[RK_CTL_NUMBER_LEN];
    char when[RK_CTL_TIME_LEN];
    char *id = id_of(entry);
    const char *const cells[] = {
        text_of(entry, "ns"),
        id != NULL ? id : "",
        text_of(entry, "path"),
        text_of(entry, "reason"),
        rk_ctl_number(number_of(entry, "attempts"), attempts),
        rk_ctl_time(date_of(entry, "lastSeen"), when),
        flag_of(entry, "resolved") ? "yes" : (flag_of(entry, "retry") ? "retry asked" : "no"),
    };
    if (listing->status == RK_OK) {
        listing->status = rk_ctl_table_row(listing->table, cells);
    }
    bson_free(id);
}

static void add(void *arg, const bson_t *entry)
{
    struct listing *listing = arg;
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
    return RK_CTL_OK;
}

enum rk_ctl_exit rk_ctl_run_dead_letters(struct rk_ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"all", no_argument, NULL, 'a'}, {NULL, 0, NULL, 0}};
    static const char *const headers[] = {"NAMESPACE", "DOCUMENT",  "PATH",    "REASON",
                                          "ATTEMPTS",  "LAST SEEN", "RESOLVED"};
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
                                                 optind < argc ? argv[optind] : NULL, all, LIST_MAX,
                                                 add, &listing, &err);
    mongoc_client_pool_push(ctl->client_pool, client);
    enum rk_ctl_exit code = status == RK_OK ? print(&listing) : rk_ctl_job_fail(&err);
    rk_ctl_table_free(listing.table);
    bson_destroy(listing.array);
    return code;
}

enum rk_ctl_exit rk_ctl_run_dead_letters_retry(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    int64_t n = 0;
    if (argc > 2) {
        return rk_ctl_usage("dead-letters retry takes one namespace at most");
    }
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status = rk_dead_letters_retry(client, ctl->config->upstream.state_db,
                                                  argc > 1 ? argv[1] : NULL, ctl->actor, &n, &err);
    mongoc_client_pool_push(ctl->client_pool, client);
    if (status != RK_OK) {
        return rk_ctl_job_fail(&err);
    }
    if (!ctl->json) {
        (void)printf("the running instances will try %lld dead letter%s again\n", (long long)n,
                     n == 1 ? "" : "s");
        return RK_CTL_OK;
    }
    bson_t doc = BSON_INITIALIZER;
    BSON_APPEND_INT64(&doc, "retrying", n);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}
