#include <rekey/jobs/usage.h>

#include <rekey/crypto/envelope.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 200u /* mongod stores at most 180 levels */
#define BINARY_HEAD_LEN 5u
#define KEYS_MAX 65536u /* more than a registry holds */

struct visit {
    rk_envelope_fn *fn;
    void *arg;
};

static enum rk_status visit(const struct visit *v, const struct rk_bson_view *doc, unsigned depth)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view below;
    enum rk_bson_step step;
    enum rk_status status = depth > DEPTH_MAX ? RK_ELIMIT : RK_OK;
    rk_bson_iter_init(&iter, doc);
    while (status == RK_OK && (step = rk_bson_next(&iter, &elem)) != RK_BSON_STEP_END) {
        if (step == RK_BSON_STEP_MALFORMED) {
            status = RK_EINVAL;
        } else if (rk_bson_elem_view(&elem, &below) || rk_bson_elem_scope(&elem, &below)) {
            status = visit(v, &below, depth + 1);
        } else if (elem.type == RK_BSON_BINARY &&
                   rk_envelope_claims(elem.value[4], elem.value + BINARY_HEAD_LEN,
                                      elem.value_len - BINARY_HEAD_LEN)) {
            status = v->fn(v->arg, elem.value, elem.value_len);
        }
    }
    return status;
}

enum rk_status rk_envelopes_visit(const struct rk_bson_view *doc, rk_envelope_fn *fn, void *arg)
{
    const struct visit v = {fn, arg};
    return visit(&v, doc, 1);
}

/* Where id is, or would be. */
static size_t place_of(const struct rk_usage *usage, uint32_t id)
{
    size_t low = 0;
    size_t high = usage->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (usage->keys[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static enum rk_status grow(struct rk_usage *usage)
{
    size_t cap = usage->cap == 0 ? 8 : 2 * usage->cap;
    if (usage->n == KEYS_MAX) {
        return RK_ELIMIT;
    }
    struct rk_key_count *keys = realloc(usage->keys, cap * sizeof *keys);
    if (keys == NULL) {
        return RK_ENOMEM;
    }
    usage->keys = keys;
    usage->cap = cap;
    return RK_OK;
}

enum rk_status rk_usage_add_key(struct rk_usage *usage, uint32_t id, int64_t values)
{
    size_t at = place_of(usage, id);
    if (at == usage->n || usage->keys[at].id != id) {
        enum rk_status status = usage->n == usage->cap ? grow(usage) : RK_OK;
        if (status != RK_OK) {
            return status;
        }
        memmove(&usage->keys[at + 1], &usage->keys[at], (usage->n - at) * sizeof *usage->keys);
        usage->keys[at] = (struct rk_key_count){id, 0};
        usage->n++;
    }
    usage->keys[at].values += values;
    return RK_OK;
}

enum rk_status rk_usage_add_value(struct rk_usage *usage, const uint8_t *value, uint32_t len)
{
    uint32_t id = 0;
    bool names = rk_envelope_names_key(value + BINARY_HEAD_LEN, len - BINARY_HEAD_LEN, &id);
    return names ? rk_usage_add_key(usage, id, 1) : RK_OK;
}

static enum rk_status add(void *arg, const uint8_t *value, uint32_t len)
{
    return rk_usage_add_value(arg, value, len);
}

enum rk_status rk_usage_add(struct rk_usage *usage, const struct rk_bson_view *doc)
{
    return rk_envelopes_visit(doc, add, usage);
}

int64_t rk_usage_of(const struct rk_usage *usage, uint32_t key_id)
{
    size_t at = place_of(usage, key_id);
    return at < usage->n && usage->keys[at].id == key_id ? usage->keys[at].values : 0;
}

void rk_usage_deinit(struct rk_usage *usage)
{
    free(usage->keys);
    *usage = (struct rk_usage){0};
}
