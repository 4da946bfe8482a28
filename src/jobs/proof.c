#include "proof_internal.h"
#include "scan_internal.h"

#include <rekey/jobs/dead_letters.h>
#include <rekey/jobs/store.h>
#include <rekey/keys/mongo.h>
#include <stdio.h>
#include <stdlib.h>

struct scanning {
    const struct rk_proof_request *request;
    struct rk_proof_part *part;
    int64_t estimated; /* documents */
};

static void take_estimate(void *arg, int64_t documents)
{
    struct scanning *s = arg;
    s->estimated = documents;
}

static enum rk_status count_document(void *arg, const struct rk_bson_view *doc)
{
    struct scanning *s = arg;
    s->part->documents++;
    return rk_usage_add(&s->part->usage, doc);
}

static void tell_progress(void *arg)
{
    const struct scanning *s = arg;
    if (s->request->progress != NULL) {
        s->request->progress(s->request->progress_arg, s->part->ns, s->part->documents,
                             s->estimated);
    }
}

static enum rk_status scan_part(mongoc_client_t *client, const struct rk_proof_request *request,
                                const char *full, struct rk_proof_part *part, struct rk_error *err)
{
    struct rk_ns ns;
    struct scanning s = {.request = request, .part = part};
    const struct rk_scan_visitor visitor = {take_estimate, count_document, tell_progress, &s};
    (void)snprintf(part->ns, sizeof part->ns, "%s", full);
    if (!rk_ns_parse(&ns, full)) {
        return rk_error_set(err, RK_EINVAL, "\"%s\" is no namespace", full);
    }
    return rk_scan_all(client, &ns, &visitor, err);
}

/* Their raw values are stored as they were found, and are to be tried again some day. */
static enum rk_status scan_dead_letters(mongoc_client_t *client, const char *state_db,
                                        struct rk_usage *usage, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    const bson_t *letter;
    bson_t opts = BSON_INITIALIZER;
    bson_t *filter = bson_new();
    mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    mongoc_collection_t *letters = mongoc_client_get_collection(client, state_db, "deadLetters");
    rk_dead_letters_append_open(filter);
    rk_mongo_majority_reads(&opts);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(letters, filter, &opts, primary);
    while (status == RK_OK && mongoc_cursor_next(cursor, &letter)) {
        struct rk_bson_view view;
        status = rk_bson_view_init(&view, bson_get_data(letter), letter->len)
                     ? rk_usage_add(usage, &view)
                     : RK_EINVAL;
        if (status != RK_OK) {
            (void)rk_error_set(err, status, "cannot look through a dead letter: %s",
                               rk_status_name(status));
        }
    }
    if (status == RK_OK && mongoc_cursor_error(cursor, &cause)) {
        status = rk_mongo_error(err, "cannot read the dead letters", &cause);
    }
    mongoc_cursor_destroy(cursor);
    mongoc_collection_destroy(letters);
    mongoc_read_prefs_destroy(primary);
    bson_destroy(filter);
    bson_destroy(&opts);
    return status;
}

enum rk_status rk_proof_make(mongoc_client_t *client, const struct rk_proof_request *request,
                             struct rk_proof *out, struct rk_error *err)
{
    char **namespaces = NULL;
    size_t n = 0;
    *out = (struct rk_proof){.id = ""};
    enum rk_status status = rk_mongo_now(client, &out->started_at_ms, err);
    if (status == RK_OK) {
        status = rk_proof_namespaces(client, request, &namespaces, &n, err);
    }
    if (status != RK_OK) {
        return status;
    }
    out->parts = calloc(n + 1, sizeof *out->parts);
    if (out->parts == NULL) {
        status = rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        status = scan_part(client, request, namespaces[i], &out->parts[out->n_parts++], err);
    }
    if (status == RK_OK) {
        status = scan_dead_letters(client, request->state_db, &out->dead_letters, err);
    }
    if (status == RK_OK) {
        status = rk_proof_store(client, request->state_db, request->actor, out, err);
    }
    rk_jobs_namespaces_free(namespaces, n);
    return status;
}

void rk_proof_deinit(struct rk_proof *proof)
{
    for (size_t i = 0; i < proof->n_parts; i++) {
        rk_usage_deinit(&proof->parts[i].usage);
    }
    rk_usage_deinit(&proof->dead_letters);
    free(proof->parts);
    *proof = (struct rk_proof){.id = ""};
}

/* Appends "<values> in <place>" to the list in where. */
static void name_place(char *where, size_t size, int64_t values, const char *place)
{
    size_t used = where == NULL || values == 0 ? size : strlen(where);
    if (used < size) {
        (void)snprintf(where + used, size - used, "%s%lld in %s", used > 0 ? ", " : "",
                       (long long)values, place);
    }
}

int64_t rk_proof_values(const struct rk_proof *proof, uint32_t key_id, char *where, size_t size)
{
    int64_t total = 0;
    if (where != NULL && size > 0) {
        where[0] = '\0';
    }
    for (size_t i = 0; i < proof->n_parts; i++) {
        const struct rk_usage *usage = &proof->parts[i].usage;
        int64_t values = rk_usage_of(usage, key_id) + rk_usage_of(usage, RK_USAGE_ANY);
        name_place(where, size, values, proof->parts[i].ns);
        total += values;
    }
    const struct rk_usage *letters = &proof->dead_letters;
    int64_t values = rk_usage_of(letters, key_id) + rk_usage_of(letters, RK_USAGE_ANY);
    name_place(where, size, values, "dead letters");
    return total + values;
}
