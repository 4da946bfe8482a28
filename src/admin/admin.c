#include "admin_internal.h"

#include <rekey/log/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES 4096u
#define ANSWER_BYTES_MAX (17u * 1024u * 1024u)
#define BACKLOG 16

/* ---- a connection's life ------------------------------------------------------------------ */

static void client_close(struct rk_admin_client *client)
{
    struct rk_admin *admin = client->admin;
    if (client->closed) {
        return;
    }
    client->closed = true;
    client->waits = false;
    (void)event_del(&client->deadline);
    rk_conn_deinit(&client->conn);
    TAILQ_REMOVE(&admin->clients, client, link);
    TAILQ_INSERT_TAIL(&admin->dead, client, link);
    event_active(admin->reap, EV_TIMEOUT, 1);
}

static void reap(struct rk_admin *admin)
{
    struct rk_admin_client *client;
    while ((client = TAILQ_FIRST(&admin->dead)) != NULL) {
        TAILQ_REMOVE(&admin->dead, client, link);
        rk_buf_cleanse(&client->in); /* it may hold a token */
        rk_buf_deinit(&client->in);
        free(client);
        admin->n_clients--;
    }
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    reap(arg);
}

static const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {200, "OK"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].status == status) {
            return texts[i].text;
        }
    }
    return "Unknown";
}

static bool send_head(struct rk_admin_client *client, int status, const char *type, size_t len)
{
    char head[512];
    char date[64];
    time_t now = time(NULL);
    struct tm utc;
    (void)gmtime_r(&now, &utc);
    (void)strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                     "%sCache-Control: no-store\r\nConnection: close\r\n\r\n",
                     status, status_text(status), date, type != NULL ? type : "text/plain", len,
                     status == 401   ? "WWW-Authenticate: Bearer\r\n"
                     : status == 405 ? "Allow: GET, HEAD\r\n"
                                     : "");
    return rk_conn_send(&client->conn, head, (size_t)n) == RK_OK;
}

/* Closing over bytes of the client's that nobody has read would take the answer back from it, so
 * that its end is waited for. */
static void close_if_done(struct rk_admin_client *client)
{
    if (client->eof && client->answered && rk_conn_unsent(&client->conn) == 0) {
        client_close(client);
    }
}

void rk_admin_answer(struct rk_admin_client *client, int status, const char *type, const void *body,
                     size_t len)
{
    client->answered = true;
    rk_tally_add(&client->admin->answers, status);
    if (!send_head(client, status, type, len) ||
        (!client->head_only && rk_conn_send(&client->conn, body, len) != RK_OK)) {
        client_close(client);
        return;
    }
    rk_conn_shutdown_write(&client->conn);
    close_if_done(client);
}

void rk_admin_answer_status(struct rk_admin_client *client, int status)
{
    char text[64];
    int n = snprintf(text, sizeof text, "%s\n", status == 200 ? "ok" : status_text(status));
    rk_admin_answer(client, status, NULL, text, (size_t)n);
}

static void look(struct rk_admin_client *client)
{
    struct rk_admin_request request;
    switch (rk_admin_request_parse(client->in.data, client->in.len, &request)) {
    case RK_PARSE_OK:
        rk_admin_serve(client, &request);
        break;
    case RK_PARSE_MALFORMED:
        rk_admin_answer_status(client, 400);
        break;
    case RK_PARSE_INCOMPLETE:
        if (client->in.len == client->in.max) {
            rk_admin_answer_status(client, 431);
        }
        break;
    }
}

/* It may have closed its side and still wait for the answer. */
static void on_end(struct rk_admin_client *client)
{
    client->eof = true;
    rk_conn_set_reading(&client->conn, false);
    if (!client->answered && !client->waits) {
        client_close(client);
    } else {
        close_if_done(client);
    }
}

static void on_readable(void *owner)
{
    struct rk_admin_client *client = owner;
    char bytes[READ_BYTES];
    size_t n = 0;
    switch (rk_conn_read(&client->conn, bytes, sizeof bytes, &n)) {
    case RK_IO_WAIT:
        return;
    case RK_IO_EOF:
        on_end(client);
        return;
    case RK_IO_FAIL:
        client_close(client);
        return;
    case RK_IO_OK:
        break;
    }
    if (!client->answered && !client->waits) {
        size_t room = client->in.max - client->in.len;
        if (rk_buf_append(&client->in, bytes, n < room ? n : room) != RK_OK) {
            client_close(client);
        } else {
            look(client);
        }
    }
    explicit_bzero(bytes, sizeof bytes);
}

static void on_opened(void *owner)
{
    struct rk_admin_client *client = owner;
    rk_conn_set_reading(&client->conn, true);
}

static void on_drained(void *owner)
{
    close_if_done(owner);
}

static void on_failed(void *owner, const char *why)
{
    struct rk_admin_client *client = owner;
    rk_log(RK_LOG_DEBUG, "admin_client_failed", RK_S("client", client->peer), RK_S("reason", why));
    client_close(client);
}

static const struct rk_conn_handlers handlers = {
    .opened = on_opened, .readable = on_readable, .drained = on_drained, .failed = on_failed};

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct rk_admin_client *client = arg;
    if (!client->answered) {
        rk_tally_add(&client->admin->answers, 408);
    }
    client_close(client);
}

static bool adopt(struct rk_admin_client *client, int fd)
{
    struct rk_admin *admin = client->admin;
    struct rk_stream stream;
    if (admin->tls == NULL) {
        rk_stream_init_plain(&stream, fd);
    } else if (rk_stream_init_tls(&stream, fd, admin->tls, NULL) != RK_OK) {
        (void)close(fd);
        return false;
    }
    return rk_conn_init(&client->conn, rk_worker_base(admin->worker), &stream, true,
                        ANSWER_BYTES_MAX, 0, &handlers, client) == RK_OK;
}

