/*
 * Proofs of what is needed: scans of every namespace that was ever protected, and of the dead
 * letters, that count envelopes by key. Collection <state db>.proofs, one document a scan that came
 * to its end:
 *
 *   { _id: ObjectId, startedAt, completedAt: Date (the server's), by: "...",
 *     namespaces: [{ns: "db.coll", documents: int64, keys: [{id: int64, values: int64}]}],
 *     deadLetters: [{id, values}] }     -- values that wait in deadLetters, not resolved
 *
 * No key has to be loaded for a scan. Blocking; majority writes and reads.
 */
#ifndef REKEY_JOBS_PROOF_H
#define REKEY_JOBS_PROOF_H

#include <rekey/jobs/usage.h>
#include <rekey/policy/policy.h>

struct _mongoc_client_t;

#define RK_PROOF_ID_LEN 25u /* 24 hex digits and NUL */

struct rk_proof_part {
    char ns[320];
    int64_t documents;
    struct rk_usage usage;
};

struct rk_proof {
    char id[RK_PROOF_ID_LEN];
    int64_t started_at_ms;
    int64_t completed_at_ms; /* 0: not stored */
    struct rk_proof_part *parts;
    size_t n_parts;
    struct rk_usage dead_letters;
};

struct rk_proof_request {
    const char *state_db;
    const struct rk_policy_set *policies;
    bool everywhere; /* all collections there are, instead of those that were protected */
    const char *actor;
    void (*progress)(void *arg, const char *ns, int64_t documents, int64_t documents_estimated);
    void *progress_arg; /* progress may be NULL */
};

/* Scans, and stores what it found. Free *out with rk_proof_deinit, also after a failure. */
RK_MUST_CHECK enum rk_status rk_proof_make(struct _mongoc_client_t *client,
                                           const struct rk_proof_request *request,
                                           struct rk_proof *out, struct rk_error *err);
/* The newest one; RK_ENOENT when there is none. */
RK_MUST_CHECK enum rk_status rk_proof_last(struct _mongoc_client_t *client, const char *state_db,
                                           struct rk_proof *out, struct rk_error *err);
void rk_proof_deinit(struct rk_proof *proof);

/* Everything that needs the key: stored values and dead letters, those of which the key cannot be
 * told included. where (of size bytes; may be NULL) gets the first places and their counts. */
int64_t rk_proof_values(const struct rk_proof *proof, uint32_t key_id, char *where, size_t size);

/*
 * Notes what these policies protect, for the scans of a time when they may be gone: collection
 * <state db>.protected, one document a namespace: { _id: "db.coll" or "db.*", since: Date }.
 */
RK_MUST_CHECK enum rk_status rk_proof_remember(struct _mongoc_client_t *client,
                                               const char *state_db,
                                               const struct rk_policy_set *policies,
                                               struct rk_error *err);

/*
 * The collections to look through: those that policies protect now or ever did, and those that ever
 * had a job or stand in an earlier proof, as far as they exist; with everywhere all but the
 * server's own and those of state_db. Free with rk_jobs_namespaces_free.
 */
RK_MUST_CHECK enum rk_status rk_proof_namespaces(struct _mongoc_client_t *client,
                                                 const struct rk_proof_request *request,
                                                 char ***namespaces, size_t *n,
                                                 struct rk_error *err);

#endif
