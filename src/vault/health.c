/*
 * Looks for a server that is unsealed and active, or leads to one, by sys/health: without a token,
 * every keys.vault.health_interval_ms. Changes are logged once.
 */
#include "client_internal.h"

#include "wipe.h"

#include <rekey/log/log.h>
#include <string.h>

static void look(struct rk_vault_client *client);

static void schedule(struct rk_vault_client *client)
{
    uint32_t ms = client->settings->health_interval_ms;
    const struct timeval in = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    (void)event_add(client->health.timer, &in);
}

static void settle(struct rk_vault_client *client, bool available, const char *reason)
{
    struct rk_health *health = &client->health;
    enum rk_vault_state state = available ? RK_VAULT_AVAILABLE : RK_VAULT_UNAVAILABLE;
    rk_counter_set(&client->counters.sealed, reason != NULL && strcmp(reason, "sealed") == 0);
    enum rk_vault_state was = atomic_exchange_explicit(&health->state, state, memory_order_acq_rel);
    if (available && was != state) {
        rk_log(RK_LOG_INFO, "vault_available",
               RK_S("address", client->settings->addresses[health->at]));
    } else if (was != state) {
        rk_log(RK_LOG_ERROR, "vault_unavailable", RK_S("reason", reason));
    }
    if (available) {
        client->at = health->at;
    }
    schedule(client);
}

static void on_answer(void *arg, const struct rk_http_answer *answer)
{
    struct rk_vault_client *client = arg;
    struct rk_health *health = &client->health;
    struct rk_error err;
    /* 429: a standby, 473: a performance standby; both hand requests on to the active server. */
    bool ok = answer->failure == RK_HTTP_ANSWERED &&
              (answer->status == 200 || answer->status == 429 || answer->status == 473);
    if (ok) {
        settle(client, true, NULL);
        return;
    }
    health->at = (health->at + 1) % client->settings->addresses_count;
    if (--health->left > 0) {
        look(client);
        return;
    }
    if (answer->status == 503) {
        settle(client, false, "sealed");
        return;
    }
    (void)rk_vault_judge("sys/health", answer, NULL, &err);
    settle(client, false, err.message);
}

static void look(struct rk_vault_client *client)
{
    char *url = rk_client_url(client, client->health.at, "sys/health");
    /* sys/health answers in the root namespace only. */
    const struct rk_http_request request = {.url = url};
    if (url == NULL || rk_http_send(client->http, &request, on_answer, client) != RK_OK) {
        schedule(client);
    }
    rk_wipe_free(url);
}

void rk_health_on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct rk_vault_client *client = arg;
    (void)fd;
    (void)what;
    client->health.at = client->at;
    client->health.left = client->settings->addresses_count;
    look(client);
}
