/* A pass from its beginning to its end (see proof.h). */
#include "proof_internal.h"
#include "verify_internal.h"

#include <rekey/jobs/dead_letters.h>
#include <rekey/jobs/store.h>
#include <rekey/keys/mongo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX 10u

/* Their raw values are stored as they were found, and are to be tried again some day. */
static enum rk_status scan_dead_letters(mongoc_client_t *client, const char *state_db,
                                        struct rk_usage *usage, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    const bson_t *letter;
    bson_t opts = BSON_INITIALIZER;
    bson_t *filter = bson_new();
    usage->n = 0;
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
        status = rk_command_error(err, "cannot read the dead letters", &cause);
    }
    mongoc_cursor_destroy(cursor);
    mongoc_collection_destroy(letters);
    mongoc_read_prefs_destroy(primary);
    bson_destroy(filter);
    bson_destroy(&opts);
    return status;
}

struct counted {
    bool is;
    struct rk_pass_uuid uuid; /* that the collection had then */
};

struct making {
    struct rk_proof *proof;
    struct counted *counted; /* for each of its parts */
};

/* The part of ns; a new one when there is none. */
static struct rk_proof_part *part_of(struct making *making, const char *ns,
                                     struct counted **counted)
{
    struct rk_proof *proof = making->proof;
    size_t i = 0;
    while (i < proof->n_parts && strcmp(proof->parts[i].ns, ns) != 0) {
        i++;
    }
    if (i == proof->n_parts) {
        struct rk_proof_part *parts = realloc(proof->parts, (i + 1) * sizeof *parts);
        proof->parts = parts != NULL ? parts : proof->parts;
        struct counted *all = realloc(making->counted, (i + 1) * sizeof *all);
        making->counted = all != NULL ? all : making->counted;
        if (parts == NULL || all == NULL) {
            return NULL;
        }
        parts[i] = (struct rk_proof_part){.ns = ""};
        all[i] = (struct counted){.is = false};
        proof->n_parts++;
    }
    *counted = &making->counted[i];
    return &proof->parts[i];
}

