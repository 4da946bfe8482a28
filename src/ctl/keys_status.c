/* rekeyctl keys status: where every key stands, what comes next, and what hinders it. */
#include "keys_internal.h"

#include "jobs_internal.h"

#include <rekey/keys/instances.h>
#include <rekey/keys/mongo.h>

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define WHERE_LEN 300
#define HINDRANCE_LEN 480
#define NAMES_LEN 1024

/* What is known besides the registry. */
struct view {
    struct rk_ctl_keys keys;
    struct rk_proof proof;
    bool counted; /* proof is one */
    int64_t now_ms;
    int64_t settle_ms;
};

/* One key. */
struct entry {
    const struct rk_key_record *key;
    size_t loaded; /* by so many living instances */
    size_t written;
    char instances[NAMES_LEN]; /* that have it loaded */
    int64_t values;
    char where[WHERE_LEN];
    const char *next;
    char hindrance[HINDRANCE_LEN]; /* empty: nothing */
};

static bool contains(const uint32_t *ids, size_t n, uint32_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

static void on_instance(void *arg, const struct rk_heartbeat *heartbeat)
{
    struct entry *entry = arg;
    size_t used = strlen(entry->instances);
    entry->written += contains(heartbeat->written_ids, heartbeat->n_written, entry->key->id);
    if (contains(heartbeat->key_ids, heartbeat->n_keys, entry->key->id)) {
        entry->loaded++;
        (void)snprintf(entry->instances + used, sizeof entry->instances - used, "%s%s",
                       used > 0 ? " " : "", heartbeat->instance);
    }
}

static enum rk_status judge_pending(struct view *v, struct entry *entry, struct rk_error *err)
{
    size_t n = 0;
    char what[160];
    enum rk_status status =
        rk_instances_without(v->keys.registry, entry->key->id, &n, what, sizeof what, err);
    if (status == RK_OK && n > 0) {
        (void)snprintf(entry->hindrance, sizeof entry->hindrance,
                       "%zu instances are not ready for it, such as %s", n, what);
    }
    return status;
}

static void judge_count(const struct view *v, struct entry *entry, int64_t earliest_ms)
{
    char when[RK_CTL_TIME_LEN];
    if (v->counted && v->proof.started_at_ms >= earliest_ms && entry->values == 0) {
        return;
    }
    if (v->counted && entry->values > 0) {
        (void)snprintf(entry->hindrance, sizeof entry->hindrance, "%lld values needed it at %s: %s",
                       (long long)entry->values, rk_ctl_time(v->proof.started_at_ms, when),
                       entry->where);
    } else if (v->now_ms < earliest_ms) {
        (void)snprintf(entry->hindrance, sizeof entry->hindrance,
                       "a write under it may be on its way for another %lld s",
                       (long long)((earliest_ms - v->now_ms + 999) / 1000));
    }
}

static enum rk_status judge_retiring(struct view *v, struct entry *entry, struct rk_error *err)
{
    size_t n = 0;
    char name[160];
    enum rk_status status = RK_OK;
    if (entry->key->quiet_at_ms != 0) {
        judge_count(v, entry, entry->key->quiet_at_ms + v->settle_ms);
        return RK_OK;
    }
    if (entry->written == 0) {
        status = rk_instances_writing(v->keys.registry, entry->key->id, false, &n, name,
                                      sizeof name, err);
    }
    if (entry->written > 0) {
        (void)snprintf(entry->hindrance, sizeof entry->hindrance,
                       "%zu instances still write under it", entry->written);
    } else if (status == RK_OK && n > 0) {
        (void)snprintf(entry->hindrance, sizeof entry->hindrance,
                       "%zu instances fell silent that wrote under it, such as %s", n, name);
    } else {
        judge_count(v, entry, 0);
    }
    return status;
}

static enum rk_status judge(struct view *v, struct entry *entry, struct rk_error *err)
{
    static const char *const next[] = {
        [RK_KEY_PENDING] = "become current",
        [RK_KEY_CURRENT] = "rotate",
        [RK_KEY_RETIRING] = "retire",
        [RK_KEY_RETIRED] = "destroy",
        [RK_KEY_DESTROYED] = "",
    };
    enum rk_key_state state = entry->key->state;
    enum rk_status status = rk_instances_living(v->keys.registry, on_instance, entry, err);
    entry->next = next[state];
    if (v->counted) {
        entry->values =
            rk_proof_values(&v->proof, entry->key->id, entry->where, sizeof entry->where);
    }
    if (status == RK_OK && state == RK_KEY_PENDING) {
        status = judge_pending(v, entry, err);
    } else if (status == RK_OK && state == RK_KEY_RETIRING) {
        status = judge_retiring(v, entry, err);
    } else if (status == RK_OK && state == RK_KEY_RETIRED) {
        judge_count(v, entry, 0);
    }
    return status;
}

static const char *age(int64_t since_ms, int64_t now_ms, char out[RK_CTL_TIME_LEN])
{
    int64_t s = since_ms == 0 || now_ms < since_ms ? 0 : (now_ms - since_ms) / 1000;
    if (s >= 86400) {
        (void)snprintf(out, RK_CTL_TIME_LEN, "%lld d", (long long)(s / 86400));
    } else {
        (void)snprintf(out, RK_CTL_TIME_LEN, "%lld:%02lld h", (long long)(s / 3600),
                       (long long)(s / 60 % 60));
    }
    return out;
}

static void append_time(bson_t *doc, const char *field, int64_t at_ms)
{
    char when[RK_CTL_TIME_LEN];
    if (at_ms != 0) {
        bson_append_utf8(doc, field, -1, rk_ctl_time(at_ms, when), -1);
    }
}

static void append_entry(bson_t *array, size_t i, const struct view *v, const struct entry *entry)
{
    char text[16];
    const char *index;
    bson_t doc;
    const struct rk_key_record *key = entry->key;
    size_t len = bson_uint32_to_string((uint32_t)i, &index, text, sizeof text);
    bson_append_document_begin(array, index, (int)len, &doc);
    BSON_APPEND_INT64(&doc, "id", (int64_t)key->id);
    BSON_APPEND_UTF8(&doc, "name", key->name);
    BSON_APPEND_UTF8(&doc, "state", rk_key_state_name(key->state));
    BSON_APPEND_UTF8(&doc, "mode", key->wrapped.remote ? "transit" : "envelope");
    BSON_APPEND_UTF8(&doc, "kek", key->wrapped.kek);
    if (key->encryptions != 0) {
        BSON_APPEND_INT64(&doc, "encryptions", (int64_t)key->encryptions);
    }
    append_time(&doc, "createdAt", key->created_at_ms);
    append_time(&doc, "activatedAt", key->activated_at_ms);
    append_time(&doc, "quietAt", key->quiet_at_ms);
    append_time(&doc, "retiredAt", key->retired_at_ms);
    append_time(&doc, "destroyedAt", key->destroyed_at_ms);
    BSON_APPEND_UTF8(&doc, "instances", entry->instances);
    BSON_APPEND_INT64(&doc, "loadedBy", (int64_t)entry->loaded);
    BSON_APPEND_INT64(&doc, "writtenBy", (int64_t)entry->written);
    if (v->counted) {
        BSON_APPEND_INT64(&doc, "values", entry->values);
        append_time(&doc, "countedAt", v->proof.started_at_ms);
    }
    BSON_APPEND_UTF8(&doc, "next", entry->next);
    BSON_APPEND_UTF8(&doc, "hindrance", entry->hindrance);
    bson_append_document_end(array, &doc);
}

static enum rk_ctl_exit print_json(const struct view *v, const struct entry *entries, size_t n)
{
    bson_t doc = BSON_INITIALIZER;
    bson_t array;
    BSON_APPEND_ARRAY_BEGIN(&doc, "keys", &array);
    for (size_t i = 0; i < n; i++) {
        append_entry(&array, i, v, &entries[i]);
    }
    bson_append_array_end(&doc, &array);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_status add_row(struct rk_ctl_table *table, const struct view *v,
                              const struct entry *entry)
{
    char id[16];
    char old[RK_CTL_TIME_LEN];
    char loaded[RK_CTL_NUMBER_LEN];
    char written[RK_CTL_NUMBER_LEN];
    char values[RK_CTL_NUMBER_LEN];
    (void)snprintf(id, sizeof id, "%u", entry->key->id);
    const char *const cells[] = {
        id,
        entry->key->name,
        rk_key_state_name(entry->key->state),
        age(entry->key->created_at_ms, v->now_ms, old),
        entry->key->wrapped.kek,
        rk_ctl_number((int64_t)entry->loaded, loaded),
        rk_ctl_number((int64_t)entry->written, written),
        v->counted ? rk_ctl_number(entry->values, values) : "-",
        entry->next,
        entry->hindrance,
    };
    return rk_ctl_table_row(table, cells);
}

static enum rk_ctl_exit print_table(const struct view *v, const struct entry *entries, size_t n)
{
    static const char *const headers[] = {"ID",     "NAME",       "STATE",  "AGE",  "KEK",
                                          "LOADED", "WRITTEN BY", "VALUES", "NEXT", "HINDERED BY"};
    struct rk_ctl_table *table = NULL;
    struct rk_error err;
    char when[RK_CTL_TIME_LEN];
    enum rk_status status = rk_ctl_table_new(headers, sizeof headers / sizeof headers[0], &table);
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        status = add_row(table, v, &entries[i]);
    }
    if (status != RK_OK) {
        (void)rk_error_set(&err, status, "cannot print the keys: %s", rk_status_name(status));
        rk_ctl_table_free(table);
        return rk_ctl_fail(&err);
    }
    rk_ctl_table_print(table);
    rk_ctl_table_free(table);
    if (v->counted) {
        (void)printf("values as of %s\n", rk_ctl_time(v->proof.started_at_ms, when));
    }
    return RK_CTL_OK;
}

static enum rk_status look(struct rk_ctl *ctl, struct view *v, bool count, struct rk_error *err)
{
    enum rk_status status = rk_ctl_keys_open(ctl, &v->keys, err);
    if (status == RK_OK) {
        v->settle_ms = rk_ctl_settle_ms(&v->keys);
        status = rk_mongo_now(v->keys.client, &v->now_ms, err);
    }
    if (status == RK_OK) {
        const struct rk_ctl_count now = {.not_before_ms = v->now_ms};
        status = count ? rk_ctl_count(&v->keys, &now, &v->proof, err)
                       : rk_proof_last(v->keys.client, v->keys.state_db, &v->proof, err);
        v->counted = status == RK_OK;
        status = status == RK_ENOENT ? RK_OK : status;
    }
    return status;
}

static enum rk_ctl_exit show(struct rk_ctl *ctl, const char *which, bool count)
{
    struct rk_error err;
    struct view v = {.counted = false};
    struct entry *entries = NULL;
    size_t n = 0;
    enum rk_status status = look(ctl, &v, count, &err);
    if (status == RK_OK) {
        entries = calloc(v.keys.n + 1, sizeof *entries);
        status = entries == NULL ? rk_error_set(&err, RK_ENOMEM, "out of memory") : RK_OK;
    }
    for (size_t i = 0; i < v.keys.n && status == RK_OK; i++) {
        if (which == NULL || rk_ctl_key_is(&v.keys.records[i], which)) {
            entries[n].key = &v.keys.records[i];
            status = judge(&v, &entries[n++], &err);
        }
    }
    if (status == RK_OK && n == 0 && which != NULL) {
        status = rk_error_set(&err, RK_ENOENT, "there is no key %s", which);
    }
    enum rk_ctl_exit code = status != RK_OK ? rk_ctl_fail(&err)
                            : ctl->json     ? print_json(&v, entries, n)
                                            : print_table(&v, entries, n);
    free(entries);
    rk_proof_deinit(&v.proof);
    rk_ctl_keys_close(&v.keys);
    return code;
}

enum rk_ctl_exit rk_ctl_run_keys_status(struct rk_ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"count", no_argument, NULL, 'c'}, {NULL, 0, NULL, 0}};
    bool count = false;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 'c') {
            return RK_CTL_USAGE;
        }
        count = true;
    }
    if (argc - optind > 1) {
        return rk_ctl_usage("keys status takes one id or name at most");
    }
    return show(ctl, optind < argc ? argv[optind] : NULL, count);
}
