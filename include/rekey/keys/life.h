/*
 * The end of a data key, from "retiring" on (registry.h):
 *
 *   quietAt is set   no instance writes under it any more
 *   retired          a scan that began keys.write_settle_ms after that found nothing under it;
 *                    instances load it only when they meet a value under it nevertheless
 *   destroyed        its wrapped form is deleted; the record stays, so that the id never returns
 *
 * Each step is one majority write that holds only if the key is in the state that the step starts
 * from, so that a command which was cut short can be given again. Whoever calls does the scans and
 * the audit log. Blocking.
 */
#ifndef REKEY_KEYS_LIFE_H
#define REKEY_KEYS_LIFE_H

#include <rekey/keys/registry.h>

/*
 * Since when has nobody written under a retiring key? Finds that out and records it where it is not
 * known yet. RK_ESTATE while an instance writes under it, or may: one that ended without saying so,
 * unless gone says that those have ended.
 */
RK_MUST_CHECK enum rk_status rk_registry_quiet(struct rk_registry *registry,
                                               const struct rk_key_record *key, bool gone,
                                               int64_t *quiet_at_ms, struct rk_error *err);

/* retiring -> retired, by the proof (24 hexadecimal digits, see jobs/proof.h) that nothing needs
 * it. RK_ESTATE when the key is in no such state. */
RK_MUST_CHECK enum rk_status rk_registry_retire(struct rk_registry *registry, uint32_t key_id,
                                                const char *proof, struct rk_error *err);

/* retired -> destroyed; with shred from every state but destroyed. RK_ESTATE otherwise. */
RK_MUST_CHECK enum rk_status rk_registry_destroy(struct rk_registry *registry, uint32_t key_id,
                                                 bool shred, const char *proof,
                                                 struct rk_error *err);

#endif