/* Counts ns unless that was done, and it is still the same collection. *again: it was not. */
static enum rk_status count_one(struct rk_pass *pass, const char *full, struct making *making,
                                bool *again, struct rk_error *err)
{
    struct rk_ns ns;
    struct rk_pass_uuid now;
    struct counted *counted = NULL;
    if (!rk_ns_parse(&ns, full)) {
        return rk_error_set(err, RK_EINVAL, "\"%s\" is no namespace", full);
    }
    enum rk_status status = rk_pass_uuid(pass->lease.client, &ns, &now, err);
    if (status != RK_OK) {
        return status;
    }
    struct rk_proof_part *part = part_of(making, full, &counted);
    if (part == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    if (counted->is && memcmp(counted->uuid.bytes, now.bytes, sizeof now.bytes) == 0) {
        return RK_OK;
    }
    *again = true;
    status = rk_pass_part(pass, &ns, &now, part, err);
    *counted = (struct counted){.is = status == RK_OK, .uuid = now};
    return status;
}

static enum rk_status list(struct rk_pass *pass, char ***namespaces, size_t *n,
                           struct rk_error *err)
{
    const struct rk_proof_request *request = pass->request;
    return request->verify != NULL
               ? rk_jobs_namespaces(pass->lease.client, request->policies, request->only,
                                    namespaces, n, err)
               : rk_proof_namespaces(pass->lease.client, request, namespaces, n, err);
}

/* Until a look at the list finds nothing that is new, or was replaced by another collection while
 * the others were counted. */
static enum rk_status count_all(struct rk_pass *pass, struct making *making, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bool again = true;
    for (unsigned round = 0; status == RK_OK && again; round++) {
        char **namespaces = NULL;
        size_t n = 0;
        again = false;
        status = round == ROUNDS_MAX
                     ? rk_error_set(err, RK_ESTATE, "collections keep being replaced")
                     : list(pass, &namespaces, &n, err);
        if (status != RK_OK) {
            break;
        }
        for (size_t i = 0; i < n && status == RK_OK; i++) {
            status = count_one(pass, namespaces[i], making, &again, err);
        }
        rk_jobs_namespaces_free(namespaces, n);
    }
    return status;
}

/* Current keys must still be those that were compared with. */
static enum rk_status check_keys(struct rk_pass *pass, struct rk_error *err)
{
    char now[RK_DIGEST_LEN];
    enum rk_status status = rk_pass_keys(&pass->lease, &pass->keys_up_to, now, err);
    if (status == RK_OK && strcmp(now, pass->keys) != 0) {
        rk_pass_abandon(pass, "keys were rotated or destroyed meanwhile");
        status =
            rk_error_set(err, RK_ESTATE, "keys were rotated or destroyed meanwhile: verify again");
    }
    return status;
}

static void say_resumed(const struct rk_pass *pass)
{
    if (pass->resumed && pass->request->notice != NULL) {
        pass->request->notice(pass->request->arg,
                              "going on with the scan that an earlier run has begun (--restart "
                              "begins anew)");
    }
}

/* Goes on with what it has come to before. */
static enum rk_status make(struct rk_pass *pass, void *arg, struct rk_error *err)
{
    struct making *making = arg;
    struct rk_proof *proof = making->proof;
    enum rk_status status = count_all(pass, making, err);
    if (status == RK_OK) {
        status =
            scan_dead_letters(pass->lease.client, pass->lease.state_db, &proof->dead_letters, err);
    }
    if (status == RK_OK && pass->request->verify != NULL) {
        status = check_keys(pass, err);
    }
    return status == RK_OK ? rk_pass_complete(pass, proof, err) : status;
}

enum rk_status rk_proof_make(mongoc_client_t *client, const struct rk_proof_request *request,
                             struct rk_proof *out, struct rk_error *err)
{
    struct rk_pass pass;
    struct making making = {.proof = out};
    *out = (struct rk_proof){.id = ""};
    enum rk_status status = rk_pass_open(&pass, client, request, err);
    if (status != RK_OK) {
        return status;
    }
    say_resumed(&pass);
    bson_oid_to_string(&pass.id, out->id);
    out->started_at_ms = pass.started_at_ms;
    out->resumed = pass.resumed;
    status = rk_pass_retry(&pass, make, &making, err);
    free(making.counted);
    if (status != RK_OK) {
        rk_pass_release(&pass);
    }
    return status;
}

void rk_proof_deinit(struct rk_proof *proof)
{
    for (size_t i = 0; i < proof->n_parts; i++) {
        rk_census_deinit(&proof->parts[i].census);
    }
    rk_usage_deinit(&proof->dead_letters);
    free(proof->parts);
    *proof = (struct rk_proof){.id = ""};
}

bool rk_proof_holds(const struct rk_proof *proof)
{
    for (size_t i = 0; i < proof->n_parts; i++) {
        if (!rk_census_holds(&proof->parts[i].census)) {
            return false;
        }
    }
    return true;
}

int64_t rk_proof_documents(const struct rk_proof *proof)
{
    int64_t documents = 0;
    for (size_t i = 0; i < proof->n_parts; i++) {
        documents += proof->parts[i].census.documents;
    }
    return documents;
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
        const struct rk_usage *usage = &proof->parts[i].census.usage;
        int64_t values = rk_usage_of(usage, key_id) + rk_usage_of(usage, RK_USAGE_ANY);
        name_place(where, size, values, proof->parts[i].ns);
        total += values;
    }
    const struct rk_usage *letters = &proof->dead_letters;
    int64_t values = rk_usage_of(letters, key_id) + rk_usage_of(letters, RK_USAGE_ANY);
    name_place(where, size, values, "dead letters");
    return total + values;
}
