#include "world.h"

#include <rekey/jobs/engine.h>

#include <string.h>

#define LEASE_MS 3000u

bool world_has(const struct world *world, enum world_fault fault)
{
    return (world->faults >> fault & 1u) != 0;
}

bool world_draw(struct world *world, enum world_fault fault, uint32_t one_of)
{
    if (world->calm || !world_has(world, fault) || sim_random(world->sim, one_of) != 0) {
        return false;
    }
    world->result.faults++;
    return true;
}

static uint64_t soon(struct world *world, uint32_t ms)
{
    return world->sim->now_us + (uint64_t)sim_random(world->sim, ms) * 1000u;
}

/* ---- commands */

static void send_late(struct world *world, const struct sim_fiber *fiber)
{
    if (world->n_late == WORLD_LATE_MAX) {
        return; /* then it never arrives */
    }
    struct world_late *late = &world->late[world->n_late++];
    late->actor = (struct model_actor){fiber->serial, fiber->process->name};
    late->at_us = soon(world, 4 * LEASE_MS);
    late->db = fiber->db;
    rk_buf_init(&late->command, 1u << 20);
    if (rk_buf_append(&late->command, fiber->command.data, fiber->command.len) != RK_OK) {
        MODEL_DIE("out of memory");
    }
}

void world_apply_late(struct world *world, bool all)
{
    for (uint32_t i = 0; i < world->n_late; i++) {
        struct world_late *late = &world->late[i];
        if (all || late->at_us <= world->sim->now_us) {
            struct rk_buf reply;
            struct rk_buf command = late->command;
            struct world_late was = *late;
            *late = world->late[--world->n_late];
            i--;
            rk_buf_init(&reply, 1u << 20);
            world_apply(world, was.actor, was.db, &command,
                        !all && world_draw(world, FAULT_NO_MAJORITY, 3), &reply);
            rk_buf_deinit(&reply);
            rk_buf_deinit(&command);
        }
    }
}

static void answer(struct sim_fiber *fiber, enum sim_answer kind)
{
    fiber->answer = kind;
    fiber->state = SIM_ANSWERED;
}

static bool on_documents(const struct sim_fiber *fiber)
{
    return strcmp(fiber->db, "app") == 0;
}

void world_deliver(struct world *world, struct sim_fiber *fiber)
{
    bool uncommitted = false;
    if (world_draw(world, FAULT_NOT_SENT, 30)) {
        answer(fiber, SIM_LOST);
        return;
    }
    if (world_draw(world, FAULT_LATE, 30)) {
        send_late(world, fiber);
        answer(fiber, SIM_LOST);
        return;
    }
    if (on_documents(fiber) && world_draw(world, FAULT_REFUSED, 8)) {
        answer(fiber, SIM_REFUSED);
        return;
    }
    uncommitted = world_draw(world, FAULT_NO_MAJORITY, world->local_reads ? 4 : 20);
    rk_buf_clear(&fiber->reply);
    world_apply(world, (struct model_actor){fiber->serial, fiber->process->name}, fiber->db,
                &fiber->command, uncommitted, &fiber->reply);
    if (world->store.n_journal > 0 && sim_random(world->sim, world->local_reads ? 2 : 4) == 0) {
        world->election_in = 1 + sim_random(world->sim, 6); /* someone may have seen what goes */
    }
    answer(fiber, world_draw(world, FAULT_NO_ANSWER, 30) ? SIM_LOST : SIM_REPLY);
}

/* What is on its way gets lost, and what no majority has is taken back. */
static void elect(struct world *world)
{
    model_store_roll_back(&world->store);
    for (uint32_t i = 0; i < world->sim->n_fibers; i++) {
        if (world->sim->fibers[i].state == SIM_SENT && sim_random(world->sim, 2) == 0) {
            answer(&world->sim->fibers[i], SIM_LOST);
        }
    }
}

/* ---- instances */

static void *stop_main(void *arg)
{
    struct world_instance *instance = arg;
    rk_engine_stop(instance->engine);
    rk_gate_stop(instance->gate);
    instance->engine = NULL;
    instance->gate = NULL;
    instance->stopped = true;
    return NULL;
}

void world_stop(struct world *world, struct world_instance *instance)
{
    if (instance->process != NULL && !instance->stopping && instance->engine != NULL) {
        instance->stopping = true;
        (void)sim_spawn(world->sim, instance->process, stop_main, instance);
    }
}

/* The engine's memory has to go, which its own end takes care of; but nothing that it says on the
 * way arrives any more. */
void world_crash(struct world *world, struct world_instance *instance)
{
    struct sim *sim = world->sim;
    struct sim_process *process = instance->process;
    if (process == NULL) {
        return;
    }
    process->dead = true;
    process->stopped_until_us = 0;
    for (uint32_t i = 0; i < world->sim->n_fibers; i++) {
        struct sim_fiber *fiber = &sim->fibers[i];
        if (fiber->process == process && fiber->state == SIM_SENT) {
            if (sim_random(sim, 2) == 0) {
                send_late(world, fiber);
            }
            answer(fiber, SIM_LOST);
        }
    }
    bool left = true;
    for (uint32_t round = 0; left; round++) {
        left = false;
        if (round == 10000) {
            MODEL_DIE("an engine does not stop");
        }
        for (uint32_t i = 0; i < sim->n_fibers; i++) {
            struct sim_fiber *fiber = &sim->fibers[i];
            if (fiber->process == process && sim_can_run(sim, fiber)) {
                sim_run(sim, fiber);
                left = true;
            }
        }
        world_stop(world, instance);
        left = left || instance->engine != NULL;
    }
    instance->process = NULL;
    instance->restart_us = soon(world, 2 * LEASE_MS);
}

