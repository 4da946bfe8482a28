#include "consumer.h"

#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLAN_PREFETCH 16u
#define PREFETCH_MAX 200u /* of each queue; below what the engine has room for */
#define PLACE_INTERVAL_US 5000000u

/* What is wanted, in one word; the prefetch above the flags. 0: nothing. */
#define WANT_RANGES 1u
#define WANT_DOCS 2u
#define WANT_FLAGS 2u

_Static_assert(PLAN_PREFETCH + 2 * PREFETCH_MAX <= RK_ENDINGS_MAX, "all that is asked for");

/* What is put off comes here as later, however long. */
static const char *const end_names[RK_HINT_ENDS] = {
    [RK_HINT_DONE] = "done",
    [RK_HINT_LATER] = "later",
    [RK_HINT_BAD] = "bad",
    [RK_HINT_RETURN] = "returned",
};

struct rk_consumer {
    struct rk_amqp_line line;
    struct rk_publisher *publisher;
    rk_consumer_fn *deliver;
    void *arg;
    uint64_t place_us;       /* when the planner's place was last asked for */
    _Atomic uint32_t wanted; /* WANT_... */
    _Atomic bool connected;
    _Atomic bool consuming;
    _Atomic bool plans;

    struct rk_endings endings;
    struct rk_ending taken[RK_ENDINGS_MAX]; /* the thread's */
    rk_counter delivered[RK_AMQP_KINDS];
    rk_counter refused;
};

/* ---- what comes in */

static enum rk_status acknowledge(struct rk_consumer *c, uint64_t delivery, struct rk_error *err)
{
    return rk_amqp_check_status(amqp_basic_ack(c->line.link.conn, RK_AMQP_CHANNEL, delivery, 0),
                                "acknowledging", err);
}

/* To the dead letters. */
static enum rk_status refuse(struct rk_consumer *c, const amqp_envelope_t *envelope,
                             const char *why, struct rk_error *err)
{
    char key[64];
    (void)snprintf(key, sizeof key, "%.*s", (int)envelope->routing_key.len,
                   (const char *)envelope->routing_key.bytes);
    rk_counter_add(&c->refused, 1);
    rk_log(RK_LOG_WARN, "amqp_message_refused", RK_S("reason", why), RK_S("key", key),
           RK_I("bytes", envelope->message.body.len));
    return rk_amqp_check_status(
        amqp_basic_reject(c->line.link.conn, RK_AMQP_CHANNEL, envelope->delivery_tag, 0),
        "refusing", err);
}

/* The broker's count of earlier deliveries. */
static uint32_t delivery_count(const amqp_envelope_t *envelope)
{
    const amqp_basic_properties_t *properties = &envelope->message.properties;
    const char *name = "x-delivery-count";
    if ((properties->_flags & AMQP_BASIC_HEADERS_FLAG) == 0) {
        return 0;
    }
    for (int i = 0; i < properties->headers.num_entries; i++) {
        const amqp_table_entry_t *entry = &properties->headers.entries[i];
        if (entry->key.len == strlen(name) && memcmp(entry->key.bytes, name, strlen(name)) == 0 &&
            entry->value.kind == AMQP_FIELD_KIND_I64 && entry->value.value.i64 > 0) {
            return (uint32_t)entry->value.value.i64;
        }
    }
    return 0;
}

static bool make_hint(const amqp_envelope_t *envelope, const struct rk_amqp_message *message,
                      uint64_t tag, struct rk_hint *hint)
{
    static const enum rk_hint_kind kinds[RK_AMQP_KINDS] = {
        [RK_AMQP_RANGE] = RK_HINT_RANGE,
        [RK_AMQP_DOCUMENTS] = RK_HINT_DOCS,
        [RK_AMQP_PLAN] = RK_HINT_PLAN,
    };
    *hint = (struct rk_hint){
        .kind = kinds[message->kind],
        .job = message->job,
        .range = message->range,
        .is_meta = message->is_meta,
        .attempts = message->retries + delivery_count(envelope),
        .tag = tag,
    };
    memcpy(hint->ns, message->ns, sizeof message->ns);
    if (message->ids.len > 0) {
        hint->ids = malloc(message->ids.len);
        if (hint->ids == NULL) {
            return false;
        }
        memcpy(hint->ids, message->ids.data, message->ids.len);
        hint->ids_len = message->ids.len;
    }
    return true;
}

