/* Blocking calls, for threads that may wait. */
#include "client_internal.h"

#include <pthread.h>

struct call {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool done;
    enum rk_status status;
    json_t *answer;
    struct rk_error err;
};

static void on_call_done(void *arg, enum rk_status status, const json_t *answer,
                         const struct rk_error *err)
{
    struct call *call = arg;
    (void)pthread_mutex_lock(&call->mutex);
    call->status = status;
    if (status != RK_OK) {
        call->err = *err;
    } else {
        call->answer = json_deep_copy(answer);
        if (call->answer == NULL) {
            call->status = rk_error_set(&call->err, RK_ENOMEM, "vault: out of memory");
        }
    }
    call->done = true;
    (void)pthread_cond_signal(&call->ended);
    (void)pthread_mutex_unlock(&call->mutex);
}

static enum rk_status call_and_wait(struct rk_vault_client *client, enum request_kind kind,
                                    const char *path, json_t *body, json_t **answer,
                                    struct rk_error *err)
{
    struct call call = {.done = false};
    (void)pthread_mutex_init(&call.mutex, NULL);
    (void)pthread_cond_init(&call.ended, NULL);
    rk_client_post(client, kind, path, body, on_call_done, &call);
    (void)pthread_mutex_lock(&call.mutex);
    while (!call.done) {
        (void)pthread_cond_wait(&call.ended, &call.mutex);
    }
    (void)pthread_mutex_unlock(&call.mutex);
    (void)pthread_cond_destroy(&call.ended);
    (void)pthread_mutex_destroy(&call.mutex);
    *answer = call.answer;
    return call.status == RK_OK ? RK_OK : rk_error_set(err, call.status, "%s", call.err.message);
}

static enum rk_status call_available(struct rk_vault_client *client, enum request_kind kind,
                                     const char *path, json_t *body, json_t **answer,
                                     struct rk_error *err)
{
    if (rk_vault_state(client) == RK_VAULT_UNAVAILABLE) {
        json_decref(body);
        return rk_error_set(err, RK_EIO, "vault: %s: no unsealed server answers", path);
    }
    return call_and_wait(client, kind, path, body, answer, err);
}

enum rk_status rk_vault_call(struct rk_vault_client *client, const char *path, json_t *body,
                             json_t **answer, struct rk_error *err)
{
    return call_available(client, REQUEST_NORMAL, path, body, answer, err);
}

enum rk_status rk_vault_read(struct rk_vault_client *client, const char *path, json_t **answer,
                             struct rk_error *err)
{
    return call_available(client, REQUEST_READ, path, NULL, answer, err);
}

enum rk_status rk_vault_ready(struct rk_vault_client *client, struct rk_error *err)
{
    json_t *answer = NULL;
    enum rk_status status =
        call_and_wait(client, REQUEST_READY, "login", json_object(), &answer, err);
    json_decref(answer);
    return status;
}
