/*
 * What coordinator and sweepers share.
 */
#ifndef REKEY_JOBS_ENGINE_INTERNAL_H
#define REKEY_JOBS_ENGINE_INTERNAL_H

#include "inbox_internal.h"
#include "range_internal.h"
#include "scan_internal.h"
#include "shard_key_internal.h"
#include "transaction_internal.h"

#include <pthread.h>
#include <rekey/jobs/engine.h>
#include <rekey/jobs/transform.h>

#define RK_JOBS_MAX 256u
#define RK_IDS_MAX (16u << 20) /* bytes of a batch of _ids */

enum rk_sweep_mode {
    RK_SWEEP_PROACTIVE, /* jobs alone */
    RK_SWEEP_LAZY,      /* documents that applications read under an old key, and no job's ranges */
    RK_SWEEP_BOTH,      /* jobs, and those documents of their collections first */
};

/* All but threads > 0. Pause, rate and hours are the gate's. */
struct rk_engine_settings {
    enum rk_sweep_mode mode;
    uint32_t threads; /* ranges worked on at once; 0: jobs are watched, not worked on */
    uint32_t range_docs;
    uint32_t batch_docs;
    bool transactions; /* where there are any */
    uint32_t ranges_ahead;
    uint32_t split_after_ms;
    uint32_t lease_ms;
    uint32_t poll_interval_ms;
    uint32_t attempts_max;
    uint32_t retry_backoff_ms;
    uint32_t retry_backoff_max_ms;
    uint32_t write_timeout_ms;
    mongoc_read_mode_t read_mode; /* of scans */
    struct rk_config_dead_letters dead_letters;
};

/* A job as the coordinator last saw it. */
struct rk_job_view {
    bson_oid_t id;
    struct rk_ns ns;
    const struct rk_transform_ops *transform;
    uint32_t key_id;      /* nothing is examined under an older key than this */
    int32_t priority;     /* higher ones first */
    uint32_t concurrency; /* ranges at once over the whole fleet; 0: no limit */
    bool plan_complete;
    int64_t started_at_ms;
    struct rk_shard_key shard_key;
};

/* What the sweep works by; see controls.c. Under the engine's lock. */
struct rk_controls {
    struct rk_config_sweep file;
    uint64_t generation;          /* of file */
    struct rk_config_sweep fleet; /* what of it by_fleet has a bit for */
    uint64_t by_fleet;
    struct rk_gate_hours hours;
    struct rk_config_sweep audited; /* the file's settings that the audit log knows of */
    bool held;                      /* no range is worked on: paused, or not the hour */
    uint64_t looked_us;             /* when mongod was last asked */
};

/* A sweeper's own tools; everything but holds/held/job/slot/cancel belongs to its thread. */
struct rk_sweeper {
    struct rk_engine *engine;
    unsigned index;
    pthread_t thread;
    bool started;
    _Atomic bool cancel; /* give the range back; set by the coordinator */

    bool holds;      /* under the engine's lock, as are the next three */
    bson_oid_t held; /* range */
    bson_oid_t job;
    int64_t slot; /* of held */

    mongoc_client_t *client;
    struct rk_transaction transaction; /* of client */
    struct rk_aead *aead;
    struct rk_keyset *keys;
    uint64_t keys_generation;
    struct rk_policy_set *policies;
    struct rk_plan plans[2];
    struct rk_scan_batch batches[2];
    struct rk_buf command;
    struct rk_buf ids; /* of hot documents */
};

/* Of the last documents of a job: the first half of the window is full, the second one is not. */
struct rk_threshold_window {
    bson_oid_t job;
    int64_t scanned[2];
    int64_t rejected[2];
};
struct rk_thresholds {
    struct rk_threshold_window windows[RK_JOBS_MAX];
    size_t n;
    uint64_t pauses; /* jobs that this instance has paused */
};

struct rk_engine {
    mongoc_client_pool_t *client_pool;
    char *state_db;
    char *instance;
    struct rk_key_service *keys;
    struct rk_gate *gate;
    struct rk_hot *hot;            /* borrowed */
    struct rk_transport transport; /* ops NULL: local */
    pthread_t coordinator;

    pthread_mutex_t lock; /* over everything below */
    pthread_cond_t changed;
    bool stopping;
    bool nudged; /* the coordinator shall look now */
    bool retries_waiting;
    uint64_t ticks; /* of the coordinator; what sweepers without work wait for */
    struct rk_engine_settings settings; /* of controls */
    struct rk_controls controls;
    struct rk_policy_set *policies;
    struct rk_job_view jobs[RK_JOBS_MAX];
    size_t n_jobs;
    struct rk_inbox inbox;
    uint64_t hinted_us; /* when a range was heard of last, or there was none to hear of */
    struct rk_sweep_counts counts;
    struct rk_sweep_counts hot_counts; /* of documents that were read under an old key */
    struct rk_thresholds thresholds;
    rk_counter range_failures; /* without the lock, as the next */
    rk_counter transactions_given_up;
    struct rk_sweeper sweepers[RK_ENGINE_THREADS_MAX];
};

/* Copies of what may be reconfigured. */
struct rk_engine_settings rk_engine_settings_now(struct rk_engine *engine);
struct rk_lease rk_engine_lease(const struct rk_engine *engine, mongoc_client_t *client,
                                const struct rk_engine_settings *settings);