/* A message from plan: this consumer is the active one. */
static void take_place(struct rk_consumer *c)
{
    if (!atomic_exchange(&c->plans, true)) {
        rk_log(RK_LOG_INFO, "amqp_planner", RK_B("plans", true));
    }
}

static enum rk_status on_delivery(struct rk_consumer *c, const amqp_envelope_t *envelope,
                                  struct rk_error *err)
{
    struct rk_amqp_message message;
    struct rk_hint hint;
    const char *why = NULL;
    uint64_t tag;
    amqp_bytes_t body = envelope->message.body;
    bool from_plan = envelope->consumer_tag.len == strlen(RK_AMQP_PLAN_KEY);
    if (from_plan) {
        take_place(c);
    }
    if (rk_amqp_message_read(body.bytes, body.len, &message, &why) != RK_OK) {
        return refuse(c, envelope, why, err);
    }
    if (from_plan != (message.kind == RK_AMQP_PLAN || message.kind == RK_AMQP_PLACE)) {
        return refuse(c, envelope, "in a queue where it does not belong", err);
    }
    rk_counter_add(&c->delivered[message.kind], 1);
    if (message.kind == RK_AMQP_PLACE) {
        return acknowledge(c, envelope->delivery_tag, err);
    }
    if (!rk_endings_hand_on(&c->endings, message.retries, envelope->delivery_tag, &tag)) {
        return rk_error_set(err, RK_EIO, "the broker sends more than it was asked for");
    }
    if (!make_hint(envelope, &message, tag, &hint)) {
        return rk_error_set(err, RK_EIO, "out of memory");
    }
    c->deliver(c->arg, &hint);
    return RK_OK;
}

/* Everything that has come in. */
static enum rk_status read_deliveries(struct rk_consumer *c, struct rk_error *err)
{
    for (;;) {
        amqp_envelope_t envelope;
        const struct timeval now = {0};
        amqp_maybe_release_buffers(c->line.link.conn);
        amqp_rpc_reply_t reply = amqp_consume_message(c->line.link.conn, &envelope, &now, 0);
        enum rk_status status = RK_OK;
        if (reply.reply_type == AMQP_RESPONSE_NORMAL) {
            status = on_delivery(c, &envelope, err);
            amqp_destroy_envelope(&envelope);
        } else if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION &&
                   reply.library_error == AMQP_STATUS_TIMEOUT) {
            return RK_OK;
        } else if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION &&
                   reply.library_error == AMQP_STATUS_UNEXPECTED_STATE) {
            amqp_frame_t frame; /* something else than a delivery */
            status = rk_amqp_link_frame(&c->line.link, &frame, err);
            status = status == RK_ENOENT ? RK_OK : status;
        } else {
            status = rk_amqp_check_reply(reply, "reading", err);
        }
        if (status != RK_OK) {
            return status;
        }
    }
}

/* ---- what goes out */

static enum rk_status send_ending(struct rk_consumer *c, const struct rk_ending *ending,
                                  struct rk_error *err)
{
    uint64_t delivery = rk_ending_delivery(ending->tag);
    int status = AMQP_STATUS_OK;
    switch (ending->end) {
    case RK_HINT_DONE:
    case RK_HINT_LATER:
    case RK_HINT_BUSY: /* a copy lies in a retry queue */
        return acknowledge(c, delivery, err);
    case RK_HINT_BAD:
        status = amqp_basic_reject(c->line.link.conn, RK_AMQP_CHANNEL, delivery, 0);
        break;
    case RK_HINT_RETURN:
        status = amqp_basic_nack(c->line.link.conn, RK_AMQP_CHANNEL, delivery, 0, 1);
        break;
    }
    return rk_amqp_check_status(status, "ending a delivery", err);
}

