#include <rekey/admission/window.h>

#include <stdio.h>
#include <string.h>

#define DAY_MINUTES 1440u

static const char *const days[] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};

static bool take_day(const char **text, unsigned *day)
{
    for (*day = 0; *day < 7; (*day)++) {
        if (strncmp(*text, days[*day], 3) == 0) {
            *text += 3;
            return true;
        }
    }
    return false;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "22:00", up to 24:00. */
static bool take_time(const char **text, unsigned *minute)
{
    const char *t = *text;
    if (!is_digit(t[0]) || !is_digit(t[1]) || t[2] != ':' || !is_digit(t[3]) || !is_digit(t[4])) {
        return false;
    }
    unsigned hours = (unsigned)(t[0] - '0') * 10 + (unsigned)(t[1] - '0');
    unsigned minutes = (unsigned)(t[3] - '0') * 10 + (unsigned)(t[4] - '0');
    *minute = hours * 60 + minutes;
    *text += 5;
    return minutes < 60 && *minute <= DAY_MINUTES;
}

static bool take_char(const char **text, char c)
{
    bool there = **text == c;
    *text += there;
    return there;
}

bool rk_window_parse(const char *text, struct rk_window_span *span)
{
    unsigned first = 0;
    unsigned last = 6;
    unsigned opens;
    unsigned closes;
    if (take_day(&text, &first)) {
        last = first;
        if (take_char(&text, '-') && !take_day(&text, &last)) {
            return false;
        }
        if (!take_char(&text, ' ')) {
            return false;
        }
    }
    if (!take_time(&text, &opens) || !take_char(&text, '-') || !take_time(&text, &closes) ||
        *text != '\0' || opens == DAY_MINUTES || opens == closes) {
        return false;
    }
    *span = (struct rk_window_span){
        .first_day = (uint8_t)first,
        .days = (uint8_t)((last + 7 - first) % 7 + 1),
        .opens = (uint16_t)opens,
        .minutes = (uint16_t)(closes > opens ? closes - opens : DAY_MINUTES - opens + closes),
    };
    return true;
}

/* Minutes since span opened on its nth day, in this week or the one before. */
static uint32_t since(const struct rk_window_span *span, unsigned nth, uint32_t week_minute)
{
    uint32_t start = (span->first_day + nth) % 7 * DAY_MINUTES + span->opens;
    return (week_minute + RK_WEEK_MINUTES - start) % RK_WEEK_MINUTES;
}

/* Until the last of the spans that are open now closes, 0 when none is; *opens_in: until the next
 * one opens. */
static uint32_t left(const struct rk_window *window, uint32_t week_minute, uint32_t *opens_in)
{
    uint32_t longest = 0;
    *opens_in = RK_WEEK_MINUTES;
    for (unsigned i = 0; i < window->n; i++) {
        const struct rk_window_span *span = &window->spans[i];
        for (unsigned nth = 0; nth < span->days; nth++) {
            uint32_t age = since(span, nth, week_minute);
            if (age < span->minutes && span->minutes - age > longest) {
                longest = span->minutes - age;
            }
            if (RK_WEEK_MINUTES - age < *opens_in) {
                *opens_in = RK_WEEK_MINUTES - age;
            }
        }
    }
    return longest;
}

struct rk_window_look rk_window_look(const struct rk_window *window, uint32_t week_minute)
{
    uint32_t opens_in;
    uint32_t open_for = left(window, week_minute, &opens_in);
    if (window->n == 0) {
        return (struct rk_window_look){true, RK_WINDOW_NEVER};
    }
    if (open_for == 0) {
        return (struct rk_window_look){false, opens_in};
    }
    /* Another span may go on where one ends. */
    for (uint32_t more = open_for; more > 0 && open_for < RK_WEEK_MINUTES; open_for += more) {
        more = left(window, (week_minute + open_for) % RK_WEEK_MINUTES, &opens_in);
    }
    return (struct rk_window_look){true, open_for < RK_WEEK_MINUTES ? open_for : RK_WINDOW_NEVER};
}

static uint32_t open_minutes_a_week(const struct rk_window *window)
{
    uint32_t sum = 0;
    for (uint32_t at = 0; at < RK_WEEK_MINUTES;) {
        struct rk_window_look look = rk_window_look(window, at);
        uint32_t rest = RK_WEEK_MINUTES - at;
        uint32_t step = look.changes_in < rest ? look.changes_in : rest;
        sum += look.open ? step : 0;
        at += step;
    }
    return sum;
}

uint64_t rk_window_elapse(const struct rk_window *window, uint32_t week_minute,
                          uint64_t work_minutes)
{
    uint64_t a_week = open_minutes_a_week(window);
    if (a_week == 0) {
        return RK_WINDOW_NEVER; /* no text makes such a window */
    }
    uint64_t elapsed = work_minutes / a_week * RK_WEEK_MINUTES;
    uint64_t work = work_minutes % a_week;
    if (work == 0 && elapsed > 0) {
        /* The last minute of work is not followed by the closed hours behind it. */
        elapsed -= RK_WEEK_MINUTES;
        work = a_week;
    }
    while (work > 0) {
        struct rk_window_look look =
            rk_window_look(window, (uint32_t)((week_minute + elapsed) % RK_WEEK_MINUTES));
        uint64_t step = look.open && look.changes_in > work ? work : look.changes_in;
        work -= look.open ? step : 0;
        elapsed += step;
    }
    return elapsed;
}

const char *rk_window_time(uint64_t minute, char out[RK_WINDOW_TIME_SIZE])
{
    unsigned of_week = (unsigned)(minute % RK_WEEK_MINUTES);
    (void)snprintf(out, RK_WINDOW_TIME_SIZE, "%s %02u:%02u", days[of_week / DAY_MINUTES],
                   of_week % DAY_MINUTES / 60, of_week % 60);
    return out;
}
