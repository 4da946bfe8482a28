/*
 * What a job over a collection would have to do, by its metadata and a sample of its documents. No
 * key is needed: under which one a value lies stands in front of it. Blocking.
 */
#ifndef REKEY_JOBS_ESTIMATE_H
#define REKEY_JOBS_ESTIMATE_H

#include <rekey/jobs/transform.h>
#include <rekey/keys/registry.h>

struct _mongoc_client_t;

#define RK_ESTIMATE_KEYS_MAX 32u

struct rk_estimate {
    int64_t documents; /* by metadata */
    int64_t bytes;
    int64_t sampled; /* documents */
    int64_t needing; /* of the sampled: what the transform would rewrite */
    /* Values of the sampled documents: */
    int64_t current;
    int64_t legacy;
    int64_t plaintext;
    struct rk_estimate_key {
        uint32_t id;
        int64_t values;
    } keys[RK_ESTIMATE_KEYS_MAX]; /* envelopes by key, the current one's too */
    size_t n_keys;
};

struct rk_estimate_options {
    const struct rk_policy_set *policies;
    const struct rk_key_record *keys; /* of the registry */
    size_t n_keys;
    bool encrypt;    /* plaintext is what needs work, and nothing else */
    uint32_t sample; /* documents to look at */
};

/* ns: "db.coll", protected by a policy. */
RK_MUST_CHECK enum rk_status rk_estimate(struct _mongoc_client_t *client, const char *ns,
                                         const struct rk_estimate_options *options,
                                         struct rk_estimate *out, struct rk_error *err);

/* Documents that need work, of all: the sample's share. */
int64_t rk_estimate_needing(const struct rk_estimate *estimate);

#endif
