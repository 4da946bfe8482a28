/* What catalog.c and entries.c share. */
#ifndef REKEY_CATALOG_INTERNAL_H
#define REKEY_CATALOG_INTERNAL_H

#include <mongoc/mongoc.h>
#include <rekey/catalog/catalog.h>

/* A collection with a default collation (reads_from empty), or a view. */
struct rk_catalog_entry {
    char *db;
    char *coll;
    char **reads_from;   /* names of collections and views of the same database; NULL: no view */
    size_t n_reads_from; /* the first one is what the view is on */
    bson_t *pipeline;    /* of a view; NULL: none */
};

struct rk_catalog_entries {
    struct rk_catalog_entry *at;
    size_t n;
};

/* Lists the databases that policies cover. */
RK_MUST_CHECK enum rk_status rk_catalog_list(mongoc_client_t *client,
                                             const struct rk_policy_set *policies,
                                             struct rk_catalog_entries *entries,
                                             struct rk_error *err);
void rk_catalog_entries_free(struct rk_catalog_entries *entries);

/* What the entries mean for policies: free() *marks, whose strings are the entries'. */
RK_MUST_CHECK enum rk_status rk_catalog_marks(const struct rk_catalog_entries *entries,
                                              const struct rk_policy_set *policies,
                                              struct rk_policy_mark **marks, size_t *n,
                                              struct rk_error *err);

/* Would Rekey have let this view be made as it is? Then it shows nothing protected, unless it reads
 * a view that does. */
bool rk_catalog_view_is_harmless(const struct rk_catalog_entry *entry,
                                 const struct rk_policy_set *policies);

#endif
