/*
 * The client's parts, on its thread where nothing else is said:
 *
 *   client.c   start and stop
 *   call.c     blocking calls, on other threads
 *   request.c  requests: attempts, pauses, addresses, deadlines
 *   login.c    the token: log in, renew, log in again
 *   health.c   is there an unsealed server
 *   revoke.c   the end of the token
 *   verdict.c  what an answer means
 *   metrics.c  what was counted
 *   http.c     one attempt
 *   batch.c    values for transit's encrypt and decrypt, many in one request
 */
#ifndef REKEY_VAULT_CLIENT_INTERNAL_H
#define REKEY_VAULT_CLIENT_INTERNAL_H

#include "http.h"

#include <rekey/net/worker.h>
#include <rekey/vault/client.h>
#include <stdatomic.h>

/* ---- verdict.c ---- */

enum rk_vault_verdict {
    RK_VAULT_DONE,
    RK_VAULT_REDIRECTED,
    RK_VAULT_LOGIN_AGAIN, /* once */
    RK_VAULT_ELSEWHERE,   /* this server cannot, now: the next address */
    RK_VAULT_LATER,
    RK_VAULT_FAILED,
};

/* body: the answer's JSON, NULL when it is none. Except for RK_VAULT_DONE fills *err. */
enum rk_vault_verdict rk_vault_judge(const char *path, const struct rk_http_answer *answer,
                                     const json_t *body, struct rk_error *err);

/* Does url lead to host, "host:port"? Without port, url means 443. */
bool rk_vault_url_is_at(const char *url, const char *host);

/* ---- login.c ---- */

struct rk_login {
    char *token;                /* secure memory, as are all secrets here; NULL: none */
    unsigned generation;        /* grows with every token */
    bool busy;                  /* a login or renewal is under way */
    char *candidate;            /* a token from a file that is being looked at */
    char *secret_id;            /* that stood in the environment */
    uint32_t granted_s;         /* the lease as it was at first; 0: does not end */
    uint64_t expires_at_us;     /* 0: never */
    uint64_t not_before_us;     /* no login sooner: the last one failed */
    struct rk_error last_error; /* of that one */
    uint8_t secret_digest[32];  /* SHA-256 of the secret_id that was sent last */
    uint64_t refused_until_us;  /* Vault refused it: it is not sent again before */
    bool withheld;              /* so it was not sent this time */
    uint64_t kept_until_us; /* a fresh token was refused, too: the right is missing, not the token
                               bad, and a new one would not help */
    struct event *timer;    /* when to renew or to log in again */
};

/* Makes sure that a login is under way, or fails the requests that wait for one. */
void rk_login_begin(struct rk_vault_client *client);
/* The token of this generation was refused; fresh: although it was made for this very request. */
void rk_login_refused(struct rk_vault_client *client, unsigned generation, bool fresh);
void rk_login_on_timer(evutil_socket_t fd, short what, void *client);
/* Can a login be tried at all? */
RK_MUST_CHECK enum rk_status rk_login_check(struct rk_vault_client *client, struct rk_error *err);
void rk_login_deinit(struct rk_login *login);

/* ---- health.c ---- */

struct rk_health {
    _Atomic(enum rk_vault_state) state;
    unsigned left; /* addresses to ask in this round */
    unsigned at;
    struct event *timer;
};

void rk_health_on_timer(evutil_socket_t fd, short what, void *client);

/* ---- metrics.c ---- */

enum rk_vault_outcome { RK_VAULT_OK, RK_VAULT_REFUSED, RK_VAULT_TIMEOUT, RK_VAULT_ERROR };

/* The client's thread writes. */
struct rk_vault_counters {
    rk_counter requests[RK_VAULT_ERROR + 1]; /* by outcome */
    struct rk_tally answers;                 /* attempts by HTTP status */
    rk_counter failures[RK_HTTP_TOO_LARGE + 1];
    struct rk_histogram attempts; /* their duration */
    rk_counter address_changes;
    rk_counter batches[RK_REMOTE_OPEN_TEXT + 1]; /* by operation */
    rk_counter values;                           /* of batches, that have an answer */
    rk_counter value_failures;
    rk_counter logins;
    rk_counter login_failures;
    rk_counter renewals;
    rk_counter renewal_failures;
    rk_counter tokens_refused;
    rk_counter lease_ends_us; /* 0: no token; UINT64_MAX: never */
    rk_counter sealed;        /* 1: that is why it is unavailable */
};

void rk_vault_count_request(struct rk_vault_counters *counters, enum rk_status status);
void rk_vault_count_attempt(struct rk_vault_counters *counters, const struct rk_http_answer *answer,
                            uint64_t took_us);

/* ---- revoke.c ---- */

/* Has Vault forget the client's own token, at most for revoke_timeout_ms. On the thread that stops
 * the client; what is not answered by then is when the client ends. */
void rk_client_revoke(struct rk_vault_client *client);

/* ---- request.c ---- */

enum request_kind {
    REQUEST_NORMAL, /* waits for a token */
    REQUEST_READ,   /* GET, waits for a token as well */
    REQUEST_READY,  /* ends when there is one */
    REQUEST_LOGIN,  /* brings its own, or none */
};

struct rk_vault_client {
    const struct rk_config_vault *settings;
    struct rk_worker *worker;
    struct rk_http *http;
    struct request *requests; /* all that are not answered yet */
    unsigned at;              /* address in use */
    bool started;
    bool stopping;
    struct rk_login login;
    struct rk_health health;
    struct rk_vault_counters counters;
    struct rk_lane *lanes; /* batch.c */
};

/* As rk_vault_post; body is NULL for REQUEST_READ. */
void rk_client_post(struct rk_vault_client *client, enum request_kind kind, const char *path,
                    json_t *body, rk_vault_done_fn *fn, void *arg);
/* After the thread's end: answers whoever still waits. */
void rk_client_fail_all(struct rk_vault_client *client, const struct rk_error *err);
/* A request of the client's own; token is copied, body is taken (NULL: GET). */
void rk_client_ask(struct rk_vault_client *client, const char *path, json_t *body,
                   const char *token, rk_vault_done_fn *fn, void *arg);
/* On the client's thread: body is JSON from rk_wipe_malloc, and taken. */
void rk_client_send(struct rk_vault_client *client, const char *path, char *body,
                    rk_vault_done_fn *fn, void *arg);
/* There is a token (err NULL), or there will be none for now. */
void rk_client_token_settled(struct rk_vault_client *client, const struct rk_error *err);
/* "https://host:port/v1/path", wiped when released; NULL: out of memory. */
char *rk_client_url(const struct rk_vault_client *client, unsigned address, const char *path);

/* ---- batch.c ---- */

/* After the thread's end: answers whoever still waits. */
void rk_batch_stop(struct rk_vault_client *client);

#endif
