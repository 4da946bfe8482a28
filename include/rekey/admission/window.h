/*
 * The hours of the week in which the sweep may work, by a local clock that somebody else reads:
 *
 *   "Mon-Fri 22:00-06:00"   opens on each of these days and closes on the next morning
 *   "Sat-Sun 00:00-24:00"   whole days
 *   "Fri-Mon 01:00-05:00"   days may go over the end of the week
 *   "22:00-06:00"           every day
 *
 * Pure functions of weekday and minute, so what clocks do in spring and autumn follows from what
 * they show: an hour that does not exist opens nothing, one that comes twice counts twice.
 */
#ifndef REKEY_ADMISSION_WINDOW_H
#define REKEY_ADMISSION_WINDOW_H

#include <rekey/base/status.h>
#include <stdbool.h>
#include <stdint.h>

#define RK_WINDOW_SPANS_MAX 16u
#define RK_WINDOW_TEXT_SIZE 32u
#define RK_WEEK_MINUTES 10080u
#define RK_WINDOW_NEVER UINT32_MAX

struct rk_window_span {
    uint8_t first_day; /* 0: Monday */
    uint8_t days;      /* 1 to 7 that follow each other */
    uint16_t opens;    /* minute of each of these days */
    uint16_t minutes;  /* how long */
};

/* No span: always open. */
struct rk_window {
    struct rk_window_span spans[RK_WINDOW_SPANS_MAX];
    unsigned n;
};

/* False when text is no span as above. */
RK_MUST_CHECK bool rk_window_parse(const char *text, struct rk_window_span *span);

struct rk_window_look {
    bool open;
    uint32_t changes_in; /* minutes until it is otherwise; RK_WINDOW_NEVER */
};
/* week_minute: minutes since Monday 00:00, below RK_WEEK_MINUTES. */
struct rk_window_look rk_window_look(const struct rk_window *window, uint32_t week_minute);

/* How many minutes go by from week_minute on until the window was open for work_minutes. */
uint64_t rk_window_elapse(const struct rk_window *window, uint32_t week_minute,
                          uint64_t work_minutes);

/* "Mon 22:00" of any minute, also of a later week; returns out. */
#define RK_WINDOW_TIME_SIZE 16u
const char *rk_window_time(uint64_t minute, char out[RK_WINDOW_TIME_SIZE]);

#endif
