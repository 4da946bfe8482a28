/*
 * HTTP/1.1 over TLS with libcurl's multi interface on a worker's event loop. One exchange is one
 * attempt: no retries, no redirects. Belongs to the loop's thread.
 */
#ifndef REKEY_VAULT_HTTP_H
#define REKEY_VAULT_HTTP_H

#include <event2/event.h>
#include <rekey/vault/client.h>
#include <stddef.h>

struct rk_http;

/* An attempt; strings are copied. */
struct rk_http_request {
    const char *url;
    const char *body;  /* NULL: GET, else POST of JSON; borrowed until the answer */
    const char *token; /* NULL: none */
    const char *ns;    /* NULL: none */
};

enum rk_http_failure {
    RK_HTTP_ANSWERED,
    RK_HTTP_UNREACHABLE, /* refused, reset, no such host */
    RK_HTTP_TIMEOUT,
    RK_HTTP_UNTRUSTED, /* the server's certificate, or ours */
    RK_HTTP_TOO_LARGE, /* more than response_bytes_max */
};

struct rk_http_answer {
    enum rk_http_failure failure;
    long status;
    const char *body; /* NUL-terminated */
    size_t len;
    const char *location;   /* of a redirect; NULL: none */
    uint32_t retry_after_s; /* 0: not said */
    const char *reason;     /* of a failure, for people */
};

/* Called once, from the event loop; answer is valid during the call. */
typedef void rk_http_done_fn(void *arg, const struct rk_http_answer *answer);

RK_MUST_CHECK enum rk_status rk_http_new(struct event_base *base,
                                         const struct rk_config_vault *settings,
                                         struct rk_http **out, struct rk_error *err);
/* Drops exchanges under way without calling back. */
void rk_http_free(struct rk_http *http);

/* RK_ENOMEM, and no call back, when it cannot be sent. */
RK_MUST_CHECK enum rk_status rk_http_send(struct rk_http *http,
                                          const struct rk_http_request *request,
                                          rk_http_done_fn *fn, void *arg);

#endif
