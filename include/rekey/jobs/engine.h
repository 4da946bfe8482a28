/*
 * The job engine of one instance: a coordinator thread that finds jobs, cuts ranges, renews
 * leases and closes finished jobs; and sweeper threads that claim ranges and work on them.
 * Any number of instances share the jobs of one state database.
 *
 * Nothing is lost when an instance dies: jobStatus holds the truth, and what the instance held
 * is taken over when its lease runs out. While mongod is away everybody waits and tries again.
 */
#ifndef REKEY_JOBS_ENGINE_H
#define REKEY_JOBS_ENGINE_H

#include <rekey/admission/gate.h>
#include <rekey/config/config.h>
#include <rekey/jobs/hot.h>
#include <rekey/jobs/store.h>
#include <rekey/jobs/transport.h>
#include <rekey/keys/service.h>
#include <rekey/policy/policy.h>

#define RK_ENGINE_THREADS_MAX 64u

struct rk_engine_config {
    struct _mongoc_client_pool_t *client_pool; /* borrowed; one client per thread is taken */
    const char *state_db;                      /* copied */
    const char *instance;                      /* copied; unique to this process */
    struct rk_key_service *keys;               /* borrowed; stopped after the engine */
    struct rk_gate *gate;                      /* borrowed; stopped after the engine; set by it */
    struct rk_hot *hot;                        /* borrowed; NULL: nobody notes any */
    struct rk_policy_set *policies;            /* referenced */
    struct rk_transport transport;             /* ops NULL: local; self outlives the engine */
    struct rk_config_sweep sweep;              /* of the file */
};

struct rk_engine;

/* Does not wait for mongod. */
RK_MUST_CHECK enum rk_status rk_engine_start(const struct rk_engine_config *config,
                                             struct rk_engine **out, struct rk_error *err);
/* Gives ranges back with their progress and joins the threads: at most as long as one command to
 * mongod takes. NULL is fine. */
void rk_engine_stop(struct rk_engine *engine);

/* A hint for this instance, which the transport's end() will be called for. Any thread, never
 * waits; false: there is no room, and the hint stays the caller's. */
bool rk_engine_deliver(struct rk_engine *engine, const struct rk_hint *hint);

/* Effective with the next batch of every sweeper, as far as the fleet has no settings of its own.
 * What has changed is written to the audit log. */
void rk_engine_reconfigure(struct rk_engine *engine, const struct rk_config_sweep *sweep,
                           struct rk_policy_set *policies);

/* What this instance has done since it started. */
struct rk_engine_state {
    size_t jobs;   /* planning or running, that this instance has a policy for */
    size_t ranges; /* held now */
    uint64_t range_failures;
    uint64_t transactions_given_up;    /* batches written document by document instead */
    uint64_t pauses;                   /* of jobs, because too many documents failed */
    struct rk_sweep_counts counts;     /* of ranges */
    struct rk_sweep_counts hot_counts; /* of documents that were read under an old key */
};
struct rk_engine_state rk_engine_state(struct rk_engine *engine);
/* The same as metrics. Any thread. */
void rk_engine_metrics(struct rk_engine *engine, struct rk_metrics *m);

#endif