static void on_accept(void *arg, int fd, const char *peer)
{
    struct rk_admin *admin = arg;
    uint32_t ms = admin->config->request_timeout_ms;
    const struct timeval deadline = {.tv_sec = ms / 1000,
                                     .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    struct rk_admin_client *client =
        admin->n_clients < admin->config->connections_max ? calloc(1, sizeof *client) : NULL;
    if (client == NULL) {
        rk_log(RK_LOG_WARN, "admin_refused", RK_S("client", peer),
               RK_S("reason", "admin.connections_max is reached"));
        (void)close(fd);
        return;
    }
    client->admin = admin;
    (void)snprintf(client->peer, sizeof client->peer, "%s", peer);
    rk_buf_init(&client->in, admin->config->request_bytes_max);
    if (!adopt(client, fd)) {
        free(client);
        return;
    }
    admin->n_clients++;
    TAILQ_INSERT_TAIL(&admin->clients, client, link);
    (void)event_assign(&client->deadline, rk_worker_base(admin->worker), -1, 0, on_deadline,
                       client);
    (void)event_add(&client->deadline, &deadline);
    rk_conn_start(&client->conn);
}

static void on_probed(void *arg, bool reachable)
{
    struct rk_admin *admin = arg;
    struct rk_admin_client *client = TAILQ_FIRST(&admin->clients);
    while (client != NULL) {
        struct rk_admin_client *next = TAILQ_NEXT(client, link);
        if (client->waits) {
            rk_admin_serve_ready(client, reachable);
        }
        client = next;
    }
}

/* ---- the other threads' side -------------------------------------------------------------- */

void rk_admin_collect(struct rk_admin *admin, rk_metrics_fn *fn, void *arg)
{
    if (admin == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&admin->lock);
    if (admin->n_collectors < RK_ADMIN_COLLECTORS_MAX) {
        admin->collectors[admin->n_collectors++] = (struct rk_admin_collector){fn, arg};
    }
    (void)pthread_mutex_unlock(&admin->lock);
}

void rk_admin_started(struct rk_admin *admin, struct rk_topology *topology, rk_admin_missing_fn *fn,
                      void *arg)
{
    if (admin == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&admin->lock);
    admin->missing = fn;
    admin->missing_arg = arg;
    admin->topology = topology;
    (void)pthread_mutex_unlock(&admin->lock);
}

static enum rk_status open_listener(struct rk_admin *admin, struct rk_error *err)
{
    const struct rk_config_tls *tls = &admin->config->tls;
    enum rk_status status = RK_OK;
    if (tls->enabled) {
        const struct rk_tls_config config = {.ca_file = tls->ca_file,
                                             .cert_file = tls->cert_file,
                                             .key_file = tls->key_file,
                                             .verify = tls->verify};
        status = rk_tls_new_server(&config, &admin->tls, err);
    }
    const struct rk_listener_config listener = {.address = admin->config->address,
                                                .backlog = BACKLOG,
                                                .socket_mode = 0600,
                                                .fn = on_accept,
                                                .arg = admin};
    return status == RK_OK ? rk_listener_new(admin->worker, &listener, &admin->listener, err)
                           : status;
}

static enum rk_status start(struct rk_admin *admin, struct rk_error *err)
{
    enum rk_status status = rk_admin_check_token(admin->config, err);
    if (status == RK_OK) {
        status = rk_worker_new(&admin->worker, err);
    }
    if (status != RK_OK) {
        return status;
    }
    struct event_base *base = rk_worker_base(admin->worker);
    admin->reap = event_new(base, -1, 0, on_reap, admin);
    admin->probe = rk_probe_new(base, admin->config->request_timeout_ms / 2, on_probed, admin);
    if (admin->reap == NULL || admin->probe == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    status = open_listener(admin, err);
    if (status == RK_OK && rk_listener_start(admin->listener) != RK_OK) {
        status = rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    return status == RK_OK ? rk_worker_start(admin->worker, err) : status;
}

enum rk_status rk_admin_start(const struct rk_config_admin *config, struct rk_admin **out,
                              struct rk_error *err)
{
    struct rk_error why;
    *out = NULL;
    if (config->address == NULL) {
        return RK_OK;
    }
    struct rk_admin *admin = calloc(1, sizeof *admin);
    if (admin == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    admin->config = config;
    (void)pthread_mutex_init(&admin->lock, NULL);
    TAILQ_INIT(&admin->clients);
    TAILQ_INIT(&admin->dead);
    enum rk_status status = start(admin, &why);
    if (status != RK_OK) {
        rk_admin_stop(admin);
        return rk_error_set(err, status, "admin: %s", why.message);
    }
    rk_log(RK_LOG_INFO, "admin_listening", RK_S("listen", config->address));
    *out = admin;
    return RK_OK;
}

void rk_admin_stop(struct rk_admin *admin)
{
    struct rk_admin_client *client;
    if (admin == NULL) {
        return;
    }
    if (admin->worker != NULL) {
        rk_worker_stop(admin->worker);
        rk_worker_join(admin->worker);
    }
    while ((client = TAILQ_FIRST(&admin->clients)) != NULL) {
        client_close(client);
    }
    reap(admin);
    rk_listener_free(admin->listener);
    rk_probe_free(admin->probe);
    if (admin->reap != NULL) {
        event_free(admin->reap);
    }
    rk_worker_free(admin->worker);
    rk_tls_free(admin->tls);
    (void)pthread_mutex_destroy(&admin->lock);
    free(admin);
}
