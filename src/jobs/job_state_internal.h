/*
 * The engine's side of the jobs collection.
 */
#ifndef REKEY_JOBS_JOB_STATE_INTERNAL_H
#define REKEY_JOBS_JOB_STATE_INTERNAL_H

#include "engine_internal.h"

/* The jobs in state planning or running whose key has settled, oldest first. Those that this
 * version does not understand are left out. */
RK_MUST_CHECK enum rk_status rk_job_load_active(const struct rk_lease *lease,
                                                struct rk_job_view *jobs, size_t jobs_max,
                                                size_t *n, struct rk_error *err);

/* Ends a fully cut job none of whose ranges is pending or running: complete, or failed when a
 * range is. Safe to be called by every instance. */
RK_MUST_CHECK enum rk_status rk_job_close_if_done(const struct rk_lease *lease,
                                                  const struct rk_job_view *job,
                                                  struct rk_error *err);

#endif
