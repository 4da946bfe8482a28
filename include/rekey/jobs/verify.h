/*
 * What is counted of a collection's documents: every envelope by the key that it names, wherever it
 * stands; and, when verified, every value at a protected path by what it lies under, and the
 * envelopes that stand elsewhere: moved there past the proxy, or left behind by a policy that no
 * longer names their path. Independent of the sweeper's own counters.
 */
#ifndef REKEY_JOBS_VERIFY_H
#define REKEY_JOBS_VERIFY_H

#include <rekey/jobs/usage.h>
#include <rekey/keys/service.h>
#include <rekey/policy/policy.h>

/* The counters of a field, with their names in <state db>.proofParts and in JSON:
 *   current        values as they should be
 *   old_key        envelopes under another key
 *   mismatched     under the current key, but another algorithm or logical field name, or not what
 *                  encrypting the value again makes of it
 *   legacy         in a legacy format
 *   plaintext      not encrypted at all
 *   null           null, which stays null
 *   undecryptable  malformed, or under an unknown key, or failed to open
 *   opened         values that were decrypted to see that it works
 *   round_trips    those of them that were encrypted again, with the same result; only
 *                  deterministic ones can be
 */
#define RK_FIELD_COUNTS(X)                                                                         \
    X(current, "current")                                                                          \
    X(old_key, "oldKey")                                                                           \
    X(mismatched, "mismatched")                                                                    \
    X(legacy, "legacy")                                                                            \
    X(plaintext, "plaintext")                                                                      \
    X(null, "null")                                                                                \
    X(undecryptable, "undecryptable")                                                              \
    X(opened, "opened")                                                                            \
    X(round_trips, "roundTrips")

#define RK_FIELD_COUNT_MEMBER(member, name) int64_t member;
struct rk_field_census {
    const char *path; /* the policy's */
    RK_FIELD_COUNTS(RK_FIELD_COUNT_MEMBER)
    struct rk_usage keys; /* envelopes by key */
};

struct rk_census {
    int64_t documents;
    struct rk_usage usage;          /* every envelope by key */
    int64_t elsewhere;              /* envelopes at paths that the policy does not protect */
    int64_t elsewhere_old_key;      /* those of them that are not under a current key */
    struct rk_field_census *fields; /* of the policy, in its order */
    size_t n_fields;
};

/* policy NULL: of no field. Deinit also after a failure. */
RK_MUST_CHECK enum rk_status rk_census_init(struct rk_census *census,
                                            const struct rk_policy *policy);
void rk_census_clear(struct rk_census *census);
/* more has the same fields. */
RK_MUST_CHECK enum rk_status rk_census_add(struct rk_census *census, const struct rk_census *more);
void rk_census_deinit(struct rk_census *census);

/* Is everything under the current key, wherever it stands, in the policy's form where there is one,
 * and nothing unreadable? */
bool rk_census_holds(const struct rk_census *census);

struct rk_verify_options {
    struct rk_key_service *service; /* loads keys, opens values whose keys stay with the provider */
    bool deep;                      /* open every value */
    uint32_t sample;                /* else about this many of each namespace; 0: none */
};

#endif
