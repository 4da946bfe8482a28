#include "http.h"

#include "wipe.h"

#include <curl/curl.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#define BODY_START 4096u

struct exchange {
    struct exchange *next;
    struct rk_http *http;
    CURL *easy;
    struct curl_slist *headers;
    char *body;
    size_t len;
    size_t cap;
    bool too_large;
    char reason[CURL_ERROR_SIZE];
    rk_http_done_fn *fn;
    void *arg;
};

struct rk_http {
    struct event_base *base;
    const struct rk_config_vault *settings;
    CURLM *multi;
    struct event *timer;
    struct exchange *exchanges;
};

/* ---- one exchange ------------------------------------------------------------------------- */

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct exchange *x = arg;
    size_t more = size * n;
    if (more > x->http->settings->response_bytes_max - x->len) {
        x->too_large = true;
        return 0;
    }
    if (x->len + more + 1 > x->cap) {
        size_t cap = x->cap == 0 ? BODY_START : x->cap;
        while (cap < x->len + more + 1) {
            cap *= 2;
        }
        char *grown = rk_wipe_realloc(x->body, cap);
        if (grown == NULL) {
            return 0;
        }
        x->body = grown;
        x->cap = cap;
    }
    memcpy(x->body + x->len, data, more);
    x->len += more;
    x->body[x->len] = '\0';
    return more;
}

/* The buffers in which OpenSSL decrypts would keep the last answer. */
static CURLcode on_ssl_context(CURL *easy, void *context, void *arg)
{
    (void)easy;
    (void)arg;
    (void)SSL_CTX_set_options(context, SSL_OP_CLEANSE_PLAINTEXT);
    return CURLE_OK;
}

static bool add_header(struct exchange *x, const char *name, const char *value)
{
    size_t size = strlen(name) + strlen(value) + 3;
    char *line = rk_wipe_malloc(size);
    if (line == NULL) {
        return false;
    }
    (void)snprintf(line, size, "%s: %s", name, value);
    struct curl_slist *grown = curl_slist_append(x->headers, line);
    rk_wipe_free(line);
    if (grown != NULL) {
        x->headers = grown;
    }
    return grown != NULL;
}

static bool add_headers(struct exchange *x, const struct rk_http_request *request)
{
    /* X-Vault-Request: agents and proxies refuse requests without it, against forged ones. */
    bool ok = add_header(x, "X-Vault-Request", "true") &&
              (request->token == NULL || add_header(x, "X-Vault-Token", request->token)) &&
              (request->ns == NULL || add_header(x, "X-Vault-Namespace", request->ns));
    if (ok && request->body != NULL) {
        ok = add_header(x, "Content-Type", "application/json");
    }
    return ok;
}

static bool set_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https") == CURLE_OK;
#else
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)CURLPROTO_HTTPS) == CURLE_OK;
#endif
}

static bool set_tls(CURL *easy, const struct rk_config_vault *settings)
{
    bool ok = curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == 0 &&
              curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_ssl_context) == 0;
    if (ok && settings->ca_file != NULL) { /* this one, and none of the system's */
        ok = curl_easy_setopt(easy, CURLOPT_CAINFO, settings->ca_file) == 0 &&
             curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == 0;
    }
    if (ok && settings->cert_file != NULL) {
        const char *key = settings->key_file != NULL ? settings->key_file : settings->cert_file;
        ok = curl_easy_setopt(easy, CURLOPT_SSLCERT, settings->cert_file) == 0 &&
             curl_easy_setopt(easy, CURLOPT_SSLKEY, key) == 0;
    }
    return ok;
}

static bool set_options(struct exchange *x, const struct rk_http_request *request)
{
    const struct rk_config_vault *settings = x->http->settings;
    CURL *easy = x->easy;
    bool ok = curl_easy_setopt(easy, CURLOPT_URL, request->url) == 0 && set_protocols(easy) &&
              /* The environment's proxies are not asked: the token is for Vault alone. */
              curl_easy_setopt(easy, CURLOPT_PROXY, "") == 0 &&
              curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == 0 &&
              curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == 0 &&
              curl_easy_setopt(easy, CURLOPT_USERAGENT, "rekey/" RK_VERSION) == 0 &&
              curl_easy_setopt(easy, CURLOPT_HTTPHEADER, x->headers) == 0 &&
              curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, x->reason) == 0 &&
              curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                               (long)settings->connect_timeout_ms) == 0 &&
              curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)settings->request_timeout_ms) == 0 &&
              curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body) == 0 &&
              curl_easy_setopt(easy, CURLOPT_WRITEDATA, x) == 0 &&
              curl_easy_setopt(easy, CURLOPT_PRIVATE, x) == 0 && set_tls(easy, settings);
    if (ok && request->body != NULL) {
        ok = curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                              (curl_off_t)strlen(request->body)) == 0 &&
             curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body) == 0;
    }
    return ok;
}

static void exchange_free(struct exchange *x)
{
    if (x->easy != NULL) {
        (void)curl_multi_remove_handle(x->http->multi, x->easy);
        curl_easy_cleanup(x->easy);
    }
    curl_slist_free_all(x->headers);
    rk_wipe_free(x->body);
    free(x);
}

