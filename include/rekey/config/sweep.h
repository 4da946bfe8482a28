/*
 * The settings of the section sweep one by one: to show them, to compare two sets of them, and to
 * lay the ones that hold for the fleet (rekeyctl throttle) over those of a file. What may stand in
 * a file is decided in one place only, so the rules and the words of refusals are the same.
 */
#ifndef REKEY_CONFIG_SWEEP_H
#define REKEY_CONFIG_SWEEP_H

#include <rekey/config/config.h>

#define RK_SWEEP_VALUE_SIZE 640u /* RK_WINDOW_SPANS_MAX spans */

size_t rk_config_sweep_count(void);
/* "max_rate", "guard.p99_limit_ms" */
const char *rk_config_sweep_key(size_t i);
/* As rekeyctl takes and shows it: "100", "true", "Mon-Fri 22:00-06:00, Sat 00:00-24:00" (empty:
 * always), "Europe/London". Returns out. */
const char *rk_config_sweep_value(const struct rk_config_sweep *sweep, size_t i,
                                  char out[RK_SWEEP_VALUE_SIZE]);
bool rk_config_sweep_is_list(size_t i);
bool rk_config_sweep_is_switch(size_t i);
/* May it be set for the whole fleet? */
bool rk_config_sweep_for_fleet(size_t i);
/* The setting of that name; "p99_limit_ms" is found without its group, too. Count: there is none.
 */
size_t rk_config_sweep_find(const char *key);

/*
 * Lays over *sweep what the mapping says, which is JSON or YAML as it stands below sweep in a file:
 * {"max_rate": 100, "guard": {"p99_limit_ms": 20}}. *given receives a bit for each setting in it.
 * Refused with err, and without effect: what a file could not hold, and what is not for the fleet.
 * How settings go together is not looked at: what each instance has besides is its own.
 */
RK_MUST_CHECK enum rk_status rk_config_sweep_lay(struct rk_config_sweep *sweep, const char *mapping,
                                                 uint64_t *given, struct rk_error *err);

/* Copies those settings of from to which there is a bit in given. */
void rk_config_sweep_take(struct rk_config_sweep *sweep, const struct rk_config_sweep *from,
                          uint64_t given);

/* The parsed window of settings that were checked. */
struct rk_window rk_config_sweep_window(const struct rk_config_sweep *sweep);

#endif
