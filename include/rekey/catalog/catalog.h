/*
 * What MongoDB's own catalog knows and no configuration says: collections with a default collation
 * and views over protected collections. A thread lists the protected databases every interval and
 * keeps a policy set that is marked accordingly (rk_policy_set_marked), so that comparisons which
 * ciphertext cannot answer are refused there, too. What is made past Rekey is noticed within an
 * interval; what is made through it is checked when it is made.
 *
 * The account of upstream.uri needs listCollections on the protected databases. Without that right,
 * and while no server answers, the last known marks stay, and the log says so once.
 */
#ifndef REKEY_CATALOG_CATALOG_H
#define REKEY_CATALOG_CATALOG_H

#include <rekey/policy/policy.h>

struct _mongoc_client_pool_t;
struct rk_catalog;

struct rk_catalog_config {
    struct _mongoc_client_pool_t *client_pool; /* borrowed; outlives the catalog */
    struct rk_policy_set *policies;            /* as configured; the catalog takes a reference */
    uint32_t interval_ms;
    uint32_t start_timeout_ms; /* how long start waits for the first look */
};

/* Called with every new marked set, under a lock, so that sets arrive in order: on the catalog's
 * thread or on that of rk_catalog_reconfigure. The set is borrowed for the call. */
typedef void rk_catalog_fn(void *arg, struct rk_policy_set *policies);

/* Returns when the catalog was looked at once, or after start_timeout_ms. */
RK_MUST_CHECK enum rk_status rk_catalog_start(const struct rk_catalog_config *config,
                                              struct rk_catalog **out, struct rk_error *err);
/* The present set, referenced for the caller. */
struct rk_policy_set *rk_catalog_policies(struct rk_catalog *catalog);
/* fn NULL: nobody. Calls fn at once with the present set. */
void rk_catalog_watch(struct rk_catalog *catalog, rk_catalog_fn *fn, void *arg);
/* Other policies: marked by what is known, at once; looked at again soon. On failure (memory) the
 * former ones stay. */
RK_MUST_CHECK enum rk_status rk_catalog_reconfigure(struct rk_catalog *catalog,
                                                    struct rk_policy_set *policies,
                                                    uint32_t interval_ms, struct rk_error *err);
void rk_catalog_stop(struct rk_catalog *catalog); /* NULL is allowed */

#endif
