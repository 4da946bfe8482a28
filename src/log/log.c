/*
 * One JSON object per line, built on the caller's stack and written with one write(2) to a
 * descriptor opened O_APPEND, so that lines of several threads never mix.
 *
 * Any thread may log. Reopening replaces what the descriptor refers to and keeps its number
 * (dup3), so writers need no lock.
 */
#include "limit_internal.h"

#include <rekey/base/clock.h>
#include <rekey/log/log.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 16384u
#define STRING_MAX_BYTES 1024u
#define TAIL ",\"truncated\":true}\n"

static struct {
    _Atomic int level;
    _Atomic int fd;
    char *path;                         /* NULL: standard error */
    rk_counter lines[RK_LOG_ERROR + 1]; /* written, by level */
} sink = {.level = RK_LOG_INFO, .fd = STDERR_FILENO};

struct line {
    size_t len;
    bool full; /* something did not fit */
    char text[LINE_MAX_BYTES];
};

static void put(struct line *line, const char *text, size_t len)
{
    /* Room for the tail is always kept, so that a line cut short still is valid JSON. */
    if (line->full || len > sizeof line->text - sizeof TAIL - line->len) {
        line->full = true;
        return;
    }
    memcpy(line->text + line->len, text, len);
    line->len += len;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* Length of the well-formed UTF-8 sequence at p (Unicode 15, table 3-7), 0 when there is none. */
static size_t utf8_len(const uint8_t *p, size_t avail)
{
    uint8_t lead = p[0];
    uint8_t low = 0x80;
    uint8_t high = 0xBF;
    size_t n;
    if (lead < 0x80) {
        return 1;
    }
    if (lead >= 0xC2 && lead <= 0xDF) {
        n = 2;
    } else if ((lead & 0xF0) == 0xE0) {
        n = 3;
        low = lead == 0xE0 ? 0xA0 : low;
        high = lead == 0xED ? 0x9F : high;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        n = 4;
        low = lead == 0xF0 ? 0x90 : low;
        high = lead == 0xF4 ? 0x8F : high;
    } else {
        return 0;
    }
    if (avail < n || p[1] < low || p[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return n;
}

static void put_control(struct line *line, uint8_t c)
{
    char escape[8];
    switch (c) {
    case '\n':
        put_text(line, "\\n");
        break;
    case '\r':
        put_text(line, "\\r");
        break;
    case '\t':
        put_text(line, "\\t");
        break;
    default:
        put(line, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", c));
        break;
    }
}

/* A JSON string of at most STRING_MAX_BYTES bytes of text; bytes that are no UTF-8 become U+FFFD.
 */
static void put_string(struct line *line, const char *text)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t avail = strnlen(text, STRING_MAX_BYTES + 4);
    size_t off = 0;
    put_text(line, "\"");
    while (off < avail) {
        size_t n = utf8_len(p + off, avail - off);
        size_t step = n == 0 ? 1 : n;
        if (off + step > STRING_MAX_BYTES) {
            break;
        }
        if (n == 0) {
            put_text(line, "\\ufffd");
        } else if (p[off] == '"' || p[off] == '\\') {
            put_text(line, p[off] == '"' ? "\\\"" : "\\\\");
        } else if (p[off] < 0x20 || p[off] == 0x7F) {
            put_control(line, p[off]);
        } else {
            put(line, text + off, n);
        }
        off += step;
    }
    put_text(line, "\"");
}

static void put_value(struct line *line, const struct rk_log_field *field)
{
    char number[40];
    switch (field->kind) {
    case RK_LOG_STR:
        if (field->str == NULL) {
            put_text(line, "null");
        } else {
            put_string(line, field->str);
        }
        break;
    case RK_LOG_INT:
        put(line, number, (size_t)snprintf(number, sizeof number, "%lld", (long long)field->i));
        break;
    case RK_LOG_DOUBLE:
        if (isfinite(field->d)) {
            put(line, number, (size_t)snprintf(number, sizeof number, "%.12g", field->d));
        } else {
            put_text(line, "null");
        }
        break;
    case RK_LOG_BOOL:
        put_text(line, field->i != 0 ? "true" : "false");
        break;
    }
}

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static void put_head(struct line *line, enum rk_log_level level, const char *event)
{
    int64_t now_ms = rk_clock_wall_ms();
    time_t now_s = (time_t)(now_ms / 1000);
    struct tm utc;
    char stamp[32];
    char millis[8];
    (void)gmtime_r(&now_s, &utc);
    size_t n = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    put_text(line, "{\"ts\":\"");
    put(line, stamp, n);
    put(line, millis, (size_t)snprintf(millis, sizeof millis, ".%03dZ", (int)(now_ms % 1000)));
    put_text(line, "\",\"level\":\"");
    put_text(line, level_names[level]);
    put_text(line, "\",\"event\":");
    put_string(line, event);
}

/* Writes the whole line. A log that cannot be written has nowhere to complain. */
static void write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return;
        }
        text += n;
        len -= (size_t)n;
    }
}

