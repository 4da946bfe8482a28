/*
 * The key service's thread (see service.h).
 *
 * Shared with other threads, under the mutex: the queue of loads, the stop flag, the keyset, and
 * who watches it. Everything else belongs to the thread: the loader, the loads that wait for the
 * next attempt, and the negative cache. Callbacks run without the mutex.
 *
 * One attempt reads the whole registry and answers every load that waits, so the number of loads
 * never multiplies reads. After a failed attempt loads wait for the next one, which comes after a
 * growing, jittered pause, and share its outcome.
 */
#include <rekey/keys/service.h>

#include "automatic_internal.h"
#include "loader_internal.h"
#include "readers_internal.h"

#include <rekey/base/backoff.h>
#include <rekey/base/clock.h>
#include <rekey/log/log.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOADS_MAX 16384u /* one per connection, at most; far below what memory can hold */
#define NEGATIVE_MAX 256u
#define BACKOFF_MIN_US 100000u
#define BACKOFF_MAX_US 5000000u
#define SHUTTING_DOWN "shutting down"

struct load {
    struct load *next;
    uint32_t key_id; /* 0: the current key of name */
    char *name;
    struct rk_error failure; /* status RK_OK: none */
    rk_key_loaded_fn *fn;
    void *arg;
};

struct negative {
    uint32_t key_id;
    uint64_t until_us; /* 0: unused */
};

struct rk_key_service {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool stop;
    struct load *queue; /* newest first */
    unsigned n_loads;   /* queued or waiting */
    struct rk_keyset *keyset;
    _Atomic uint64_t generation;
    rk_keyset_changed_fn *changed; /* NULL: nobody watches */
    void *changed_arg;

    struct rk_provider provider;
    uint64_t refresh_us;
    uint64_t negative_us;
    struct rk_readers *readers;
    struct rk_key_loader *loader;
    struct rk_automatic *automatic;
    struct load *waiting;
    struct negative negative[NEGATIVE_MAX];
    unsigned negative_next; /* the oldest slot, reused first */
    uint64_t refresh_at_us; /* when the next attempt is due without anybody asking */
    uint64_t attempt_at_us; /* no attempt before this */
    uint64_t backoff_us;    /* 0: the last attempt succeeded */
};

/* ---- any thread --------------------------------------------------------------------------- */

uint64_t rk_key_service_generation(const struct rk_key_service *service)
{
    return atomic_load_explicit(&service->generation, memory_order_acquire);
}

struct rk_keyset *rk_key_service_keyset(struct rk_key_service *service)
{
    (void)pthread_mutex_lock(&service->mutex);
    struct rk_keyset *set = rk_keyset_ref(service->keyset);
    (void)pthread_mutex_unlock(&service->mutex);
    return set;
}

struct rk_readers *rk_key_service_readers(struct rk_key_service *service)
{
    return service->readers;
}

void rk_key_service_watch(struct rk_key_service *service, rk_keyset_changed_fn *fn, void *arg)
{
    (void)pthread_mutex_lock(&service->mutex);
    service->changed = fn;
    service->changed_arg = arg;
    (void)pthread_mutex_unlock(&service->mutex);
}

const char *rk_key_service_missing(struct rk_key_service *service)
{
    struct rk_keyset *set = rk_key_service_keyset(service);
    const char *why = rk_key_service_generation(service) == 0
                          ? "the key registry could not be read yet"
                          : rk_keyset_unusable(set);
    rk_keyset_unref(set);
    return why;
}

void rk_key_service_metrics(struct rk_key_service *service, struct rk_metrics *m)
{
    struct rk_keyset *set = rk_key_service_keyset(service);
    rk_metrics_one(m, "rekey_keyset_generation", RK_METRIC_COUNTER,
                   "Grows with every change of the keys in use.",
                   (double)rk_key_service_generation(service));
    rk_key_figures_write(rk_key_loader_figures(service->loader), m);
    rk_keyset_write(set, m);
    rk_keyset_unref(set);
}

static void load_free(struct load *load)
{
    if (load != NULL) {
        free(load->name);
        free(load);
    }
}

