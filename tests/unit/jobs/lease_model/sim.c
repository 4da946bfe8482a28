#include "sim.h"

#include <rekey/keys/audit.h>
#include <rekey/keys/service.h>
#include <rekey/log/log.h>

#include <mongoc/mongoc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define STACK_SIZE (512u << 10)

_Thread_local struct sim *sim_running;

struct sim *sim_new(void)
{
    struct sim *sim = calloc(1, sizeof *sim);
    if (sim == NULL) {
        MODEL_DIE("out of memory");
    }
    return sim;
}

void sim_free(struct sim *sim)
{
    for (uint32_t i = 0; i < SIM_FIBERS_MAX; i++) {
        struct sim_fiber *fiber = &sim->fibers[i];
        if (fiber->stack == NULL) {
            continue;
        }
        (void)munmap(fiber->stack, STACK_SIZE);
        rk_buf_deinit(&fiber->command);
        rk_buf_deinit(&fiber->reply);
    }
    free(sim);
}

/* splitmix64 */
uint32_t sim_random(struct sim *sim, uint32_t bound)
{
    uint64_t z = sim->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32) % bound;
}

/* ---- switching */

static void to_fiber(struct sim *sim, struct sim_fiber *fiber)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&sim->main_fake_stack, fiber->stack, STACK_SIZE);
#endif
    (void)swapcontext(&sim->main, &fiber->context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(sim->main_fake_stack, NULL, NULL);
#endif
}

static void to_main(struct sim *sim, struct sim_fiber *fiber)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fiber->fake_stack, sim->main_stack, sim->main_stack_size);
#endif
    (void)swapcontext(&fiber->context, &sim->main);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber->fake_stack, &sim->main_stack, &sim->main_stack_size);
#endif
}

static void yield(struct sim *sim, enum sim_state state)
{
    struct sim_fiber *fiber = sim->current;
    fiber->state = state;
    to_main(sim, fiber);
}

/* A fiber's stack outlives what runs on it: it takes up one function after the other. */
static void fiber_main(void)
{
    struct sim *sim = sim_running;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(NULL, &sim->main_stack, &sim->main_stack_size);
#endif
    struct sim_fiber *fiber = sim->current;
    for (;;) {
        (void)fiber->fn(fiber->arg);
        if (fiber->locks != 0) {
            MODEL_DIE("a thread ended with a lock");
        }
        yield(sim, fiber->joinable ? SIM_DONE : SIM_IDLE);
    }
}

static void fiber_create(struct sim_fiber *fiber)
{
    fiber->stack =
        mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fiber->stack == MAP_FAILED || mprotect(fiber->stack, 4096, PROT_NONE) != 0 ||
        getcontext(&fiber->context) != 0) {
        MODEL_DIE("cannot make a fiber");
    }
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = STACK_SIZE;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, fiber_main, 0);
    rk_buf_init(&fiber->command, 1u << 20);
    rk_buf_init(&fiber->reply, 1u << 20);
}

struct sim_fiber *sim_spawn(struct sim *sim, struct sim_process *process, void *(*fn)(void *),
                            void *arg)
{
    for (uint32_t i = 0; i < SIM_FIBERS_MAX; i++) {
        struct sim_fiber *fiber = &sim->fibers[i];
        if (fiber->state == SIM_IDLE) {
            if (fiber->stack == NULL) {
                fiber_create(fiber);
            }
            sim->n_fibers = i < sim->n_fibers ? sim->n_fibers : i + 1;
            fiber->state = SIM_READY;
            fiber->process = process;
            fiber->serial = ++sim->serials;
            fiber->fn = fn;
            fiber->arg = arg;
            fiber->joinable = false;
            return fiber;
        }
    }
    MODEL_DIE("too many threads");
}

bool sim_can_run(const struct sim *sim, const struct sim_fiber *fiber)
{
    if (fiber->state == SIM_IDLE || fiber->process->stopped_until_us > sim->now_us) {
        return false;
    }
    switch (fiber->state) {
    case SIM_READY:
    case SIM_ANSWERED:
        return true;
    case SIM_WAITING:
        return fiber->deadline_us <= sim->now_us;
    case SIM_JOINING:
        return fiber->joined->state == SIM_DONE;
    default:
        return false;
    }
}

void sim_run(struct sim *sim, struct sim_fiber *fiber)
{
    sim->current = fiber;
    fiber->state = SIM_READY;
    to_fiber(sim, fiber);
    sim->current = NULL;
}

