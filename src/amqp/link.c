#include "link.h"

#include <amqp_tcp_socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <rekey/base/backoff.h>
#include <rekey/base/clock.h>
#include <rekey/base/hostport.h>
#include <rekey/keys/secret_file.h>
#include <rekey/log/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME_MAX 131072
#define VERSION_MIN 10u /* of RabbitMQ 3: from there on quorum queues have a TTL for messages */

/* ---- what went wrong */

enum rk_status rk_amqp_check_status(int status, const char *what, struct rk_error *err)
{
    if (status == AMQP_STATUS_OK) {
        return RK_OK;
    }
    const char *refusal = rk_amqp_tls_refusal();
    return refusal != NULL && status <= AMQP_STATUS_SSL_ERROR
               ? rk_error_set(err, RK_EIO, "%s: the certificate is refused: %s", what, refusal)
               : rk_error_set(err, RK_EIO, "%s: %s", what, amqp_error_string2(status));
}

/* The broker's reason of connection.close and channel.close. */
static enum rk_status closed(const amqp_method_t *method, const char *what, struct rk_error *err)
{
    int code = 0;
    amqp_bytes_t text = amqp_empty_bytes;
    if (method->id == AMQP_CONNECTION_CLOSE_METHOD) {
        const amqp_connection_close_t *close = method->decoded;
        code = close->reply_code;
        text = close->reply_text;
    } else if (method->id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *close = method->decoded;
        code = close->reply_code;
        text = close->reply_text;
    }
    return rk_error_set(err, RK_EIO, "%s: the broker closed it with %d: %.*s", what, code,
                        (int)text.len, text.bytes != NULL ? (const char *)text.bytes : "");
}

enum rk_status rk_amqp_check_reply(amqp_rpc_reply_t reply, const char *what, struct rk_error *err)
{
    switch (reply.reply_type) {
    case AMQP_RESPONSE_NORMAL:
        return RK_OK;
    case AMQP_RESPONSE_LIBRARY_EXCEPTION:
        return rk_amqp_check_status(reply.library_error, what, err);
    case AMQP_RESPONSE_SERVER_EXCEPTION:
        return closed(&reply.reply, what, err);
    default:
        return rk_error_set(err, RK_EIO, "%s: no answer", what);
    }
}

/* ---- opening */

static struct timeval after_ms(uint32_t ms)
{
    return (struct timeval){.tv_sec = (time_t)(ms / 1000u),
                            .tv_usec = (suseconds_t)(ms % 1000u) * 1000};
}

static enum rk_status connect_socket(struct rk_amqp_link *link, struct rk_error *err)
{
    const struct rk_config_amqp *config = link->config;
    const char *address = config->addresses[link->turn++ % config->addresses_count];
    struct timeval timeout = after_ms(config->connect_timeout_ms);
    struct rk_hostport at;
    amqp_socket_t *socket = NULL;
    (void)snprintf(link->at, sizeof link->at, "%s", address);
    if (!rk_hostport_parse(address, &at)) {
        return rk_error_set(err, RK_EINVAL, "amqp.addresses: %.100s is no host:port", address);
    }
    if (amqp_set_handshake_timeout(link->conn, &timeout) != AMQP_STATUS_OK ||
        amqp_set_rpc_timeout(link->conn, &timeout) != AMQP_STATUS_OK) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    if (config->tls.enabled) {
        enum rk_status status = rk_amqp_tls_socket(link, at.host, &socket, err);
        if (status != RK_OK) {
            return status;
        }
    } else {
        socket = amqp_tcp_socket_new(link->conn);
        if (socket == NULL) {
            return rk_error_set(err, RK_ENOMEM, "out of memory");
        }
    }
    int port = (int)strtol(at.port, NULL, 10);
    enum rk_status status = rk_amqp_check_status(
        amqp_socket_open_noblock(socket, at.host, port, &timeout), "connecting", err);
    if (status == RK_OK) {
        /* librabbitmq would write for ever to a broker that does not read any more. */
        unsigned silent_ms = config->heartbeat_s * 2000u;
        (void)setsockopt(amqp_get_sockfd(link->conn), IPPROTO_TCP, TCP_USER_TIMEOUT, &silent_ms,
                         sizeof silent_ms);
    }
    return status;
}

