#include "config_internal.h"

#include <rekey/config/sweep.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 160
#define PREFIX "sweep."
#define PREFIX_LEN 6u

#define OFFSET(member) offsetof(struct rk_config, sweep.member)

_Static_assert(sizeof(enum rk_config_scan) == sizeof(uint32_t) &&
                   sizeof(enum rk_config_sweep_mode) == sizeof(uint32_t),
               "settings of several words are copied as numbers");

enum kind { KIND_NUMBER, KIND_SWITCH, KIND_WINDOW, KIND_ZONE, KIND_WORD };

struct setting {
    const char *key; /* with PREFIX */
    size_t offset;   /* in struct rk_config */
    size_t size;
    enum kind kind;
};

static const struct setting others[] = {
    {PREFIX "window", OFFSET(window), sizeof(struct rk_config_span[RK_WINDOW_SPANS_MAX]),
     KIND_WINDOW},
    {PREFIX "time_zone", OFFSET(time_zone), RK_CONFIG_ZONE_SIZE, KIND_ZONE},
    {PREFIX "mode", OFFSET(mode), sizeof(uint32_t), KIND_WORD},
    {PREFIX "read_preference", OFFSET(read_preference), sizeof(uint32_t), KIND_WORD},
};
#define N_OTHERS (sizeof others / sizeof others[0])

/* Those that are meant for the fleet as a whole; the others say how an instance works. */
static const char *const fleet[] = {
    "mode",    "pause",      "max_rate",     "window",          "time_zone",
    "threads", "batch_docs", "transactions", "read_preference", "guard.p99_limit_ms",
};

static bool of_sweep(const char *key)
{
    return strncmp(key, PREFIX, PREFIX_LEN) == 0;
}

/* The setting at *i of all, or false with *i reduced by how many there are. */
static bool take(size_t *i, const char *key)
{
    return of_sweep(key) && (*i)-- == 0;
}

static bool at(size_t i, struct setting *out)
{
    if (i < N_OTHERS) {
        *out = others[i];
        return true;
    }
    i -= N_OTHERS;
    for (size_t j = 0; j < rk_config_switches_count; j++) {
        if (take(&i, rk_config_switches[j].key)) {
            *out = (struct setting){rk_config_switches[j].key, rk_config_switches[j].offset,
                                    sizeof(bool), KIND_SWITCH};
            return true;
        }
    }
    for (size_t j = 0; j < rk_config_numbers_count; j++) {
        if (take(&i, rk_config_numbers[j].key)) {
            *out = (struct setting){rk_config_numbers[j].key, rk_config_numbers[j].offset,
                                    sizeof(uint32_t), KIND_NUMBER};
            return true;
        }
    }
    return false;
}

static struct setting setting_at(size_t i)
{
    struct setting setting = {"", 0, 0, KIND_NUMBER};
    (void)at(i, &setting);
    return setting;
}

size_t rk_config_sweep_count(void)
{
    size_t n = N_OTHERS;
    for (size_t i = 0; i < rk_config_switches_count; i++) {
        n += of_sweep(rk_config_switches[i].key);
    }
    for (size_t i = 0; i < rk_config_numbers_count; i++) {
        n += of_sweep(rk_config_numbers[i].key);
    }
    return n;
}

const char *rk_config_sweep_key(size_t i)
{
    return setting_at(i).key + PREFIX_LEN;
}

bool rk_config_sweep_is_list(size_t i)
{
    return setting_at(i).kind == KIND_WINDOW;
}

bool rk_config_sweep_is_switch(size_t i)
{
    return setting_at(i).kind == KIND_SWITCH;
}

bool rk_config_sweep_for_fleet(size_t i)
{
    bool found = false;
    for (size_t j = 0; j < sizeof fleet / sizeof fleet[0] && !found; j++) {
        found = strcmp(fleet[j], rk_config_sweep_key(i)) == 0;
    }
    return found;
}

size_t rk_config_sweep_find(const char *key)
{
    size_t n = rk_config_sweep_count();
    for (size_t i = 0; i < n; i++) {
        const char *own = rk_config_sweep_key(i);
        const char *dot = strrchr(own, '.');
        if (strcmp(own, key) == 0 || (dot != NULL && strcmp(dot + 1, key) == 0)) {
            return i;
        }
    }
    return n;
}

/* Where a setting lies; offsets count from struct rk_config. */
static const char *place(const struct rk_config_sweep *sweep, const struct setting *setting)
{
    return (const char *)sweep + (setting->offset - offsetof(struct rk_config, sweep));
}

static void join_window(const struct rk_config_sweep *sweep, char out[RK_SWEEP_VALUE_SIZE])
{
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < sweep->window_count; i++) {
        used += (size_t)snprintf(out + used, RK_SWEEP_VALUE_SIZE - used, "%s%s", i > 0 ? ", " : "",
                                 sweep->window[i].text);
    }
}