static void start_load(struct rk_key_service *service, uint32_t key_id, const char *name,
                       rk_key_loaded_fn *fn, void *arg)
{
    enum rk_status status = RK_OK;
    struct load *load = calloc(1, sizeof *load);
    char *copy = strdup(name);
    (void)pthread_mutex_lock(&service->mutex);
    if (service->stop) {
        status = RK_ESTATE;
    } else if (load == NULL || copy == NULL || service->n_loads == LOADS_MAX) {
        status = RK_ELIMIT;
    } else {
        load->next = service->queue;
        load->key_id = key_id;
        load->name = copy;
        load->fn = fn;
        load->arg = arg;
        service->queue = load;
        service->n_loads++;
        (void)pthread_cond_signal(&service->wake);
    }
    (void)pthread_mutex_unlock(&service->mutex);
    if (status != RK_OK) {
        free(load);
        free(copy);
        fn(arg, status, status == RK_ESTATE ? SHUTTING_DOWN : "too many messages wait for keys");
    }
}

void rk_key_service_load(struct rk_key_service *service, uint32_t key_id, rk_key_loaded_fn *fn,
                         void *arg)
{
    start_load(service, key_id, "", fn, arg);
}

void rk_key_service_load_name(struct rk_key_service *service, const char *name,
                              rk_key_loaded_fn *fn, void *arg)
{
    start_load(service, 0, name, fn, arg);
}

bool rk_key_service_answers(const struct rk_key_service *service)
{
    return service->provider.ops->answer != NULL;
}

void rk_key_service_answer(struct rk_key_service *service, struct rk_remote *remote,
                           rk_provider_answered_fn *fn, void *arg)
{
    service->provider.ops->answer(service->provider.self, remote, fn, arg);
}

/* ---- the service's thread ----------------------------------------------------------------- */

static void answer(struct rk_key_service *service, struct load *load, enum rk_status status,
                   const char *message)
{
    (void)pthread_mutex_lock(&service->mutex);
    service->n_loads--;
    (void)pthread_mutex_unlock(&service->mutex);
    load->fn(load->arg, status, message);
    load_free(load);
}

static struct negative *find_negative(struct rk_key_service *service, uint32_t key_id)
{
    for (unsigned i = 0; i < NEGATIVE_MAX; i++) {
        struct negative *entry = &service->negative[i];
        if (entry->until_us != 0 && entry->key_id == key_id) {
            return entry;
        }
    }
    return NULL;
}

static void add_negative(struct rk_key_service *service, uint32_t key_id)
{
    struct negative *entry = find_negative(service, key_id);
    if (entry == NULL) {
        entry = &service->negative[service->negative_next];
        service->negative_next = (service->negative_next + 1) % NEGATIVE_MAX;
    }
    entry->key_id = key_id;
    entry->until_us = rk_clock_mono_us() + service->negative_us;
}

static bool has_key(const struct rk_keyset *set, const struct load *load)
{
    return load->key_id == 0 ? rk_keyset_current(set, load->name) != NULL
                             : rk_keyset_find(set, load->key_id) != NULL;
}

/* Is the key of this load known not to be there? Of names nothing is remembered: a key may be made
 * at any time, and by the very next load. */
static bool is_absent(struct rk_key_service *service, const struct load *load, bool fresh)
{
    if (load->key_id == 0) {
        return fresh || load->failure.status != RK_OK;
    }
    if (fresh) {
        add_negative(service, load->key_id);
    }
    const struct negative *negative = find_negative(service, load->key_id);
    return negative != NULL && (fresh || rk_clock_mono_us() < negative->until_us);
}

/*
 * Answers the waiting loads whose key is there, or known not to be. fresh: the registry has just
 * been read, so that whatever it lacks is known not to be there, too.
 */
