#include "transform_internal.h"

#include <string.h>

bool rk_value_is_empty(const struct rk_value *value)
{
    return value->type == RK_BSON_NULL || value->type == RK_BSON_UNDEFINED;
}

bool rk_value_is_envelope(const struct rk_value *value)
{
    return value->type == RK_BSON_BINARY &&
           rk_envelope_claims(value->data[4], value->data + RK_BINARY_HEAD_LEN,
                              value->len - RK_BINARY_HEAD_LEN);
}

bool rk_value_is_legacy(const struct rk_field *field, const struct rk_value *value)
{
    for (size_t i = 0; i < field->n_legacy; i++) {
        if (rk_legacy_matches(&field->legacy[i], value->type, value->data, value->len)) {
            return true;
        }
    }
    return false;
}

enum rk_status rk_transform_reject(struct rk_plan *plan, const struct rk_value *old,
                                   uint32_t key_id, const char *reason)
{
    struct rk_reject entry = {.old = *old, .key_id = key_id, .reason = reason};
    return rk_plan_add_reject(plan, &entry);
}

enum rk_status rk_transform_key(const struct rk_transform_keys *keys, const struct rk_field *field,
                                const struct rk_value *value, struct rk_plan *plan,
                                const struct rk_data_key **key)
{
    char buf[RK_KEY_NAME_SIZE];
    const char *name = rk_tenant_key(keys->tenant, field, buf);
    *key = NULL;
    if (name == NULL) {
        return rk_transform_reject(plan, value, 0, "the document's tenant is not known");
    }
    *key = rk_keyset_current(keys->keys, name);
    if (*key == NULL) {
        memcpy(plan->missing_name, name, strlen(name) + 1);
        return rk_transform_reject(plan, value, 0, "the tenant has no current key");
    }
    return RK_OK;
}

enum rk_status rk_transform_seal(const struct rk_transform_keys *keys,
                                 const struct rk_data_key *key, const struct rk_field *field,
                                 const struct rk_value *old, const struct rk_value *plaintext,
                                 struct rk_plan *plan)
{
    struct rk_change change = {.old = *old, .type = RK_BSON_BINARY};
    uint8_t head[RK_BINARY_HEAD_LEN];
    size_t size = rk_envelope_size(key, field->algorithm, plaintext->len);
    rk_store_u32(head, (uint32_t)size);
    head[4] = RK_ENVELOPE_SUBTYPE;
    change.value_off = (uint32_t)plan->arena.len;
    change.value_len = (uint32_t)(size + sizeof head);
    enum rk_status status = rk_buf_append(&plan->arena, head, sizeof head);
    if (status == RK_OK) {
        status = rk_envelope_seal(keys->aead, key, field->algorithm, field->field_id, keys->now_s,
                                  plaintext->type, plaintext->data, plaintext->len, &plan->arena);
    }
    if (status != RK_OK) {
        plan->arena.len = change.value_off;
        return status;
    }
    return rk_plan_add_change(plan, &change);
}
