/*
 * The exchanges and queues that Rekey declares; link.h says what they are for.
 */
#include "link.h"

#include <stdio.h>

void rk_amqp_name(const struct rk_config_amqp *config, const char *suffix,
                  char out[RK_AMQP_NAME_SIZE])
{
    (void)snprintf(out, RK_AMQP_NAME_SIZE, "%s%s%s", config->prefix, suffix[0] == '\0' ? "" : ".",
                   suffix);
}

static const struct {
    const char *key;
    int32_t ttl_ms;
} retries_after[] = {{"retry.1s", 1000}, {"retry.10s", 10000}, {"retry.60s", 60000}};
#define RETRY_QUEUES (sizeof retries_after / sizeof retries_after[0])

const char *rk_amqp_retry_key(uint32_t retries)
{
    return retries_after[retries < RETRY_QUEUES ? retries : RETRY_QUEUES - 1].key;
}

static enum rk_status declare_exchange(struct rk_amqp_link *link, const char *suffix,
                                       const char *type, struct rk_error *err)
{
    char name[RK_AMQP_NAME_SIZE];
    rk_amqp_name(link->config, suffix, name);
    (void)amqp_exchange_declare(link->conn, RK_AMQP_CHANNEL, amqp_cstring_bytes(name),
                                amqp_cstring_bytes(type), 0, 1, 0, 0, amqp_empty_table);
    return rk_amqp_check_reply(amqp_get_rpc_reply(link->conn), "declaring an exchange", err);
}

struct queue {
    const char *suffix;
    const char *exchange; /* that it is bound to; its suffix */
    const char *dead_to;  /* exchange; NULL: none */
    const char *dead_key; /* NULL: as it was */
    int32_t ttl_ms;
    bool single;
};

static enum rk_status declare_queue(struct rk_amqp_link *link, const struct queue *queue,
                                    struct rk_error *err)
{
    char name[RK_AMQP_NAME_SIZE];
    char exchange[RK_AMQP_NAME_SIZE];
    char dead_to[RK_AMQP_NAME_SIZE];
    amqp_table_entry_t entries[5];
    amqp_table_t arguments = {.num_entries = 0, .entries = entries};
    rk_amqp_name(link->config, queue->suffix, name);
    rk_amqp_name(link->config, queue->exchange, exchange);
    entries[arguments.num_entries++] = rk_amqp_text("x-queue-type", "quorum");
    if (queue->dead_to != NULL) {
        rk_amqp_name(link->config, queue->dead_to, dead_to);
        entries[arguments.num_entries++] = rk_amqp_text("x-dead-letter-exchange", dead_to);
    }
    if (queue->dead_key != NULL) {
        entries[arguments.num_entries++] =
            rk_amqp_text("x-dead-letter-routing-key", queue->dead_key);
    }
    if (queue->single) {
        entries[arguments.num_entries++] = rk_amqp_flag("x-single-active-consumer");
    }
    if (queue->ttl_ms != 0) {
        entries[arguments.num_entries++] = (amqp_table_entry_t){
            .key = amqp_cstring_bytes("x-message-ttl"),
            .value = {.kind = AMQP_FIELD_KIND_I32, .value = {.i32 = queue->ttl_ms}}};
    }
    (void)amqp_queue_declare(link->conn, RK_AMQP_CHANNEL, amqp_cstring_bytes(name), 0, 1, 0, 0,
                             arguments);
    enum rk_status status =
        rk_amqp_check_reply(amqp_get_rpc_reply(link->conn), "declaring a queue", err);
    if (status == RK_OK) {
        (void)amqp_queue_bind(link->conn, RK_AMQP_CHANNEL, amqp_cstring_bytes(name),
                              amqp_cstring_bytes(exchange), amqp_cstring_bytes(queue->suffix),
                              amqp_empty_table);
        status = rk_amqp_check_reply(amqp_get_rpc_reply(link->conn), "binding a queue", err);
    }
    return status;
}

enum rk_status rk_amqp_declare(struct rk_amqp_link *link, struct rk_error *err)
{
    static const struct queue queues[] = {
        {.suffix = "dead", .exchange = "dead"},
        {.suffix = RK_AMQP_PLAN_KEY, .exchange = "", .dead_to = "dead", .single = true},
        {.suffix = RK_AMQP_HOT_KEY, .exchange = "", .dead_to = "dead"},
        {.suffix = RK_AMQP_COLD_KEY, .exchange = "", .dead_to = "dead"},
    };
    enum rk_status status = declare_exchange(link, "", "direct", err);
    if (status == RK_OK) {
        status = declare_exchange(link, "dead", "fanout", err);
    }
    for (size_t i = 0; i < sizeof queues / sizeof queues[0] && status == RK_OK; i++) {
        status = declare_queue(link, &queues[i], err);
    }
    for (size_t i = 0; i < RETRY_QUEUES && status == RK_OK; i++) {
        const struct queue retry = {.suffix = retries_after[i].key,
                                    .exchange = "",
                                    .dead_to = "",
                                    .dead_key = RK_AMQP_COLD_KEY,
                                    .ttl_ms = retries_after[i].ttl_ms};
        status = declare_queue(link, &retry, err);
    }
    return status;
}
