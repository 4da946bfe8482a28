/*
 * What a collection is, looked at before a job over it begins: some kinds cannot be swept, with
 * some there is something to know.
 */
#ifndef REKEY_JOBS_PREFLIGHT_INTERNAL_H
#define REKEY_JOBS_PREFLIGHT_INTERNAL_H

#include "command_internal.h"
#include "shard_key_internal.h"

#include <rekey/policy/policy.h>

struct rk_preflight {
    struct rk_shard_key shard_key;
    bson_t *warnings; /* an array of strings */
};
void rk_preflight_init(struct rk_preflight *preflight);
void rk_preflight_deinit(struct rk_preflight *preflight);

/*
 * RK_EREFUSED, with the reason: ns does not exist, is a view, a time series or a system
 * collection, has no index on _id, or is sharded by a protected path.
 *
 * Handled without a word: capped collections of mongod 5.0 and later (documents may grow), TTL
 * indexes (what expires is counted as gone), clustered collections, default collations.
 */
RK_MUST_CHECK enum rk_status rk_preflight(mongoc_client_t *client, const struct rk_ns *ns,
                                          const struct rk_policy *policy,
                                          struct rk_preflight *preflight, struct rk_error *err);

#endif
