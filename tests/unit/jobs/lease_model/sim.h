/*
 * The program's threads as fibers of one thread, on a clock of their own: what they ask of the
 * operating system and of the driver comes here by the linker's --wrap (see wrapped), so that the
 * engine runs as it is. A fiber runs until it sends a command, waits or ends; who runs next, what
 * becomes of commands, and how time passes, is up to the caller.
 */
#ifndef MODEL_SIM_H
#define MODEL_SIM_H

#include "store.h"

#include <pthread.h>
#include <ucontext.h>

#define SIM_FIBERS_MAX 64u

/* A process: what dies at once. */
struct sim_process {
    char name[24];
    bool dead;                 /* its commands fail and never arrive */
    uint64_t stopped_until_us; /* does not run before */
    int64_t wall_offset_ms;    /* of its clock */
};

enum sim_state {
    SIM_IDLE,
    SIM_READY,
    SIM_WAITING,  /* for a condition, or a deadline */
    SIM_JOINING,  /* another fiber's end */
    SIM_SENT,     /* its command is on its way */
    SIM_ANSWERED, /* the answer lies there */
    SIM_DONE,     /* until it is joined */
};

enum sim_answer { SIM_REPLY, SIM_LOST, SIM_REFUSED };

struct sim_fiber {
    enum sim_state state;
    struct sim_process *process;
    uint64_t serial;
    void *(*fn)(void *arg);
    void *arg;
    bool joinable; /* stays done until it is joined */
    pthread_cond_t *cond;
    uint64_t deadline_us;
    struct sim_fiber *joined;
    uint64_t joined_serial;
    const char *db; /* "app" or "state" */
    struct rk_buf command;
    enum sim_answer answer;
    struct rk_buf reply;
    uint32_t locks; /* held */

    ucontext_t context;
    void *stack;
    void *fake_stack;
};

struct rk_keyset;

struct sim {
    uint64_t now_us;
    uint64_t serials;
    uint64_t random;
    bool verbose; /* logs are written */
    struct rk_keyset *keys;
    struct sim_fiber fibers[SIM_FIBERS_MAX];
    uint32_t n_fibers; /* that were ever used in this run */
    struct sim_fiber *current;
    ucontext_t main;
    const void *main_stack;
    size_t main_stack_size;
    void *main_fake_stack;
};

/* The one that runs; NULL: everything is real. */
extern _Thread_local struct sim *sim_running;

struct sim *sim_new(void);
void sim_free(struct sim *sim);
struct sim_fiber *sim_spawn(struct sim *sim, struct sim_process *process, void *(*fn)(void *),
                            void *arg);
/* May it run now? Not so when its command was not answered yet. */
bool sim_can_run(const struct sim *sim, const struct sim_fiber *fiber);
void sim_run(struct sim *sim, struct sim_fiber *fiber);
/* Below bound. */
uint32_t sim_random(struct sim *sim, uint32_t bound);

#endif
