/* What transforms share: the key that a value belongs under, sealing, rejecting. */
#ifndef REKEY_JOBS_TRANSFORM_INTERNAL_H
#define REKEY_JOBS_TRANSFORM_INTERNAL_H

#include <rekey/jobs/transform.h>

#define RK_BINARY_HEAD_LEN 5u /* length, subtype */

/* Null and undefined are nobody's business. */
bool rk_value_is_empty(const struct rk_value *value);
/* Claims to be an envelope, whatever follows. */
bool rk_value_is_envelope(const struct rk_value *value);
/* Has the shape of one of the field's legacy formats; plaintext may have it, too. */
bool rk_value_is_legacy(const struct rk_field *field, const struct rk_value *value);

RK_MUST_CHECK enum rk_status rk_transform_reject(struct rk_plan *plan, const struct rk_value *old,
                                                 uint32_t key_id, const char *reason);

/* The current key for the field's values in this document. *key NULL with RK_OK: there is none,
 * and the value is a reject by now. */
RK_MUST_CHECK enum rk_status rk_transform_key(const struct rk_transform_keys *keys,
                                              const struct rk_field *field,
                                              const struct rk_value *value, struct rk_plan *plan,
                                              const struct rk_data_key **key);

/* Seals a plaintext under key into the plan's arena and files the change. RK_EINVAL as
 * rk_envelope_seal has it; the plan is then as it was. */
RK_MUST_CHECK enum rk_status
rk_transform_seal(const struct rk_transform_keys *keys, const struct rk_data_key *key,
                  const struct rk_field *field, const struct rk_value *old,
                  const struct rk_value *plaintext, struct rk_plan *plan);

#endif
