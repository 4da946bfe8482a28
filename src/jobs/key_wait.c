#include <rekey/jobs/key_wait.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CANCEL_CHECK_NS 100000000L

/* Shared by the waiter and the callback; the last of the two frees it. */
struct wait {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned refs;
    bool done;
    enum rk_status status;
    char message[256];
    struct rk_remote *remote; /* given up by a waiter that was cancelled */
};

static void release_locked(struct wait *wait)
{
    bool last = --wait->refs == 0;
    pthread_mutex_unlock(&wait->lock);
    if (last) {
        pthread_mutex_destroy(&wait->lock);
        pthread_cond_destroy(&wait->changed);
        rk_remote_free(wait->remote);
        free(wait);
    }
}

static void ended(void *arg, enum rk_status status, const char *message)
{
    struct wait *wait = arg;
    pthread_mutex_lock(&wait->lock);
    wait->done = true;
    wait->status = status;
    (void)snprintf(wait->message, sizeof wait->message, "%s", message != NULL ? message : "");
    pthread_cond_broadcast(&wait->changed);
    release_locked(wait);
}

static void wait_a_little(struct wait *wait)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_nsec += CANCEL_CHECK_NS;
    if (at.tv_nsec >= 1000000000L) {
        at.tv_nsec -= 1000000000L;
        at.tv_sec++;
    }
    (void)pthread_cond_timedwait(&wait->changed, &wait->lock, &at);
}

/* For its two users; NULL: out of memory. */
static struct wait *wait_new(void)
{
    pthread_condattr_t attr;
    struct wait *wait = calloc(1, sizeof *wait);
    if (wait != NULL) {
        pthread_mutex_init(&wait->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&wait->changed, &attr);
        pthread_condattr_destroy(&attr);
        wait->refs = 2;
    }
    return wait;
}

/* False: cancelled first. Returns with the mutex locked. */
static bool wait_for_end(struct wait *wait, const _Atomic bool *cancel)
{
    pthread_mutex_lock(&wait->lock);
    while (!wait->done && !atomic_load(cancel)) {
        wait_a_little(wait);
    }
    return wait->done;
}

/* key_id 0: the current key of name. */
static enum rk_status wait_for_key(struct rk_key_service *keys, uint32_t key_id, const char *name,
                                   const _Atomic bool *cancel, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    struct wait *wait = wait_new();
    if (wait == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    if (key_id == 0) {
        rk_key_service_load_name(keys, name, ended, wait);
    } else {
        rk_key_service_load(keys, key_id, ended, wait);
    }
    if (!wait_for_end(wait, cancel)) {
        status = rk_error_set(err, RK_ESTATE, "cancelled while waiting for a key");
    } else if (wait->status != RK_OK) {
        status = rk_error_set(err, wait->status == RK_ENOENT ? RK_ENOENT : RK_EIO,
                              "cannot load a data key: %s", wait->message);
    }
    release_locked(wait);
    return status;
}

enum rk_status rk_key_wait(struct rk_key_service *keys, uint32_t key_id, const _Atomic bool *cancel,
                           struct rk_error *err)
{
    return wait_for_key(keys, key_id, "", cancel, err);
}

enum rk_status rk_key_wait_name(struct rk_key_service *keys, const char *name,
                                const _Atomic bool *cancel, struct rk_error *err)
{
    return wait_for_key(keys, 0, name, cancel, err);
}

enum rk_status rk_key_wait_policy(struct rk_key_service *keys, const struct rk_policy *policy,
                                  const _Atomic bool *cancel, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    for (size_t i = 0; i < policy->n_fields && status == RK_OK; i++) {
        const char *name = policy->fields[i].key;
        if (policy->fields[i].by_tenant) {
            continue; /* each document says of which */
        }
        if (i == 0 || strcmp(name, policy->fields[i - 1].key) != 0) {
            status = wait_for_key(keys, 0, name, cancel, err);
        }
    }
    return status;
}

enum rk_status rk_values_wait(struct rk_key_service *keys, struct rk_remote **remote,
                              const _Atomic bool *cancel, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    struct wait *wait = wait_new();
    if (wait == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    rk_key_service_answer(keys, *remote, ended, wait);
    if (!wait_for_end(wait, cancel)) {
        wait->remote = *remote;
        *remote = NULL;
        status = rk_error_set(err, RK_ESTATE, "cancelled while waiting for values");
    } else if (wait->status != RK_OK) {
        status =
            rk_error_set(err, wait->status, "cannot encrypt or decrypt values: %s", wait->message);
    }
    release_locked(wait);
    return status;
}
