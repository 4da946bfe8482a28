#include "command_internal.h"

#include <rekey/config/sweep.h>
#include <rekey/jobs/settings.h>
#include <rekey/keys/audit.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CODE_UNKNOWN_TIME_ZONE 40485
#define DAY_MINUTES 1440u
#define MINUTE_US 60000000u
#define DETAIL_SIZE 400u

struct rk_gate_config rk_sweep_gate_config(const struct rk_config_sweep *sweep)
{
    return (struct rk_gate_config){
        .pause = sweep->pause,
        .max_rate = sweep->max_rate,
        .p99_limit_ms = sweep->guard.p99_limit_ms,
        .interval_ms = sweep->guard.interval_ms,
        .samples_min = sweep->guard.samples_min,
        .rate_min = sweep->guard.rate_min,
    };
}

/* The fleet's document on top of now->sweep. */
static void lay_fleet(const struct rk_bson_view *doc, struct rk_sweep_now *now)
{
    struct rk_bson_elem elem;
    struct rk_bson_view values;
    struct rk_error refused = {.message = "values is no document"};
    bson_t bson;
    if (!rk_bson_find(doc, "values", &elem)) {
        return;
    }
    char *text = rk_bson_elem_view(&elem, &values) && elem.type == RK_BSON_DOCUMENT &&
                         bson_init_static(&bson, values.data, values.len)
                     ? bson_as_relaxed_extended_json(&bson, NULL)
                     : NULL;
    if (text == NULL || rk_config_sweep_lay(&now->sweep, text, &now->by_fleet, &refused) != RK_OK) {
        now->by_fleet = 0;
        now->hours.hold = RK_GATE_NO_SETTINGS;
        (void)snprintf(now->hours.why, sizeof now->hours.why,
                       "settings of the fleet that make no sense: %s", refused.message);
    }
    bson_free(text);
}