/* Every process has a gate of its own, whose guard has nothing to look at. */
static void start_gate(struct world_instance *instance, const struct rk_config_sweep *sweep)
{
    const struct rk_gate_config gate = {.interval_ms = sweep->guard.interval_ms};
    struct rk_error err;
    if (rk_gate_start(&gate, NULL, NULL, &instance->gate, &err) != RK_OK) {
        MODEL_DIE("a gate does not start: %s", err.message);
    }
}

static void *start_main(void *arg)
{
    struct world_instance *instance = arg;
    struct world *world = instance->world;
    struct rk_error err;
    const struct rk_config_sweep sweep = {
        .mode = RK_CONFIG_SWEEP_BOTH,
        .threads = world->threads,
        .range_docs = world->range_docs,
        .batch_docs = world->batch_docs,
        .ranges_ahead = world->ranges_ahead,
        .split_after_ms = world->split_after_ms,
        .lease_ms = LEASE_MS,
        .poll_interval_ms = 1000,
        .attempts_max = 3,
        .retry_backoff_ms = 100,
        .retry_backoff_max_ms = 1000,
        .write_timeout_ms = 1000,
        .guard = {.interval_ms = 3600000},
    };
    start_gate(instance, &sweep);
    const struct rk_engine_config config = {
        .client_pool = (void *)world,
        .state_db = "state",
        .instance = instance->process->name,
        .gate = instance->gate,
        .policies = world->tools->policies,
        .sweep = sweep,
    };
    if (rk_engine_start(&config, &instance->engine, &err) != RK_OK) {
        MODEL_DIE("an engine does not start: %s", err.message);
    }
    return NULL;
}

void world_start(struct world *world, struct world_instance *instance)
{
    if (world->n_processes == WORLD_PROCESSES_MAX) {
        MODEL_DIE("too many processes");
    }
    struct sim_process *process = &world->processes[world->n_processes++];
    *process = (struct sim_process){0};
    (void)snprintf(process->name, sizeof process->name, "i%u", world->n_processes);
    instance->world = world;
    instance->process = process;
    instance->engine = NULL;
    instance->stopping = false;
    instance->stopped = false;
    (void)sim_spawn(world->sim, process, start_main, instance);
}

static void restart_those_that_are_due(struct world *world)
{
    for (uint32_t i = 0; i < world->n_instances; i++) {
        struct world_instance *instance = &world->instances[i];
        if (instance->process != NULL && instance->stopped) {
            instance->process = NULL;
            instance->restart_us = soon(world, 2 * LEASE_MS);
        }
        if (instance->process == NULL && instance->restart_us <= world->sim->now_us) {
            world_start(world, instance);
        }
    }
}

/* ---- rekeyctl */

static void *ctl_main(void *arg)
{
    struct world_ctl *ctl = arg;
    struct world *world = ctl->world;
    struct rk_error err;
    enum rk_status status;
    if (ctl->action < 0) {
        const struct rk_job_spec spec = {.transform = "reencrypt",
                                         .ns = "app.c",
                                         .actor = "ctl",
                                         .settle_ms = 1000,
                                         .policies = world->tools->policies};
        status = rk_jobs_create((void *)world, "state", &spec, world->job, &err);
    } else {
        status = rk_jobs_act((void *)world, "state", world->job, (enum rk_job_action)ctl->action,
                             "ctl", &err);
    }
    (void)status; /* it may fail; whoever wants it tries again */
    ctl->busy = false;
    return NULL;
}

void world_act(struct world *world, int action)
{
    if (!world->ctl.busy) {
        world->ctl = (struct world_ctl){.world = world, .action = action, .busy = true};
        (void)sim_spawn(world->sim, &world->processes[0], ctl_main, &world->ctl);
    }
}

/* ---- now and then */

static struct world_instance *any_instance(struct world *world)
{
    return &world->instances[sim_random(world->sim, world->n_instances)];
}

void world_disturb(struct world *world)
{
    struct world_instance *instance = any_instance(world);
    struct sim_process *process = instance->process;
    world_apply_late(world, false);
    restart_those_that_are_due(world);
    if (world_draw(world, FAULT_WRITERS, 8)) {
        writers_write(world);
    }
    if (world_draw(world, FAULT_ELECTION, world->election_in == 1 ? 1 : 60)) {
        elect(world);
    }
    world->election_in -= world->election_in > 0;
    if (world_draw(world, FAULT_TIME, 80)) {
        world->sim->now_us = soon(world, 2 * LEASE_MS);
    }
    if (world_draw(world, FAULT_CTL, 80)) {
        static const int actions[] = {RK_JOB_PAUSE,  RK_JOB_RESUME, RK_JOB_RESUME,
                                      RK_JOB_RESUME, RK_JOB_RESUME, RK_JOB_PAUSE};
        bool cancel = sim_random(world->sim, 30) == 0;
        world_act(world, cancel ? RK_JOB_CANCEL : actions[sim_random(world->sim, 6)]);
    }
    if (process == NULL || process != instance->process) {
        return;
    }
    if (world_draw(world, FAULT_STOP, 60)) {
        process->stopped_until_us = soon(world, 3 * LEASE_MS);
    }
    if (world_draw(world, FAULT_CLOCK, 100)) {
        process->wall_offset_ms = (int64_t)sim_random(world->sim, 7200000) - 3600000;
    }
    if (world->n_processes + 2 * WORLD_INSTANCES_MAX > WORLD_PROCESSES_MAX) {
        return; /* enough of them have gone */
    }
    if (world_draw(world, FAULT_LEAVE, 150)) {
        world_stop(world, instance);
    }
    if (world_draw(world, FAULT_CRASH, 80)) {
        world_crash(world, instance);
    }
}
