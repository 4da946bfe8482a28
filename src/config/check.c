/* What the schema cannot say: ranges, addresses, and settings that contradict each other. */
#include "config_internal.h"

#include <arpa/inet.h>
#include <rekey/base/hostport.h>
#include <rekey/base/network.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define KEY_MAX 160

enum rk_status rk_config_check_numbers(const struct rk_config *config,
                                       const struct rk_config_source *source, struct rk_error *err)
{
    for (size_t i = 0; i < rk_config_numbers_count; i++) {
        const struct rk_config_number *number = &rk_config_numbers[i];
        uint32_t value;
        memcpy(&value, (const char *)config + number->offset, sizeof value);
        if (value < number->min || value > number->max) {
            return rk_config_refuse(source, err, number->key, "must be from %u to %u, not %u",
                                    number->min, number->max, value);
        }
    }
    return RK_OK;
}

static enum rk_status check_relations(const struct rk_config *config,
                                      const struct rk_config_source *source, struct rk_error *err)
{
    const struct rk_config_limits *limits = &config->limits;
    const struct rk_config_sweep *sweep = &config->sweep;
    if (limits->buffer_low_bytes >= limits->buffer_high_bytes) {
        return rk_config_refuse(source, err, "limits.buffer_low_bytes",
                                "must be below limits.buffer_high_bytes (%u), not %u",
                                limits->buffer_high_bytes, limits->buffer_low_bytes);
    }
    if (limits->advertised_message_bytes_max > limits->message_bytes_max) {
        return rk_config_refuse(source, err, "limits.advertised_message_bytes_max",
                                "must not pass limits.message_bytes_max (%u), not %u",
                                limits->message_bytes_max, limits->advertised_message_bytes_max);
    }
    if (sweep->batch_docs > sweep->range_docs) {
        return rk_config_refuse(source, err, "sweep.batch_docs",
                                "must not pass sweep.range_docs (%u), not %u", sweep->range_docs,
                                sweep->batch_docs);
    }
    if (sweep->dead_letters.docs_min > sweep->dead_letters.window_docs / 2) {
        return rk_config_refuse(source, err, "sweep.dead_letters.docs_min",
                                "must be at most half of sweep.dead_letters.window_docs (%u), "
                                "not %u",
                                sweep->dead_letters.window_docs, sweep->dead_letters.docs_min);
    }
    if (config->verify.checkpoint_interval_ms > config->verify.lease_ms / 2) {
        return rk_config_refuse(source, err, "verify.checkpoint_interval_ms",
                                "must be at most half of verify.lease_ms (%u), not %u",
                                config->verify.lease_ms, config->verify.checkpoint_interval_ms);
    }
    if (sweep->retry_backoff_ms > sweep->retry_backoff_max_ms) {
        return rk_config_refuse(source, err, "sweep.retry_backoff_ms",
                                "must not pass sweep.retry_backoff_max_ms (%u), not %u",
                                sweep->retry_backoff_max_ms, sweep->retry_backoff_ms);
    }
    if (rk_config_source_has(source, "sweep.guard.rate_min") && sweep->max_rate != 0 &&
        sweep->guard.rate_min > sweep->max_rate) {
        return rk_config_refuse(source, err, "sweep.guard.rate_min",
                                "must not pass sweep.max_rate (%u), not %u", sweep->max_rate,
                                sweep->guard.rate_min);
    }
    return RK_OK;
}

static enum rk_status check_compressors(const enum rk_compressor *list, unsigned count,
                                        const char *key, const struct rk_config_source *source,
                                        struct rk_error *err)
{
    struct rk_compressors seen = {0};
    for (unsigned i = 0; i < count; i++) {
        if (rk_compressors_has(&seen, (uint8_t)list[i])) {
            return rk_config_refuse(source, err, key, "lists %s twice",
                                    rk_compressor_name(list[i]));
        }
        rk_compressors_add(&seen, list[i]);
    }
    return RK_OK;
}

