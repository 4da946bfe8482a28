/* The catalog as listCollections tells it, and what it means for the policies. */
#include "catalog_internal.h"

#include <rekey/keys/mongo.h>
#include <stdlib.h>
#include <string.h>

/* Views nest 20 deep at most (mongod), and so do stages in stages here. */
#define DEPTH_MAX 100u

void rk_catalog_entries_free(struct rk_catalog_entries *entries)
{
    for (size_t i = 0; i < entries->n; i++) {
        struct rk_catalog_entry *entry = &entries->at[i];
        for (size_t k = 0; k < entry->n_reads_from; k++) {
            free(entry->reads_from[k]);
        }
        free(entry->reads_from);
        if (entry->pipeline != NULL) {
            bson_destroy(entry->pipeline);
        }
        free(entry->db);
        free(entry->coll);
    }
    free(entries->at);
    *entries = (struct rk_catalog_entries){0};
}

static bool reads_from(struct rk_catalog_entry *entry, const char *coll)
{
    char **more = realloc(entry->reads_from, (entry->n_reads_from + 1) * sizeof *more);
    if (more == NULL) {
        return false;
    }
    entry->reads_from = more;
    more[entry->n_reads_from] = strdup(coll);
    return more[entry->n_reads_from] != NULL && ++entry->n_reads_from > 0;
}

/* Every name that a $lookup, $graphLookup or $unionWith may have; one too many does no harm. */
static bool reads_from_pipeline(struct rk_catalog_entry *entry, bson_iter_t *stages, unsigned depth)
{
    while (bson_iter_next(stages)) {
        const char *key = bson_iter_key(stages);
        bson_iter_t inner;
        if (BSON_ITER_HOLDS_UTF8(stages)) {
            bool names = strcmp(key, "from") == 0 || strcmp(key, "coll") == 0 ||
                         strcmp(key, "$unionWith") == 0;
            if (names && !reads_from(entry, bson_iter_utf8(stages, NULL))) {
                return false;
            }
        } else if (depth > 0 &&
                   (BSON_ITER_HOLDS_DOCUMENT(stages) || BSON_ITER_HOLDS_ARRAY(stages)) &&
                   bson_iter_recurse(stages, &inner) &&
                   !reads_from_pipeline(entry, &inner, depth - 1)) {
            return false;
        }
    }
    return true;
}

static struct rk_catalog_entry *append(struct rk_catalog_entries *entries, const char *db,
                                       const char *coll)
{
    struct rk_catalog_entry *more = realloc(entries->at, (entries->n + 1) * sizeof *more);
    if (more == NULL) {
        return NULL;
    }
    entries->at = more;
    struct rk_catalog_entry *entry = &more[entries->n++];
    *entry = (struct rk_catalog_entry){.db = strdup(db), .coll = strdup(coll)};
    return entry->db != NULL && entry->coll != NULL ? entry : NULL;
}

/* One document of listCollections. */
static bool take(struct rk_catalog_entries *entries, const char *db, const bson_t *listed)
{
    bson_iter_t name;
    bson_iter_t iter;
    bson_iter_t found;
    if (!bson_iter_init_find(&name, listed, "name") || !BSON_ITER_HOLDS_UTF8(&name)) {
        return true;
    }
    const char *coll = bson_iter_utf8(&name, NULL);
    bool view = bson_iter_init(&iter, listed) &&
                bson_iter_find_descendant(&iter, "options.viewOn", &found) &&
                BSON_ITER_HOLDS_UTF8(&found);
    struct rk_catalog_entry *entry = append(entries, db, coll);
    if (entry == NULL || !view) {
        return entry != NULL;
    }
    if (!reads_from(entry, bson_iter_utf8(&found, NULL))) {
        return false;
    }
    bson_iter_t stages;
    if (!(bson_iter_init(&iter, listed) &&
          bson_iter_find_descendant(&iter, "options.pipeline", &found) &&
          BSON_ITER_HOLDS_ARRAY(&found) && bson_iter_recurse(&found, &stages))) {
        return true;
    }
    const uint8_t *data = NULL;
    uint32_t len = 0;
    bson_iter_array(&found, &len, &data);
    entry->pipeline = bson_new_from_data(data, len);
    return entry->pipeline != NULL && reads_from_pipeline(entry, &stages, DEPTH_MAX);
}

