/*
 * Messages that wait for a key, or for values that a key's provider seals and opens. Both run on
 * other threads; their end is posted back to the session's worker. A wait outlives its session when
 * that closes first: the one callback then only frees it.
 */
#include "session_internal.h"

#include <rekey/base/clock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CODE_HOST_UNREACHABLE 6 /* drivers retry reads after it */
#define CODE_OPERATION_FAILED 96
#define REMOTE_SIZES 3u /* of messages: the questions, the answers, what Vault adds */

struct rk_key_wait {
    struct rk_session *session; /* NULL: nobody waits any more */
    struct rk_flow *flow;
    struct rk_worker *worker;
    struct event timer;
    uint32_t key_id;
    struct rk_remote *remote; /* the flow's, while it is being answered; NULL: a key is loaded */
    char what[RK_KEY_NAME_SIZE + 32]; /* the key, for messages */
    bool in_flight;                   /* the callback is still to come */
    bool done;
    struct rk_error err;   /* status RK_OK: look again */
    enum rk_status result; /* written by the service's thread before it posts */
    char message[256];
};

/* The values of one message. Out of memory it has none, and what needs them fails. */
static void prepare_remote(struct rk_context *ctx, struct rk_flow *flow)
{
    if (flow->remote == NULL && ctx->keys != NULL && rk_key_service_answers(ctx->keys)) {
        flow->remote =
            rk_remote_new((size_t)REMOTE_SIZES * ctx->limits.message_bytes_max, ctx->crypt.now_s);
    }
    rk_aead_set_remote(ctx->crypt.aead, flow->remote);
}

void rk_key_wait_prepare(struct rk_session *session, struct rk_flow *flow)
{
    struct rk_context *ctx = session->ctx;
    if (ctx->keys != NULL) {
        uint64_t generation = rk_key_service_generation(ctx->keys);
        if (ctx->crypt.keys == NULL || generation != ctx->keys_generation) {
            rk_keyset_unref(ctx->crypt.keys);
            ctx->crypt.keys = rk_key_service_keyset(ctx->keys);
            ctx->keys_generation = generation;
        }
    }
    ctx->crypt.now_s = (uint32_t)(rk_clock_wall_ms() / 1000);
    ctx->crypt.absent_keys = flow->absent;
    ctx->crypt.n_absent = flow->n_absent;
    ctx->crypt.missing_key = 0;
    prepare_remote(ctx, flow);
}

static void wait_free(struct rk_key_wait *wait)
{
    rk_remote_free(wait->remote);
    free(wait);
}

static void wait_finish(struct rk_key_wait *wait)
{
    wait->done = true;
    (void)event_del(&wait->timer);
    rk_flow_resume(wait->session, wait->flow);
}

static void take_key(struct rk_key_wait *wait)
{
    struct rk_flow *flow = wait->flow;
    if (wait->result == RK_ENOENT && wait->key_id != 0 && flow->n_absent < RK_CRYPT_ABSENT_MAX) {
        flow->absent[flow->n_absent++] = wait->key_id;
    } else if (wait->result != RK_OK) {
        (void)rk_error_set_code(&wait->err, wait->result, CODE_HOST_UNREACHABLE,
                                "Rekey cannot load %s: %s", wait->what, wait->message);
    }
}

/* What cannot be right later must not look as if it were worth a retry. */
static void take_values(struct rk_key_wait *wait)
{
    bool later = wait->result == RK_EIO || wait->result == RK_ETIMEOUT || wait->result == RK_ESTATE;
    wait->flow->remote = wait->remote;
    wait->remote = NULL;
    if (wait->result != RK_OK) {
        (void)rk_error_set_code(
            &wait->err, wait->result, later ? CODE_HOST_UNREACHABLE : CODE_OPERATION_FAILED,
            "protected values could not be encrypted or decrypted: %s", wait->message);
    }
}

/* On the worker. */
static void on_posted(void *arg)
{
    struct rk_key_wait *wait = arg;
    wait->in_flight = false;
    if (wait->session == NULL) {
        wait_free(wait);
        return;
    }
    if (wait->done) {
        return; /* timed out; the flow frees it */
    }
    if (wait->remote != NULL) {
        take_values(wait);
    } else {
        take_key(wait);
    }
    wait_finish(wait);
}

