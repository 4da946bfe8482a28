/*
 * JSON lines: {"ts":"2026-11-21T09:00:00.123Z","level":"info","event":"listener_started",...}.
 *
 * event is a constant snake_case name; the rest are key/value pairs. Never pass a plaintext
 * value, a key or a token. Thread-safe: a line is one write(2). Strings are escaped, cut at 1,024
 * bytes on a character boundary, and bytes that are no UTF-8 become U+FFFD. Fields that would make
 * a line longer than 16 KB are left out and "truncated":true closes it. Before rk_log_open, and
 * after rk_log_close, lines go to standard error at level info.
 */
#ifndef REKEY_LOG_LOG_H
#define REKEY_LOG_LOG_H

#include <rekey/base/metrics.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rk_log_level { RK_LOG_DEBUG, RK_LOG_INFO, RK_LOG_WARN, RK_LOG_ERROR };

enum rk_log_kind { RK_LOG_STR, RK_LOG_INT, RK_LOG_DOUBLE, RK_LOG_BOOL };

struct rk_log_field {
    const char *key;
    enum rk_log_kind kind;
    const char *str; /* NULL prints null */
    int64_t i;
    double d;
};

#define RK_S(name, value) ((struct rk_log_field){.key = (name), .kind = RK_LOG_STR, .str = (value)})
#define RK_I(name, value)                                                                          \
    ((struct rk_log_field){.key = (name), .kind = RK_LOG_INT, .i = (int64_t)(value)})
#define RK_D(name, value)                                                                          \
    ((struct rk_log_field){.key = (name), .kind = RK_LOG_DOUBLE, .d = (value)})
#define RK_B(name, value)                                                                          \
    ((struct rk_log_field){.key = (name), .kind = RK_LOG_BOOL, .i = (value) ? 1 : 0})

/* path NULL or "-": standard error. Call once before threads start. */
RK_MUST_CHECK enum rk_status rk_log_open(const char *path, enum rk_log_level level,
                                         struct rk_error *err);
/* Reopens the file (after rotation) and changes the level; any time. When the file cannot be
 * opened the old one stays in use, and so does the level. */
RK_MUST_CHECK enum rk_status rk_log_reopen(enum rk_log_level level, struct rk_error *err);
/* Call after the other threads have ended. */
void rk_log_close(void);

/* At most so many lines of one event a second, of those at level warn or error (clients can cause
 * them); 0, which is how it starts: no limit. How many were kept back is told in a line
 * "log_lines_kept_back" when the second is over and something is logged. Any thread. */
void rk_log_set_limit(uint32_t lines_per_s);

/* Lines by level and those kept back, since the start. */
void rk_log_metrics(void *unused, struct rk_metrics *m);

bool rk_log_enabled(enum rk_log_level level);
void rk_log_write(enum rk_log_level level, const char *event, const struct rk_log_field *fields,
                  size_t n_fields);

/* rk_log(RK_LOG_INFO, "session_closed", RK_S("client", addr), RK_I("bytes_in", n)); */
#define rk_log(level, event, ...)                                                                  \
    do {                                                                                           \
        if (rk_log_enabled(level)) {                                                               \
            const struct rk_log_field rk_log_fields_[] = {__VA_ARGS__};                            \
            rk_log_write((level), (event), rk_log_fields_,                                         \
                         sizeof rk_log_fields_ / sizeof rk_log_fields_[0]);                        \
        }                                                                                          \
    } while (0)

#endif
