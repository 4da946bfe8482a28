/*
 * A request's life: attempts at one address after the other, pauses that grow, the wait for a
 * token, the deadline. It is answered exactly once.
 */
#include "client_internal.h"

#include "wipe.h"

#include <rekey/base/backoff.h>
#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <stdlib.h>
#include <string.h>

#define REDIRECTS_MAX 3u

enum request_state { REQUEST_NEEDS_TOKEN, REQUEST_SENT, REQUEST_PAUSED };

struct request {
    struct request *next;
    struct rk_vault_client *client;
    enum request_kind kind;
    enum request_state state;
    char *path;
    char *body;  /* JSON; NULL: GET */
    char *token; /* REQUEST_LOGIN: its own; NULL: none */
    char *url;   /* that a server redirected to; NULL: an address of ours */
    rk_vault_done_fn *fn;
    void *arg;
    struct event *timer; /* end of a pause, or of the wait for a token */
    uint64_t deadline_us;
    uint64_t pause_us;
    uint64_t sent_us;
    unsigned tried; /* addresses, since the last pause */
    unsigned address;
    unsigned redirects;
    unsigned generation; /* of the token that was sent */
    bool logged_in_again;
};

/* ---- a request's life --------------------------------------------------------------------- */

static void request_free(struct request *request)
{
    if (request->timer != NULL) {
        event_free(request->timer);
    }
    rk_wipe_free(request->path);
    rk_wipe_free(request->body);
    rk_wipe_free(request->token);
    rk_wipe_free(request->url);
    free(request);
}

static void request_done(struct request *request, enum rk_status status, const json_t *answer,
                         const struct rk_error *err)
{
    struct request **link = &request->client->requests;
    while (*link != NULL && *link != request) {
        link = &(*link)->next;
    }
    if (*link == request) {
        *link = request->next;
    }
    rk_vault_count_request(&request->client->counters, status);
    request->fn(request->arg, status, answer, err);
    request_free(request);
}

static void request_fail(struct request *request, const struct rk_error *err)
{
    request_done(request, err->status, NULL, err);
}

static void set_timer(struct request *request, uint64_t in_us)
{
    const struct timeval in = {.tv_sec = (time_t)(in_us / 1000000u),
                               .tv_usec = (suseconds_t)(in_us % 1000000u)};
    (void)event_add(request->timer, &in);
}

/* why: what the last attempt met. */
static void pause_request(struct request *request, uint64_t at_least_us, const struct rk_error *why)
{
    const struct rk_config_vault *settings = request->client->settings;
    uint64_t most_us = (uint64_t)settings->retry_backoff_max_ms * 1000u;
    uint64_t now_us = rk_clock_mono_us();
    request->pause_us =
        rk_backoff_next(request->pause_us, (uint64_t)settings->retry_backoff_ms * 1000u, most_us);
    uint64_t pause_us = rk_backoff_jittered(request->pause_us);
    pause_us = pause_us > at_least_us ? pause_us : at_least_us;
    if (now_us + pause_us >= request->deadline_us) {
        struct rk_error err;
        (void)rk_error_set(&err, RK_ETIMEOUT, "%s; given up after %u ms", why->message,
                           settings->retry_timeout_ms);
        request_fail(request, &err);
        return;
    }
    if (request->kind == REQUEST_LOGIN) {
        request->client->login.last_error = *why; /* for those who wait for it */
    }
    request->state = REQUEST_PAUSED;
    request->tried = 0;
    set_timer(request, pause_us);
}

static void attempt(struct request *request);

static void next_address(struct request *request, const struct rk_error *why)
{
    struct rk_vault_client *client = request->client;
    unsigned n = client->settings->addresses_count;
    rk_wipe_free(request->url); /* whoever redirected there knew no better */
    request->url = NULL;
    if (client->at == request->address && n > 1) {
        client->at = (client->at + 1) % n;
        rk_counter_add(&client->counters.address_changes, 1);
        rk_log(RK_LOG_WARN, "vault_address_changed",
               RK_S("to", client->settings->addresses[client->at]), RK_S("reason", why->message));
    }
    if (++request->tried < n) {
        attempt(request);
    } else {
        pause_request(request, 0, why);
    }
}

