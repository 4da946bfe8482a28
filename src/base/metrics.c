#include <rekey/base/metrics.h>

#include <math.h> /* macros only */
#include <stdio.h>
#include <string.h>

/* Up to here a double holds every integer. */
#define WHOLE_MAX 9007199254740992.0

/* Microseconds. A bucket of the histogram that crosses one of them is counted above it. */
static const uint64_t edges_us[] = {250,   500,    1000,   2500,   5000,    10000,   25000,
                                    50000, 100000, 250000, 500000, 1000000, 2500000, 10000000};

static void put(struct rk_metrics *m, const char *text, size_t len)
{
    m->failed = m->failed || rk_buf_append(m->out, text, len) != RK_OK;
}

static void put_text(struct rk_metrics *m, const char *text)
{
    put(m, text, strlen(text));
}

static void put_escaped(struct rk_metrics *m, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '\n':
            put_text(m, "\\n");
            break;
        case '"':
        case '\\':
            put_text(m, "\\");
            put(m, text, 1);
            break;
        default:
            put(m, text, 1);
            break;
        }
    }
}

static void put_number(struct rk_metrics *m, double value)
{
    char text[40];
    if (!isfinite(value)) {
        put_text(m, isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
        return;
    }
    bool whole = value > -WHOLE_MAX && value < WHOLE_MAX && value == (double)(int64_t)value;
    int n = snprintf(text, sizeof text, whole ? "%.0f" : "%.15g", value);
    put(m, text, (size_t)n);
}

void rk_metrics_family(struct rk_metrics *m, const char *name, enum rk_metric_type type,
                       const char *help)
{
    static const char *const types[] = {"counter", "gauge", "histogram", "summary"};
    m->family = name;
    put_text(m, "# HELP ");
    put_text(m, name);
    put_text(m, " ");
    put_text(m, help);
    put_text(m, "\n# TYPE ");
    put_text(m, name);
    put_text(m, " ");
    put_text(m, types[type]);
    put_text(m, "\n");
}

void rk_metrics_sample(struct rk_metrics *m, const char *suffix, double value,
                       const struct rk_metric_label *labels, size_t n_labels)
{
    put_text(m, m->family);
    put_text(m, suffix);
    for (size_t i = 0; i < n_labels; i++) {
        put_text(m, i == 0 ? "{" : ",");
        put_text(m, labels[i].name);
        put_text(m, "=\"");
        put_escaped(m, labels[i].value);
        put_text(m, i + 1 == n_labels ? "\"}" : "\"");
    }
    put_text(m, " ");
    put_number(m, value);
    put_text(m, "\n");
}

void rk_metrics_one(struct rk_metrics *m, const char *name, enum rk_metric_type type,
                    const char *help, double value)
{
    rk_metrics_family(m, name, type, help);
    rk_metrics_sample(m, "", value, NULL, 0);
}

void rk_metrics_histogram(struct rk_metrics *m, const struct rk_histogram_snapshot *snapshot)
{
    struct rk_metric_label label = {.name = "le"};
    char text[32];
    for (size_t i = 0; i < sizeof edges_us / sizeof edges_us[0]; i++) {
        (void)snprintf(text, sizeof text, "%.9g", (double)edges_us[i] / 1e6);
        label.value = text;
        uint64_t below = rk_histogram_below(snapshot, edges_us[i]);
        rk_metrics_sample(m, "_bucket", (double)below, &label, 1);
    }
    uint64_t total = rk_histogram_total(snapshot);
    label.value = "+Inf";
    rk_metrics_sample(m, "_bucket", (double)total, &label, 1);
    rk_metrics_sample(m, "_sum", (double)snapshot->sum_us / 1e6, NULL, 0);
    rk_metrics_sample(m, "_count", (double)total, NULL, 0);
}

void rk_metrics_tally(struct rk_metrics *m, const char *label, const struct rk_tally *tally)
{
    char text[16];
    int32_t key;
    uint64_t n;
    for (size_t i = 0; (key = rk_tally_at(tally, i, &n)) != RK_TALLY_OTHER; i++) {
        (void)snprintf(text, sizeof text, "%d", key);
        rk_metric(m, n, RK_L(label, text));
    }
    if (rk_counter_read(&tally->other) > 0) {
        rk_metric(m, rk_counter_read(&tally->other), RK_L(label, "other"));
    }
}
