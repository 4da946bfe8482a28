/*
 * From policies to the collections that exist.
 */
#include "command_internal.h"
#include "names_internal.h"

#include <rekey/jobs/store.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMESPACES_MAX 4096u

enum rk_status rk_names_add(struct rk_names *names, const char *full, struct rk_error *err)
{
    for (size_t i = 0; i < names->n; i++) {
        if (strcmp(names->list[i], full) == 0) {
            return RK_OK;
        }
    }
    if (names->n == NAMESPACES_MAX) {
        return rk_error_set(err, RK_ELIMIT, "there are more than %u collections", NAMESPACES_MAX);
    }
    char **list = realloc(names->list, (names->n + 1) * sizeof *list);
    if (list == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    names->list = list;
    list[names->n] = strdup(full);
    if (list[names->n] == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    names->n++;
    return RK_OK;
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Adds what of a policy exists: one collection, or all of the database. */
static enum rk_status add_policy(mongoc_client_t *client, const struct rk_policy_set *policies,
                                 const struct rk_policy *policy, const char *only,
                                 struct rk_names *names, struct rk_error *err)
{
    struct rk_ns ns;
    enum rk_status status = RK_OK;
    bson_error_t cause;
    if (!rk_ns_parse(&ns, policy->ns)) {
        return rk_error_set(err, RK_EINVAL, "\"%s\" is no namespace", policy->ns);
    }
    bson_t *opts =
        BCON_NEW("filter", "{", "type", BCON_UTF8("collection"), "}", "nameOnly", BCON_BOOL(true));
    mongoc_database_t *db = mongoc_client_get_database(client, ns.db);
    char **collections = mongoc_database_get_collection_names_with_opts(db, opts, &cause);
    if (collections == NULL) {
        status = rk_command_error(err, "cannot list collections", &cause);
    }
    for (char **coll = collections; status == RK_OK && coll != NULL && *coll != NULL; coll++) {
        char full[320];
        (void)snprintf(full, sizeof full, "%s.%s", ns.db, *coll);
        bool asked = only == NULL || strcmp(only, full) == 0 || strcmp(only, policy->ns) == 0;
        /* Only where this very policy decides: an exact one wins over the wildcard. */
        bool decides =
            rk_policy_find(policies, ns.db, strlen(ns.db), *coll, strlen(*coll)) == policy;
        if (asked && decides && !starts_with(*coll, "system.")) {
            status = rk_names_add(names, full, err);
        }
    }
    bson_strfreev(collections);
    mongoc_database_destroy(db);
    bson_destroy(opts);
    return status;
}

/* only was asked for and is no collection to work on: says why, if it exists. */
static enum rk_status why_none(mongoc_client_t *client, const char *only, struct rk_error *err)
{
    static const char *const type_path[] = {"cursor", "firstBatch", "0", "type"};
    struct rk_bson_elem elem;
    struct rk_ns ns;
    bson_t reply;
    const char *type;
    uint32_t len;
    if (!rk_ns_parse(&ns, only)) {
        return RK_OK;
    }
    bson_t *command = BCON_NEW("listCollections", BCON_INT32(1), "filter", "{", "name",
                               BCON_UTF8(ns.coll), "}", "nameOnly", BCON_BOOL(true));
    enum rk_status status = rk_command_run_bson(client, ns.db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK && rk_view_path(&view, type_path, 4, &elem) &&
        rk_bson_elem_utf8(&elem, &type, &len)) {
        status =
            rk_error_set(err, RK_ESTATE, "%s is a %.*s, not a collection of documents of its own",
                         only, (int)len, type);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

static bool covers(const struct rk_policy_set *policies, const char *only)
{
    struct rk_ns ns;
    for (size_t i = 0; i < rk_policy_set_count(policies); i++) {
        if (strcmp(rk_policy_set_at(policies, i)->ns, only) == 0) {
            return true;
        }
    }
    return rk_ns_parse(&ns, only) &&
           rk_policy_find(policies, ns.db, strlen(ns.db), ns.coll, strlen(ns.coll)) != NULL;
}

enum rk_status rk_jobs_namespaces(mongoc_client_t *client, const struct rk_policy_set *policies,
                                  const char *only, char ***namespaces, size_t *n,
                                  struct rk_error *err)
{
    struct rk_names names = {0};
    enum rk_status status = RK_OK;
    if (only != NULL && !covers(policies, only)) {
        return rk_error_set(err, RK_ENOENT, "no policy protects %s", only);
    }
    for (size_t i = 0; status == RK_OK && i < rk_policy_set_count(policies); i++) {
        status = add_policy(client, policies, rk_policy_set_at(policies, i), only, &names, err);
    }
    if (status == RK_OK && names.n == 0 && only != NULL) {
        status = why_none(client, only, err);
    }
    if (status != RK_OK) {
        rk_jobs_namespaces_free(names.list, names.n);
        return status;
    }
    *namespaces = names.list;
    *n = names.n;
    return RK_OK;
}

void rk_jobs_namespaces_free(char **namespaces, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(namespaces[i]);
    }
    free(namespaces);
}
