/*
 * One run: a collection with foreground writers, one job, a few instances of the engine, and
 * everything that may go wrong between them, as the seed has it.
 */
#ifndef MODEL_WORLD_H
#define MODEL_WORLD_H

#include "check.h"
#include "sim.h"

#include <stdio.h>

#define WORLD_PROCESSES_MAX 48u
#define WORLD_LATE_MAX 64u
#define WORLD_INSTANCES_MAX 4u

/* Made once for all runs. */
struct world_tools {
    struct sim *sim;
    struct rk_policy_set *policies;
    struct rk_keyset *keys;
    struct check_values values;
};

struct world_options {
    uint64_t seed;
    enum model_mutation mutation;
    FILE *dump;  /* every command with its reply, in BSON; NULL: none */
    int32_t run; /* its number in the dump */
    bool verbose;
};

struct world_result {
    bool violated;
    char what[256];
    bool complete;
    bool cancelled;
    uint64_t commands;
    uint64_t faults;
    uint64_t splits;
};

void world_tools_init(struct world_tools *tools);
void world_tools_deinit(struct world_tools *tools);
struct world_result world_run(struct world_tools *tools, const struct world_options *options);

/* ---- faults.c */

enum world_fault {
    FAULT_NOT_SENT,  /* a command does not arrive */
    FAULT_NO_ANSWER, /* it arrives, its answer does not */
    FAULT_LATE,      /* its sender gives up; then it arrives */
    FAULT_NO_MAJORITY,
    FAULT_REFUSED,
    FAULT_ELECTION,
    FAULT_CRASH,
    FAULT_LEAVE, /* in good order */
    FAULT_STOP,
    FAULT_TIME,  /* passes at once, past leases */
    FAULT_CLOCK, /* of an instance jumps */
    FAULT_CTL,
    FAULT_WRITERS,
    FAULT_DAMAGE, /* values that cannot be opened */
    FAULT_IDS,    /* of all types */
    FAULTS
};

struct world_instance {
    struct sim_process *process; /* NULL: it is down */
    struct rk_engine *engine;
    struct rk_gate *gate;
    struct world *world;
    bool stopping;
    bool stopped;
    uint64_t restart_us;
};

struct world_late {
    struct model_actor actor;
    const char *db;
    struct rk_buf command;
    uint64_t at_us;
};

struct world_ctl {
    struct world *world;
    int action; /* enum rk_job_action; -1: the job is made */
    bool busy;
};

struct world {
    struct world_tools *tools;
    struct sim *sim;
    struct model_store store;
    struct check check;
    struct world_options options;
    struct world_result result;
    uint32_t faults;      /* bits: those of this run */
    bool calm;            /* none any more */
    bool large;           /* more of everything: most runs are small, for there to be many */
    bool local_reads;     /* the store's mistake; what shows it is made likely */
    uint32_t election_in; /* steps; 0: by chance */
    uint32_t step_us;
    uint32_t threads;
    uint32_t range_docs;
    uint32_t batch_docs;
    uint32_t ranges_ahead;
    uint32_t split_after_ms;
    struct sim_process processes[WORLD_PROCESSES_MAX];
    uint32_t n_processes;
    struct world_instance instances[WORLD_INSTANCES_MAX];
    uint32_t n_instances;
    struct world_late late[WORLD_LATE_MAX];
    uint32_t n_late;
    struct world_ctl ctl;
    char job[32];
    bool seen[32];   /* ids that were ever there */
    bool always[32]; /* ids that are there since the beginning */
};

bool world_has(const struct world *world, enum world_fault fault);
/* True in one of so many calls, while there are faults, if the run has this one. Counts it. */
bool world_draw(struct world *world, enum world_fault fault, uint32_t one_of);
void world_apply(struct world *world, struct model_actor actor, const char *db,
                 const struct rk_buf *command, bool uncommitted, struct rk_buf *reply);
/* What becomes of a command that was sent. */
void world_deliver(struct world *world, struct sim_fiber *fiber);
/* Whatever else happens now and then. */
void world_disturb(struct world *world);
void world_crash(struct world *world, struct world_instance *instance);
void world_stop(struct world *world, struct world_instance *instance);
void world_start(struct world *world, struct world_instance *instance);
void world_act(struct world *world, int action);
void world_apply_late(struct world *world, bool all);

/* ---- writers.c */

void writers_fill(struct world *world);
void writers_write(struct world *world);

#endif
