#include <rekey/admission/gate.h>

#include <math.h> /* macros only */

void rk_gate_metrics(struct rk_gate *gate, struct rk_metrics *m)
{
    const struct rk_gate_state state = rk_gate_state(gate);
    bool stopped = state.limited && state.rate_docs_per_s == 0;
    rk_metrics_one(m, "rekey_sweep_rate_limit", RK_METRIC_GAUGE,
                   "Documents a second that the sweep may rewrite now; +Inf: no limit.",
                   state.paused    ? 0
                   : state.limited ? state.rate_docs_per_s
                                   : (double)INFINITY);
    rk_metrics_family(m, "rekey_sweep_throttled", RK_METRIC_GAUGE,
                      "1 for what keeps the sweep from going faster, else 0.");
    rk_metric(m, state.pause, RK_L("by", "pause"));
    rk_metric(m, state.hold == RK_GATE_OUTSIDE_WINDOW, RK_L("by", "window"));
    rk_metric(m, state.hold == RK_GATE_NO_SETTINGS, RK_L("by", "settings"));
    rk_metric(m, state.braked, RK_L("by", "provider"));
    rk_metric(m, state.held_back || stopped, RK_L("by", "guard"));
    rk_metric(m, state.max_rate != 0 && !state.held_back, RK_L("by", "max_rate"));
    rk_metrics_one(m, "rekey_guard_p99_seconds", RK_METRIC_GAUGE,
                   "Foreground latency at the 99th percentile when the guard last judged.",
                   (double)state.p99_us / 1e6);
    rk_metrics_one(m, "rekey_guard_p99_limit_seconds", RK_METRIC_GAUGE,
                   "sweep.guard.p99_limit_ms; 0: no guard.", (double)state.p99_limit_ms / 1e3);
    rk_metrics_one(m, "rekey_guard_samples", RK_METRIC_GAUGE,
                   "Commands in the window that the guard last judged.", (double)state.samples);
    rk_metrics_one(m, "rekey_guard_halvings_total", RK_METRIC_COUNTER,
                   "How often the guard has halved the sweep's rate.", (double)state.halvings);
}
