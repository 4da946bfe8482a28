/*
 * The first transform: everything under the current key.
 */
#include "transform_internal.h"

#include <string.h>

#define PLAINTEXT_HEAD_MAX 32u /* what BSON adds around the bytes of a string or binary */

struct examine {
    const struct rk_transform_keys *keys;
    struct rk_plan *plan;
    const struct rk_data_key *current; /* of the value at hand */
};

/* While openings are only promised, what was opened may be no more than a placeholder. */
static enum rk_status seal_known(const struct examine *x, const struct rk_field *field,
                                 const struct rk_value *old, uint8_t bson_type)
{
    const struct rk_buf *scratch = &x->plan->scratch;
    const struct rk_value plaintext = {bson_type, scratch->data, (uint32_t)scratch->len};
    return rk_remote_opening(rk_aead_remote(x->keys->aead))
               ? RK_OK
               : rk_transform_seal(x->keys, x->current, field, old, &plaintext, x->plan);
}

static enum rk_status examine_envelope(const struct examine *x, const struct rk_field *field,
                                       const struct rk_value *value)
{
    const struct rk_keyset *keys = x->keys->keys;
    struct rk_envelope envelope;
    if (!rk_envelope_parse(value->data + RK_BINARY_HEAD_LEN, value->len - RK_BINARY_HEAD_LEN,
                           &envelope)) {
        return rk_transform_reject(x->plan, value, 0, "malformed envelope");
    }
    if (envelope.key_id == rk_data_key_id(x->current) && envelope.algorithm == field->algorithm &&
        envelope.field_id == field->field_id) {
        return RK_OK;
    }
    switch (rk_envelope_open(x->keys->aead, rk_keyset_find(keys, envelope.key_id), &envelope,
                             &x->plan->scratch)) {
    case RK_OK:
        return seal_known(x, field, value, envelope.bson_type);
    case RK_ENOKEY:
        return rk_transform_reject(x->plan, value, envelope.key_id, "unknown data key");
    case RK_EAUTH:
        return rk_transform_reject(x->plan, value, 0, "envelope does not authenticate");
    default:
        return RK_ENOMEM;
    }
}

static enum rk_status examine_legacy(const struct examine *x, const struct rk_field *field,
                                     const struct rk_value *value)
{
    const char *reason = "legacy value does not decrypt";
    for (size_t i = 0; i < field->n_legacy; i++) {
        const struct rk_legacy_format *format = &field->legacy[i];
        if (!rk_legacy_matches(format, value->type, value->data, value->len)) {
            continue;
        }
        switch (rk_legacy_open(x->keys->aead, x->keys->keys, format, value->type, value->data,
                               value->len, &x->plan->scratch)) {
        case RK_OK:
            return seal_known(x, field, value, format->bson_type);
        case RK_ENOKEY:
            reason = "legacy key not in the keyring";
            break;
        case RK_EAUTH:
        case RK_EINVAL:
            break;
        default:
            return RK_ENOMEM;
        }
    }
    return rk_transform_reject(x->plan, value, 0, reason);
}

static enum rk_status examine_value(void *arg, const struct rk_field *field,
                                    const struct rk_value *value, const char *path, size_t path_len)
{
    struct examine *x = arg;
    struct rk_buf *scratch = &x->plan->scratch;
    enum rk_status status;
    (void)path;
    (void)path_len;
    if (rk_value_is_empty(value)) {
        return RK_OK;
    }
    bool envelope = rk_value_is_envelope(value);
    if (!envelope && !rk_value_is_legacy(field, value)) {
        x->plan->plaintext++; /* no key is needed for what is left as it is */
        return RK_OK;
    }
    status = rk_transform_key(x->keys, field, value, x->plan, &x->current);
    if (status != RK_OK || x->current == NULL) {
        return status;
    }
    /* A plaintext is shorter than its ciphertext: with this room the buffer never moves, and
     * leaves nothing behind in freed memory. */
    status = rk_buf_reserve(scratch, value->len + PLAINTEXT_HEAD_MAX);
    if (status != RK_OK) {
        return status;
    }
    status = envelope ? examine_envelope(x, field, value) : examine_legacy(x, field, value);
    explicit_bzero(scratch->data, value->len + PLAINTEXT_HEAD_MAX);
    rk_buf_clear(scratch);
    return status;
}

static enum rk_status examine(const struct rk_transform_keys *keys, const struct rk_path_node *node,
                              const struct rk_bson_view *doc, struct rk_plan *plan)
{
    struct examine x = {.keys = keys, .plan = plan};
    return rk_protected_values(node, doc, &plan->path, examine_value, &x);
}

const struct rk_transform_ops rk_transform_reencrypt = {
    .name = "reencrypt",
    .examine = examine,
};