static enum rk_status send_endings(struct rk_consumer *c, struct rk_error *err)
{
    size_t n = rk_endings_take(&c->endings, c->taken);
    enum rk_status status = RK_OK;
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        status = send_ending(c, &c->taken[i], err);
    }
    return status;
}

static void ask_for_place(struct rk_consumer *c)
{
    const struct rk_amqp_message place = {.kind = RK_AMQP_PLACE};
    uint64_t now = rk_clock_mono_us();
    if (now - c->place_us >= PLACE_INTERVAL_US && rk_publisher_ready(c->publisher) &&
        rk_publisher_leave(c->publisher, RK_AMQP_PLAN_KEY, &place, 0)) {
        c->place_us = now;
    }
}

/* ---- the connection */

static enum rk_status consume(struct rk_consumer *c, const char *key, uint32_t prefetch,
                              struct rk_error *err)
{
    char queue[RK_AMQP_NAME_SIZE];
    rk_amqp_name(c->line.link.config, key, queue);
    (void)amqp_basic_qos(c->line.link.conn, RK_AMQP_CHANNEL, 0, (uint16_t)prefetch, 0);
    enum rk_status status =
        rk_amqp_check_reply(amqp_get_rpc_reply(c->line.link.conn), "limiting deliveries", err);
    if (status == RK_OK) {
        (void)amqp_basic_consume(c->line.link.conn, RK_AMQP_CHANNEL, amqp_cstring_bytes(queue),
                                 amqp_cstring_bytes(key), 0, 0, 0, amqp_empty_table);
        status = rk_amqp_check_reply(amqp_get_rpc_reply(c->line.link.conn), "consuming", err);
    }
    rk_endings_ask(&c->endings, prefetch);
    return status;
}

static uint32_t wants(const struct rk_consumer *c, bool ranges, bool docs, uint32_t threads)
{
    uint32_t flags = (ranges ? WANT_RANGES : 0) | (docs ? WANT_DOCS : 0);
    uint64_t prefetch = (uint64_t)c->line.link.config->prefetch * threads;
    if (prefetch > PREFETCH_MAX) {
        prefetch = PREFETCH_MAX;
    }
    return flags == 0 ? 0 : (uint32_t)prefetch << WANT_FLAGS | flags;
}

static enum rk_status consume_wanted(struct rk_consumer *c, uint32_t wanted, struct rk_error *err)
{
    uint32_t prefetch = wanted >> WANT_FLAGS; /* of each work queue */
    enum rk_status status = RK_OK;
    if ((wanted & WANT_RANGES) != 0) {
        status = consume(c, RK_AMQP_PLAN_KEY, PLAN_PREFETCH, err);
    }
    if (status == RK_OK && (wanted & WANT_DOCS) != 0) {
        status = consume(c, RK_AMQP_HOT_KEY, prefetch, err);
    }
    if (status == RK_OK && (wanted & WANT_RANGES) != 0) {
        status = consume(c, RK_AMQP_COLD_KEY, prefetch, err);
    }
    return status;
}

/* A change of what is wanted takes a new connection: what was delivered goes back to its queues,
 * and the planner's place to another instance. So does a publisher that has found a broker which
 * confirms, after one that did not: this connection may be to the latter. */
static enum rk_status serve(void *self, struct rk_error *err)
{
    struct rk_consumer *c = self;
    uint32_t wanted = atomic_load(&c->wanted);
    uint64_t moves = rk_publisher_moves(c->publisher);
    rk_endings_renew(&c->endings);
    c->place_us = 0;
    atomic_store(&c->connected, true);
    enum rk_status status = consume_wanted(c, wanted, err);
    atomic_store(&c->consuming, status == RK_OK && wanted != 0);
    while (status == RK_OK && !rk_amqp_line_stopping(&c->line) &&
           atomic_load(&c->wanted) == wanted && rk_publisher_moves(c->publisher) == moves) {
        if ((wanted & WANT_RANGES) != 0) {
            ask_for_place(c);
        }
        status = read_deliveries(c, err);
        if (status == RK_OK) {
            status = send_endings(c, err);
        }
        if (status == RK_OK) {
            rk_amqp_line_wait(&c->line);
        }
    }
    if (status == RK_OK) {
        status = send_endings(c, err); /* of what was ended last */
    }
    return status;
}