static enum rk_status read_fleet(mongoc_client_t *client, const char *state_db,
                                 struct rk_sweep_now *now, struct rk_error *err)
{
    static const char *const doc_path[] = {"cursor", "firstBatch", "0"};
    struct rk_bson_elem elem;
    struct rk_bson_view doc;
    bson_t reply;
    bson_t *command = BCON_NEW("find", BCON_UTF8("settings"), "filter", "{", "_id",
                               BCON_UTF8("sweep"), "}", "limit", BCON_INT32(1));
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK && rk_view_path(&view, doc_path, 3, &elem) &&
        rk_bson_elem_view(&elem, &doc)) {
        lay_fleet(&doc, now);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

struct local_time {
    uint32_t week_minute;
    uint32_t second;
};

/* RK_EINVAL: mongod does not know the zone. $facet yields a document of whatever there is. */
static enum rk_status read_clock(mongoc_client_t *client, const char *state_db, const char *zone,
                                 struct local_time *local, struct rk_error *err)
{
    static const char *const local_path[] = {"cursor", "firstBatch", "0", "local"};
    struct rk_bson_elem elem;
    struct rk_bson_view parts;
    struct rk_error cause = {0};
    bson_t reply;
    bson_t *command =
        BCON_NEW("aggregate", BCON_UTF8("settings"), "pipeline", "[", "{", "$facet", "{", "any",
                 "[", "{", "$limit", BCON_INT32(1), "}", "]", "}", "}", "{", "$project", "{",
                 "local", "{", "$dateToParts", "{", "date", BCON_UTF8("$$NOW"), "timezone", "{",
                 "$literal", BCON_UTF8(zone), "}", "iso8601", BCON_BOOL(true), "}", "}", "}", "}",
                 "]", "cursor", "{", "}");
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, &cause);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status != RK_OK && cause.code == CODE_UNKNOWN_TIME_ZONE) {
        status =
            rk_error_set(err, RK_EINVAL, "sweep.time_zone: mongod knows no time zone \"%s\"", zone);
    } else if (status != RK_OK) {
        status = rk_error_set(err, status, "cannot read the server's clock: %s", cause.message);
    } else if (!rk_view_path(&view, local_path, 4, &elem) || !rk_bson_elem_view(&elem, &parts)) {
        status = rk_error_set(err, RK_EIO, "mongod's reply to aggregate is malformed");
    } else {
        int64_t day = rk_view_int(&parts, "isoDayOfWeek") - 1;
        int64_t minute = rk_view_int(&parts, "hour") * 60 + rk_view_int(&parts, "minute");
        local->week_minute = (uint32_t)(day * DAY_MINUTES + minute) % RK_WEEK_MINUTES;
        local->second = (uint32_t)rk_view_int(&parts, "second");
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

static void look_at_window(struct rk_sweep_now *now, const struct local_time *local)
{
    char time[RK_WINDOW_TIME_SIZE];
    struct rk_window window = rk_config_sweep_window(&now->sweep);
    struct rk_window_look look = rk_window_look(&window, local->week_minute);
    now->week_minute = local->week_minute;
    if (!look.open) {
        now->hours.hold = RK_GATE_OUTSIDE_WINDOW;
        (void)snprintf(now->hours.why, sizeof now->hours.why, "outside the window until %s (%s)",
                       rk_window_time((uint64_t)local->week_minute + look.changes_in, time),
                       now->sweep.time_zone);
    } else if (look.changes_in != RK_WINDOW_NEVER) {
        uint64_t into_minute_us = (uint64_t)local->second * 1000000u;
        now->hours.open_us = (uint64_t)look.changes_in * MINUTE_US -
                             (into_minute_us < MINUTE_US ? into_minute_us : 0);
    }
}

enum rk_status rk_sweep_read(mongoc_client_t *client, const char *state_db,
                             const struct rk_config_sweep *file, struct rk_sweep_now *now,
                             struct rk_error *err)
{
    struct local_time local = {0, 0};
    struct rk_error cause = {0};
    *now = (struct rk_sweep_now){.sweep = *file, .hours = {.open_us = UINT64_MAX}};
    enum rk_status status = read_fleet(client, state_db, now, err);
    if (status != RK_OK || now->hours.hold != RK_GATE_OPEN || now->sweep.window_count == 0) {
        return status;
    }
    status = read_clock(client, state_db, now->sweep.time_zone, &local, &cause);
    if (status == RK_EINVAL) {
        now->hours.hold = RK_GATE_NO_SETTINGS;
        (void)snprintf(now->hours.why, sizeof now->hours.why, "%s", cause.message);
        return RK_OK;
    }
    if (status != RK_OK) {
        return rk_error_set(err, status, "%s", cause.message);
    }
    look_at_window(now, &local);
    return RK_OK;
}

/* ---- changes ------------------------------------------------------------------------------ */

static bool is_number(const char *text)
{
    size_t len = strspn(text, "0123456789");
    return len > 0 && len <= 10 && text[len] == '\0' && (text[0] != '0' || len == 1);
}

static void append_list(bson_t *doc, const char *key, const char *text)
{
    bson_t list;
    uint32_t n = 0;
    BSON_APPEND_ARRAY_BEGIN(doc, key, &list);
    while (*text != '\0') {
        char buf[16];
        const char *index;
        text += strspn(text, " ");
        size_t len = strcspn(text, ",");
        size_t index_len = bson_uint32_to_string(n++, &index, buf, sizeof buf);
        bson_append_utf8(&list, index, (int)index_len, text, (int)len);
        text += len;
        text += *text == ',';
    }
    bson_append_array_end(doc, &list);
}

/* A value from the command line as BSON; what it is not, the rules of the file will say. */
void rk_sweep_append_value(bson_t *doc, const char *key, size_t setting, const char *text)
{
    bool known = setting < rk_config_sweep_count();
    bool yes = strcmp(text, "true") == 0;
    if (known && rk_config_sweep_is_list(setting)) {
        append_list(doc, key, text);
    } else if (known && rk_config_sweep_is_switch(setting) && (yes || strcmp(text, "false") == 0)) {
        BSON_APPEND_BOOL(doc, key, yes);
    } else if (is_number(text)) {
        BSON_APPEND_INT64(doc, key, strtoll(text, NULL, 10));
    } else {
        BSON_APPEND_UTF8(doc, key, text);
    }
}

/* {max_rate: 5}, {guard: {p99_limit_ms: 20}} on top of *sweep, by the rules of a file. */
static enum rk_status try_value(struct rk_config_sweep *sweep, const char *key, size_t setting,
                                const char *text, struct rk_error *err)
{
    bson_t mapping = BSON_INITIALIZER;
    bson_t group;
    uint64_t given;
    enum rk_status status = RK_OK;
    const char *dot = strchr(key, '.');
    if (dot != NULL) {
        bson_append_document_begin(&mapping, key, (int)(dot - key), &group);
        rk_sweep_append_value(&group, dot + 1, setting, text);
        bson_append_document_end(&mapping, &group);
    } else {
        rk_sweep_append_value(&mapping, key, setting, text);
    }
    char *json = bson_as_relaxed_extended_json(&mapping, NULL);
    status = json == NULL ? rk_error_set(err, RK_EINVAL, "sweep.%s: is no text", key)
                          : rk_config_sweep_lay(sweep, json, &given, err);
    bson_free(json);
    bson_destroy(&mapping);
    return status;
}

/* Everything that is to change, once as an update and once as words. */
struct edit {
    bson_t *set;
    bson_t *unset;
    const struct rk_config_sweep *file;
    struct rk_config_sweep next;
    bool hours; /* window or zone are set: the zone has to be one */
    char detail[DETAIL_SIZE];
    size_t detail_len;
    const char *actor;
};

static void tell(struct edit *edit, const struct rk_sweep_now *now, size_t setting, bool clear)
{
    char before[RK_SWEEP_VALUE_SIZE] = "as in the file";
    char after[RK_SWEEP_VALUE_SIZE] = "as in the file";
    if ((now->by_fleet & UINT64_C(1) << setting) != 0) {
        (void)rk_config_sweep_value(&now->sweep, setting, before);
    }
    if (!clear) {
        (void)rk_config_sweep_value(&edit->next, setting, after);
    }
    int len =
        snprintf(edit->detail + edit->detail_len, sizeof edit->detail - edit->detail_len,
                 "%s%s: %s -> %s", edit->detail_len > 0 ? "; " : "", rk_config_sweep_key(setting),
                 before[0] != '\0' ? before : "always", after[0] != '\0' ? after : "always");
    edit->detail_len += len > 0 ? (size_t)len : 0;
    if (edit->detail_len >= sizeof edit->detail) {
        edit->detail_len = sizeof edit->detail - 1;
    }
}

static enum rk_status clear_all(struct edit *edit, const struct rk_sweep_now *now)
{
    for (size_t i = 0; i < rk_config_sweep_count(); i++) {
        if ((now->by_fleet & UINT64_C(1) << i) != 0) {
            tell(edit, now, i, true);
        }
    }
    BSON_APPEND_BOOL(edit->unset, "values", true);
    edit->next = *edit->file;
    return RK_OK;
}

static enum rk_status add_change(struct edit *edit, const struct rk_sweep_now *now,
                                 const struct rk_sweep_change *change, struct rk_error *err)
{
    char path[80];
    if (change->key == NULL) {
        return clear_all(edit, now);
    }
    size_t setting = rk_config_sweep_find(change->key);
    bool known = setting < rk_config_sweep_count();
    const char *key = known ? rk_config_sweep_key(setting) : change->key;
    enum rk_status status = RK_OK;
    if (change->value != NULL) {
        status = try_value(&edit->next, key, setting, change->value, err);
    } else if (!known) {
        status = rk_error_set(err, RK_EINVAL, "sweep.%s: there is no such setting", key);
    } else {
        rk_config_sweep_take(&edit->next, edit->file, UINT64_C(1) << setting);
    }
    if (status != RK_OK) {
        return status;
    }
    (void)snprintf(path, sizeof path, "values.%s", key);
    if (change->value != NULL) {
        rk_sweep_append_value(edit->set, path, setting, change->value);
        edit->hours = edit->hours || strcmp(key, "window") == 0 || strcmp(key, "time_zone") == 0;
    } else {
        BSON_APPEND_BOOL(edit->unset, path, true);
    }
    tell(edit, now, setting, change->value == NULL);
    return RK_OK;
}

static enum rk_status write_edit(mongoc_client_t *client, const char *state_db, void *arg,
                                 struct rk_error *err)
{
    const struct edit *edit = arg;
    bson_t reply;
    bson_t set = BSON_INITIALIZER;
    bson_concat(&set, edit->set);
    BSON_APPEND_UTF8(&set, "changedBy", edit->actor);
    bson_t *update = BCON_NEW("$set", BCON_DOCUMENT(&set), "$currentDate", "{", "changedAt",
                              BCON_BOOL(true), "}");
    if (!bson_empty(edit->unset)) {
        BSON_APPEND_DOCUMENT(update, "$unset", edit->unset);
    }
    bson_t *command =
        BCON_NEW("findAndModify", BCON_UTF8("settings"), "query", "{", "_id", BCON_UTF8("sweep"),
                 "}", "update", BCON_DOCUMENT(update), "upsert", BCON_BOOL(true));
    rk_mongo_majority_writes(command);
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    if (status == RK_OK) {
        (void)rk_error_set(err, RK_OK, "%s", edit->detail);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(update);
    bson_destroy(&set);
    return status;
}

enum rk_status rk_sweep_change(mongoc_client_t *client, const char *state_db,
                               const struct rk_config_sweep *file,
                               const struct rk_sweep_change *changes, size_t n, const char *actor,
                               struct rk_error *err)
{
    struct rk_sweep_now now;
    struct local_time local = {0, 0};
    struct edit edit = {.set = bson_new(), .unset = bson_new(), .file = file, .actor = actor};
    enum rk_status status = rk_sweep_read(client, state_db, file, &now, err);
    edit.next = now.sweep;
    for (size_t i = 0; i < n && status == RK_OK; i++) {
        status = add_change(&edit, &now, &changes[i], err);
    }
    if (status == RK_OK && edit.hours) {
        status = read_clock(client, state_db, edit.next.time_zone, &local, err);
    }
    if (status == RK_OK) {
        const struct rk_audit_event event = {
            .actor = actor, .action = "throttle.set", .target = "sweep", .detail = edit.detail};
        status = rk_audited(client, state_db, &event, write_edit, &edit, err);
    }
    bson_destroy(edit.set);
    bson_destroy(edit.unset);
    return status;
}
