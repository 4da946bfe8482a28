/* What a sweep has done: how it lies in jobStatus, read and written in one place. */
#ifndef REKEY_JOBS_COUNTS_INTERNAL_H
#define REKEY_JOBS_COUNTS_INTERNAL_H

#include "command_internal.h"

#include <rekey/jobs/store.h>

struct rk_sweep_counts rk_sweep_counts_read(const struct rk_bson_view *doc);
/* Appends the counts, and consumerProcessed with them. */
void rk_sweep_counts_put(struct rk_bson_writer *w, const struct rk_sweep_counts *counts);
void rk_sweep_counts_add(struct rk_sweep_counts *into, const struct rk_sweep_counts *more);

#endif
