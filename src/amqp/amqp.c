#include <rekey/amqp/amqp.h>

#include "consumer.h"

#include <openssl/crypto.h>
#include <rekey/log/log.h>
#include <stdlib.h>
#include <string.h>

struct rk_amqp {
    const struct rk_config_amqp *config;
    char *secret; /* secure memory; NULL: the password is in a file */
    struct rk_publisher *publisher;
    struct rk_consumer *consumer;
    rk_amqp_deliver_fn *deliver;
    void *arg;
};

/* The environment can be read in /proc and is part of core dumps: it is moved from there. */
static enum rk_status take_secret(struct rk_amqp *amqp, struct rk_error *err)
{
    const char *name = amqp->config->password_env;
    if (name == NULL) {
        return RK_OK;
    }
    char *value = getenv(name);
    if (value == NULL || value[0] == '\0') {
        return rk_error_set(err, RK_ENOENT,
                            "amqp.password_env: the environment variable %s is not set", name);
    }
    size_t size = strlen(value) + 1;
    amqp->secret = OPENSSL_secure_malloc(size);
    if (amqp->secret == NULL) {
        return rk_error_set(err, RK_ENOMEM, "amqp: out of secure memory");
    }
    memcpy(amqp->secret, value, size);
    OPENSSL_cleanse(value, size - 1);
    (void)unsetenv(name);
    return RK_OK;
}

/* ---- what the engine calls */

static bool ready(void *self)
{
    const struct rk_amqp *amqp = self;
    return rk_publisher_ready(amqp->publisher) && rk_consumer_ready(amqp->consumer);
}

static void want(void *self, bool ranges, bool docs, uint32_t threads)
{
    const struct rk_amqp *amqp = self;
    rk_consumer_want(amqp->consumer, ranges, docs, threads);
}

static bool plans(void *self)
{
    const struct rk_amqp *amqp = self;
    return rk_consumer_plans(amqp->consumer);
}

_Static_assert(RK_HINT_IDS_MAX + 1024u <= RK_AMQP_BODY_MAX, "every hint fits into a body");

static struct rk_amqp_message message_of(const struct rk_hint *hint, uint32_t retries)
{
    static const enum rk_amqp_kind kinds[] = {
        [RK_HINT_RANGE] = RK_AMQP_RANGE,
        [RK_HINT_DOCS] = RK_AMQP_DOCUMENTS,
        [RK_HINT_PLAN] = RK_AMQP_PLAN,
    };
    struct rk_amqp_message message = {
        .kind = kinds[hint->kind],
        .job = hint->job,
        .range = hint->range,
        .is_meta = hint->is_meta,
        .retries = retries,
        .ids = {hint->ids, hint->ids_len},
    };
    memcpy(message.ns, hint->ns, sizeof message.ns);
    return message;
}

static enum rk_status offer(void *self, const struct rk_hint *hints, size_t n, size_t *sent,
                            struct rk_error *err)
{
    const struct rk_amqp *amqp = self;
    *sent = 0;
    if (n == 0) {
        return RK_OK;
    }
    struct rk_amqp_message *messages = calloc(n, sizeof *messages);
    if (messages == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        messages[i] = message_of(&hints[i], 0);
        if (hints[i].kind == RK_HINT_PLAN) {
            messages[i].is_meta = true;
        }
    }
    enum rk_status status = rk_publisher_offer(amqp->publisher, messages, n, sent, err);
    free(messages);
    return status;
}

static bool offer_docs(void *self, const char *ns, const uint8_t *ids, uint32_t ids_len)
{
    const struct rk_amqp *amqp = self;
    struct rk_amqp_message message = {.kind = RK_AMQP_DOCUMENTS, .ids = {ids, ids_len}};
    size_t len = strlen(ns);
    if (len >= sizeof message.ns || !ready(self)) {
        return false;
    }
    memcpy(message.ns, ns, len + 1);
    return rk_publisher_leave(amqp->publisher, RK_AMQP_HOT_KEY, &message, 0);
}

/* A copy waits in a retry queue, longer each time or as short as can be; the delivery ends when the
 * broker has it. Where it cannot be sent, and with plans, which are worth nothing later, the
 * message is dropped: jobStatus tells what is left. */
static void put_off(const struct rk_amqp *amqp, const struct rk_hint *hint, bool longer)
{
    uint32_t retries = rk_ending_retries(hint->tag);
    const struct rk_amqp_message message = message_of(hint, longer ? retries + 1 : retries);
    if (hint->kind == RK_HINT_PLAN ||
        !rk_publisher_leave(amqp->publisher, rk_amqp_retry_key(longer ? retries : 0), &message,
                            hint->tag)) {
        rk_consumer_end(amqp->consumer, hint->tag, RK_HINT_LATER);
    }
}

