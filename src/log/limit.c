/*
 * A flood of bad clients must not fill the disk with lines about them. Every event counts its
 * lines in windows of a second; what is kept back is counted and told in one line when the window
 * is over. Events are few and constant, so a short table does; one that finds no place in it is
 * not limited.
 */
#include "limit_internal.h"

#include <pthread.h>
#include <rekey/base/clock.h>
#include <rekey/base/counter.h>
#include <rekey/log/log.h>
#include <stdatomic.h>
#include <string.h>

#define EVENTS_MAX 64u
#define WINDOW_US 1000000u

struct window {
    const char *event; /* NULL: a free place, and so are all behind it */
    uint64_t start_us;
    uint64_t lines;
    uint64_t kept_back;
};

static struct {
    _Atomic uint32_t max;       /* lines of an event in a window; 0: no limit */
    _Atomic uint64_t kept_back; /* of all events, not told yet */
    rk_counter total;           /* the same, told or not */
    pthread_mutex_t lock;       /* guards the windows */
    struct window windows[EVENTS_MAX];
} limit = {.lock = PTHREAD_MUTEX_INITIALIZER};

void rk_log_set_limit(uint32_t lines_per_s)
{
    atomic_store(&limit.max, lines_per_s);
}

static struct window *window_of(const char *event)
{
    for (size_t i = 0; i < EVENTS_MAX; i++) {
        struct window *window = &limit.windows[i];
        if (window->event == NULL) {
            window->event = event;
            return window;
        }
        if (strcmp(window->event, event) == 0) {
            return window;
        }
    }
    return NULL;
}

bool rk_log_limit_pass(const char *event)
{
    uint32_t max = atomic_load(&limit.max);
    if (max == 0) {
        return true;
    }
    uint64_t now = rk_clock_mono_us();
    bool pass = true;
    (void)pthread_mutex_lock(&limit.lock);
    struct window *window = window_of(event);
    if (window != NULL) {
        if (now - window->start_us >= WINDOW_US) {
            window->start_us = now;
            window->lines = 0;
        }
        pass = window->lines++ < max;
        if (!pass) {
            window->kept_back++;
            (void)atomic_fetch_add(&limit.kept_back, 1);
            rk_counter_add(&limit.total, 1);
        }
    }
    (void)pthread_mutex_unlock(&limit.lock);
    return pass;
}

uint64_t rk_log_limit_total(void)
{
    return rk_counter_read(&limit.total);
}

bool rk_log_limit_kept_back(bool all, const char **event, uint64_t *lines)
{
    if (atomic_load(&limit.kept_back) == 0) {
        return false;
    }
    uint64_t now = rk_clock_mono_us();
    bool found = false;
    (void)pthread_mutex_lock(&limit.lock);
    for (size_t i = 0; i < EVENTS_MAX && limit.windows[i].event != NULL && !found; i++) {
        struct window *window = &limit.windows[i];
        found = window->kept_back > 0 && (all || now - window->start_us >= WINDOW_US);
        if (found) {
            *event = window->event;
            *lines = window->kept_back;
            (void)atomic_fetch_sub(&limit.kept_back, window->kept_back);
            window->kept_back = 0;
        }
    }
    (void)pthread_mutex_unlock(&limit.lock);
    return found;
}
