/* What the paths answer. */
#include "admin_internal.h"

#include <openssl/crypto.h>
#include <rekey/keys/secret_file.h>
#include <rekey/log/log.h>
#include <string.h>

#define PAGE_BYTES_MAX (16u * 1024u * 1024u)
#define TOKEN_MIN 16u
#define TYPE_METRICS "text/plain; version=0.0.4; charset=utf-8"
#define TYPE_JSON "application/json"

static const char *word(struct rk_secret_file *file, size_t *len)
{
    const char *text = file->text + strspn(file->text, " \t\r\n");
    *len = strcspn(text, " \t\r\n");
    return text;
}

enum rk_status rk_admin_check_token(const struct rk_config_admin *config, struct rk_error *err)
{
    struct rk_secret_file file;
    size_t len;
    if (config->token_file == NULL) {
        return RK_OK;
    }
    enum rk_status status = rk_secret_file_read(config->token_file, &file, err);
    if (status == RK_OK) {
        (void)word(&file, &len);
        rk_secret_file_free(&file);
        if (len < TOKEN_MIN) {
            status = rk_error_set(err, RK_EINVAL,
                                  "%s: a token of at least %u characters is needed: openssl rand "
                                  "-hex 32",
                                  config->token_file, TOKEN_MIN);
        }
    }
    return status;
}

/* 200: let in. Read anew each time, so that whoever replaces the file need not restart rekeyd. */
static int authorize(const struct rk_admin_client *client, const struct rk_admin_request *request)
{
    const struct rk_config_admin *config = client->admin->config;
    struct rk_secret_file file;
    struct rk_error err;
    size_t len;
    if (config->token_file == NULL) {
        return 200;
    }
    if (rk_secret_file_read(config->token_file, &file, &err) != RK_OK) {
        rk_log(RK_LOG_ERROR, "admin_token_unreadable", RK_S("reason", err.message));
        return 503;
    }
    const char *token = word(&file, &len);
    bool right = len >= TOKEN_MIN && request->token.data != NULL && request->token.len == len &&
                 CRYPTO_memcmp(request->token.data, token, len) == 0;
    rk_secret_file_free(&file);
    if (!right) {
        rk_log(RK_LOG_WARN, "admin_refused", RK_S("client", client->peer),
               RK_S("reason", request->token.data == NULL ? "no bearer token" : "wrong token"));
    }
    return right ? 200 : 401;
}

static void serve_metrics(struct rk_admin_client *client)
{
    struct rk_admin *admin = client->admin;
    struct rk_buf page;
    rk_buf_init(&page, PAGE_BYTES_MAX);
    struct rk_metrics m = {.out = &page};
    (void)pthread_mutex_lock(&admin->lock);
    bool started = admin->missing != NULL;
    for (size_t i = 0; i < admin->n_collectors && started; i++) {
        admin->collectors[i].fn(admin->collectors[i].arg, &m);
    }
    (void)pthread_mutex_unlock(&admin->lock);
    rk_metrics_family(&m, "rekey_admin_requests_total", RK_METRIC_COUNTER,
                      "Requests to this page and its like, by HTTP status.");
    rk_metrics_tally(&m, "code", &admin->answers);
    if (!started) {
        rk_admin_answer_status(client, 503); /* not all figures are there yet */
    } else if (rk_metrics_ok(&m)) {
        rk_admin_answer(client, 200, TYPE_METRICS, page.data, page.len);
    } else {
        rk_admin_answer_status(client, 500);
    }
    rk_buf_deinit(&page);
}

static void append(struct rk_buf *page, const char *text)
{
    enum rk_status status = rk_buf_append(page, text, strlen(text));
    (void)status; /* a handful of constants fits, and without memory the answer fails anyway */
}

/* what and why are constants that need no escaping. */
static void answer_ready(struct rk_admin_client *client, const struct rk_admin_missing *missing,
                         size_t n)
{
    struct rk_buf page;
    rk_buf_init(&page, 65536);
    append(&page, n == 0 ? "{\"ready\":true" : "{\"ready\":false,\"missing\":[");
    for (size_t i = 0; i < n; i++) {
        append(&page, i == 0 ? "{\"what\":\"" : ",{\"what\":\"");
        append(&page, missing[i].what);
        append(&page, "\",\"why\":\"");
        append(&page, missing[i].why);
        append(&page, "\"}");
    }
    append(&page, n == 0 ? "}\n" : "]}\n");
    rk_admin_answer(client, n == 0 ? 200 : 503, TYPE_JSON, page.data, page.len);
    rk_buf_deinit(&page);
}

void rk_admin_serve_ready(struct rk_admin_client *client, bool reachable)
{
    struct rk_admin *admin = client->admin;
    struct rk_admin_missing missing[RK_ADMIN_MISSING_MAX + 1];
    size_t n = 0;
    client->waits = false;
    (void)pthread_mutex_lock(&admin->lock);
    n = admin->missing(admin->missing_arg, missing);
    (void)pthread_mutex_unlock(&admin->lock);
    if (!reachable) {
        missing[n++] =
            (struct rk_admin_missing){"upstream", "no server of MongoDB takes connections"};
    }
    answer_ready(client, missing, n);
}

static void serve_ready(struct rk_admin_client *client)
{
    struct rk_admin *admin = client->admin;
    (void)pthread_mutex_lock(&admin->lock);
    struct rk_topology *topology = admin->topology;
    (void)pthread_mutex_unlock(&admin->lock);
    if (topology == NULL) {
        const struct rk_admin_missing starting = {"start", "rekeyd is starting"};
        answer_ready(client, &starting, 1);
        return;
    }
    client->waits = true;
    rk_probe_ask(admin->probe, topology);
}

void rk_admin_serve(struct rk_admin_client *client, const struct rk_admin_request *request)
{
    bool metrics = rk_admin_text_is(request->path, "/metrics");
    bool health = rk_admin_text_is(request->path, "/healthz");
    bool ready = rk_admin_text_is(request->path, "/readyz");
    client->head_only = rk_admin_text_is(request->method, "HEAD");
    int status = 200;
    if (!metrics && !health && !ready) {
        status = 404;
    } else if (!client->head_only && !rk_admin_text_is(request->method, "GET")) {
        status = 405;
    } else if (metrics) {
        status = authorize(client, request);
    }
    if (status != 200 || health) {
        rk_admin_answer_status(client, status);
    } else if (metrics) {
        serve_metrics(client);
    } else {
        serve_ready(client);
    }
}
