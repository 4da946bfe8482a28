/* What the workers have counted, summed up. */
#include "server_internal.h"

#include <string.h>

/* The names of log lines that end sessions; the last one stands for all others. */
static const char *const ends[RK_SESSION_ENDS] = {
    "client_failed",           "session_idle",
    "session_malformed",       "session_out_of_memory",
    "session_read_failed",     "session_refused",
    "session_send_failed",     "session_timeout",
    "upstream_failed",         "upstream_unreachable",
    "session_key_unavailable", "other",
};

void rk_count_end(struct rk_session_counters *counters, const char *event)
{
    size_t i = 0;
    while (i < RK_SESSION_ENDS - 1 && strcmp(ends[i], event) != 0) {
        i++;
    }
    rk_counter_add(&counters->ended[i], 1);
}

static double sum(const struct rk_server *server, size_t offset)
{
    uint64_t total = 0;
    for (size_t i = 0; i < server->n_workers; i++) {
        const char *counters = (const char *)&server->contexts[i].counters;
        total += rk_counter_read((const rk_counter *)(const void *)(counters + offset));
    }
    return (double)total;
}
#define SUM(member) sum(server, offsetof(struct rk_session_counters, member))

static void write_tally(const struct rk_server *server, struct rk_metrics *m, const char *name,
                        const char *help, size_t offset)
{
    struct rk_tally all = {0};
    for (size_t i = 0; i < server->n_workers; i++) {
        const char *counters = (const char *)&server->contexts[i].counters;
        rk_tally_merge(&all, (const struct rk_tally *)(const void *)(counters + offset));
    }
    rk_metrics_family(m, name, RK_METRIC_COUNTER, help);
    rk_metrics_tally(m, "code", &all);
}

static void write_sessions(const struct rk_server *server, struct rk_metrics *m)
{
    rk_metrics_one(m, "rekey_sessions", RK_METRIC_GAUGE, "Client connections that are open.",
                   (double)rk_server_sessions(server));
    rk_metrics_one(m, "rekey_sessions_accepted_total", RK_METRIC_COUNTER,
                   "Client connections that were accepted.", SUM(accepted));
    rk_metrics_one(m, "rekey_sessions_turned_away_total", RK_METRIC_COUNTER,
                   "Client connections beyond limits.connections_max.", SUM(turned_away));
    rk_metrics_family(m, "rekey_sessions_ended_total", RK_METRIC_COUNTER,
                      "Sessions that ended out of order, by the event of their log line.");
    for (size_t i = 0; i < RK_SESSION_ENDS; i++) {
        size_t offset = offsetof(struct rk_session_counters, ended) + i * sizeof(rk_counter);
        rk_metric(m, sum(server, offset), RK_L("event", ends[i]));
    }
}

static void write_messages(const struct rk_server *server, struct rk_metrics *m)
{
    rk_metrics_family(m, "rekey_messages_total", RK_METRIC_COUNTER,
                      "Messages that were dealt with, by the side that sent them.");
    rk_metric(m, SUM(client_messages), RK_L("from", "client"));
    rk_metric(m, SUM(upstream_messages), RK_L("from", "upstream"));
    rk_metrics_family(m, "rekey_message_bytes_total", RK_METRIC_COUNTER,
                      "Bytes of these messages as they came, TLS not counted.");
    rk_metric(m, SUM(client_bytes), RK_L("from", "client"));
    rk_metric(m, SUM(upstream_bytes), RK_L("from", "upstream"));
    rk_metrics_family(m, "rekey_commands_total", RK_METRIC_COUNTER,
                      "Commands that went upstream, as they came or rewritten.");
    rk_metric(m, SUM(forwarded), RK_L("as", "forwarded"));
    rk_metric(m, SUM(rewritten), RK_L("as", "rewritten"));
    write_tally(server, m, "rekey_commands_refused_total",
                "Commands that were answered with an error instead of going upstream, by its code.",
                offsetof(struct rk_session_counters, refused));
    write_tally(server, m, "rekey_replies_refused_total",
                "Replies of MongoDB that became an error, by its code.",
                offsetof(struct rk_session_counters, replies_refused));
}

static void write_values(const struct rk_server *server, struct rk_metrics *m)
{
    rk_metrics_one(m, "rekey_values_encrypted_total", RK_METRIC_COUNTER,
                   "Values that sessions encrypted, those of queries included.",
                   SUM(values_encrypted));
    rk_metrics_one(m, "rekey_values_decrypted_total", RK_METRIC_COUNTER,
                   "Values that sessions decrypted.", SUM(values_decrypted));
    rk_metrics_one(m, "rekey_values_old_key_total", RK_METRIC_COUNTER,
                   "Of these, the ones that were not under the current key.", SUM(values_old_key));
    rk_metrics_one(m, "rekey_key_waits_total", RK_METRIC_COUNTER,
                   "Messages that had to wait for a key.", SUM(key_waits));
    rk_metrics_one(m, "rekey_key_wait_failures_total", RK_METRIC_COUNTER,
                   "Of these, the ones that were refused for want of the key.",
                   SUM(key_wait_failures));
}

void rk_server_metrics(const struct rk_server *server, struct rk_metrics *m)
{
    struct rk_histogram_snapshot foreground = {0};
    write_sessions(server, m);
    write_messages(server, m);
    write_values(server, m);
    rk_server_foreground(server, &foreground);
    rk_metrics_family(m, "rekey_upstream_latency_seconds", RK_METRIC_HISTOGRAM,
                      "Round trips of reads and writes to MongoDB, from the request's going to the "
                      "first byte of its reply.");
    rk_metrics_histogram(m, &foreground);
}
