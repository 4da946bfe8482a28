/*
 * Cursors whose results are right under one key set only: their filter holds the ciphertext of the
 * keys that were live when they were opened. Any worker, since a driver sends a getMore on any
 * connection of its pool.
 */
#ifndef REKEY_SESSION_CURSORS_INTERNAL_H
#define REKEY_SESSION_CURSORS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rk_cursors;

/* NULL: out of memory. */
struct rk_cursors *rk_cursors_new(void);
void rk_cursors_free(struct rk_cursors *cursors);

/* Notes the generation (not 0) of the key set that a cursor was opened under. False: there are max
 * of them in use, or no memory. */
bool rk_cursors_add(struct rk_cursors *cursors, int64_t id, uint64_t generation, size_t max,
                    uint64_t now_us);
/* That generation, or 0 for a cursor that was not noted. Counts as a use of it. */
uint64_t rk_cursors_use(struct rk_cursors *cursors, int64_t id, uint64_t now_us);
void rk_cursors_forget(struct rk_cursors *cursors, int64_t id);

#endif
