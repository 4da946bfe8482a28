/* Where envelopes may lie (see proof.h). */
#include "command_internal.h"
#include "names_internal.h"

#include <rekey/jobs/proof.h>
#include <rekey/jobs/store.h>
#include <rekey/keys/mongo.h>
#include <stdio.h>
#include <string.h>

/* What belongs to the server, or to its shards. */
static bool is_servers(const char *db)
{
    return strcmp(db, "admin") == 0 || strcmp(db, "config") == 0 || strcmp(db, "local") == 0;
}

static enum rk_status add_database(mongoc_client_t *client, const char *db, struct rk_names *names,
                                   struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t *opts =
        BCON_NEW("filter", "{", "type", BCON_UTF8("collection"), "}", "nameOnly", BCON_BOOL(true));
    mongoc_database_t *database = mongoc_client_get_database(client, db);
    char **collections = mongoc_database_get_collection_names_with_opts(database, opts, &cause);
    if (collections == NULL) {
        status = rk_command_error(err, "cannot list collections", &cause);
    }
    for (char **coll = collections; status == RK_OK && coll != NULL && *coll != NULL; coll++) {
        char full[320];
        (void)snprintf(full, sizeof full, "%s.%s", db, *coll);
        if (strncmp(*coll, "system.", strlen("system.")) != 0) {
            status = rk_names_add(names, full, err);
        }
    }
    bson_strfreev(collections);
    mongoc_database_destroy(database);
    bson_destroy(opts);
    return status;
}

static enum rk_status add_all(mongoc_client_t *client, const char *state_db, struct rk_names *names,
                              struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    char **databases = mongoc_client_get_database_names_with_opts(client, NULL, &cause);
    if (databases == NULL) {
        return rk_command_error(err, "cannot list the databases", &cause);
    }
    for (char **db = databases; status == RK_OK && *db != NULL; db++) {
        if (!is_servers(*db) && strcmp(*db, state_db) != 0) {
            status = add_database(client, *db, names, err);
        }
    }
    bson_strfreev(databases);
    return status;
}

static enum rk_status add_one(mongoc_client_t *client, const struct rk_bson_elem *elem,
                              struct rk_names *names, struct rk_error *err)
{
    char full[320];
    struct rk_ns ns;
    const char *text;
    uint32_t len;
    if (!rk_bson_elem_utf8(elem, &text, &len)) {
        return RK_OK;
    }
    (void)snprintf(full, sizeof full, "%.*s", (int)len, text);
    if (!rk_ns_parse(&ns, full)) {
        return RK_OK;
    }
    return strcmp(ns.coll, "*") == 0 ? add_database(client, ns.db, names, err)
                                     : rk_names_add(names, full, err);
}

/* An upsert instead of an insert, because only an update can take the server's clock. A duplicate
 * key is another instance's upsert, as good as this one. */
static enum rk_status remember_one(mongoc_client_t *client, const char *state_db, const char *ns,
                                   struct rk_error *err)
{
    bson_t reply;
    bson_t *command = BCON_NEW("update", BCON_UTF8("protected"), "updates", "[", "{", "q", "{",
                               "_id", BCON_UTF8(ns), "}", "u", "[", "{", "$set", "{", "since", "{",
                               "$ifNull", "[", BCON_UTF8("$since"), BCON_UTF8("$$NOW"), "]", "}",
                               "}", "}", "]", "upsert", BCON_BOOL(true), "}", "]");
    rk_mongo_majority_writes(command);
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_check_writes(&reply, "to note which collections are protected", err);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return rk_is_duplicate(status, err) ? RK_OK : status;
}

enum rk_status rk_proof_remember(mongoc_client_t *client, const char *state_db,
                                 const struct rk_policy_set *policies, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    for (size_t i = 0; i < rk_policy_set_count(policies) && status == RK_OK; i++) {
        status = remember_one(client, state_db, rk_policy_set_at(policies, i)->ns, err);
    }
    return status;
}

/* The values of a field of one of the state database's collections. */
static enum rk_status add_known(mongoc_client_t *client, const char *state_db, const char *coll,
                                const char *field, struct rk_names *names, struct rk_error *err)
{
    struct rk_bson_elem elem;
    struct rk_bson_view values;
    struct rk_bson_iter iter;
    bson_t reply;
    bson_t *command = BCON_NEW("distinct", BCON_UTF8(coll), "key", BCON_UTF8(field), "readConcern",
                               "{", "level", BCON_UTF8("majority"), "}");
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK &&
        (!rk_bson_find(&view, "values", &elem) || !rk_bson_elem_view(&elem, &values))) {
        status = rk_error_set(err, RK_EIO, "mongod's reply to distinct is malformed");
    }
    if (status == RK_OK) {
        rk_bson_iter_init(&iter, &values);
        while (status == RK_OK && rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
            status = add_one(client, &elem, names, err);
        }
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

enum rk_status rk_proof_namespaces(mongoc_client_t *client, const struct rk_proof_request *request,
                                   char ***namespaces, size_t *n, struct rk_error *err)
{
    static const struct {
        const char *coll;
        const char *field;
    } known[] = {
        {"protected", "_id"}, {"jobs", "ns"}, {"deadLetters", "ns"}, {"proofs", "namespaces.ns"}};
    struct rk_names names = {0};
    enum rk_status status =
        rk_jobs_namespaces(client, request->policies, NULL, &names.list, &names.n, err);
    for (size_t i = 0; i < sizeof known / sizeof known[0] && status == RK_OK; i++) {
        status = add_known(client, request->state_db, known[i].coll, known[i].field, &names, err);
    }
    if (status == RK_OK && request->everywhere) {
        status = add_all(client, request->state_db, &names, err);
    }
    if (status != RK_OK) {
        rk_jobs_namespaces_free(names.list, names.n);
        return status;
    }
    *namespaces = names.list;
    *n = names.n;
    return RK_OK;
}