static void redirect(struct request *request, const char *location, const struct rk_error *why)
{
    const struct rk_config_vault *settings = request->client->settings;
    struct rk_error err;
    bool listed = false;
    for (unsigned i = 0; location != NULL && i < settings->addresses_count && !listed; i++) {
        listed = rk_vault_url_is_at(location, settings->addresses[i] + strlen("https://"));
    }
    for (unsigned i = 0; location != NULL && i < settings->redirect_hosts_count && !listed; i++) {
        listed = rk_vault_url_is_at(location, settings->redirect_hosts[i]);
    }
    if (!listed) {
        (void)rk_error_set(&err, RK_EREFUSED,
                           "vault: %s: redirected to %.100s, which is neither in "
                           "keys.vault.addresses nor in keys.vault.redirect_hosts",
                           request->path, location != NULL ? location : "nowhere");
        request_fail(request, &err);
        return;
    }
    if (++request->redirects > REDIRECTS_MAX) {
        request->redirects = 0;
        pause_request(request, 0, why); /* an election goes on */
        return;
    }
    rk_wipe_free(request->url);
    request->url = rk_wipe_strdup(location);
    attempt(request);
}

static void login_again(struct request *request, const struct rk_error *why)
{
    if (request->kind == REQUEST_LOGIN) {
        request_fail(request, why);
        return;
    }
    rk_login_refused(request->client, request->generation, request->logged_in_again);
    if (request->logged_in_again) {
        request_fail(request, why);
        return;
    }
    request->logged_in_again = true;
    attempt(request);
}

static void on_answer(void *arg, const struct rk_http_answer *answer)
{
    struct request *request = arg;
    struct rk_error err = {.message = ""};
    json_t *body = answer->failure == RK_HTTP_ANSWERED && answer->len > 0
                       ? json_loadb(answer->body, answer->len, JSON_REJECT_DUPLICATES, NULL)
                       : NULL;
    json_t *empty = json_object();
    rk_vault_count_attempt(&request->client->counters, answer,
                           rk_clock_mono_us() - request->sent_us);
    switch (rk_vault_judge(request->path, answer, body, &err)) {
    case RK_VAULT_DONE:
        request_done(request, RK_OK, body != NULL ? body : empty, NULL);
        break;
    case RK_VAULT_REDIRECTED:
        redirect(request, answer->location, &err);
        break;
    case RK_VAULT_LOGIN_AGAIN:
        login_again(request, &err);
        break;
    case RK_VAULT_ELSEWHERE:
        next_address(request, &err);
        break;
    case RK_VAULT_LATER:
        if (request->pause_us == 0) { /* once a request */
            rk_log(RK_LOG_WARN, "vault_request_delayed", RK_I("status", answer->status),
                   RK_S("reason", err.message));
        }
        pause_request(request, (uint64_t)answer->retry_after_s * 1000000u, &err);
        break;
    default:
        request_fail(request, &err);
        break;
    }
    json_decref(empty);
    json_decref(body);
}

char *rk_client_url(const struct rk_vault_client *client, unsigned address, const char *path)
{
    const char *base = client->settings->addresses[address];
    size_t size = strlen(base) + strlen(path) + sizeof "/v1/";
    char *url = rk_wipe_malloc(size);
    if (url != NULL) {
        (void)snprintf(url, size, "%s/v1/%s", base, path);
    }
    return url;
}