bool rk_log_enabled(enum rk_log_level level)
{
    return (int)level >= atomic_load_explicit(&sink.level, memory_order_relaxed);
}

static void write_line(enum rk_log_level level, const char *event,
                       const struct rk_log_field *fields, size_t n_fields)
{
    struct line line;
    rk_counter_add_shared(&sink.lines[level], 1);
    line.len = 0;
    line.full = false;
    put_head(&line, level, event);
    size_t whole = line.len;
    for (size_t i = 0; i < n_fields && !line.full; i++) {
        put_text(&line, ",");
        put_string(&line, fields[i].key);
        put_text(&line, ":");
        put_value(&line, &fields[i]);
        whole = line.full ? whole : line.len;
    }
    const char *tail = line.full ? TAIL : "}\n";
    memcpy(line.text + whole, tail, strlen(tail));
    int saved_errno = errno;
    write_all(atomic_load_explicit(&sink.fd, memory_order_relaxed), line.text,
              whole + strlen(tail));
    errno = saved_errno;
}

/* Tells of lines that were kept back. */
static void write_kept_back(bool all)
{
    const char *event;
    uint64_t lines;
    while (rk_log_limit_kept_back(all, &event, &lines)) {
        const struct rk_log_field fields[] = {RK_S("of", event), RK_I("lines", lines)};
        write_line(RK_LOG_WARN, "log_lines_kept_back", fields, 2);
    }
}

void rk_log_write(enum rk_log_level level, const char *event, const struct rk_log_field *fields,
                  size_t n_fields)
{
    if (!rk_log_enabled(level)) {
        return;
    }
    write_kept_back(false);
    if (level < RK_LOG_WARN || rk_log_limit_pass(event)) {
        write_line(level, event, fields, n_fields);
    }
}

void rk_log_metrics(void *unused, struct rk_metrics *m)
{
    (void)unused;
    rk_metrics_family(m, "rekey_log_lines_total", RK_METRIC_COUNTER, "Log lines by level.");
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        rk_metric(m, rk_counter_read(&sink.lines[i]), RK_L("level", level_names[i]));
    }
    rk_metrics_one(m, "rekey_log_lines_kept_back_total", RK_METRIC_COUNTER,
                   "Log lines that log.event_lines_per_s kept back.", (double)rk_log_limit_total());
}

static int open_file(const char *path, struct rk_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
    if (fd < 0) {
        (void)rk_error_set(err, RK_EIO, "cannot open log file %s: %s", path, strerror(errno));
    }
    return fd;
}

enum rk_status rk_log_open(const char *path, enum rk_log_level level, struct rk_error *err)
{
    char *copy = NULL;
    int fd = STDERR_FILENO;
    if (path != NULL && strcmp(path, "-") != 0) {
        copy = strdup(path);
        if (copy == NULL) {
            return rk_error_set(err, RK_ENOMEM, "out of memory opening log file %s", path);
        }
        fd = open_file(path, err);
        if (fd < 0) {
            free(copy);
            return RK_EIO;
        }
    }
    rk_log_close();
    sink.path = copy;
    atomic_store(&sink.fd, fd);
    atomic_store(&sink.level, (int)level);
    return RK_OK;
}

enum rk_status rk_log_reopen(enum rk_log_level level, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    if (sink.path != NULL) {
        int fd = open_file(sink.path, err);
        if (fd < 0) {
            return RK_EIO;
        }
        if (dup3(fd, atomic_load(&sink.fd), O_CLOEXEC) < 0) {
            status = rk_error_set(err, RK_EIO, "cannot reopen log file %s: %s", sink.path,
                                  strerror(errno));
        }
        (void)close(fd);
    }
    if (status == RK_OK) {
        atomic_store(&sink.level, (int)level);
    }
    return status;
}

void rk_log_close(void)
{
    write_kept_back(true);
    int fd = atomic_exchange(&sink.fd, STDERR_FILENO);
    if (fd != STDERR_FILENO) {
        (void)close(fd);
    }
    free(sink.path);
    sink.path = NULL;
}
