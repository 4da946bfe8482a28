/*
 * Jobs as the control plane sees them: <state db>.jobs, one document a job:
 *
 *   { _id: ObjectId, transform: "reencrypt", ns: "db.coll",
 *     state: "planning" | "running" | "paused" | "complete" | "failed" | "cancelled",
 *     active: bool,              planning, running or paused: at most one for a namespace
 *     priority: int32,          absent: 0; higher ones first
 *     concurrency: int32,       ranges at once over the whole fleet; absent or 0: no limit
 *     keyId: int64, notBefore: Date,   the current key at creation, and its settling time
 *     createdAt, createdBy, startedAt, completedAt, error,
 *     format: int32            absent: 1; engines leave jobs with a higher one than theirs alone
 *     shardKey: {...}          of a sharded collection
 *     warnings: [string, ...]  about the collection, as it was at creation
 *     verifiedAt, verifiedBy, proof: ObjectId,    signed off by rekeyctl verify (proof.h)
 *     plannerOwner, plannerEpoch, plannerLeaseUntil, plannedTo, planComplete: bool }
 *
 *   planning -> running    an engine starts to cut its ranges
 *   planning, running -> paused, cancelled    rekeyctl; engines obey within a poll interval
 *   paused, failed -> running                 rekeyctl resume
 *   running -> complete    every range is done
 *   running -> failed      a range failed
 *
 * Totals are sums over the job's ranges (jobStatus), never counters of their own. Blocking; a
 * client belongs to one thread. Writes use majority write concern.
 */
#ifndef REKEY_JOBS_STORE_H
#define REKEY_JOBS_STORE_H

#include <rekey/policy/policy.h>

struct _mongoc_client_t;

#define RK_JOB_FORMAT 1   /* of the job documents that this version writes */
#define RK_JOB_ID_LEN 25u /* 24 hex digits and NUL */

/* Each document that was read has one outcome:
 * scanned = swept + already_current + gone + rejected. The others count events and values. */
struct rk_sweep_counts {
    int64_t scanned;         /* documents read */
    int64_t swept;           /* documents rewritten */
    int64_t already_current; /* needed nothing, or were rewritten by somebody else meanwhile */
    int64_t gone;            /* deleted between read and write */
    int64_t rejected;        /* not rewritten: what they needed went to deadLetters */
    int64_t changed_again;   /* changed between read and write and looked at once more */
    int64_t dead_lettered;   /* values filed in deadLetters */
    int64_t plaintext;       /* protected values that are not encrypted; left as they are */
};

/* How a job stands among others. */
struct rk_job_terms {
    int32_t priority;     /* higher ones first */
    uint32_t concurrency; /* ranges worked on at once by all instances; 0: no limit */
};

struct rk_job {
    char id[RK_JOB_ID_LEN];
    char ns[320];
    char transform[32];
    char state[16];
    char created_by[128];
    char error[256];
    int64_t created_at_ms;
    int64_t started_at_ms;   /* 0: not yet */
    int64_t completed_at_ms; /* 0: not yet */
    struct rk_job_terms terms;
    int64_t verified_at_ms; /* 0: not yet, like the next two */
    char verified_by[128];
    char proof[RK_JOB_ID_LEN];
    bool plan_complete;
    int64_t documents_estimated; /* of the collection, by its metadata; while it is being cut */
    int64_t documents;           /* in the ranges cut so far */
    int64_t ranges;
    int64_t ranges_done;
    int64_t ranges_running;
    int64_t ranges_failed;
    char range_error[256]; /* of a range that is in trouble; empty when none is */
    struct rk_sweep_counts counts;
};

/* Creates the indexes that the engine relies on. Repeating it is cheap. */
RK_MUST_CHECK enum rk_status rk_jobs_prepare(struct _mongoc_client_t *client, const char *state_db,
                                             struct rk_error *err);

/* What a job is to be. */
struct rk_job_spec {
    struct rk_job_terms terms;
    const char *transform;
    const char *ns; /* "db.coll" */
    const char *actor;
    uint32_t settle_ms;
    const struct rk_policy_set *policies;
    /* Called with each thing that is good to know about the collection; NULL: not wanted. The job
     * keeps them, and rekeyd logs them when it begins. */
    void (*warn)(void *arg, const char *text);
    void *arg;
};

/*
 * Adds a job; id receives its id. RK_ESTATE when one is active there; RK_EREFUSED when the
 * collection is of a kind that cannot be swept, with the reason; RK_ENOENT when no policy protects
 * it. Its sweepers work under the key that is current now or a later one. When that key is new,
 * they start settle_ms from now: by then every instance that can reach the registry writes under
 * it, and nothing that the sweep has passed falls back to the former key.
 */
RK_MUST_CHECK enum rk_status rk_jobs_create(struct _mongoc_client_t *client, const char *state_db,
                                            const struct rk_job_spec *spec, char id[RK_JOB_ID_LEN],
                                            struct rk_error *err);

struct rk_job_filter {
    bool only_active;                 /* leave out those that have ended */
    const char (*ids)[RK_JOB_ID_LEN]; /* NULL: of any id */
    size_t n_ids;
};

/* The newest jobs_max jobs with their totals, newest first; *jobs is malloc'ed for the caller.
 * The totals cost mongod a look at every range of these jobs. */
RK_MUST_CHECK enum rk_status rk_jobs_list(struct _mongoc_client_t *client, const char *state_db,
                                          const struct rk_job_filter *filter, size_t jobs_max,
                                          struct rk_job **jobs, size_t *n, struct rk_error *err);

/* Changes what terms an active job has; which says what of them. RK_ENOENT: there is no such job,
 * or it has ended. Recorded in the audit log with old and new values. */
enum rk_job_term { RK_JOB_TERM_PRIORITY = 1, RK_JOB_TERM_CONCURRENCY = 2 };
RK_MUST_CHECK enum rk_status rk_jobs_set(struct _mongoc_client_t *client, const char *state_db,
                                         const char *id, const struct rk_job_terms *terms,
                                         unsigned which, const char *actor, struct rk_error *err);

enum rk_job_action { RK_JOB_PAUSE, RK_JOB_RESUME, RK_JOB_CANCEL };

/* RK_ENOENT: no such job (RK_EINVAL: no such id can exist); RK_ESTATE: its state does not allow
 * it, and err says which one it is. A job that is so already stays so. Recorded in the audit
 * log. */
RK_MUST_CHECK enum rk_status rk_jobs_act(struct _mongoc_client_t *client, const char *state_db,
                                         const char *id, enum rk_job_action action,
                                         const char *actor, struct rk_error *err);
const char *rk_job_action_name(enum rk_job_action action);

/*
 * The collections that policies protect and that exist: "db.*" is expanded, views, time-series and
 * system collections are left out. only (may be NULL) is a namespace as configured or one
 * collection; RK_ENOENT when it is not protected, RK_ESTATE when it is a view or a time series.
 * Free with rk_jobs_namespaces_free.
 */
RK_MUST_CHECK enum rk_status rk_jobs_namespaces(struct _mongoc_client_t *client,
                                                const struct rk_policy_set *policies,
                                                const char *only, char ***namespaces, size_t *n,
                                                struct rk_error *err);
void rk_jobs_namespaces_free(char **namespaces, size_t n);

#endif