const char *rk_config_sweep_value(const struct rk_config_sweep *sweep, size_t i,
                                  char out[RK_SWEEP_VALUE_SIZE])
{
    struct setting setting = setting_at(i);
    uint32_t number = 0;
    switch (setting.kind) {
    case KIND_NUMBER:
        memcpy(&number, place(sweep, &setting), sizeof number);
        (void)snprintf(out, RK_SWEEP_VALUE_SIZE, "%u", number);
        break;
    case KIND_SWITCH:
        (void)snprintf(out, RK_SWEEP_VALUE_SIZE, "%s",
                       *place(sweep, &setting) != 0 ? "true" : "false");
        break;
    case KIND_WINDOW:
        join_window(sweep, out);
        break;
    case KIND_ZONE:
        (void)snprintf(out, RK_SWEEP_VALUE_SIZE, "%s", sweep->time_zone);
        break;
    case KIND_WORD:
        memcpy(&number, place(sweep, &setting), sizeof number);
        (void)snprintf(out, RK_SWEEP_VALUE_SIZE, "%s",
                       rk_config_sweep_word(setting.key + PREFIX_LEN, number));
        break;
    }
    return out;
}

uint64_t rk_config_sweep_given(const struct rk_config_source *source)
{
    uint64_t given = 0;
    struct setting setting;
    for (size_t i = 0; at(i, &setting); i++) {
        given |= rk_config_source_has(source, setting.key) ? UINT64_C(1) << i : 0;
    }
    return given;
}

enum rk_status rk_config_check_window(const struct rk_config_sweep *sweep,
                                      const struct rk_config_source *source, struct rk_error *err)
{
    char key[KEY_MAX];
    struct rk_window_span span;
    for (unsigned i = 0; i < sweep->window_count; i++) {
        if (!rk_window_parse(sweep->window[i].text, &span)) {
            (void)snprintf(key, sizeof key, PREFIX "window[%u]", i);
            return rk_config_refuse(source, err, key,
                                    "must read like \"Mon-Fri 22:00-06:00\", \"Sat 00:00-24:00\" "
                                    "or \"22:00-06:00\", not \"%.40s\"",
                                    sweep->window[i].text);
        }
    }
    /* mongod is asked whether it knows it; this is about what no zone's name looks like. */
    size_t len = strspn(sweep->time_zone, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                          "0123456789+-_/:");
    if (len == 0 || sweep->time_zone[len] != '\0') {
        return rk_config_refuse(source, err, PREFIX "time_zone",
                                "must be the name of a time zone such as Europe/London, not "
                                "\"%.60s\"",
                                sweep->time_zone);
    }
    return RK_OK;
}

struct rk_window rk_config_sweep_window(const struct rk_config_sweep *sweep)
{
    struct rk_window window = {.n = 0};
    for (unsigned i = 0; i < sweep->window_count; i++) {
        window.n += rk_window_parse(sweep->window[i].text, &window.spans[window.n]);
    }
    return window;
}

void rk_config_sweep_take(struct rk_config_sweep *sweep, const struct rk_config_sweep *from,
                          uint64_t given)
{
    struct setting setting;
    for (size_t i = 0; at(i, &setting); i++) {
        if ((given & UINT64_C(1) << i) == 0) {
            continue;
        }
        size_t offset = setting.offset - offsetof(struct rk_config, sweep);
        memcpy((char *)sweep + offset, (const char *)from + offset, setting.size);
        if (setting.kind == KIND_WINDOW) {
            sweep->window_count = from->window_count;
        }
    }
}

static enum rk_status check_for_fleet(uint64_t given, struct rk_error *err)
{
    struct setting setting;
    for (size_t i = 0; at(i, &setting); i++) {
        if ((given & UINT64_C(1) << i) != 0 && !rk_config_sweep_for_fleet(i)) {
            return rk_error_set(err, RK_EINVAL,
                                "%s: is each instance's own; it cannot be set for the fleet",
                                setting.key);
        }
    }
    return RK_OK;
}

enum rk_status rk_config_sweep_lay(struct rk_config_sweep *sweep, const char *mapping,
                                   uint64_t *given, struct rk_error *err)
{
    struct rk_config_source source = {0};
    struct rk_config_file *file = NULL;
    char *text = NULL;
    enum rk_status status = RK_OK;
    if (asprintf(&text, "{\"upstream\": {\"uri\": \"mongodb://h/\"}, \"sweep\": %s}", mapping) <
        0) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    status = rk_config_file_read("", text, strlen(text), &source, &file, err);
    if (status != RK_OK) {
        goto done;
    }
    rk_config_set_defaults(&file->config, &source);
    *given = rk_config_sweep_given(&source);
    status = rk_config_check_numbers(&file->config, &source, err);
    if (status == RK_OK) {
        status = rk_config_check_window(&file->config.sweep, &source, err);
    }
    if (status == RK_OK) {
        status = check_for_fleet(*given, err);
    }
    if (status == RK_OK) {
        rk_config_sweep_take(sweep, &file->config.sweep, *given);
    }
done:
    rk_config_file_free(file);
    rk_config_source_deinit(&source);
    free(text);
    return status;
}
