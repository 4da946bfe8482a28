/*
 * The end of Rekey's own token: it is not to be good for the rest of its lease when nobody needs it
 * any more. A token from a file is somebody else's. An outage is not waited for.
 */
#include "client_internal.h"

#include <pthread.h>
#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <stdlib.h>
#include <time.h>

/* Shared by who waits and the request; the last of the two frees it. */
struct revocation {
    struct rk_vault_client *client;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    unsigned refs;
    bool done;
};

static void leave_locked(struct revocation *revocation)
{
    bool last = --revocation->refs == 0;
    (void)pthread_mutex_unlock(&revocation->mutex);
    if (last) {
        (void)pthread_cond_destroy(&revocation->ended);
        (void)pthread_mutex_destroy(&revocation->mutex);
        free(revocation);
    }
}

static void end(struct revocation *revocation)
{
    (void)pthread_mutex_lock(&revocation->mutex);
    revocation->done = true;
    (void)pthread_cond_signal(&revocation->ended);
    leave_locked(revocation);
}

static void on_answer(void *arg, enum rk_status status, const json_t *answer,
                      const struct rk_error *err)
{
    (void)answer;
    if (status == RK_OK) {
        rk_log(RK_LOG_INFO, "vault_token_revoked");
    } else {
        rk_log(RK_LOG_WARN, "vault_revocation_failed", RK_S("reason", err->message));
    }
    end(arg);
}

/* On the client's thread. */
static void begin(void *arg)
{
    struct revocation *revocation = arg;
    struct rk_vault_client *client = revocation->client;
    if (client->login.token == NULL) {
        end(revocation);
        return;
    }
    rk_client_ask(client, "auth/token/revoke-self", json_object(), client->login.token, on_answer,
                  revocation);
}

static struct revocation *revocation_new(struct rk_vault_client *client)
{
    pthread_condattr_t monotonic;
    struct revocation *revocation = calloc(1, sizeof *revocation);
    if (revocation != NULL) {
        revocation->client = client;
        revocation->refs = 2;
        (void)pthread_mutex_init(&revocation->mutex, NULL);
        (void)pthread_condattr_init(&monotonic);
        (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        (void)pthread_cond_init(&revocation->ended, &monotonic);
        (void)pthread_condattr_destroy(&monotonic);
    }
    return revocation;
}

void rk_client_revoke(struct rk_vault_client *client)
{
    uint32_t timeout_ms = client->settings->revoke_timeout_ms;
    bool own = client->settings->auth == RK_CONFIG_VAULT_APPROLE;
    struct revocation *revocation = NULL;
    if (own && timeout_ms > 0 && rk_vault_state(client) != RK_VAULT_UNAVAILABLE) {
        revocation = revocation_new(client);
    }
    if (revocation == NULL) {
        return;
    }
    if (rk_worker_post(client->worker, begin, revocation) != RK_OK) {
        end(revocation);
    }
    uint64_t until_us = rk_clock_mono_us() + (uint64_t)timeout_ms * 1000u;
    const struct timespec until = {.tv_sec = (time_t)(until_us / 1000000u),
                                   .tv_nsec = (long)(until_us % 1000000u) * 1000};
    (void)pthread_mutex_lock(&revocation->mutex);
    while (!revocation->done &&
           pthread_cond_timedwait(&revocation->ended, &revocation->mutex, &until) == 0) {
        /* woken for no reason */
    }
    leave_locked(revocation);
}
