/*
 * Writes metrics in Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting/
 * exposition_formats). A family is opened with its name, type and help, then has its samples.
 * Whoever owns figures has a function that writes them; they are read when somebody asks.
 *
 *     rk_metrics_family(m, "rekey_keys", RK_METRIC_GAUGE, "Data keys by state.");
 *     rk_metric(m, 3, RK_L("state", "retiring"));
 *
 * Names and help are constants of the program; label values are escaped. When memory runs out the
 * rest is left out and rk_metrics_ok is false.
 */
#ifndef REKEY_BASE_METRICS_H
#define REKEY_BASE_METRICS_H

#include <rekey/base/buf.h>
#include <rekey/base/counter.h>
#include <rekey/base/histogram.h>
#include <stdbool.h>

enum rk_metric_type { RK_METRIC_COUNTER, RK_METRIC_GAUGE, RK_METRIC_HISTOGRAM, RK_METRIC_SUMMARY };

struct rk_metrics {
    struct rk_buf *out; /* borrowed */
    const char *family;
    bool failed;
};

struct rk_metric_label {
    const char *name;
    const char *value;
};
#define RK_L(label, text) ((struct rk_metric_label){.name = (label), .value = (text)})

static inline bool rk_metrics_ok(const struct rk_metrics *m)
{
    return !m->failed;
}

void rk_metrics_family(struct rk_metrics *m, const char *name, enum rk_metric_type type,
                       const char *help);
/* suffix: "" or, in histograms and summaries, "_sum" and the like. */
void rk_metrics_sample(struct rk_metrics *m, const char *suffix, double value,
                       const struct rk_metric_label *labels, size_t n_labels);

#define rk_metric(m, value, ...)                                                                   \
    do {                                                                                           \
        const struct rk_metric_label rk_metric_labels_[] = {__VA_ARGS__};                          \
        rk_metrics_sample((m), "", (double)(value), rk_metric_labels_,                             \
                          sizeof rk_metric_labels_ / sizeof rk_metric_labels_[0]);                 \
    } while (0)

/* A family of one sample without labels. */
void rk_metrics_one(struct rk_metrics *m, const char *name, enum rk_metric_type type,
                    const char *help, double value);

/* The samples of a histogram (its family is open), in seconds. */
void rk_metrics_histogram(struct rk_metrics *m, const struct rk_histogram_snapshot *snapshot);
/* The samples of a tally, by label; what had no place has the value "other". */
void rk_metrics_tally(struct rk_metrics *m, const char *label, const struct rk_tally *tally);

/* Writes the figures of whatever arg is. */
typedef void rk_metrics_fn(void *arg, struct rk_metrics *m);

#endif
