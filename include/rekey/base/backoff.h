/* Pauses before another attempt at what failed: they double up to a limit, and are
 * jittered. In any unit of time. */
#ifndef REKEY_BASE_BACKOFF_H
#define REKEY_BASE_BACKOFF_H

#include <stdint.h>

/* What follows on a pause (0: there was none yet); never longer than most. */
uint64_t rk_backoff_next(uint64_t pause, uint64_t first, uint64_t most);

/* Half of the pause is fixed, half random, so that instances do not come back in step. */
uint64_t rk_backoff_jittered(uint64_t pause);

#endif
