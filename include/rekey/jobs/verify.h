/*
 * Reconciliation: a full scan of a namespace that counts every protected value by what it lies
 * under, and every envelope that stands elsewhere: moved there past the proxy, or left behind by a
 * policy that no longer names its path. Independent of the sweeper's own counters, and of anything
 * that a failover could still take back.
 */
#ifndef REKEY_JOBS_VERIFY_H
#define REKEY_JOBS_VERIFY_H

#include <rekey/keys/service.h>
#include <rekey/policy/policy.h>

struct _mongoc_client_t;

#define RK_VERIFY_KEYS_MAX 32u

struct rk_verify_key {
    uint32_t id;
    int64_t values;
};

struct rk_verify_field {
    const char *path;      /* the policy's */
    int64_t current;       /* values as they should be */
    int64_t old_key;       /* envelopes under another key */
    int64_t mismatched;    /* under the current key, but another algorithm or logical field name */
    int64_t legacy;        /* in a legacy format */
    int64_t plaintext;     /* not encrypted at all */
    int64_t null;          /* null, which stays null */
    int64_t undecryptable; /* malformed, or under an unknown key, or failed to open */
    int64_t opened;        /* values that were decrypted to see that it works */
    struct rk_verify_key keys[RK_VERIFY_KEYS_MAX]; /* envelopes by key; others are not listed */
    size_t n_keys;
};

struct rk_verify_result {
    char ns[320];
    int64_t documents;
    int64_t elsewhere;              /* envelopes at paths that the policy does not protect */
    int64_t elsewhere_old_key;      /* those of them that are not under the current key */
    struct rk_verify_field *fields; /* of the policy, in its order */
    size_t n_fields;
};

struct rk_verify_options {
    const struct rk_policy_set *policies;
    const struct rk_keyset *keys;   /* with a current key */
    struct rk_key_service *service; /* opens values whose keys stay with the provider */
    bool deep;                      /* open every value */
    uint32_t sample;                /* else about this many of each namespace; 0: none */
    /* Called now and then with the documents scanned so far; may be NULL. */
    void (*progress)(void *arg, const char *ns, int64_t documents, int64_t documents_estimated);
    void *progress_arg;
};

/* Free *out with rk_verify_result_deinit, also after a failure. */
RK_MUST_CHECK enum rk_status rk_verify_namespace(struct _mongoc_client_t *client, const char *ns,
                                                 const struct rk_verify_options *options,
                                                 struct rk_verify_result *out,
                                                 struct rk_error *err);
void rk_verify_result_deinit(struct rk_verify_result *result);

/* Is everything under the current key, wherever it stands, in the policy's form where there is one,
 * and nothing unreadable? */
bool rk_verify_holds(const struct rk_verify_result *result);

#endif