/* ---- what the program sees instead of the operating system */

#define REAL(name) __real_##name
#define WRAP(name) __wrap_##name

int REAL(pthread_create)(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                         void *arg);
int REAL(pthread_join)(pthread_t thread, void **result);
int REAL(pthread_cond_wait)(pthread_cond_t *cond, pthread_mutex_t *mutex);
int REAL(pthread_cond_timedwait)(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                 const struct timespec *at);
int REAL(pthread_cond_broadcast)(pthread_cond_t *cond);
int REAL(pthread_mutex_lock)(pthread_mutex_t *mutex);
int REAL(pthread_mutex_unlock)(pthread_mutex_t *mutex);
uint64_t REAL(rk_clock_mono_us)(void);
int64_t REAL(rk_clock_wall_ms)(void);

int WRAP(pthread_create)(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                         void *arg)
{
    struct sim *sim = sim_running;
    if (sim == NULL) {
        return REAL(pthread_create)(thread, attr, fn, arg);
    }
    struct sim_process *process = sim->current->process;
    struct sim_fiber *fiber = sim_spawn(sim, process, fn, arg);
    fiber->joinable = true;
    *thread = (pthread_t)(fiber - sim->fibers) + 1;
    return 0;
}

int WRAP(pthread_join)(pthread_t thread, void **result)
{
    struct sim *sim = sim_running;
    if (sim == NULL) {
        return REAL(pthread_join)(thread, result);
    }
    struct sim_fiber *joined = &sim->fibers[thread - 1];
    while (joined->state != SIM_DONE) {
        sim->current->joined = joined;
        yield(sim, SIM_JOINING);
    }
    joined->state = SIM_IDLE;
    return 0;
}

static void wait_for(struct sim *sim, pthread_cond_t *cond, pthread_mutex_t *mutex,
                     uint64_t deadline_us)
{
    struct sim_fiber *fiber = sim->current;
    if (fiber->locks != 1) {
        MODEL_DIE("a thread waits with %u locks", fiber->locks);
    }
    (void)REAL(pthread_mutex_unlock)(mutex);
    fiber->cond = cond;
    fiber->deadline_us = deadline_us;
    yield(sim, SIM_WAITING);
    fiber->cond = NULL;
    (void)REAL(pthread_mutex_lock)(mutex);
}

int WRAP(pthread_cond_wait)(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    if (sim_running == NULL) {
        return REAL(pthread_cond_wait)(cond, mutex);
    }
    wait_for(sim_running, cond, mutex, UINT64_MAX);
    return 0;
}

int WRAP(pthread_cond_timedwait)(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                 const struct timespec *at)
{
    if (sim_running == NULL) {
        return REAL(pthread_cond_timedwait)(cond, mutex, at);
    }
    wait_for(sim_running, cond, mutex,
             (uint64_t)at->tv_sec * 1000000u + (uint64_t)at->tv_nsec / 1000u);
    return 0;
}

int WRAP(pthread_cond_broadcast)(pthread_cond_t *cond)
{
    struct sim *sim = sim_running;
    if (sim == NULL) {
        return REAL(pthread_cond_broadcast)(cond);
    }
    for (uint32_t i = 0; i < sim->n_fibers; i++) {
        if (sim->fibers[i].state == SIM_WAITING && sim->fibers[i].cond == cond) {
            sim->fibers[i].state = SIM_READY;
        }
    }
    return 0;
}

int WRAP(pthread_cond_signal)(pthread_cond_t *cond)
{
    return WRAP(pthread_cond_broadcast)(cond); /* those who wait may always wake up */
}

int WRAP(pthread_mutex_lock)(pthread_mutex_t *mutex)
{
    int result = REAL(pthread_mutex_lock)(mutex);
    if (sim_running != NULL && sim_running->current != NULL) {
        sim_running->current->locks++;
    }
    return result;
}

int WRAP(pthread_mutex_unlock)(pthread_mutex_t *mutex)
{
    if (sim_running != NULL && sim_running->current != NULL) {
        sim_running->current->locks--;
    }
    return REAL(pthread_mutex_unlock)(mutex);
}

uint64_t WRAP(rk_clock_mono_us)(void)
{
    return sim_running != NULL ? sim_running->now_us : REAL(rk_clock_mono_us)();
}