static enum rk_http_failure failure_of(const struct exchange *x, CURLcode code)
{
    if (x->too_large) {
        return RK_HTTP_TOO_LARGE;
    }
    switch (code) {
    case CURLE_OK:
        return RK_HTTP_ANSWERED;
    case CURLE_OPERATION_TIMEDOUT:
        return RK_HTTP_TIMEOUT;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_ISSUER_ERROR:
        return RK_HTTP_UNTRUSTED;
    default:
        return RK_HTTP_UNREACHABLE;
    }
}

static void finish(struct exchange *x, CURLcode code)
{
    struct exchange **link = &x->http->exchanges;
    while (*link != x) {
        link = &(*link)->next;
    }
    *link = x->next;
    curl_off_t retry_after = 0;
    struct rk_http_answer answer = {
        .failure = failure_of(x, code),
        .body = x->body != NULL ? x->body : "",
        .len = x->len,
        .reason = x->reason[0] != '\0' ? x->reason : curl_easy_strerror(code),
    };
    (void)curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &answer.status);
    (void)curl_easy_getinfo(x->easy, CURLINFO_REDIRECT_URL, &answer.location);
    (void)curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &retry_after);
    if (retry_after > 0) {
        answer.retry_after_s = retry_after > UINT32_MAX ? UINT32_MAX : (uint32_t)retry_after;
    }
    x->fn(x->arg, &answer);
    exchange_free(x);
}

enum rk_status rk_http_send(struct rk_http *http, const struct rk_http_request *request,
                            rk_http_done_fn *fn, void *arg)
{
    struct exchange *x = calloc(1, sizeof *x);
    if (x == NULL) {
        return RK_ENOMEM;
    }
    x->http = http;
    x->fn = fn;
    x->arg = arg;
    x->easy = curl_easy_init();
    if (x->easy == NULL || !add_headers(x, request) || !set_options(x, request) ||
        curl_multi_add_handle(http->multi, x->easy) != CURLM_OK) {
        exchange_free(x);
        return RK_ENOMEM;
    }
    x->next = http->exchanges;
    http->exchanges = x;
    return RK_OK;
}

/* ---- the multi handle on the event loop --------------------------------------------------- */

static void act(struct rk_http *http, curl_socket_t fd, int what)
{
    int running;
    int left;
    CURLMsg *message;
    (void)curl_multi_socket_action(http->multi, fd, what, &running);
    while ((message = curl_multi_info_read(http->multi, &left)) != NULL) {
        struct exchange *x = NULL;
        CURLcode code = message->data.result;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&x);
        finish(x, code);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    act(arg, fd,
        ((what & EV_READ) != 0 ? CURL_CSELECT_IN : 0) |
            ((what & EV_WRITE) != 0 ? CURL_CSELECT_OUT : 0));
}

static int set_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct rk_http *http = arg;
    (void)multi;
    if (timeout_ms < 0) {
        return event_del(http->timer);
    }
    /* 0 as well: libcurl must not be called from within its own callback. */
    const struct timeval in = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    return event_add(http->timer, &in);
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *watched)
{
    struct rk_http *http = arg;
    struct event *event = watched;
    (void)easy;
    if (event != NULL) {
        event_free(event);
    }
    if (what == CURL_POLL_REMOVE) {
        return 0;
    }
    short wanted = (short)(EV_PERSIST | ((what & CURL_POLL_IN) != 0 ? EV_READ : 0) |
                           ((what & CURL_POLL_OUT) != 0 ? EV_WRITE : 0));
    event = event_new(http->base, fd, wanted, on_ready, http);
    if (event != NULL && event_add(event, NULL) != 0) {
        event_free(event);
        event = NULL;
    }
    CURLMcode code = curl_multi_assign(http->multi, fd, event);
    return event != NULL && code == CURLM_OK ? 0 : -1;
}

enum rk_status rk_http_new(struct event_base *base, const struct rk_config_vault *settings,
                           struct rk_http **out, struct rk_error *err)
{
    struct rk_http *http = NULL;
    if (rk_wipe_libraries() != 0 || (http = calloc(1, sizeof *http)) == NULL) {
        return rk_error_set(err, RK_ENOMEM, "vault: cannot set up libcurl");
    }
    http->base = base;
    http->settings = settings;
    http->timer = event_new(base, -1, 0, on_timer, http);
    http->multi = curl_multi_init();
    long connections = (long)settings->connections_max;
    if (http->timer == NULL || http->multi == NULL ||
        curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, watch_socket) != CURLM_OK ||
        curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http) != CURLM_OK ||
        curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, set_timer) != CURLM_OK ||
        curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http) != CURLM_OK ||
        curl_multi_setopt(http->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, connections) != CURLM_OK) {
        rk_http_free(http);
        return rk_error_set(err, RK_ENOMEM, "vault: cannot set up libcurl");
    }
    *out = http;
    return RK_OK;
}

void rk_http_free(struct rk_http *http)
{
    if (http == NULL) {
        return;
    }
    while (http->exchanges != NULL) {
        struct exchange *x = http->exchanges;
        http->exchanges = x->next;
        exchange_free(x);
    }
    if (http->multi != NULL) {
        (void)curl_multi_cleanup(http->multi); /* still calls watch_socket */
    }
    if (http->timer != NULL) {
        event_free(http->timer);
    }
    free(http);
}
