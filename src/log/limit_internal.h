/* Which lines are kept back: of one event, no more than so many a second. Any thread. */
#ifndef REKEY_LOG_LIMIT_INTERNAL_H
#define REKEY_LOG_LIMIT_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

/* May a line of this event (a constant) be written now? */
bool rk_log_limit_pass(const char *event);

/* An event of which lines were kept back, in a second that is over (or, with all, in any): true
 * once for each, with how many. */
bool rk_log_limit_kept_back(bool all, const char **event, uint64_t *lines);

/* Lines that were kept back since the start. */
uint64_t rk_log_limit_total(void);

#endif
