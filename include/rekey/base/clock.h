/* Time. Monotonic for intervals and deadlines, wall time only for what is stored or shown. */
#ifndef REKEY_BASE_CLOCK_H
#define REKEY_BASE_CLOCK_H

#include <stdint.h>

uint64_t rk_clock_mono_us(void); /* microseconds since an arbitrary start; never steps */
uint64_t rk_clock_boot_us(void); /* the same, and goes on while the machine sleeps */
int64_t rk_clock_wall_ms(void);  /* milliseconds since 1970-01-01 UTC */

#endif
