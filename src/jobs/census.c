/* Counts of a collection, in memory and as BSON (see verify.h, verify_internal.h). */
#include "verify_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum rk_status rk_census_init(struct rk_census *census, const struct rk_policy *policy)
{
    size_t n = policy != NULL ? policy->n_fields : 0;
    *census = (struct rk_census){.n_fields = n};
    census->fields = calloc(n + 1, sizeof *census->fields);
    if (census->fields == NULL) {
        census->n_fields = 0;
        return RK_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        census->fields[i].path = policy->fields[i].path;
    }
    return RK_OK;
}

void rk_census_clear(struct rk_census *census)
{
    census->documents = census->elsewhere = census->elsewhere_old_key = 0;
    census->usage.n = 0;
    for (size_t i = 0; i < census->n_fields; i++) {
        struct rk_field_census *f = &census->fields[i];
        struct rk_usage keys = f->keys;
        keys.n = 0;
        *f = (struct rk_field_census){.path = f->path, .keys = keys};
    }
}

static enum rk_status add_usage(struct rk_usage *usage, const struct rk_usage *more)
{
    enum rk_status status = RK_OK;
    for (size_t i = 0; i < more->n && status == RK_OK; i++) {
        status = rk_usage_add_key(usage, more->keys[i].id, more->keys[i].values);
    }
    return status;
}

enum rk_status rk_census_add(struct rk_census *census, const struct rk_census *more)
{
    enum rk_status status = add_usage(&census->usage, &more->usage);
    census->documents += more->documents;
    census->elsewhere += more->elsewhere;
    census->elsewhere_old_key += more->elsewhere_old_key;
    for (size_t i = 0; i < census->n_fields && status == RK_OK; i++) {
        struct rk_field_census *into = &census->fields[i];
        const struct rk_field_census *from = &more->fields[i];
#define ADD(member, name) into->member += from->member;
        RK_FIELD_COUNTS(ADD)
        status = add_usage(&into->keys, &from->keys);
    }
    return status;
}

void rk_census_deinit(struct rk_census *census)
{
    for (size_t i = 0; i < census->n_fields; i++) {
        rk_usage_deinit(&census->fields[i].keys);
    }
    rk_usage_deinit(&census->usage);
    free(census->fields);
    *census = (struct rk_census){.documents = 0};
}

bool rk_census_holds(const struct rk_census *census)
{
    if (census->elsewhere_old_key != 0) {
        return false;
    }
    for (size_t i = 0; i < census->n_fields; i++) {
        const struct rk_field_census *f = &census->fields[i];
        if (f->old_key + f->mismatched + f->legacy + f->plaintext + f->undecryptable != 0) {
            return false;
        }
    }
    return true;
}

static void put_usage(struct rk_bson_writer *w, const char *key, const struct rk_usage *usage)
{
    rk_bson_begin_doc(w, key);
    for (size_t i = 0; i < usage->n; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "%u", usage->keys[i].id);
        rk_bson_put_int64(w, id, usage->keys[i].values);
    }
    rk_bson_end(w);
}

void rk_census_put(struct rk_bson_writer *w, const struct rk_census *census)
{
    rk_bson_put_int64(w, "documents", census->documents);
    rk_bson_put_int64(w, "elsewhere", census->elsewhere);
    rk_bson_put_int64(w, "elsewhereOldKey", census->elsewhere_old_key);
    put_usage(w, "keys", &census->usage);
    rk_bson_begin_array(w, "fields");
    for (size_t i = 0; i < census->n_fields; i++) {
        const struct rk_field_census *f = &census->fields[i];
        char index[16];
        (void)snprintf(index, sizeof index, "%zu", i);
        rk_bson_begin_doc(w, index);
        rk_bson_put_string(w, "path", f->path);
#define PUT(member, name) rk_bson_put_int64(w, name, f->member);
        RK_FIELD_COUNTS(PUT)
        put_usage(w, "keys", &f->keys);
        rk_bson_end(w);
    }
    rk_bson_end(w);
}

static enum rk_status read_usage(const struct rk_bson_view *doc, const char *key,
                                 struct rk_usage *usage)
{
    struct rk_bson_elem elem;
    struct rk_bson_view keys;
    struct rk_bson_iter iter;
    enum rk_status status = RK_OK;
    if (!rk_bson_find(doc, key, &elem) || !rk_bson_elem_view(&elem, &keys)) {
        return RK_EINVAL;
    }
    rk_bson_iter_init(&iter, &keys);
    while (status == RK_OK && rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        char text[16];
        char *end = NULL;
        int64_t values = 0;
        (void)snprintf(text, sizeof text, "%.*s", (int)elem.key_len, elem.key);
        unsigned long id = strtoul(text, &end, 10);
        status = end == text || *end != '\0' || id > UINT32_MAX || !rk_bson_elem_int(&elem, &values)
                     ? RK_EINVAL
                     : rk_usage_add_key(usage, (uint32_t)id, values);
    }
    return status;
}

static enum rk_status read_field(const struct rk_bson_view *doc, struct rk_field_census *f)
{
    struct rk_bson_elem elem;
    const char *path;
    uint32_t len;
    if (!rk_bson_find(doc, "path", &elem) || !rk_bson_elem_utf8(&elem, &path, &len) ||
        len != strlen(f->path) || memcmp(path, f->path, len) != 0) {
        return RK_EINVAL;
    }
#define READ(member, name) f->member = rk_view_int(doc, name);
    RK_FIELD_COUNTS(READ)
    return read_usage(doc, "keys", &f->keys);
}

enum rk_status rk_census_read(const struct rk_bson_view *doc, struct rk_census *census)
{
    struct rk_bson_elem elem;
    struct rk_bson_view fields;
    struct rk_bson_view field;
    struct rk_bson_iter iter;
    rk_census_clear(census);
    census->documents = rk_view_int(doc, "documents");
    census->elsewhere = rk_view_int(doc, "elsewhere");
    census->elsewhere_old_key = rk_view_int(doc, "elsewhereOldKey");
    enum rk_status status = read_usage(doc, "keys", &census->usage);
    if (!rk_bson_find(doc, "fields", &elem) || !rk_bson_elem_view(&elem, &fields)) {
        return RK_EINVAL;
    }
    rk_bson_iter_init(&iter, &fields);
    for (size_t i = 0; i < census->n_fields && status == RK_OK; i++) {
        bool there =
            rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && rk_bson_elem_view(&elem, &field);
        status = there ? read_field(&field, &census->fields[i]) : RK_EINVAL;
    }
    return status;
}