static enum rk_status check_compression(const struct rk_config_compression *compression,
                                        const struct rk_config_source *source, struct rk_error *err)
{
    if (compression->message_bytes_min > compression->message_bytes_max) {
        return rk_config_refuse(source, err, "compression.message_bytes_min",
                                "must not pass compression.message_bytes_max (%u), not %u",
                                compression->message_bytes_max, compression->message_bytes_min);
    }
    enum rk_status status = check_compressors(compression->client, compression->client_count,
                                              "compression.client", source, err);
    return status == RK_OK ? check_compressors(compression->upstream, compression->upstream_count,
                                               "compression.upstream", source, err)
                           : status;
}

static bool host_is_plausible(const char *text, const char *host)
{
    struct in6_addr six;
    struct in_addr four;
    if (text[0] == '[') {
        return inet_pton(AF_INET6, host, &six) == 1;
    }
    if (strspn(host, "0123456789.") == strlen(host)) {
        return inet_pton(AF_INET, host, &four) == 1;
    }
    return strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") ==
           strlen(host);
}

static bool host_is_wildcard(const char *host)
{
    struct in6_addr six;
    return strcmp(host, "0.0.0.0") == 0 ||
           (inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_UNSPECIFIED(&six));
}

/* upstream.members or upstream.listeners. */
struct list {
    const char *name;
    const struct rk_config_member *entries;
    unsigned n;
    const struct rk_config_source *source;
    struct rk_error *err;
};

static enum rk_status refuse_entry(const struct list *list, unsigned index, const char *name,
                                   const char *format, ...) RK_PRINTF(4, 5);

static enum rk_status refuse_entry(const struct list *list, unsigned index, const char *name,
                                   const char *format, ...)
{
    char key[KEY_MAX];
    char reason[300];
    va_list args;
    (void)snprintf(key, sizeof key, "upstream.%s[%u].%s", list->name, index, name);
    va_start(args, format);
    (void)vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    return rk_config_refuse(list->source, list->err, key, "%s", reason);
}

/* What stands at an address: out->host is empty for a Unix socket. */
static enum rk_status check_address(const struct list *list, unsigned index, const char *name,
                                    const char *text, struct rk_hostport *out)
{
    bool path = rk_address_is_path(text);
    *out = (struct rk_hostport){.host = ""};
    if (!path && rk_hostport_parse(text, out) && host_is_plausible(text, out->host)) {
        return RK_OK;
    }
    if (path && strlen(text) >= RK_SOCKET_PATH_MAX) {
        return refuse_entry(list, index, name,
                            "must not be longer than %u bytes: sockets have no longer paths",
                            RK_SOCKET_PATH_MAX - 1);
    }
    if (path && strcmp(name, "address") != 0) {
        return RK_OK;
    }
    return refuse_entry(list, index, name, "must be host:port (IPv6 in brackets)%s, not \"%.100s\"",
                        path ? "; the path of a Unix socket is for connect" : "", text);
}

static bool same_listener(const char *one, const char *two)
{
    struct rk_hostport a;
    struct rk_hostport b;
    if (!rk_hostport_parse(one, &a) || !rk_hostport_parse(two, &b)) {
        return strcmp(one, two) == 0;
    }
    return strcmp(a.port, b.port) == 0 && (strcasecmp(a.host, b.host) == 0 ||
                                           host_is_wildcard(a.host) || host_is_wildcard(b.host));
}

/* Is it where mongod itself is reached? */
static bool is_mongod(const char *text, const struct rk_config_member *member)
{
    return member->address != NULL &&
           (strcasecmp(text, member->address) == 0 || strcasecmp(text, member->connect) == 0);
}