/* The coordinator should look now rather than at its next interval. */
void rk_engine_nudge(struct rk_engine *engine);
/* Sleeps; returns at once when the engine stops or *cancel becomes true. */
void rk_engine_sleep(struct rk_engine *engine, uint32_t ms, const _Atomic bool *cancel);

/* With the engine's lock held: until something changes, or rk_clock_mono_us() is there. */
void rk_engine_timed_wait(struct rk_engine *engine, uint64_t deadline_us);

/* Are hints sent and received? */
bool rk_engine_has_transport(const struct rk_engine *engine);
/* Claim ranges straight from jobStatus: without a transport, and when nothing has come over it for
 * so long that whatever was lost would have been offered again. */
bool rk_engine_claims(struct rk_engine *engine);

/* ---- coordinator.c */

void *rk_coordinator_main(void *arg); /* the struct rk_engine */

/* ---- threshold.c: jobs whose documents fail too often */

/* A batch was done, with the engine's lock held. */
void rk_threshold_add(struct rk_engine *engine, const bson_oid_t *job,
                      const struct rk_sweep_counts *done);
/* Pauses those of the coordinator's jobs of which too many documents failed. */
void rk_threshold_check(struct rk_engine *engine, const struct rk_lease *lease,
                        const struct rk_job_view *jobs, size_t n_jobs);

/* ---- offers.c */

/* Tells others of the job's ranges that nobody works on and that were not offered lately; *waits:
 * the job has ranges that are pending, and may have one more worked on. */
RK_MUST_CHECK enum rk_status rk_offers_step(const struct rk_lease *lease,
                                            const struct rk_job_view *job,
                                            const struct rk_transport *transport, uint32_t max,
                                            bool *waits, struct rk_error *err);
/* ---- controls.c: the file's settings, the fleet's on top of them, and the hours */

/* Under the engine's lock: makes the settings of controls those of engine and gate. */
void rk_controls_apply(struct rk_engine *engine);
/* Asks mongod, and writes what the file has changed to the audit log. Sweepers stop when it says
 * so. */
RK_MUST_CHECK enum rk_status rk_controls_refresh(struct rk_engine *engine, mongoc_client_t *client,
                                                 struct rk_error *err);
/* The same if the last time is a poll interval ago; a failure is the next refresh's to tell. */
void rk_controls_refresh_if_due(struct rk_engine *engine, mongoc_client_t *client);

/* ---- engine.c, both under the engine's lock */

/* Is this job one of those that are worked on now, and the slot one of its own? */
bool rk_engine_wants(const struct rk_engine *engine, const bson_oid_t *job, int64_t slot);
/* Stops the sweepers that work on something else. */
void rk_engine_stop_unwanted(struct rk_engine *engine);

/* ---- sweeper.c */

void *rk_sweeper_main(void *arg); /* a struct rk_sweeper */
/* The policy for ns as it is configured now, or NULL; valid until the next call. */
const struct rk_policy *rk_sweeper_policy(struct rk_sweeper *s, const struct rk_ns *ns);

/* The terms on which ranges are claimed, with the session in which they will be worked on. */
struct rk_lease rk_sweeper_lease(struct rk_sweeper *s, const struct rk_engine_settings *settings);

/* ---- range_work.c */

/* On a range that was claimed, until it is done, given back, lost or failed. */
void rk_sweeper_work_range(struct rk_sweeper *s, const struct rk_job_view *job,
                           struct rk_range *range, const struct rk_engine_settings *settings);
uint32_t rk_sweeper_backoff_ms(const struct rk_engine_settings *settings, unsigned failures);
/* Documents of the next batch. */
uint32_t rk_sweeper_batch_limit(const struct rk_sweeper *s,
                                const struct rk_engine_settings *settings);

/* ---- hot_work.c */

/* Rewrites one batch of the documents that were read under an old key. False: there were none. */
bool rk_sweeper_work_hot(struct rk_sweeper *s, const struct rk_engine_settings *settings);
/* The same for documents that another instance has told of. */
void rk_sweeper_work_docs(struct rk_sweeper *s, const struct rk_engine_settings *settings,
                          const char *ns, const struct rk_buf *ids);

/* ---- sweep_batch.c: one batch of documents from read to dead letters */

struct rk_sweep_task {
    const bson_oid_t *job; /* NULL: none, for a retried dead letter */
    const struct rk_ns *ns;
    const struct rk_policy *policy;
    const struct rk_transform_ops *transform;
    uint32_t key_id;          /* the current key must be this one or a later one; 0: any */
    struct rk_scan scan;      /* with the collection's shard key */
    const struct rk_buf *ids; /* a BSON array: these documents instead of those of scan; or NULL */
    /* scan.snapshot: the batch is written in a transaction unless somebody changes it meanwhile. */
};

/*
 * Counts the batch once it is done as a whole. After a failure counts->swept alone has grown, by
 * what was rewritten: the next attempt will find that current. last receives the _id of the last
 * document read (type 0: none). RK_EIO: try again later; RK_EREFUSED and others: something is wrong
 * that may not pass by itself; RK_ESTATE: cancelled.
 */
RK_MUST_CHECK enum rk_status rk_sweep_batch(struct rk_sweeper *s, const struct rk_lease *lease,
                                            const struct rk_sweep_task *task,
                                            struct rk_sweep_counts *counts, struct rk_id *last,
                                            bool *exhausted, struct rk_error *err);

#endif
