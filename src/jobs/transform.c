#include <rekey/jobs/transform.h>

#include <string.h>

#define DEPTH_MAX 200u /* mongod stores at most 180 levels */

struct walk {
    struct rk_buf *path;
    rk_value_fn *fn;
    void *arg;
};

/* Appends a component; the caller truncates the path to what it was. */
static enum rk_status push(struct rk_buf *path, const char *key, size_t len)
{
    enum rk_status status = path->len == 0 ? RK_OK : rk_buf_append_u8(path, '.');
    return status == RK_OK ? rk_buf_append(path, key, len) : status;
}

/* Steps as encryption does, so that all that it has encrypted is met. */
static enum rk_status walk_elements(const struct walk *walk, const struct rk_path_node *node,
                                    bool in_array, const struct rk_bson_view *view, unsigned depth)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view below;
    enum rk_bson_step step;
    enum rk_status status = depth > DEPTH_MAX ? RK_ELIMIT : RK_OK;
    size_t path_len = walk->path->len;
    rk_bson_iter_init(&iter, view);
    while (status == RK_OK && (step = rk_bson_next(&iter, &elem)) != RK_BSON_STEP_END) {
        if (step == RK_BSON_STEP_MALFORMED) {
            return RK_EINVAL;
        }
        const struct rk_path_node *child = rk_path_step(node, in_array, elem.key, elem.key_len);
        if (child == NULL) {
            continue;
        }
        status = push(walk->path, elem.key, elem.key_len);
        if (status == RK_OK && child->field != NULL) {
            struct rk_value value = {elem.type, elem.value, elem.value_len};
            status = walk->fn(walk->arg, child->field, &value, (const char *)walk->path->data,
                              walk->path->len);
        } else if (status == RK_OK && rk_bson_elem_view(&elem, &below)) {
            status = walk_elements(walk, child, elem.type == RK_BSON_ARRAY, &below, depth + 1);
        }
        walk->path->len = path_len;
    }
    return status;
}

enum rk_status rk_protected_values(const struct rk_path_node *node, const struct rk_bson_view *doc,
                                   struct rk_buf *path, rk_value_fn *fn, void *arg)
{
    struct walk walk = {path, fn, arg};
    rk_buf_clear(path);
    return walk_elements(&walk, node, false, doc, 1);
}

const struct rk_transform_ops *rk_transform_find(const char *name)
{
    static const struct rk_transform_ops *const all[] = {&rk_transform_reencrypt,
                                                         &rk_transform_encrypt};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i];
        }
    }
    return NULL;
}

enum rk_status rk_transform_document(const struct rk_transform_ops *ops,
                                     const struct rk_transform_keys *keys,
                                     const struct rk_policy *policy, const struct rk_bson_view *doc,
                                     struct rk_plan *plan)
{
    struct rk_bson_elem id;
    if (!rk_bson_find(doc, "_id", &id)) {
        return RK_EINVAL;
    }
    struct rk_doc_plan entry = {
        .doc = *doc,
        .id = {id.type, id.value, id.value_len},
        .first_change = (uint32_t)(plan->changes.len / sizeof(struct rk_change)),
        .first_reject = (uint32_t)rk_plan_rejects(plan),
    };
    struct rk_tenant tenant;
    rk_tenant_of_document(policy, doc, &tenant);
    struct rk_transform_keys own = *keys;
    own.tenant = &tenant;
    enum rk_status status = rk_buf_append(&plan->docs, &entry, sizeof entry);
    return status == RK_OK ? ops->examine(&own, &policy->root, doc, plan) : status;
}
