/*
 * A client of Vault's HTTP API (developer.hashicorp.com/vault/api-docs): a thread with libcurl's
 * multi interface on an event loop, which logs in, renews its token, retries, and goes on to
 * another address when one fails. Any thread may post requests.
 *
 * What is retried, and where, is the table in src/vault/verdict.c. The token goes to listed hosts
 * only, over TLS, whose chain must end at ca_file. Everything that passes through libcurl and
 * jansson is cleansed when released.
 */
#ifndef REKEY_VAULT_CLIENT_H
#define REKEY_VAULT_CLIENT_H

#include <jansson.h>
#include <rekey/config/config.h>
#include <rekey/keys/provider.h>
#include <stdbool.h>

struct rk_vault_client;

/*
 * settings must outlive the client. Does not wait for Vault: a server that is down is an error of
 * the requests. What cannot be right later is refused at once (an unreadable ca_file or secret, an
 * address without https).
 */
RK_MUST_CHECK enum rk_status rk_vault_client_start(const struct rk_config_vault *settings,
                                                   struct rk_vault_client **out,
                                                   struct rk_error *err);
/* Ends the thread; unanswered requests fail with RK_ESTATE, on this thread. */
void rk_vault_client_stop(struct rk_vault_client *client);

/*
 * Called exactly once per request, on the client's thread. RK_OK: answer is the body's JSON object
 * (borrowed; empty when there was no body). A batch of which items failed counts as answered: look
 * at every item. Else err says what is wrong and what to do: RK_EREFUSED (Vault forbids it),
 * RK_ENOENT, RK_EINVAL, RK_ELIMIT (too large: send less), RK_ETIMEOUT (no server answered in
 * retry_timeout_ms), RK_ESTATE (stopping).
 */
typedef void rk_vault_done_fn(void *arg, enum rk_status status, const json_t *answer,
                              const struct rk_error *err);

/* POST path ("transit/encrypt/rekey") with body, of which the client takes the reference; NULL
 * (what json_pack returns for bytes that are no UTF-8) fails with RK_EINVAL. */
void rk_vault_post(struct rk_vault_client *client, const char *path, json_t *body,
                   rk_vault_done_fn *fn, void *arg);

/* The same, blocking, on any other thread. *answer is the caller's to json_decref. Fails at once
 * with RK_EIO while no unsealed server answers: nobody is to wait through an outage. */
RK_MUST_CHECK enum rk_status rk_vault_call(struct rk_vault_client *client, const char *path,
                                           json_t *body, json_t **answer, struct rk_error *err);

/* GET path, blocking in the same way. */
RK_MUST_CHECK enum rk_status rk_vault_read(struct rk_vault_client *client, const char *path,
                                           json_t **answer, struct rk_error *err);

/* Waits until Rekey is logged in, at most retry_timeout_ms. */
RK_MUST_CHECK enum rk_status rk_vault_ready(struct rk_vault_client *client, struct rk_error *err);

/* Does an unsealed server answer? As of the last look, any thread. */
enum rk_vault_state { RK_VAULT_UNKNOWN, RK_VAULT_AVAILABLE, RK_VAULT_UNAVAILABLE };
enum rk_vault_state rk_vault_state(const struct rk_vault_client *client);

/* Requests, token, state. Any thread. */
void rk_vault_metrics(const struct rk_vault_client *client, struct rk_metrics *m);
/* Has transit seal and open what was promised in remote (rekey/keys/provider.h, answer): together
 * with the values of others, in batches. Any thread. */
void rk_vault_answer(struct rk_vault_client *client, struct rk_remote *remote,
                     rk_provider_answered_fn *fn, void *arg);

#endif
