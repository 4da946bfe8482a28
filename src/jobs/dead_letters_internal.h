/*
 * The engine's side of dead letters.
 */
#ifndef REKEY_JOBS_DEAD_LETTERS_INTERNAL_H
#define REKEY_JOBS_DEAD_LETTERS_INTERNAL_H

#include "range_internal.h"

#include <rekey/jobs/dead_letters.h>
#include <rekey/jobs/transform.h>

/* Files the plan's rejects, and the changes of documents whose failure is set. job NULL: entries
 * keep the job they have. *filed counts values. */
RK_MUST_CHECK enum rk_status rk_dead_letters_file(const struct rk_lease *lease,
                                                  const bson_oid_t *job, const struct rk_ns *ns,
                                                  const struct rk_transform_ops *transform,
                                                  const struct rk_plan *plan, int64_t *filed,
                                                  struct rk_error *err);

/* Is there an entry that is to be retried? */
RK_MUST_CHECK enum rk_status rk_dead_letters_waiting(const struct rk_lease *lease, bool *waiting,
                                                     struct rk_error *err);

struct rk_dead_letter {
    bson_oid_t id;
    struct rk_ns ns;
    struct rk_id doc;
    const struct rk_transform_ops *transform; /* NULL: this version does not know it */
};
/* Takes an entry that is to be retried, for the length of a lease. RK_ENOENT: there is none. */
RK_MUST_CHECK enum rk_status rk_dead_letters_claim(const struct rk_lease *lease,
                                                   struct rk_dead_letter *letter,
                                                   struct rk_error *err);
/* Resolves a claimed entry unless it was filed again since. */
RK_MUST_CHECK enum rk_status rk_dead_letters_resolve(const struct rk_lease *lease,
                                                     const bson_oid_t *id, struct rk_error *err);
/* Resolves those of ns and the transform that a job which started at started_at_ms (server's clock)
 * has not met. */
RK_MUST_CHECK enum rk_status
rk_dead_letters_resolve_unseen(const struct rk_lease *lease, const char *ns,
                               const struct rk_transform_ops *transform, int64_t started_at_ms,
                               struct rk_error *err);

#endif