static enum rk_status list_db(mongoc_client_t *client, const char *db,
                              struct rk_catalog_entries *entries, struct rk_error *err)
{
    const bson_t *listed;
    bson_error_t cause;
    enum rk_status status = RK_OK;
    bson_t *opts =
        BCON_NEW("filter", "{", "$or", "[", "{", "type", "view", "}", "{", "options.collation", "{",
                 "$exists", BCON_BOOL(true), "}", "}", "]", "}");
    mongoc_database_t *database = mongoc_client_get_database(client, db);
    mongoc_cursor_t *cursor = mongoc_database_find_collections_with_opts(database, opts);
    while (status == RK_OK && mongoc_cursor_next(cursor, &listed)) {
        if (!take(entries, db, listed)) {
            status = rk_error_set(err, RK_ENOMEM, "out of memory for the catalog");
        }
    }
    if (status == RK_OK && mongoc_cursor_error(cursor, &cause)) {
        status = rk_mongo_error(err, "listCollections", &cause);
    }
    mongoc_cursor_destroy(cursor);
    mongoc_database_destroy(database);
    bson_destroy(opts);
    return status;
}

/* A policy's database as a string; free() it. */
static char *database_of(const struct rk_policy *policy)
{
    return strndup(policy->ns, strcspn(policy->ns, "."));
}

enum rk_status rk_catalog_list(mongoc_client_t *client, const struct rk_policy_set *policies,
                               struct rk_catalog_entries *entries, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    *entries = (struct rk_catalog_entries){0};
    size_t n = rk_policy_set_count(policies);
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        char *db = database_of(rk_policy_set_at(policies, i));
        char *before = i > 0 ? database_of(rk_policy_set_at(policies, i - 1)) : NULL;
        if (db == NULL || (i > 0 && before == NULL)) {
            status = rk_error_set(err, RK_ENOMEM, "out of memory for the catalog");
        } else if (i == 0 || strcmp(db, before) != 0) { /* they come sorted by database */
            status = list_db(client, db, entries, err);
        }
        free(db);
        free(before);
    }
    if (status != RK_OK) {
        rk_catalog_entries_free(entries);
    }
    return status;
}

static bool is_protected(const struct rk_policy_set *policies, const char *db, const char *coll)
{
    return rk_policy_find(policies, db, strlen(db), coll, strlen(coll)) != NULL;
}

static bool is_marked(const struct rk_policy_mark *marks, size_t n, const char *db,
                      const char *coll)
{
    for (size_t i = 0; i < n; i++) {
        if (marks[i].kind == RK_MARK_VIEW && strcmp(marks[i].db, db) == 0 &&
            strcmp(marks[i].coll, coll) == 0) {
            return true;
        }
    }
    return false;
}

/* Does the view show something protected, itself or through a marked view? */
static bool shows_protected(const struct rk_catalog_entry *entry,
                            const struct rk_policy_set *policies,
                            const struct rk_policy_mark *marks, size_t n)
{
    bool reads = false;
    for (size_t i = 0; i < entry->n_reads_from; i++) {
        if (is_marked(marks, n, entry->db, entry->reads_from[i])) {
            return true;
        }
        reads = reads || is_protected(policies, entry->db, entry->reads_from[i]);
    }
    return reads && !rk_catalog_view_is_harmless(entry, policies);
}

static size_t mark_collations(const struct rk_catalog_entries *entries,
                              const struct rk_policy_set *policies, struct rk_policy_mark *marks)
{
    size_t n = 0;
    for (size_t i = 0; i < entries->n; i++) {
        const struct rk_catalog_entry *entry = &entries->at[i];
        if (entry->n_reads_from == 0) {
            marks[n++] = (struct rk_policy_mark){entry->db, entry->coll,
                                                 is_protected(policies, entry->db, entry->coll)
                                                     ? RK_MARK_COLLATION
                                                     : RK_MARK_OUTSIDE};
        }
    }
    return n;
}

enum rk_status rk_catalog_marks(const struct rk_catalog_entries *entries,
                                const struct rk_policy_set *policies, struct rk_policy_mark **out,
                                size_t *n, struct rk_error *err)
{
    struct rk_policy_mark *marks = calloc(entries->n + 1, sizeof *marks);
    if (marks == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for the catalog");
    }
    *n = mark_collations(entries, policies, marks);
    for (bool more = true; more;) { /* views of views, whatever their order */
        more = false;
        for (size_t i = 0; i < entries->n; i++) {
            const struct rk_catalog_entry *entry = &entries->at[i];
            if (!is_protected(policies, entry->db, entry->coll) &&
                !is_marked(marks, *n, entry->db, entry->coll) &&
                shows_protected(entry, policies, marks, *n)) {
                marks[(*n)++] = (struct rk_policy_mark){entry->db, entry->coll, RK_MARK_VIEW};
                more = true;
            }
        }
    }
    *out = marks;
    return RK_OK;
}