static void end(void *self, struct rk_hint *hint, enum rk_hint_end how)
{
    const struct rk_amqp *amqp = self;
    if (how == RK_HINT_LATER || how == RK_HINT_BUSY) {
        put_off(amqp, hint, how == RK_HINT_LATER);
    } else {
        rk_consumer_end(amqp->consumer, hint->tag, how);
    }
    free(hint->ids);
    hint->ids = NULL;
    hint->ids_len = 0;
}

static uint32_t offer_again_ms(void *self)
{
    const struct rk_amqp *amqp = self;
    return amqp->config->refeed_interval_ms;
}

static const struct rk_transport_ops ops = {
    .name = "amqp",
    .ready = ready,
    .want = want,
    .plans = plans,
    .offer = offer,
    .offer_docs = offer_docs,
    .end = end,
    .offer_again_ms = offer_again_ms,
};

struct rk_transport rk_amqp_transport(struct rk_amqp *amqp)
{
    return (struct rk_transport){.ops = amqp != NULL ? &ops : NULL, .self = amqp};
}

/* ---- life */

enum rk_status rk_amqp_new(const struct rk_config_amqp *config, uint32_t threads,
                           struct rk_amqp **out, struct rk_error *err)
{
    struct rk_amqp *amqp = calloc(1, sizeof *amqp);
    if (amqp == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    amqp->config = config;
    enum rk_status status = take_secret(amqp, err);
    if (status == RK_OK) {
        status = rk_publisher_new(config, amqp->secret, &amqp->publisher, err);
    }
    if (status == RK_OK) {
        status =
            rk_consumer_new(config, amqp->secret, threads, amqp->publisher, &amqp->consumer, err);
    }
    if (status != RK_OK) {
        rk_amqp_free(amqp);
        return status;
    }
    *out = amqp;
    return RK_OK;
}

/* Without room for it, a range is for later; documents are dropped, they will be read again. */
static void on_delivery(void *arg, struct rk_hint *hint)
{
    struct rk_amqp *amqp = arg;
    if (!amqp->deliver(amqp->arg, hint)) {
        end(amqp, hint, hint->kind == RK_HINT_DOCS ? RK_HINT_DONE : RK_HINT_LATER);
    }
}

/* Of the copy that put_off left: without it the message itself goes back to its queue. */
static void on_settled(void *arg, uint64_t tag, bool confirmed)
{
    rk_consumer_end(arg, tag, confirmed ? RK_HINT_LATER : RK_HINT_RETURN);
}

enum rk_status rk_amqp_start(struct rk_amqp *amqp, rk_amqp_deliver_fn *deliver, void *arg,
                             struct rk_error *err)
{
    amqp->deliver = deliver;
    amqp->arg = arg;
    enum rk_status status = rk_publisher_start(amqp->publisher, on_settled, amqp->consumer, err);
    return status == RK_OK ? rk_consumer_start(amqp->consumer, on_delivery, amqp, err) : status;
}

void rk_amqp_stop(struct rk_amqp *amqp)
{
    if (amqp != NULL) {
        rk_consumer_stop(amqp->consumer);
        rk_publisher_stop(amqp->publisher);
    }
}

void rk_amqp_free(struct rk_amqp *amqp)
{
    if (amqp == NULL) {
        return;
    }
    rk_consumer_free(amqp->consumer);
    rk_publisher_free(amqp->publisher);
    if (amqp->secret != NULL) {
        OPENSSL_secure_clear_free(amqp->secret, strlen(amqp->secret) + 1);
    }
    free(amqp);
}

void rk_amqp_metrics(struct rk_amqp *amqp, struct rk_metrics *m)
{
    rk_metrics_family(m, "rekey_amqp_connected", RK_METRIC_GAUGE,
                      "1 while the connection to the broker is up.");
    rk_metric(m, rk_publisher_connected(amqp->publisher), RK_L("connection", "publish"));
    rk_metric(m, rk_consumer_connected(amqp->consumer), RK_L("connection", "consume"));
    rk_metrics_family(m, "rekey_amqp_losses_total", RK_METRIC_COUNTER,
                      "Connections to the broker that were lost.");
    rk_metric(m, rk_publisher_losses(amqp->publisher), RK_L("connection", "publish"));
    rk_metric(m, rk_consumer_losses(amqp->consumer), RK_L("connection", "consume"));
    rk_publisher_metrics(amqp->publisher, m);
    rk_consumer_metrics(amqp->consumer, m);
}
