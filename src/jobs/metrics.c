#include "engine_internal.h"

static void write_documents(const struct rk_sweep_counts *counts, struct rk_metrics *m)
{
    rk_metrics_one(m, "rekey_sweep_documents_scanned_total", RK_METRIC_COUNTER,
                   "Documents that this instance's sweeps have looked at.",
                   (double)counts->scanned);
    rk_metrics_one(m, "rekey_sweep_documents_reencrypted_total", RK_METRIC_COUNTER,
                   "Documents that this instance's sweeps have rewritten.", (double)counts->swept);
    rk_metrics_family(m, "rekey_sweep_conflicts_total", RK_METRIC_COUNTER,
                      "Documents that an application changed or deleted while they were swept; its "
                      "write stands.");
    rk_metric(m, counts->changed_again, RK_L("kind", "changed"));
    rk_metric(m, counts->gone, RK_L("kind", "deleted"));
    rk_metrics_one(m, "rekey_sweep_dead_letters_total", RK_METRIC_COUNTER,
                   "Values that this instance's sweeps could not rewrite and put aside.",
                   (double)counts->dead_lettered);
    rk_metrics_one(m, "rekey_sweep_plaintext_total", RK_METRIC_COUNTER,
                   "Values that this instance's sweeps found not to be encrypted.",
                   (double)counts->plaintext);
}

void rk_engine_metrics(struct rk_engine *engine, struct rk_metrics *m)
{
    const struct rk_engine_state state = rk_engine_state(engine);
    rk_metrics_one(m, "rekey_sweep_jobs", RK_METRIC_GAUGE,
                   "Jobs that are planned or running and that this instance works on.",
                   (double)state.jobs);
    rk_metrics_one(m, "rekey_sweep_ranges", RK_METRIC_GAUGE, "Ranges that this instance holds now.",
                   (double)state.ranges);
    rk_metrics_one(m, "rekey_sweep_range_failures_total", RK_METRIC_COUNTER,
                   "Failed attempts at a range; each is logged as range_retry or range_failed.",
                   (double)state.range_failures);
    rk_metrics_one(
        m, "rekey_sweep_transactions_given_up_total", RK_METRIC_COUNTER,
        "Batches that were not written as a whole, mostly because an application changed "
        "one of their documents meanwhile; each document was written by itself then.",
        (double)state.transactions_given_up);
    rk_metrics_one(m, "rekey_sweep_jobs_paused_total", RK_METRIC_COUNTER,
                   "Jobs that this instance has paused because too many of their documents could "
                   "not be processed.",
                   (double)state.pauses);
    write_documents(&state.counts, m);
    rk_metrics_one(m, "rekey_sweep_hot_reencrypted_total", RK_METRIC_COUNTER,
                   "Documents that this instance has rewritten because they were read under an old "
                   "key; no job counts them.",
                   (double)state.hot_counts.swept);
    if (engine->hot != NULL) {
        rk_hot_metrics(engine->hot, m);
    }
}
