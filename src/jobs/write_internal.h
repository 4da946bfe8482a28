/*
 * Writing what a plan holds: one unordered update command of compare-and-swaps,
 *   { q: {_id: <id>, "<path>": <exact old value>, ...}, u: {$set: {"<path>": <new value>, ...}} }
 * so that whatever the foreground has written since the read stays.
 */
#ifndef REKEY_JOBS_WRITE_INTERNAL_H
#define REKEY_JOBS_WRITE_INTERNAL_H

#include "command_internal.h"

#include <rekey/jobs/transform.h>

struct rk_write_result {
    uint32_t tried;
    uint32_t matched; /* written */
    uint32_t failed;  /* refused for good: rk_doc_plan.failure says why */
    /* The rest, tried - matched - failed, did not match: gone, or changed since the read. */
};

/* command: scratch space, cleared first. Documents that failed before are left out. */
RK_MUST_CHECK enum rk_status rk_write_plan(mongoc_client_t *client, const struct rk_ns *ns,
                                           struct rk_plan *plan, uint32_t wtimeout_ms,
                                           struct rk_buf *command, struct rk_write_result *result,
                                           struct rk_error *err);

#endif
