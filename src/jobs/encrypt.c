/*
 * The second transform: what was never encrypted becomes an envelope under the current key.
 *
 * Envelopes, whatever their key, and what a legacy format recognises by its shape are
 * re-encryption's job, and are left alone.
 */
#include "transform_internal.h"

struct examine {
    const struct rk_transform_keys *keys;
    struct rk_plan *plan;
};

static const char *why_unfit(const struct rk_field *field, uint8_t type)
{
    switch (rk_field_fits(field, type)) {
    case RK_FIT_NEVER:
        return "a value of this type cannot be encrypted";
    case RK_FIT_NOT_DETERMINISTIC:
        return "a value of this type cannot be encrypted deterministically";
    case RK_FIT_OTHER_TYPE:
        return "the value is not of the policy's type";
    case RK_FIT_YES:
        break;
    }
    return NULL;
}

/* A value that stays what it is, which is plaintext. */
static enum rk_status refuse(const struct examine *x, const struct rk_value *value,
                             const char *reason)
{
    x->plan->plaintext++;
    return rk_transform_reject(x->plan, value, 0, reason);
}

static enum rk_status examine_value(void *arg, const struct rk_field *field,
                                    const struct rk_value *value, const char *path, size_t path_len)
{
    const struct examine *x = arg;
    const struct rk_data_key *key;
    (void)path;
    (void)path_len;
    if (rk_value_is_empty(value) || rk_value_is_envelope(value) ||
        rk_value_is_legacy(field, value)) {
        return RK_OK;
    }
    const char *unfit = why_unfit(field, value->type);
    if (unfit != NULL) {
        return refuse(x, value, unfit);
    }
    enum rk_status status = rk_transform_key(x->keys, field, value, x->plan, &key);
    if (status != RK_OK || key == NULL) {
        x->plan->plaintext++;
        return status;
    }
    status = rk_transform_seal(x->keys, key, field, value, value, x->plan);
    return status == RK_EINVAL ? refuse(x, value, "the value is malformed or nested too deep")
                               : status;
}

static enum rk_status examine(const struct rk_transform_keys *keys, const struct rk_path_node *node,
                              const struct rk_bson_view *doc, struct rk_plan *plan)
{
    struct examine x = {.keys = keys, .plan = plan};
    return rk_protected_values(node, doc, &plan->path, examine_value, &x);
}

const struct rk_transform_ops rk_transform_encrypt = {
    .name = "encrypt",
    .examine = examine,
};
