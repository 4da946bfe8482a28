/*
 * Writing what a plan holds, so that whatever the foreground has written since the read stays: in a
 * transaction at the time of the read, each document by its _id alone; or, where that is not
 * possible or somebody was faster, in an unordered update command of compare-and-swaps, { q: {_id:
 * <id>, "<path>": <the exact old value>, ...}, u: {$set: {"<path>": <new value>, ...}}
 * }.
 */
#ifndef REKEY_JOBS_WRITE_INTERNAL_H
#define REKEY_JOBS_WRITE_INTERNAL_H

#include "command_internal.h"
#include "shard_key_internal.h"
#include "transaction_internal.h"

#include <rekey/jobs/transform.h>

struct rk_write_result {
    uint32_t tried;
    uint32_t matched; /* written */
    uint32_t failed;  /* refused for good: rk_doc_plan.failure says why */
    /* The rest, tried - matched - failed, did not match: gone, or changed since the read. */
    bool unsure; /* of rk_write_plan_at that failed: all of it may have been written */
};

struct rk_write {
    mongoc_client_t *client;
    const struct rk_ns *ns;
    const struct rk_shard_key *shard_key; /* NULL: not sharded */
    uint32_t wtimeout_ms;
    struct rk_buf *command; /* scratch space, cleared first */
};

/* Documents that failed before are left out. */
RK_MUST_CHECK enum rk_status rk_write_plan(const struct rk_write *write, struct rk_plan *plan,
                                           struct rk_write_result *result, struct rk_error *err);

/* All of the plan or nothing of it, which was read in a snapshot at that time. After a failure,
 * which says nothing about any one document, rk_write_plan is next: should a commit have reached
 * mongod whose reply was lost, it finds the new values. */
RK_MUST_CHECK enum rk_status rk_write_plan_at(const struct rk_write *write,
                                              struct rk_transaction *transaction, uint64_t at,
                                              struct rk_plan *plan, struct rk_write_result *result,
                                              struct rk_error *err);

/* ---- condition.c */

void rk_condition_put_id(struct rk_bson_writer *w, const struct rk_doc_plan *doc);
/* Puts into a filter what only the document as it was read fulfils, as far as it is to be changed.
 * True when the statement needs the simple collation for that. */
RK_MUST_CHECK bool rk_condition_put(struct rk_bson_writer *w, const struct rk_plan *plan,
                                    const struct rk_doc_plan *doc);
/* At least as many bytes as that takes. */
size_t rk_condition_size(const struct rk_plan *plan, const struct rk_doc_plan *doc);

#endif
