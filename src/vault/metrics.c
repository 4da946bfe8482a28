#include "client_internal.h"

#include <math.h> /* macros only */
#include <rekey/base/clock.h>

void rk_vault_count_request(struct rk_vault_counters *counters, enum rk_status status)
{
    enum rk_vault_outcome outcome = status == RK_OK         ? RK_VAULT_OK
                                    : status == RK_EREFUSED ? RK_VAULT_REFUSED
                                    : status == RK_ETIMEOUT ? RK_VAULT_TIMEOUT
                                                            : RK_VAULT_ERROR;
    rk_counter_add(&counters->requests[outcome], 1);
}

void rk_vault_count_attempt(struct rk_vault_counters *counters, const struct rk_http_answer *answer,
                            uint64_t took_us)
{
    if (answer->failure == RK_HTTP_ANSWERED) {
        rk_tally_add(&counters->answers, (int32_t)answer->status);
    } else {
        rk_counter_add(&counters->failures[answer->failure], 1);
    }
    rk_histogram_record(&counters->attempts, took_us);
}

static void write_state(const struct rk_vault_client *client, struct rk_metrics *m)
{
    enum rk_vault_state state = rk_vault_state(client);
    bool sealed = rk_counter_read(&client->counters.sealed) != 0;
    rk_metrics_family(m, "rekey_vault_state", RK_METRIC_GAUGE,
                      "1 for the state that the last look at Vault found, else 0.");
    rk_metric(m, state == RK_VAULT_UNKNOWN, RK_L("state", "unknown"));
    rk_metric(m, state == RK_VAULT_AVAILABLE, RK_L("state", "available"));
    rk_metric(m, state == RK_VAULT_UNAVAILABLE && sealed, RK_L("state", "sealed"));
    rk_metric(m, state == RK_VAULT_UNAVAILABLE && !sealed, RK_L("state", "unreachable"));
}

static void write_requests(const struct rk_vault_counters *counters, struct rk_metrics *m)
{
    static const char *const outcomes[] = {"ok", "refused", "timeout", "failed"};
    static const char *const failures[] = {NULL, "unreachable", "timeout", "untrusted",
                                           "too_large"};
    struct rk_histogram_snapshot attempts = {0};
    rk_metrics_family(m, "rekey_vault_requests_total", RK_METRIC_COUNTER,
                      "Requests to Vault with all their attempts, by outcome.");
    for (size_t i = 0; i <= RK_VAULT_ERROR; i++) {
        rk_metric(m, rk_counter_read(&counters->requests[i]), RK_L("outcome", outcomes[i]));
    }
    rk_metrics_family(
        m, "rekey_vault_attempts_total", RK_METRIC_COUNTER,
        "Attempts at requests, by HTTP status or by what failed before there was one.");
    rk_metrics_tally(m, "result", &counters->answers);
    for (size_t i = RK_HTTP_UNREACHABLE; i <= RK_HTTP_TOO_LARGE; i++) {
        rk_metric(m, rk_counter_read(&counters->failures[i]), RK_L("result", failures[i]));
    }
    rk_histogram_add_to(&counters->attempts, &attempts);
    rk_metrics_family(m, "rekey_vault_attempt_duration_seconds", RK_METRIC_HISTOGRAM,
                      "How long attempts took, failed ones included.");
    rk_metrics_histogram(m, &attempts);
    rk_metrics_one(m, "rekey_vault_address_changes_total", RK_METRIC_COUNTER,
                   "How often a server failed and the next one was asked.",
                   (double)rk_counter_read(&counters->address_changes));
}

static void write_batches(const struct rk_vault_counters *counters, struct rk_metrics *m)
{
    rk_metrics_family(m, "rekey_vault_batches_total", RK_METRIC_COUNTER,
                      "Requests with values for Vault itself to encrypt or decrypt.");
    rk_metric(m, rk_counter_read(&counters->batches[RK_REMOTE_SEAL]), RK_L("op", "encrypt"));
    rk_metric(m,
              rk_counter_read(&counters->batches[RK_REMOTE_OPEN]) +
                  rk_counter_read(&counters->batches[RK_REMOTE_OPEN_TEXT]),
              RK_L("op", "decrypt"));
    rk_metrics_family(m, "rekey_vault_batch_values_total", RK_METRIC_COUNTER,
                      "Values in these, by result.");
    rk_metric(m, rk_counter_read(&counters->values), RK_L("result", "ok"));
    rk_metric(m, rk_counter_read(&counters->value_failures), RK_L("result", "failed"));
}

static double lease_left_s(const struct rk_vault_counters *counters)
{
    uint64_t ends_us = rk_counter_read(&counters->lease_ends_us);
    uint64_t now_us = rk_clock_mono_us();
    if (ends_us == UINT64_MAX) {
        return (double)INFINITY;
    }
    return ends_us > now_us ? (double)(ends_us - now_us) / 1e6 : 0;
}

static void write_token(const struct rk_vault_counters *counters, struct rk_metrics *m)
{
    rk_metrics_one(
        m, "rekey_vault_token_lease_seconds", RK_METRIC_GAUGE,
        "What is left of the token's lease; 0: there is no token; +Inf: it does not end.",
        lease_left_s(counters));
    rk_metrics_family(m, "rekey_vault_logins_total", RK_METRIC_COUNTER, "Logins by result.");
    rk_metric(m, rk_counter_read(&counters->logins), RK_L("result", "ok"));
    rk_metric(m, rk_counter_read(&counters->login_failures), RK_L("result", "failed"));
    rk_metrics_family(m, "rekey_vault_renewals_total", RK_METRIC_COUNTER,
                      "Renewals of the token by result.");
    rk_metric(m, rk_counter_read(&counters->renewals), RK_L("result", "ok"));
    rk_metric(m, rk_counter_read(&counters->renewal_failures), RK_L("result", "failed"));
    rk_metrics_one(m, "rekey_vault_tokens_refused_total", RK_METRIC_COUNTER,
                   "Tokens that Vault refused before their time.",
                   (double)rk_counter_read(&counters->tokens_refused));
}

void rk_vault_metrics(const struct rk_vault_client *client, struct rk_metrics *m)
{
    write_state(client, m);
    write_requests(&client->counters, m);
    write_batches(&client->counters, m);
    write_token(&client->counters, m);
}
