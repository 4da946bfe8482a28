/*
 * The path tree of a policy: built once, then read for every key of every protected document.
 */
#include <stdlib.h>

#include "policy_internal.h"

#define LINEAR_MAX 8u /* up to here a scan beats a binary search */

static int compare_name(const char *a, size_t a_len, const char *b, size_t b_len)
{
    if (a_len != b_len) {
        return a_len < b_len ? -1 : 1;
    }
    return memcmp(a, b, a_len);
}

static bool name_is(const struct rk_path_node *node, const char *name, size_t len)
{
    return node->name_len == len && memcmp(node->name, name, len) == 0;
}

static enum rk_status add_child(struct rk_path_node *parent, const char *name, size_t len,
                                struct rk_path_node **out)
{
    for (size_t i = 0; i < parent->n_children; i++) {
        if (name_is(&parent->children[i], name, len)) {
            *out = &parent->children[i];
            return RK_OK;
        }
    }
    struct rk_path_node *grown =
        realloc(parent->children, (parent->n_children + 1) * sizeof *parent->children);
    if (grown == NULL) {
        return RK_ENOMEM;
    }
    parent->children = grown;
    *out = &grown[parent->n_children++];
    **out = (struct rk_path_node){.name = name, .name_len = (uint32_t)len};
    return RK_OK;
}

static const char *some_path_below(const struct rk_path_node *node)
{
    while (node->field == NULL) {
        node = &node->children[0];
    }
    return node->field->path;
}

enum rk_status rk_path_insert(struct rk_path_node *root, const struct rk_field *field,
                              const char **other)
{
    struct rk_path_node *node = root;
    for (const char *p = field->path;;) {
        size_t len = strcspn(p, ".");
        enum rk_status status = add_child(node, p, len, &node);
        if (status != RK_OK) {
            return status;
        }
        if (node->field != NULL) {
            *other = node->field->path;
            return RK_EINVAL;
        }
        if (p[len] == '\0') {
            break;
        }
        p += len + 1;
    }
    if (node->n_children > 0) {
        *other = some_path_below(node);
        return RK_EINVAL;
    }
    node->field = field;
    return RK_OK;
}

static int compare_nodes(const void *a, const void *b)
{
    const struct rk_path_node *x = a;
    const struct rk_path_node *y = b;
    return compare_name(x->name, x->name_len, y->name, y->name_len);
}

/* A deterministic field takes neither documents nor arrays. */
static bool may_hide_paths(const struct rk_field *field)
{
    return field->algorithm == RK_ALGORITHM_RANDOM &&
           (field->bson_type == 0 || field->bson_type == RK_BSON_DOCUMENT ||
            field->bson_type == RK_BSON_ARRAY);
}

/* Depth is bounded: policy.c caps the components of a path. */
void rk_path_finish(struct rk_path_node *node)
{
    node->has_legacy = node->field != NULL && node->field->n_legacy > 0;
    node->hides_paths = node->field != NULL && may_hide_paths(node->field);
    if (node->n_children > 0) {
        qsort(node->children, node->n_children, sizeof *node->children, compare_nodes);
    }
    for (size_t i = 0; i < node->n_children; i++) {
        rk_path_finish(&node->children[i]);
        node->child_lens |= UINT64_C(1) << (node->children[i].name_len % 64);
        node->has_legacy = node->has_legacy || node->children[i].has_legacy;
        node->hides_paths = node->hides_paths || node->children[i].hides_paths;
    }
}

void rk_path_free(struct rk_path_node *node)
{
    for (size_t i = 0; i < node->n_children; i++) {
        rk_path_free(&node->children[i]);
    }
    free(node->children);
}

const struct rk_path_node *rk_path_child(const struct rk_path_node *node, const char *name,
                                         size_t len)
{
    if ((node->child_lens >> (len % 64) & 1) == 0) {
        return NULL;
    }
    if (node->n_children <= LINEAR_MAX) {
        for (size_t i = 0; i < node->n_children; i++) {
            if (name_is(&node->children[i], name, len)) {
                return &node->children[i];
            }
        }
        return NULL;
    }
    size_t low = 0;
    size_t high = node->n_children;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct rk_path_node *child = &node->children[middle];
        int order = compare_name(name, len, child->name, child->name_len);
        if (order == 0) {
            return child;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

bool rk_path_is_index(const char *component, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (component[i] < '0' || component[i] > '9') {
            return false;
        }
    }
    return len > 0;
}

static bool is_root(const struct rk_path_node *node)
{
    return node->name == NULL;
}

const struct rk_path_node *rk_path_step(const struct rk_path_node *node, bool in_array,
                                        const char *key, size_t len)
{
    if (in_array) {
        return node;
    }
    const struct rk_path_node *child = rk_path_child(node, key, len);
    if (child == NULL && node->field == NULL && !is_root(node) && rk_path_is_index(key, len)) {
        return node;
    }
    return child;
}

static bool is_positional(const char *component, size_t len)
{
    return (len == 1 && component[0] == '$') ||
           (len >= 3 && component[0] == '$' && component[1] == '[' && component[len - 1] == ']');
}

struct rk_path_match rk_path_relate_from(const struct rk_path_node *node, const char *path,
                                         size_t len)
{
    struct rk_path_match match = {.relation = RK_PATH_ABOVE};
    bool below = false;
    for (size_t off = 0; len > 0 && off <= len;) {
        const char *component = path + off;
        const char *dot = memchr(component, '.', len - off);
        size_t n = dot != NULL ? (size_t)(dot - component) : len - off;
        off += n + 1;
        if (is_positional(component, n)) {
            match.positional = true;
            below = node->field != NULL;
            continue;
        }
        if (node->field != NULL) {
            below = true;
            continue;
        }
        node = rk_path_step(node, false, component, n);
        if (node == NULL) {
            return (struct rk_path_match){.relation = RK_PATH_UNRELATED};
        }
    }
    match.field = node->field;
    if (below) {
        match.relation = RK_PATH_BELOW;
    } else {
        match.node = node;
        match.relation = node->field != NULL ? RK_PATH_EXACT : RK_PATH_ABOVE;
    }
    return match;
}

struct rk_path_match rk_path_relate(const struct rk_policy *policy, const char *path, size_t len)
{
    return rk_path_relate_from(&policy->root, path, len);
}
