/* The client as a whole: start and stop. */
#include "client_internal.h"

#include <stdlib.h>

void rk_vault_post(struct rk_vault_client *client, const char *path, json_t *body,
                   rk_vault_done_fn *fn, void *arg)
{
    rk_client_post(client, REQUEST_NORMAL, path, body, fn, arg);
}

enum rk_vault_state rk_vault_state(const struct rk_vault_client *client)
{
    return atomic_load_explicit(&client->health.state, memory_order_acquire);
}

static enum rk_status start(struct rk_vault_client *client, struct rk_error *err)
{
    const struct timeval now = {0, 0};
    enum rk_status status = rk_login_check(client, err);
    if (status == RK_OK) {
        status = rk_worker_new(&client->worker, err);
    }
    if (status != RK_OK) {
        return status;
    }
    struct event_base *base = rk_worker_base(client->worker);
    client->login.timer = event_new(base, -1, 0, rk_login_on_timer, client);
    client->health.timer = event_new(base, -1, 0, rk_health_on_timer, client);
    if (client->login.timer == NULL || client->health.timer == NULL ||
        event_add(client->health.timer, &now) != 0) {
        return rk_error_set(err, RK_ENOMEM, "vault: out of memory");
    }
    status = rk_http_new(base, client->settings, &client->http, err);
    return status == RK_OK ? rk_worker_start(client->worker, err) : status;
}

enum rk_status rk_vault_client_start(const struct rk_config_vault *settings,
                                     struct rk_vault_client **out, struct rk_error *err)
{
    struct rk_vault_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        return rk_error_set(err, RK_ENOMEM, "vault: out of memory");
    }
    client->settings = settings;
    rk_histogram_init(&client->counters.attempts);
    enum rk_status status = start(client, err);
    if (status != RK_OK) {
        rk_vault_client_stop(client);
        return status;
    }
    client->started = true;
    *out = client;
    return RK_OK;
}

void rk_vault_client_stop(struct rk_vault_client *client)
{
    struct rk_error err;
    if (client == NULL) {
        return;
    }
    if (client->worker != NULL) {
        if (client->started) {
            rk_client_revoke(client);
        }
        rk_worker_stop(client->worker);
        rk_worker_join(client->worker);
    }
    client->stopping = true;
    rk_http_free(client->http);
    (void)rk_error_set(&err, RK_ESTATE, "vault: shutting down");
    rk_client_fail_all(client, &err);
    rk_batch_stop(client);
    if (client->health.timer != NULL) {
        event_free(client->health.timer);
    }
    rk_login_deinit(&client->login);
    rk_worker_free(client->worker);
    free(client);
}
