/* The key service's side of readers.h: its thread alone changes epochs. */
#ifndef REKEY_KEYS_READERS_INTERNAL_H
#define REKEY_KEYS_READERS_INTERNAL_H

#include <rekey/base/status.h>
#include <rekey/keys/readers.h>

/* NULL: out of memory. */
struct rk_readers *rk_readers_new(void);
void rk_readers_free(struct rk_readers *readers);

/* A keyset with a key more was published, as generation: no request enters an older epoch any more,
 * and endless readers of older ones are outdated. Returns the number of the epoch that begins. */
uint64_t rk_readers_advance(struct rk_readers *readers, uint64_t generation);

/* How many finite readers older epochs have. */
size_t rk_readers_before(struct rk_readers *readers, uint64_t epoch);
/* The oldest epoch that has one, or UINT64_MAX. */
uint64_t rk_readers_oldest(struct rk_readers *readers);
/* From now on finite readers of older epochs are outdated, too. */
void rk_readers_outdate(struct rk_readers *readers, uint64_t epoch);

/* Others wait for this instance until then (rk_clock_boot_us): what is handed on later may lack
 * values, unless this is called again. False: it was late. At first nobody is known to be there who
 * might not wait. */
bool rk_readers_trust_until(struct rk_readers *readers, uint64_t until_us);

/* The ids of open finite cursors, all or the outdated ones, malloc'ed for the caller, the last used
 * first and at most max; NULL when there are none, or no memory for them: *n is not 0 then. */
int64_t *rk_readers_cursors(struct rk_readers *readers, bool all, size_t max, size_t *n);
/* Cursors that other instances opened, and that are outdated: replaces those of the last call.
 * RK_ENOMEM: nothing has changed. */
RK_MUST_CHECK enum rk_status rk_readers_set_outlived(struct rk_readers *readers, const int64_t *ids,
                                                     size_t n);

#endif
