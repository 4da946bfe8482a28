/*
 * Proofs of what is needed: passes over collections that count what lies under which key (verify.h)
 * and, at their end, what the raw values of open dead letters need. All scans that somebody relies
 * on are such passes: rekeyctl verify, and the counts of keys retire and keys destroy.
 *
 * A pass is one document of <state db>.proofs
 *
 *   { _id: ObjectId, kind: "verify" | "count", scope: "protected" | "everywhere" | a namespace,
 *     digest: of policies and options, keys: digest of which key each name writes under,
 *     keysUpTo: int64, startedAt: Date (the server's), by, owner, epoch: int64, leaseUntil: Date,
 *     -- at its end:
 *     completedAt, ok: bool (verify), namespaces: [{ns: "db.coll", documents: int64,
 *     keys: [{id: int64, values: int64}]}], deadLetters: [{id, values}],
 *     -- or, when it is of no use any more: abandonedAt: Date, why: "..." }
 *
 * and one of <state db>.proofParts for each collection, by which it is resumed:
 *
 *   { _id: {proof: ObjectId, ns: "db.coll"}, epoch: int64, uuid: the collection's,
 *     startedAt: Date (the server's), done: bool, position: the last _id that was counted,
 * documents, elsewhere, elsewhereOldKey: int64, keys: {"<id>": int64}, fields: [{path, current,
 * oldKey, ... (verify.h), keys: {}}] }
 *
 * Counts are absolute and guarded by the epoch, which grows with every owner: one that was given up
 * for dead changes nothing. A pass that nobody holds any more is gone on with when the same is
 * asked for again, unless something could have come to lie under a key behind its position that
 * counts as old: see not_before_ms, and it is begun anew when keys were rotated or destroyed since
 * it began. (A name's first key does not disturb it: what is written under that is current.) Of
 * such a pass, a collection is counted anew that a job has gone over meanwhile, or that was
 * replaced.
 *
 * Blocking; majority writes and reads.
 */
#ifndef REKEY_JOBS_PROOF_H
#define REKEY_JOBS_PROOF_H

#include <rekey/config/config.h>
#include <rekey/jobs/verify.h>
#include <rekey/policy/policy.h>

struct _mongoc_client_t;

#define RK_PROOF_ID_LEN 25u /* 24 hex digits and NUL */

struct rk_proof_part {
    char ns[320];
    int64_t started_at_ms; /* when counting it began; 0: of a stored proof */
    struct rk_census census;
};

struct rk_proof {
    char id[RK_PROOF_ID_LEN];
    int64_t started_at_ms;
    int64_t completed_at_ms; /* 0: not stored */
    bool resumed;            /* somebody else, or an earlier run, had begun it */
    struct rk_proof_part *parts;
    size_t n_parts;
    struct rk_usage dead_letters;
};

struct rk_proof_settings {
    enum rk_config_scan read_preference; /* where collections are read */
    uint32_t lease_ms;                   /* one who is silent this long is taken over */
    uint32_t checkpoint_interval_ms;
    uint32_t batch_docs;
    uint32_t max_rate;     /* documents/s; 0: as fast as it goes */
    uint32_t attempts_max; /* failures that may pass, in a row without progress */
    uint32_t retry_backoff_ms;
    uint32_t retry_backoff_max_ms;
    uint32_t write_timeout_ms;
};

struct rk_proof_request {
    const char *state_db;
    const struct rk_policy_set *policies;
    struct rk_proof_settings settings;
    /* NULL: envelopes are counted by key, in all collections that are or ever were protected; no
     * key is loaded for that. */
    const struct rk_verify_options *verify;
    const char *only; /* with verify: a namespace as configured, or one collection; NULL: all */
    bool everywhere;  /* without: all collections there are */
    const char *actor;
    int64_t not_before_ms; /* a pass that began before (server's clock) is of no use */
    bool restart;          /* begin anew, whatever there is */
    void (*progress)(void *arg, const char *ns, int64_t documents, int64_t documents_estimated);
    void (*notice)(void *arg, const char *text); /* what people may want to know meanwhile */
    void *arg;                                   /* progress and notice may be NULL */
};

/* Scans, and stores what it found. Free *out with rk_proof_deinit, also after a failure, which
 * leaves what was counted for the next time. RK_ESTATE: somebody else goes on with it, or keys were
 * changed meanwhile. */
RK_MUST_CHECK enum rk_status rk_proof_make(struct _mongoc_client_t *client,
                                           const struct rk_proof_request *request,
                                           struct rk_proof *out, struct rk_error *err);
/* Signs off the complete jobs of those collections that a verification proves (rk_census_holds), if
 * they had ended before it was counted: verifiedAt, verifiedBy and proof in the job, recorded in
 * the audit log. *n counts jobs. */
RK_MUST_CHECK enum rk_status rk_proof_sign(struct _mongoc_client_t *client, const char *state_db,
                                           const struct rk_proof *proof, const char *actor,
                                           int64_t *n, struct rk_error *err);
/* Of all parts. */
bool rk_proof_holds(const struct rk_proof *proof);
int64_t rk_proof_documents(const struct rk_proof *proof);

/* The newest complete count (verifications leave out what is no longer protected); RK_ENOENT when
 * there is none. */
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
