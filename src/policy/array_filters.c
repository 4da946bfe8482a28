/*
 * arrayFilters: conditions on array elements, which the update's paths name as $[identifier].
 * They are filters inside the server, and no ciphertext could be put into them for a value whose
 * path is only known together with the update.
 */
#include "command_internal.h"

#define PATH_MAX_LEN 1024u

struct array_filter {
    const struct rk_scope *scope;
    const struct rk_bson_view *update; /* operators and their paths */
};

/* A filter's key, "identifier" or "identifier.rest". */
struct element_name {
    struct rk_text identifier;
    struct rk_text rest;
};

static bool is_identifier(const char *component, size_t len, struct rk_text identifier)
{
    return len == identifier.len + 3u && memcmp(component, "$[", 2) == 0 &&
           component[len - 1] == ']' && memcmp(component + 2, identifier.at, identifier.len) == 0;
}

/* Does the element's name, put where path has its identifier, spell a protected path? */
static bool means_protected(const struct rk_scope *scope, const struct rk_bson_elem *path,
                            const struct element_name *name)
{
    char spelt[PATH_MAX_LEN];
    for (size_t off = 0; off <= path->key_len;) {
        const char *component = path->key + off;
        size_t len = strcspn(component, ".");
        off += len;
        if (is_identifier(component, len, name->identifier)) {
            if (off + 1 + name->rest.len > sizeof spelt) {
                return true;
            }
            memcpy(spelt, path->key, off);
            if (name->rest.len > 0) {
                spelt[off++] = '.';
                memcpy(spelt + off, name->rest.at, name->rest.len);
            }
            return rk_scope_touches(scope, spelt, off + name->rest.len);
        }
        off++;
    }
    return false;
}

static bool update_makes_protected(const struct array_filter *filter,
                                   const struct element_name *name)
{
    struct rk_bson_iter operators;
    struct rk_bson_iter paths;
    struct rk_bson_elem elem;
    struct rk_bson_view fields;
    rk_bson_iter_init(&operators, filter->update);
    while (rk_bson_next(&operators, &elem) == RK_BSON_STEP_ELEM) {
        if (!rk_bson_elem_view(&elem, &fields)) {
            continue;
        }
        rk_bson_iter_init(&paths, &fields);
        while (rk_bson_next(&paths, &elem) == RK_BSON_STEP_ELEM) {
            if (means_protected(filter->scope, &elem, name)) {
                return true;
            }
        }
    }
    return false;
}

static enum rk_verdict check_condition(const struct array_filter *filter,
                                       const struct rk_bson_view *condition)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_iter iter;
    struct rk_bson_iter branches;
    struct rk_bson_elem elem;
    struct rk_bson_elem branch;
    struct rk_bson_view view;
    rk_bson_iter_init(&iter, condition);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        if (elem.key[0] == '$') { /* $and, $or, $nor; mongod takes no other here */
            if (rk_bson_elem_view(&elem, &view)) {
                rk_bson_iter_init(&branches, &view);
                while (rk_bson_next(&branches, &branch) == RK_BSON_STEP_ELEM &&
                       !rk_stops(verdict)) {
                    verdict = rk_bson_elem_view(&branch, &view) ? check_condition(filter, &view)
                                                                : RK_VERDICT_FORWARD;
                }
            }
            continue;
        }
        size_t len = strcspn(elem.key, ".");
        struct element_name name = {.identifier = {elem.key, (uint32_t)len},
                                    .rest = {elem.key + len, 0}};
        if (len < elem.key_len) {
            name.rest = (struct rk_text){elem.key + len + 1, elem.key_len - (uint32_t)len - 1};
        }
        if (update_makes_protected(filter, &name)) {
            verdict = rk_refuse(filter->scope, RK_CODE_UPDATE_OPERATOR, "arrayFilters", elem.key,
                                elem.key_len,
                                "a condition on array elements cannot read encrypted fields; "
                                "choose them by an unprotected field or by their index");
        }
    }
    return verdict;
}

enum rk_verdict rk_array_filters_check(const struct rk_scope *scope,
                                       const struct rk_bson_elem *filters,
                                       const struct rk_bson_elem *update)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view operators;
    struct rk_bson_view array;
    struct rk_bson_view condition;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    if (!rk_bson_elem_view(filters, &array) || !rk_bson_elem_view(update, &operators)) {
        return verdict; /* mongod refuses it */
    }
    const struct array_filter filter = {scope, &operators};
    rk_bson_iter_init(&iter, &array);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        if (rk_bson_elem_view(&elem, &condition)) {
            verdict = check_condition(&filter, &condition);
        }
    }
    return verdict;
}
