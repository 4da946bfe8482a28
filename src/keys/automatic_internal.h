/*
 * Automatic rotation, by the age of a name's current key or by how much it has encrypted. Belongs
 * to the key service's thread.
 *
 * Encryptions are counted across instances by leases: an instance adds a block of so many to the
 * key's `encryptions` in the registry, majority-written, before it uses the key, and another one
 * before the first is used up. So the registry's number is an upper bound, also when instances are
 * killed. Only should an instance encrypt more than it has leased in the time between two looks, or
 * while the registry cannot be written, does the number lag, until the next lease makes up for it.
 */
#ifndef REKEY_KEYS_AUTOMATIC_INTERNAL_H
#define REKEY_KEYS_AUTOMATIC_INTERNAL_H

#include "loader_internal.h"

struct rk_automatic;

/* loader is borrowed. NULL: out of memory. */
struct rk_automatic *rk_automatic_new(const struct rk_rotation_rules *rules,
                                      struct rk_key_loader *loader);
void rk_automatic_free(struct rk_automatic *automatic);

/* Leases what the keys that are about to be used for the first time need. */
RK_MUST_CHECK enum rk_status rk_automatic_begin(struct rk_automatic *automatic,
                                                struct rk_error *err);
/* Renews leases, and makes new keys where that is due. Failures are logged; tried again later. */
void rk_automatic_look(struct rk_automatic *automatic);

#endif