int64_t WRAP(rk_clock_wall_ms)(void)
{
    struct sim *sim = sim_running;
    if (sim == NULL) {
        return REAL(rk_clock_wall_ms)();
    }
    return (int64_t)(sim->now_us / 1000u) +
           (sim->current != NULL ? sim->current->process->wall_offset_ms : 0);
}

uint64_t WRAP(rk_backoff_jittered)(uint64_t pause)
{
    return pause - sim_random(sim_running, (uint32_t)(pause / 2 + 1));
}

bool WRAP(rk_log_enabled)(enum rk_log_level level)
{
    (void)level;
    return sim_running != NULL && sim_running->verbose;
}

/* ---- the driver, the keys and the audit log */

bool WRAP(mongoc_client_command_simple)(mongoc_client_t *client, const char *db,
                                        const bson_t *command, const mongoc_read_prefs_t *prefs,
                                        bson_t *reply, bson_error_t *error)
{
    struct sim *sim = sim_running;
    struct sim_fiber *fiber = sim->current;
    const uint8_t *data = bson_get_data(command);
    (void)client;
    (void)prefs;
    if (fiber->locks != 0) {
        MODEL_DIE("a command is sent with a lock held");
    }
    fiber->db = strcmp(db, "app") == 0 ? "app" : "state";
    if (strcmp(fiber->db, db) != 0) {
        MODEL_DIE("the model does not know the database %s", db);
    }
    rk_buf_clear(&fiber->command);
    if (rk_buf_append(&fiber->command, data, rk_load_u32(data)) != RK_OK) {
        MODEL_DIE("out of memory");
    }
    fiber->answer = SIM_LOST;
    if (!fiber->process->dead) {
        yield(sim, SIM_SENT);
    }
    if (reply != NULL) {
        bson_init(reply);
    }
    if (fiber->answer == SIM_LOST) {
        bson_set_error(error, MONGOC_ERROR_STREAM, MONGOC_ERROR_STREAM_SOCKET, "no answer");
        return false;
    }
    if (fiber->answer == SIM_REFUSED) {
        bson_set_error(error, MONGOC_ERROR_SERVER, 13, "not allowed");
        return false;
    }
    bson_t view;
    struct rk_bson_view doc = {fiber->reply.data, (uint32_t)fiber->reply.len};
    struct rk_bson_elem ok = model_field(&doc, "ok");
    struct rk_bson_elem code = model_field(&doc, "code");
    if (reply != NULL) {
        if (!bson_init_static(&view, doc.data, doc.len)) {
            MODEL_DIE("a reply is no document");
        }
        bson_destroy(reply);
        bson_copy_to(&view, reply);
    }
    if (!rk_bson_elem_truthy(&ok)) {
        bson_set_error(error, MONGOC_ERROR_SERVER, rk_load_u32(code.value), "refused");
        return false;
    }
    return true;
}

mongoc_client_t *WRAP(mongoc_client_pool_pop)(mongoc_client_pool_t *pool)
{
    return (mongoc_client_t *)(void *)pool;
}

void WRAP(mongoc_client_pool_push)(mongoc_client_pool_t *pool, mongoc_client_t *client)
{
    (void)pool;
    (void)client;
}

enum rk_status WRAP(rk_audit_record)(mongoc_client_t *client, const char *state_db,
                                     const struct rk_audit_event *event, struct rk_error *err)
{
    (void)client;
    (void)state_db;
    (void)event;
    (void)err;
    return RK_OK;
}

/* The collection is one that can be swept. */
enum rk_status WRAP(rk_preflight)(mongoc_client_t *client, const void *ns, const void *policy,
                                  void *out, struct rk_error *err)
{
    (void)client;
    (void)ns;
    (void)policy;
    (void)out;
    (void)err;
    return RK_OK;
}

/* It counts anew each time, at every poll: most of a run's time. */
size_t REAL(rk_config_sweep_count)(void);
size_t WRAP(rk_config_sweep_count)(void)
{
    static size_t n;
    if (n == 0) {
        n = REAL(rk_config_sweep_count)();
    }
    return n;
}

uint64_t WRAP(rk_key_service_generation)(const struct rk_key_service *service)
{
    (void)service;
    return 1;
}

struct rk_keyset *WRAP(rk_key_service_keyset)(struct rk_key_service *service)
{
    (void)service;
    return rk_keyset_ref(sim_running->keys);
}

bool WRAP(rk_key_service_answers)(const struct rk_key_service *service)
{
    (void)service;
    return false;
}