static void over(void *self)
{
    struct rk_consumer *c = self;
    atomic_store(&c->consuming, false);
    atomic_store(&c->connected, false);
    if (atomic_exchange(&c->plans, false)) {
        rk_log(RK_LOG_INFO, "amqp_planner", RK_B("plans", false));
    }
}

/* ---- other threads */

void rk_consumer_want(struct rk_consumer *c, bool ranges, bool docs, uint32_t threads)
{
    uint32_t wanted = wants(c, ranges, docs, threads);
    if (atomic_exchange(&c->wanted, wanted) != wanted) {
        rk_amqp_line_wake(&c->line);
    }
}

bool rk_consumer_connected(const struct rk_consumer *c)
{
    return atomic_load(&c->connected);
}

bool rk_consumer_ready(const struct rk_consumer *c)
{
    return atomic_load(&c->consuming);
}

uint64_t rk_consumer_losses(const struct rk_consumer *c)
{
    return rk_counter_read(&c->line.link.losses);
}

bool rk_consumer_plans(const struct rk_consumer *c)
{
    return atomic_load(&c->plans);
}

void rk_consumer_end(struct rk_consumer *c, uint64_t tag, enum rk_hint_end end)
{
    if (rk_endings_add(&c->endings, tag, end)) {
        rk_amqp_line_wake(&c->line);
    }
}

/* ---- life */

enum rk_status rk_consumer_new(const struct rk_config_amqp *config, const char *secret,
                               uint32_t threads, struct rk_publisher *publisher,
                               struct rk_consumer **out, struct rk_error *err)
{
    struct rk_consumer *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    c->publisher = publisher;
    rk_endings_init(&c->endings);
    enum rk_status status = rk_amqp_line_init(&c->line, config, secret, "consume", err);
    if (status != RK_OK) {
        rk_consumer_free(c);
        return status;
    }
    atomic_init(&c->wanted, wants(c, true, true, threads));
    *out = c;
    return RK_OK;
}

enum rk_status rk_consumer_start(struct rk_consumer *c, rk_consumer_fn *deliver, void *arg,
                                 struct rk_error *err)
{
    static const struct rk_amqp_line_ops ops = {.serve = serve, .over = over};
    c->deliver = deliver;
    c->arg = arg;
    return rk_amqp_line_start(&c->line, &ops, c, err);
}

void rk_consumer_stop(struct rk_consumer *c)
{
    rk_amqp_line_stop(&c->line);
}

void rk_consumer_free(struct rk_consumer *c)
{
    if (c == NULL) {
        return;
    }
    rk_amqp_line_deinit(&c->line);
    rk_endings_deinit(&c->endings);
    free(c);
}

void rk_consumer_metrics(struct rk_consumer *c, struct rk_metrics *m)
{
    rk_metrics_family(m, "rekey_amqp_delivered_total", RK_METRIC_COUNTER,
                      "Messages that the broker has delivered to this instance, by kind.");
    for (unsigned i = 0; i < RK_AMQP_KINDS; i++) {
        rk_metric(m, rk_counter_read(&c->delivered[i]),
                  RK_L("kind", rk_amqp_kind_name((enum rk_amqp_kind)i)));
    }
    rk_metrics_family(m, "rekey_amqp_ended_total", RK_METRIC_COUNTER,
                      "What became of delivered messages; those that are put off come again.");
    for (unsigned i = 0; i < RK_HINT_ENDS; i++) {
        if (end_names[i] != NULL) {
            rk_metric(m, rk_counter_read(&c->endings.ended[i]), RK_L("end", end_names[i]));
        }
    }
    rk_metrics_one(m, "rekey_amqp_refused_total", RK_METRIC_COUNTER,
                   "Messages that are none of Rekey's, or damaged; sent to the dead letters.",
                   (double)rk_counter_read(&c->refused));
    rk_metrics_one(m, "rekey_amqp_plans", RK_METRIC_GAUGE,
                   "1 where ranges are cut for all instances.", atomic_load(&c->plans));
}