amqp_table_entry_t rk_amqp_flag(const char *name)
{
    return (amqp_table_entry_t){
        .key = amqp_cstring_bytes(name),
        .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value = {.boolean = 1}}};
}

amqp_table_entry_t rk_amqp_text(const char *name, const char *value)
{
    return (amqp_table_entry_t){
        .key = amqp_cstring_bytes(name),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value = {.bytes = amqp_cstring_bytes(value)}}};
}

static enum rk_status log_in_as(struct rk_amqp_link *link, const char *password,
                                struct rk_error *err)
{
    const struct rk_config_amqp *config = link->config;
    amqp_table_entry_t able[] = {rk_amqp_flag("authentication_failure_close"),
                                 rk_amqp_flag("basic.nack"), rk_amqp_flag("publisher_confirms"),
                                 rk_amqp_flag("consumer_cancel_notify"),
                                 rk_amqp_flag("connection.blocked")};
    amqp_table_entry_t properties[] = {
        rk_amqp_text("product", "rekey"),
        rk_amqp_text("version", RK_VERSION),
        rk_amqp_text("connection_name", link->purpose),
        {.key = amqp_cstring_bytes("capabilities"),
         .value = {.kind = AMQP_FIELD_KIND_TABLE,
                   .value = {.table = {.num_entries = sizeof able / sizeof able[0],
                                       .entries = able}}}},
    };
    const amqp_table_t table = {.num_entries = sizeof properties / sizeof properties[0],
                                .entries = properties};
    return rk_amqp_check_reply(amqp_login_with_properties(link->conn, config->vhost, 0, FRAME_MAX,
                                                          (int)config->heartbeat_s, &table,
                                                          AMQP_SASL_METHOD_PLAIN, config->user,
                                                          password),
                               "logging in", err);
}

/* A file is read for every connection: whoever changes the password replaces it. */
static enum rk_status log_in(struct rk_amqp_link *link, struct rk_error *err)
{
    struct rk_secret_file file;
    if (link->secret != NULL) {
        return log_in_as(link, link->secret, err);
    }
    enum rk_status status = rk_secret_file_read(link->config->password_file, &file, err);
    if (status == RK_OK) {
        file.text[strcspn(file.text, "\r\n")] = '\0';
        status = log_in_as(link, file.text, err);
        rk_secret_file_free(&file);
    }
    return status;
}

static enum rk_status check_version(struct rk_amqp_link *link, struct rk_error *err)
{
    const amqp_table_t *said = amqp_get_server_properties(link->conn);
    bool rabbit = false;
    link->version[0] = '\0';
    for (int i = 0; i < said->num_entries; i++) {
        const amqp_table_entry_t *entry = &said->entries[i];
        if (entry->value.kind != AMQP_FIELD_KIND_UTF8) {
            continue;
        }
        amqp_bytes_t value = entry->value.value.bytes;
        if (entry->key.len == 7 && memcmp(entry->key.bytes, "product", 7) == 0) {
            rabbit = value.len == 8 && memcmp(value.bytes, "RabbitMQ", 8) == 0;
        } else if (entry->key.len == 7 && memcmp(entry->key.bytes, "version", 7) == 0) {
            (void)snprintf(link->version, sizeof link->version, "%.*s", (int)value.len,
                           (const char *)value.bytes);
        }
    }
    char *dot = link->version;
    unsigned long major = strtoul(link->version, &dot, 10);
    unsigned long minor = *dot == '.' ? strtoul(dot + 1, NULL, 10) : 0;
    if (rabbit && (major < 3 || (major == 3 && minor < VERSION_MIN))) {
        return rk_error_set(err, RK_EREFUSED, "RabbitMQ %s is too old: 3.%u is needed",
                            link->version, VERSION_MIN);
    }
    return RK_OK;
}