/* Entry i against the ones before it, and against every member's mongod. */
static enum rk_status check_conflicts(const struct list *list, unsigned i)
{
    const struct rk_config_member *entry = &list->entries[i];
    const char *kind = strcmp(list->name, "members") == 0 ? "member" : "listener";
    for (unsigned j = 0; j < list->n; j++) {
        const struct rk_config_member *other = &list->entries[j];
        if (is_mongod(entry->listen, other)) {
            return refuse_entry(list, i, "listen", "is the address of the mongod of member %u", j);
        }
        if (is_mongod(entry->advertise, other)) {
            return refuse_entry(list, i, "advertise",
                                "is the address of the mongod of member %u: clients would go "
                                "around the proxy",
                                j);
        }
        if (j >= i) {
            continue;
        }
        if (entry->address != NULL && strcasecmp(entry->address, other->address) == 0) {
            return refuse_entry(list, i, "address", "is already that of %s %u", kind, j);
        }
        if (same_listener(entry->listen, other->listen)) {
            return refuse_entry(list, i, "listen", "is already taken by %s %u", kind, j);
        }
        if (strcasecmp(entry->advertise, other->advertise) == 0) {
            return refuse_entry(list, i, "advertise", "is already that of %s %u", kind, j);
        }
    }
    return RK_OK;
}

static enum rk_status check_entry(const struct list *list, unsigned i)
{
    const struct rk_config_member *entry = &list->entries[i];
    struct rk_hostport address = {.host = ""};
    char key[KEY_MAX];
    (void)snprintf(key, sizeof key, "upstream.%s[%u].advertise", list->name, i);
    enum rk_status status = entry->address != NULL
                                ? check_address(list, i, "address", entry->address, &address)
                                : RK_OK;
    if (status == RK_OK && entry->connect != NULL) {
        status = check_address(list, i, "connect", entry->connect, &address);
    }
    if (status == RK_OK) {
        status = check_address(list, i, "listen", entry->listen, &address);
    }
    if (status == RK_OK && host_is_wildcard(address.host) &&
        !rk_config_source_has(list->source, key)) {
        return refuse_entry(list, i, "advertise",
                            "is required when listen is %s: clients cannot dial that",
                            address.host);
    }
    if (status == RK_OK) {
        status = check_address(list, i, "advertise", entry->advertise, &address);
    }
    if (status == RK_OK && host_is_wildcard(address.host)) {
        return refuse_entry(list, i, "advertise", "must not be %s: clients cannot dial that",
                            address.host);
    }
    return status;
}

static enum rk_status check_list(const struct list *list)
{
    enum rk_status status = RK_OK;
    for (unsigned i = 0; i < list->n && status == RK_OK; i++) {
        status = check_entry(list, i);
    }
    for (unsigned i = 0; i < list->n && status == RK_OK; i++) {
        status = check_conflicts(list, i);
    }
    return status;
}

static enum rk_status check_topology(const struct rk_config_upstream *upstream,
                                     const struct rk_config_source *source, struct rk_error *err)
{
    bool single = upstream->topology == RK_CONFIG_SINGLE;
    if (single && upstream->members_count > 0) {
        return rk_config_refuse(source, err, "upstream.members",
                                "is for topology mirror; topology single has listeners");
    }
    if (!single && upstream->listeners_count > 0) {
        return rk_config_refuse(source, err, "upstream.listeners",
                                "is for topology single; topology mirror has members");
    }
    const struct list members = {.name = "members",
                                 .entries = upstream->members,
                                 .n = upstream->members_count,
                                 .source = source,
                                 .err = err};
    const struct list listeners = {.name = "listeners",
                                   .entries = upstream->listeners,
                                   .n = upstream->listeners_count,
                                   .source = source,
                                   .err = err};
    return check_list(single ? &listeners : &members);
}

static enum rk_status check_listener(const struct rk_config_listener *listener,
                                     const struct rk_config_source *source, struct rk_error *err)
{
    if (listener->proxy_required != (listener->proxy_networks_count > 0)) {
        return rk_config_refuse(source, err, "listener.proxy_networks",
                                listener->proxy_required
                                    ? "is required with listener.proxy_protocol: whoever may "
                                      "connect can claim any address"
                                    : "is of no use while listener.proxy_protocol is off");
    }
    for (unsigned i = 0; i < listener->proxy_networks_count; i++) {
        struct rk_network network;
        char key[KEY_MAX];
        (void)snprintf(key, sizeof key, "listener.proxy_networks[%u]", i);
        if (!rk_network_parse(listener->proxy_networks[i], &network)) {
            return rk_config_refuse(source, err, key,
                                    "must be an address or a network such as 10.0.0.0/8, without "
                                    "bits behind the prefix, not \"%.50s\"",
                                    listener->proxy_networks[i]);
        }
    }
    return RK_OK;
}

