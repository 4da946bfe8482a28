/*
 * Writing what a plan holds: one unordered update command of compare-and-swaps,
 *   { q: {_id: <id>, "<path>": <the exact old value>, ...}, u: {$set: {"<path>": <new value>, ...}}
 * } so that whatever the foreground has written since the read stays.
 */
#ifndef REKEY_JOBS_WRITE_INTERNAL_H
#define REKEY_JOBS_WRITE_INTERNAL_H

#include "command_internal.h"
#include "shard_key_internal.h"

#include <rekey/jobs/transform.h>

struct rk_write_result {
    uint32_t tried;
    uint32_t matched; /* written */
    uint32_t failed;  /* refused for good: rk_doc_plan.failure says why */
    /* The rest, tried - matched - failed, did not match: gone, or changed since the read. */
};

/* shard_key: NULL: not sharded. command: scratch space, cleared first. Documents that failed before
 * are left out. */
RK_MUST_CHECK enum rk_status rk_write_plan(mongoc_client_t *client, const struct rk_ns *ns,
                                           const struct rk_shard_key *shard_key,
                                           struct rk_plan *plan, uint32_t wtimeout_ms,
                                           struct rk_buf *command, struct rk_write_result *result,
                                           struct rk_error *err);

/* ---- condition.c */

/* Puts into a filter what only the document as it was read fulfils, as far as it is to be changed.
 * True when the statement needs the simple collation for that. */
RK_MUST_CHECK bool rk_condition_put(struct rk_bson_writer *w, const struct rk_plan *plan,
                                    const struct rk_doc_plan *doc);
/* At least as many bytes as that takes. */
size_t rk_condition_size(const struct rk_plan *plan, const struct rk_doc_plan *doc);

#endif