static void answer_known(struct rk_key_service *service, bool fresh)
{
    struct load *load = service->waiting;
    struct load *still = NULL;
    service->waiting = NULL;
    while (load != NULL) {
        struct load *next = load->next;
        /* Only this thread replaces the keyset, so it may look at it without the mutex. */
        if (has_key(service->keyset, load)) {
            answer(service, load, RK_OK, "");
        } else if (is_absent(service, load, fresh)) {
            struct rk_error why = load->failure;
            if (why.status == RK_OK) {
                rk_key_loader_why_not(service->loader, load->key_id, load->name, &why);
            }
            answer(service, load, why.status, why.message);
        } else {
            load->next = still;
            still = load;
        }
        load = next;
    }
    service->waiting = still;
}

static void answer_all(struct rk_key_service *service, enum rk_status status, const char *message)
{
    while (service->waiting != NULL) {
        struct load *load = service->waiting;
        service->waiting = load->next;
        answer(service, load, status, message);
    }
}

static uint64_t publish(struct rk_key_service *service, struct rk_keyset *set)
{
    (void)pthread_mutex_lock(&service->mutex);
    struct rk_keyset *former = service->keyset;
    service->keyset = set;
    uint64_t generation =
        atomic_fetch_add_explicit(&service->generation, 1, memory_order_release) + 1;
    if (service->changed != NULL) {
        service->changed(service->changed_arg, set);
    }
    (void)pthread_mutex_unlock(&service->mutex);
    rk_keyset_unref(former);
    return generation;
}

/* Should this fail, the next attempt does it, and new keys stay pending until then. */
static void announce_new(struct rk_key_service *service)
{
    struct rk_error err;
    if (rk_key_loader_settle(service->loader, &err) != RK_OK ||
        rk_key_loader_announce(service->loader, &err) != RK_OK) {
        rk_log(RK_LOG_WARN, "heartbeat_failed", RK_S("reason", err.message));
    }
}

/* What waits may need keys that are not loaded unasked, or not even made. */
static bool want_more(struct rk_key_service *service)
{
    bool more = false;
    for (struct load *load = service->waiting; load != NULL; load = load->next) {
        more =
            (load->key_id == 0 ? rk_key_loader_create(service->loader, load->name, &load->failure)
                               : rk_key_loader_want(service->loader, load->key_id)) ||
            more;
    }
    return more;
}

/* Should there be no newer set, *set stays. The loader counts on each being published. */
static enum rk_status refresh_set(struct rk_key_service *service, struct rk_keyset **set,
                                  struct rk_error *err)
{
    struct rk_keyset *newer = NULL;
    enum rk_status status = rk_key_loader_refresh(service->loader, &newer, err);
    if (newer != NULL) {
        rk_keyset_unref(*set);
        *set = newer;
    }
    return status;
}

/* A set whose current key could not be announced is not to be used; the former one stays. */
static enum rk_status refresh(struct rk_key_service *service, struct rk_keyset **set,
                              struct rk_error *err)
{
    enum rk_status status = refresh_set(service, set, err);
    if (status == RK_OK && want_more(service)) {
        status = refresh_set(service, set, err);
    }
    while (status == RK_OK && rk_key_loader_unannounced(service->loader)) {
        status = rk_key_loader_announce(service->loader, err);
        if (status == RK_OK) {
            status = refresh_set(service, set, err);
        }
    }
    if (status == RK_OK) {
        status = rk_automatic_begin(service->automatic, err);
    }
    if (status != RK_OK) {
        rk_key_loader_forget_set(service->loader);
        rk_keyset_unref(*set);
        *set = NULL;
    }
    return status;
}

static void attempt(struct rk_key_service *service)
{
    struct rk_keyset *set = NULL;
    struct rk_error err;
    enum rk_status status = rk_key_loader_announce(service->loader, &err);
    if (status == RK_OK) {
        status = refresh(service, &set, &err);
    }
    uint64_t now_us = rk_clock_mono_us();
    rk_key_figures_read(rk_key_loader_figures(service->loader), status == RK_OK);
    if (status == RK_OK) {
        if (service->backoff_us != 0) {
            rk_log(RK_LOG_INFO, "key_registry_available");
        }
        if (set != NULL) {
            rk_key_loader_in_use(service->loader, publish(service, set));
        }
        announce_new(service);
        rk_key_loader_promote(service->loader);
        rk_automatic_look(service->automatic);
        service->backoff_us = 0;
        service->attempt_at_us = now_us;
        service->refresh_at_us = now_us + service->refresh_us;
        answer_known(service, true);
        return;
    }
    if (service->backoff_us == 0) {
        rk_log(RK_LOG_ERROR, "key_registry_unavailable", RK_S("reason", err.message));
    }
    service->backoff_us = rk_backoff_next(service->backoff_us, BACKOFF_MIN_US, BACKOFF_MAX_US);
    service->attempt_at_us = now_us + rk_backoff_jittered(service->backoff_us);
    service->refresh_at_us = service->attempt_at_us;
    answer_all(service, status, err.message);
}