static enum rk_status attempt(struct rk_amqp_link *link, struct rk_error *err)
{
    link->conn = amqp_new_connection();
    if (link->conn == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    enum rk_status status = connect_socket(link, err);
    if (status == RK_OK) {
        status = log_in(link, err);
    }
    if (status == RK_OK) {
        status = check_version(link, err);
    }
    if (status == RK_OK) {
        (void)amqp_channel_open(link->conn, RK_AMQP_CHANNEL);
        status = rk_amqp_check_reply(amqp_get_rpc_reply(link->conn), "opening a channel", err);
    }
    return status == RK_OK ? rk_amqp_declare(link, err) : status;
}

static uint64_t next_pause(struct rk_amqp_link *link)
{
    link->pause_ms = rk_backoff_next(link->pause_ms, link->config->reconnect_backoff_ms,
                                     link->config->reconnect_backoff_max_ms);
    return rk_backoff_jittered(link->pause_ms);
}

bool rk_amqp_link_open(struct rk_amqp_link *link, uint64_t *pause_ms)
{
    struct rk_error err;
    if (attempt(link, &err) == RK_OK) {
        rk_log(RK_LOG_INFO, "amqp_connected", RK_S("connection", link->purpose),
               RK_S("address", link->at), RK_S("version", link->version));
        link->opened_us = rk_clock_mono_us();
        link->said[0] = '\0';
        return true;
    }
    rk_amqp_link_close(link);
    rk_log(strcmp(link->said, err.message) == 0 ? RK_LOG_DEBUG : RK_LOG_WARN, "amqp_unreachable",
           RK_S("connection", link->purpose), RK_S("address", link->at),
           RK_S("error", err.message));
    (void)snprintf(link->said, sizeof link->said, "%s", err.message);
    *pause_ms = next_pause(link);
    return false;
}

void rk_amqp_link_close(struct rk_amqp_link *link)
{
    if (link->conn != NULL) {
        (void)amqp_destroy_connection(link->conn);
        link->conn = NULL;
    }
}

void rk_amqp_link_leave(struct rk_amqp_link *link)
{
    const struct timeval patience = {.tv_sec = 1};
    if (amqp_set_rpc_timeout(link->conn, &patience) == AMQP_STATUS_OK) {
        (void)amqp_connection_close(link->conn, AMQP_REPLY_SUCCESS);
    }
    rk_amqp_link_close(link);
}

uint64_t rk_amqp_link_lose(struct rk_amqp_link *link, const struct rk_error *why)
{
    uint64_t lasted_ms = (rk_clock_mono_us() - link->opened_us) / 1000u;
    rk_counter_add(&link->losses, 1);
    rk_log(RK_LOG_WARN, "amqp_lost", RK_S("connection", link->purpose), RK_S("address", link->at),
           RK_S("error", why->message));
    rk_amqp_link_close(link);
    if (lasted_ms >= link->config->reconnect_backoff_max_ms) {
        link->pause_ms = 0;
        return 0;
    }
    return next_pause(link);
}

/* ---- use */

enum rk_status rk_amqp_link_frame(struct rk_amqp_link *link, amqp_frame_t *frame,
                                  struct rk_error *err)
{
    struct timeval now = {0};
    int status = amqp_simple_wait_frame_noblock(link->conn, frame, &now);
    if (status == AMQP_STATUS_TIMEOUT) {
        return RK_ENOENT;
    }
    if (status != AMQP_STATUS_OK) {
        return rk_amqp_check_status(status, "reading", err);
    }
    if (frame->frame_type == AMQP_FRAME_METHOD) {
        switch (frame->payload.method.id) {
        case AMQP_CONNECTION_CLOSE_METHOD:
            return closed(&frame->payload.method, "connection", err);
        case AMQP_CHANNEL_CLOSE_METHOD:
            return closed(&frame->payload.method, "channel", err);
        case AMQP_BASIC_CANCEL_METHOD:
            return rk_error_set(err, RK_EIO, "the broker cancelled a consumer: its queue is gone");
        default:
            break;
        }
    }
    return RK_OK;
}

void rk_amqp_link_wait(const struct rk_amqp_link *link, int wake_fd, uint32_t timeout_ms)
{
    struct pollfd polled[] = {
        {.fd = wake_fd, .events = POLLIN},
        {.fd = link->conn != NULL ? amqp_get_sockfd(link->conn) : -1, .events = POLLIN}};
    bool buffered = link->conn != NULL &&
                    (amqp_frames_enqueued(link->conn) != 0 || amqp_data_in_buffer(link->conn) != 0);
    uint64_t wakes;
    if (poll(polled, 2, buffered ? 0 : (int)timeout_ms) > 0 && (polled[0].revents & POLLIN) != 0 &&
        read(wake_fd, &wakes, sizeof wakes) < 0) {
        return; /* somebody was faster */
    }
}
