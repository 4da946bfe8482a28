/* Counting documents, for the scans of proof.h. */
#ifndef REKEY_JOBS_VERIFY_INTERNAL_H
#define REKEY_JOBS_VERIFY_INTERNAL_H

#include "command_internal.h"

#include <rekey/jobs/verify.h>

/* Appends the counts to an open document; reads them from one. RK_EINVAL: it has other fields. */
void rk_census_put(struct rk_bson_writer *w, const struct rk_census *census);
RK_MUST_CHECK enum rk_status rk_census_read(const struct rk_bson_view *doc,
                                            struct rk_census *census);

struct rk_verifier;

/*
 * policies NULL, or options NULL: envelopes are counted by key, and nothing else; no key is loaded
 * for that. Otherwise values at the paths of the policy of ns are verified. census is borrowed.
 */
RK_MUST_CHECK enum rk_status rk_verifier_new(const struct rk_verify_options *options,
                                             const struct rk_policy *policy,
                                             struct rk_census *census, struct rk_verifier **out,
                                             struct rk_error *err);
void rk_verifier_free(struct rk_verifier *v);

/* How many documents there are, for the sample. */
void rk_verifier_expect(struct rk_verifier *v, int64_t documents);
/* RK_EIO: a key or value could not be had; what was counted since the last settle is undefined. */
RK_MUST_CHECK enum rk_status rk_verifier_add(struct rk_verifier *v, const struct rk_bson_view *doc,
                                             struct rk_error *err);
/* Everything added is counted afterwards. */
RK_MUST_CHECK enum rk_status rk_verifier_settle(struct rk_verifier *v, struct rk_error *err);

#endif
