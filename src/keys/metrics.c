/* Figures of the keys. Keys of single tenants are counted, not named: there may be many, and who
 * the tenants are is nobody's business. */
#include "loader_internal.h"

#include <rekey/base/clock.h>
#include <stdio.h>
#include <string.h>

void rk_key_figures_read(struct rk_key_figures *figures, bool ok)
{
    rk_counter_add(ok ? &figures->reads : &figures->read_failures, 1);
    rk_counter_set(&figures->failing, !ok);
}

void rk_key_figures_write(const struct rk_key_figures *figures, struct rk_metrics *m)
{
    rk_metrics_family(m, "rekey_keys", RK_METRIC_GAUGE, "Data keys of the registry by state.");
    for (enum rk_key_state state = RK_KEY_PENDING; state <= RK_KEY_DESTROYED; state++) {
        rk_metric(m, rk_counter_read(&figures->states[state]),
                  RK_L("state", rk_key_state_name(state)));
    }
    rk_metrics_family(m, "rekey_key_loads_total", RK_METRIC_COUNTER,
                      "Data keys that the provider was asked to unwrap, by result.");
    rk_metric(m, rk_counter_read(&figures->loads), RK_L("result", "ok"));
    rk_metric(m, rk_counter_read(&figures->load_failures), RK_L("result", "failed"));
    rk_metrics_family(m, "rekey_key_load_duration_seconds", RK_METRIC_SUMMARY,
                      "How long that took.");
    rk_metrics_sample(m, "_sum", (double)rk_counter_read(&figures->load_us) / 1e6, NULL, 0);
    rk_metrics_sample(
        m, "_count",
        (double)(rk_counter_read(&figures->loads) + rk_counter_read(&figures->load_failures)), NULL,
        0);
    rk_metrics_one(m, "rekey_retired_keys_needed_total", RK_METRIC_COUNTER,
                   "Retired data keys that were loaded again because a value under them was met.",
                   (double)rk_counter_read(&figures->retired_needed));
    rk_metrics_family(m, "rekey_key_registry_reads_total", RK_METRIC_COUNTER,
                      "Looks at the key registry in MongoDB, by result.");
    rk_metric(m, rk_counter_read(&figures->reads), RK_L("result", "ok"));
    rk_metric(m, rk_counter_read(&figures->read_failures), RK_L("result", "failed"));
    rk_metrics_one(m, "rekey_key_registry_up", RK_METRIC_GAUGE,
                   "1 when the last look at the key registry succeeded.",
                   rk_counter_read(&figures->reads) > 0 && rk_counter_read(&figures->failing) == 0);
}

static bool of_a_tenant(const struct rk_keyset_key *key)
{
    return strchr(key->name, ':') != NULL;
}

/* The known key after *id, which starts at 0; NULL: no more. */
static const struct rk_keyset_key *next_key(const struct rk_keyset *set, uint32_t *id)
{
    const struct rk_keyset_key *key = NULL;
    while (key == NULL && *id < rk_keyset_newest(set)) {
        key = rk_keyset_known(set, ++*id);
    }
    return key;
}

static void write_current(const struct rk_keyset *set, struct rk_metrics *m)
{
    const struct rk_keyset_key *key;
    double now_s = (double)rk_clock_wall_ms() / 1e3;
    rk_metrics_family(m, "rekey_current_key_id", RK_METRIC_GAUGE,
                      "Id of the key that values are written under, by the key's name; those of "
                      "single tenants are left out.");
    for (uint32_t id = 0; (key = next_key(set, &id)) != NULL;) {
        if (key->role == RK_KEY_WRITES && key->key != NULL && !of_a_tenant(key)) {
            rk_metric(m, key->id, RK_L("key", key->name));
        }
    }
    rk_metrics_family(m, "rekey_current_key_age_seconds", RK_METRIC_GAUGE,
                      "How long ago that key was made.");
    for (uint32_t id = 0; (key = next_key(set, &id)) != NULL;) {
        if (key->role == RK_KEY_WRITES && key->key != NULL && !of_a_tenant(key)) {
            rk_metric(m, now_s - (double)rk_data_key_activated_at_s(key->key),
                      RK_L("key", key->name));
        }
    }
}

static void write_encryptions(const struct rk_keyset *set, struct rk_metrics *m)
{
    const struct rk_keyset_key *key;
    char text[16];
    rk_metrics_family(
        m, "rekey_key_encryptions_total", RK_METRIC_COUNTER,
        "Values that this process has encrypted under a key, sweeps included; at most "
        "64 too many for each thread. Keys of single tenants are left out.");
    for (uint32_t id = 0; (key = next_key(set, &id)) != NULL;) {
        if (key->key != NULL && rk_data_key_remote(key->key) == NULL && !of_a_tenant(key)) {
            (void)snprintf(text, sizeof text, "%u", key->id);
            rk_metric(m, rk_data_key_claimed(key->key), RK_L("key", key->name), RK_L("id", text));
        }
    }
}

void rk_keyset_write(const struct rk_keyset *set, struct rk_metrics *m)
{
    const struct rk_keyset_key *key;
    unsigned loaded = 0;
    unsigned missing = 0;
    for (uint32_t id = 0; (key = next_key(set, &id)) != NULL;) {
        bool needed = key->role == RK_KEY_WRITES || key->role == RK_KEY_READS;
        loaded += key->key != NULL;
        missing += key->key == NULL && needed;
    }
    rk_metrics_one(m, "rekey_keys_loaded", RK_METRIC_GAUGE, "Data keys in memory.", loaded);
    rk_metrics_one(m, "rekey_keys_missing", RK_METRIC_GAUGE,
                   "Data keys that values may lie under and that could not be loaded; the log says "
                   "why (key_unwrap_failed).",
                   missing);
    write_current(set, m);
    write_encryptions(set, m);
}

const char *rk_keyset_unusable(const struct rk_keyset *set)
{
    const struct rk_keyset_key *key;
    bool current = false;
    for (uint32_t id = 0; (key = next_key(set, &id)) != NULL;) {
        current = current || key->role == RK_KEY_WRITES;
        if (key->role == RK_KEY_WRITES && key->key != NULL) {
            return NULL;
        }
    }
    return current ? "no current key could be loaded" : "there is no current key";
}