static void wait_until(struct rk_key_service *service, uint64_t at_us)
{
    struct timespec at = {.tv_sec = (time_t)(at_us / 1000000u),
                          .tv_nsec = (long)(at_us % 1000000u) * 1000};
    (void)pthread_cond_timedwait(&service->wake, &service->mutex, &at);
}

/* Waits for something to do; false: stop. */
static bool collect(struct rk_key_service *service)
{
    (void)pthread_mutex_lock(&service->mutex);
    uint64_t due_us = service->waiting != NULL ? service->attempt_at_us : service->refresh_at_us;
    while (!service->stop && service->queue == NULL && rk_clock_mono_us() < due_us) {
        wait_until(service, due_us);
    }
    while (service->queue != NULL) {
        struct load *load = service->queue;
        service->queue = load->next;
        load->next = service->waiting;
        service->waiting = load;
    }
    bool go_on = !service->stop;
    (void)pthread_mutex_unlock(&service->mutex);
    return go_on;
}

static void *service_main(void *arg)
{
    struct rk_key_service *service = arg;
    while (collect(service)) {
        answer_known(service, false);
        uint64_t now_us = rk_clock_mono_us();
        bool wanted = service->waiting != NULL || now_us >= service->refresh_at_us;
        if (wanted && now_us >= service->attempt_at_us) {
            attempt(service);
        }
    }
    answer_all(service, RK_ESTATE, SHUTTING_DOWN);
    return NULL;
}

/* ---- start and stop ----------------------------------------------------------------------- */

static void service_free(struct rk_key_service *service)
{
    rk_keyset_unref(service->keyset);
    rk_automatic_free(service->automatic);
    rk_key_loader_free(service->loader);
    rk_readers_free(service->readers);
    (void)pthread_cond_destroy(&service->wake);
    (void)pthread_mutex_destroy(&service->mutex);
    free(service);
}

enum rk_status rk_key_service_start(const struct rk_key_service_config *config,
                                    struct rk_key_service **out, struct rk_error *err)
{
    pthread_condattr_t monotonic;
    struct rk_key_service *service = calloc(1, sizeof *service);
    if (service == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&service->wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    (void)pthread_mutex_init(&service->mutex, NULL);
    service->provider = config->provider;
    service->refresh_us = (uint64_t)config->refresh_interval_ms * 1000u;
    service->negative_us = (uint64_t)config->negative_cache_ms * 1000u;

    service->readers = rk_readers_new();
    if (service->readers == NULL) {
        service_free(service);
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    enum rk_status status = rk_keyset_new(NULL, 0, NULL, 0, &service->keyset, err);
    if (status == RK_OK) {
        status = rk_key_loader_new(config, service->readers, &service->loader, err);
    }
    if (status == RK_OK &&
        (service->automatic = rk_automatic_new(&config->rotation, service->loader)) == NULL) {
        status = rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    if (status == RK_OK && pthread_create(&service->thread, NULL, service_main, service) != 0) {
        status = rk_error_set(err, RK_EIO, "cannot start the key service's thread");
    }
    if (status != RK_OK) {
        service_free(service);
        return status;
    }
    *out = service;
    return RK_OK;
}

void rk_key_service_stop(struct rk_key_service *service)
{
    if (service == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&service->mutex);
    service->stop = true;
    (void)pthread_cond_signal(&service->wake);
    (void)pthread_mutex_unlock(&service->mutex);
    (void)pthread_join(service->thread, NULL);
    service_free(service);
}