/* The uri's own options are for libmongoc; the data plane must not stay unencrypted unnoticed. */
static bool uri_asks_for_tls(const char *uri)
{
    return strncmp(uri, "mongodb+srv://", 14) == 0 || strcasestr(uri, "tls=true") != NULL ||
           strcasestr(uri, "ssl=true") != NULL;
}

static enum rk_status check_upstream(const struct rk_config_upstream *upstream,
                                     const struct rk_config_source *source, struct rk_error *err)
{
    if (strncmp(upstream->uri, "mongodb://", 10) != 0 &&
        strncmp(upstream->uri, "mongodb+srv://", 14) != 0) {
        return rk_config_refuse(source, err, "upstream.uri",
                                "must start with mongodb:// or mongodb+srv://");
    }
    const char *db = upstream->state_db;
    if (strlen(db) > 63 || strcspn(db, "/\\. \"$*<>:|?") != strlen(db) ||
        strcmp(db, "admin") == 0 || strcmp(db, "local") == 0 || strcmp(db, "config") == 0) {
        return rk_config_refuse(source, err, "upstream.state_db",
                                "must be the name of a database of its own, not \"%.100s\"", db);
    }
    const char *options = strchr(upstream->uri, '?');
    if (options != NULL && strcasestr(options, "loadBalanced=true") != NULL) {
        return rk_config_refuse(source, err, "upstream.uri",
                                "must not set loadBalanced=true: rekeyd needs to see the servers "
                                "themselves; name them instead of their load balancer");
    }
    if (upstream->members_count + upstream->listeners_count > 0 && !upstream->tls.enabled &&
        uri_asks_for_tls(upstream->uri) && !rk_config_source_has(source, "upstream.tls.enabled")) {
        return rk_config_refuse(source, err, "upstream.tls.enabled",
                                "must be set, true or false, since upstream.uri asks for TLS");
    }
    enum rk_status status = rk_config_check_tls(&upstream->tls, "upstream.tls", false, source, err);
    return status == RK_OK ? check_topology(upstream, source, err) : status;
}

enum rk_status rk_config_check(const struct rk_config *config,
                               const struct rk_config_source *source, struct rk_error *err)
{
    enum rk_status status = rk_config_check_numbers(config, source, err);
    if (status == RK_OK) {
        status = check_relations(config, source, err);
    }
    if (status == RK_OK) {
        status = rk_config_check_window(&config->sweep, source, err);
    }
    if (status == RK_OK) {
        status = check_compression(&config->compression, source, err);
    }
    if (status == RK_OK) {
        status = check_upstream(&config->upstream, source, err);
    }
    if (status == RK_OK) {
        status = check_listener(&config->listener, source, err);
    }
    if (status == RK_OK) {
        status = rk_config_check_keys(&config->keys, source, err);
    }
    if (status == RK_OK) {
        status = rk_config_check_amqp(
            &config->amqp, config->sweep.transport == RK_CONFIG_TRANSPORT_AMQP, source, err);
    }
    if (status == RK_OK) {
        status = rk_config_check_tls(&config->listener_tls, "listener_tls", true, source, err);
    }
    return status == RK_OK ? rk_config_check_admin(&config->admin, source, err) : status;
}

enum rk_status rk_config_check_daemon(const struct rk_config *config, struct rk_error *err)
{
    unsigned n;
    (void)rk_config_listeners(config, &n);
    if (n > 0) {
        return RK_OK;
    }
    return config->upstream.topology == RK_CONFIG_SINGLE
               ? rk_error_set(err, RK_EINVAL,
                              "%s: upstream.listeners: rekeyd needs at least one listener",
                              config->path)
               : rk_error_set(
                     err, RK_EINVAL,
                     "%s: upstream.members: rekeyd needs at least one member to listen for",
                     config->path);
}