/* On the key service's or provider's thread. */
static void on_answer(void *arg, enum rk_status status, const char *message)
{
    struct rk_key_wait *wait = arg;
    wait->result = status;
    (void)snprintf(wait->message, sizeof wait->message, "%s", message == NULL ? "" : message);
    if (rk_worker_post(wait->worker, on_posted, wait) != RK_OK) {
        abort(); /* out of memory for 24 bytes: the session could never be told */
    }
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct rk_key_wait *wait = arg;
    (void)rk_error_set_code(&wait->err, RK_ETIMEOUT, CODE_HOST_UNREACHABLE,
                            wait->remote != NULL
                                ? "%s could not be encrypted or decrypted within "
                                  "limits.key_wait_timeout_ms"
                                : "Rekey could not load %s within limits.key_wait_timeout_ms",
                            wait->remote != NULL ? "protected values" : wait->what);
    wait_finish(wait);
}

enum rk_step rk_key_wait_start(struct rk_session *session, struct rk_flow *flow)
{
    struct rk_context *ctx = session->ctx;
    struct rk_key_wait *wait = calloc(1, sizeof *wait);
    if (wait == NULL || ctx->keys == NULL) {
        free(wait);
        rk_session_close(session, "session_key_unavailable",
                         ctx->keys == NULL ? "no key service is configured" : "out of memory");
        return RK_STEP_CLOSE;
    }
    rk_counter_add(&ctx->counters.key_waits, 1);
    wait->session = session;
    wait->flow = flow;
    wait->worker = ctx->worker;
    wait->key_id = ctx->crypt.missing_key;
    (void)(wait->key_id == 0
               ? snprintf(wait->what, sizeof wait->what, "data key \"%s\"", ctx->crypt.missing_name)
               : snprintf(wait->what, sizeof wait->what, "data key %u", wait->key_id));
    wait->in_flight = true;
    flow->key_wait = wait;
    uint32_t ms = ctx->limits.key_wait_timeout_ms;
    const struct timeval timeout = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
    (void)event_assign(&wait->timer, ctx->base, -1, 0, on_timeout, wait);
    (void)event_add(&wait->timer, &timeout);
    if (rk_remote_wanted(flow->remote)) {
        wait->remote = flow->remote;
        flow->remote = NULL;
        rk_aead_set_remote(ctx->crypt.aead, NULL);
        rk_key_service_answer(ctx->keys, wait->remote, on_answer, wait);
    } else if (wait->key_id == 0) {
        rk_key_service_load_name(ctx->keys, ctx->crypt.missing_name, on_answer, wait);
    } else {
        rk_key_service_load(ctx->keys, wait->key_id, on_answer, wait);
    }
    return RK_STEP_WAIT;
}

static void wait_end(struct rk_flow *flow)
{
    struct rk_key_wait *wait = flow->key_wait;
    if (wait == NULL) {
        return;
    }
    flow->key_wait = NULL;
    (void)event_del(&wait->timer);
    if (wait->in_flight) {
        wait->session = NULL; /* on_posted frees it */
    } else {
        wait_free(wait);
    }
}

bool rk_key_wait_failed(struct rk_flow *flow, struct rk_error *err)
{
    struct rk_key_wait *wait = flow->key_wait;
    if (wait == NULL) {
        return false;
    }
    bool failed = wait->err.status != RK_OK;
    if (failed) {
        rk_counter_add(&wait->session->ctx->counters.key_wait_failures, 1);
        *err = wait->err;
    }
    wait_end(flow);
    return failed;
}

void rk_key_wait_cancel(struct rk_session *session, struct rk_flow *flow)
{
    wait_end(flow);
    if (flow->remote != NULL) {
        rk_aead_set_remote(session->ctx->crypt.aead, NULL);
        rk_remote_free(flow->remote);
        flow->remote = NULL;
    }
}

bool rk_key_wait_pending(const struct rk_flow *flow)
{
    return flow->key_wait != NULL && !flow->key_wait->done;
}