static void attempt(struct request *request)
{
    struct rk_vault_client *client = request->client;
    const char *token = request->token;
    if (request->kind != REQUEST_LOGIN) {
        token = client->login.token;
        request->generation = client->login.generation;
    }
    if (request->kind != REQUEST_LOGIN && token == NULL) {
        uint64_t now_us = rk_clock_mono_us();
        request->state = REQUEST_NEEDS_TOKEN;
        set_timer(request, request->deadline_us > now_us ? request->deadline_us - now_us : 0);
        rk_login_begin(client);
        return;
    }
    (void)event_del(request->timer);
    if (request->kind == REQUEST_READY) {
        json_t *empty = json_object();
        request_done(request, RK_OK, empty, NULL);
        json_decref(empty);
        return;
    }
    request->address = client->at;
    request->state = REQUEST_SENT;
    request->sent_us = rk_clock_mono_us();
    char *ours = request->url == NULL ? rk_client_url(client, client->at, request->path) : NULL;
    const struct rk_http_request http = {
        .url = request->url != NULL ? request->url : ours,
        .body = request->body,
        .token = token,
        .ns = client->settings->ns,
    };
    enum rk_status status =
        http.url == NULL ? RK_ENOMEM : rk_http_send(client->http, &http, on_answer, request);
    rk_wipe_free(ours);
    if (status != RK_OK) {
        struct rk_error err;
        (void)rk_error_set(&err, status, "vault: %s: out of memory", request->path);
        request_fail(request, &err);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct request *request = arg;
    (void)fd;
    (void)what;
    if (request->state != REQUEST_NEEDS_TOKEN) {
        attempt(request);
        return;
    }
    struct rk_error err;
    const char *why = request->client->login.last_error.message;
    (void)rk_error_set(&err, RK_ETIMEOUT, "%s%svault: %s: no login within %u ms", why,
                       why[0] != '\0' ? "; " : "", request->path,
                       request->client->settings->retry_timeout_ms);
    request_fail(request, &err);
}

void rk_client_token_settled(struct rk_vault_client *client, const struct rk_error *err)
{
    /* What is called may make new requests and end others: look anew after each. */
    for (;;) {
        struct request *request = client->requests;
        while (request != NULL && request->state != REQUEST_NEEDS_TOKEN) {
            request = request->next;
        }
        if (request == NULL) {
            return;
        }
        if (err != NULL) {
            request_fail(request, err);
        } else {
            attempt(request);
            if (client->login.token == NULL) { /* refused meanwhile: whoever waits, waits on */
                return;
            }
        }
    }
}

/* ---- from other threads ------------------------------------------------------------------- */

/* body: JSON, taken, from rk_wipe_malloc (as is all that jansson makes); NULL: GET. */
static struct request *request_new(struct rk_vault_client *client, enum request_kind kind,
                                   const char *path, char *body, const char *token,
                                   rk_vault_done_fn *fn, void *arg)
{
    struct request *request = calloc(1, sizeof *request);
    if (request == NULL) {
        rk_wipe_free(body);
        return NULL;
    }
    *request = (struct request){
        .client = client,
        .kind = kind,
        .path = rk_wipe_strdup(path),
        .body = body,
        .token = token != NULL ? rk_wipe_strdup(token) : NULL,
        .fn = fn,
        .arg = arg,
    };
    if (request->path == NULL || (token != NULL && request->token == NULL)) {
        request_free(request);
        return NULL;
    }
    return request;
}

static void request_start(void *arg)
{
    struct request *request = arg;
    struct rk_vault_client *client = request->client;
    struct rk_error err = {.status = RK_OK};
    request->next = client->requests;
    client->requests = request;
    if (client->stopping) {
        (void)rk_error_set(&err, RK_ESTATE, "vault: shutting down");
    } else {
        request->timer = event_new(rk_worker_base(client->worker), -1, 0, on_timer, request);
        if (request->timer == NULL) {
            (void)rk_error_set(&err, RK_ENOMEM, "vault: out of memory");
        }
    }
    if (err.status != RK_OK) {
        request_fail(request, &err);
        return;
    }
    request->deadline_us =
        rk_clock_mono_us() + (uint64_t)client->settings->retry_timeout_ms * 1000u;
    attempt(request);
}

static void refuse(rk_vault_done_fn *fn, void *arg, enum rk_status status, const char *why)
{
    struct rk_error err;
    (void)rk_error_set(&err, status, "vault: %s", why);
    fn(arg, status, NULL, &err);
}

/* The text of body, whose reference is taken. */
static char *text_of(json_t *body)
{
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    return text;
}

static void start_here(struct request *request, rk_vault_done_fn *fn, void *arg)
{
    if (request == NULL) {
        refuse(fn, arg, RK_ENOMEM, "out of memory");
    } else {
        request_start(request);
    }
}

void rk_client_ask(struct rk_vault_client *client, const char *path, json_t *body,
                   const char *token, rk_vault_done_fn *fn, void *arg)
{
    bool has_body = body != NULL;
    char *text = text_of(body);
    start_here(has_body && text == NULL
                   ? NULL
                   : request_new(client, REQUEST_LOGIN, path, text, token, fn, arg),
               fn, arg);
}

void rk_client_send(struct rk_vault_client *client, const char *path, char *body,
                    rk_vault_done_fn *fn, void *arg)
{
    start_here(request_new(client, REQUEST_NORMAL, path, body, NULL, fn, arg), fn, arg);
}

void rk_client_post(struct rk_vault_client *client, enum request_kind kind, const char *path,
                    json_t *body, rk_vault_done_fn *fn, void *arg)
{
    char *text = text_of(body);
    if (text == NULL && kind != REQUEST_READ) {
        refuse(fn, arg, RK_EINVAL, "no body: out of memory, or text that is no UTF-8");
        return;
    }
    struct request *request = request_new(client, kind, path, text, NULL, fn, arg);
    if (request == NULL) {
        refuse(fn, arg, RK_ENOMEM, "out of memory");
    } else if (rk_worker_post(client->worker, request_start, request) != RK_OK) {
        request_free(request);
        refuse(fn, arg, RK_ENOMEM, "out of memory");
    }
}

void rk_client_fail_all(struct rk_vault_client *client, const struct rk_error *err)
{
    while (client->requests != NULL) {
        request_fail(client->requests, err);
    }
}
