/* Reading the arguments of a step. */
#include <string.h>

#include "runner.h"

const char *text_of(const bson_t *from, const char *name)
{
    bson_iter_t iter;
    bool found = bson_iter_init_find(&iter, from, name) && BSON_ITER_HOLDS_UTF8(&iter);
    return found ? bson_iter_utf8(&iter, NULL) : NULL;
}

int64_t number_of(const bson_t *from, const char *name, int64_t otherwise)
{
    bson_iter_t iter;
    bool found = bson_iter_init_find(&iter, from, name) && BSON_ITER_HOLDS_NUMBER(&iter);
    return found ? bson_iter_as_int64(&iter) : otherwise;
}

bool flag_of(const bson_t *from, const char *name)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, from, name) && bson_iter_as_bool(&iter);
}

bool view_of(const bson_t *from, const char *name, bson_t *view)
{
    bson_iter_t iter;
    const uint8_t *data = NULL;
    uint32_t len = 0;

    if (!bson_iter_init_find(&iter, from, name)) {
        return false;
    }
    if (BSON_ITER_HOLDS_DOCUMENT(&iter)) {
        bson_iter_document(&iter, &len, &data);
    } else if (BSON_ITER_HOLDS_ARRAY(&iter)) {
        bson_iter_array(&iter, &len, &data);
    }
    return data != NULL && bson_init_static(view, data, len);
}

bool failed(struct call *call, const char *format, const char *what)
{
    bson_set_error(&call->error, DOMAIN_RUNNER, 0, format, what);
    return false;
}

bool need_view(struct call *call, const char *name, bson_t *view)
{
    return view_of(&call->args, name, view) || failed(call, "no document or list %s", name);
}

bool need_text(struct call *call, const char *name, const char **text)
{
    *text = text_of(&call->args, name);
    return *text != NULL || failed(call, "no string %s", name);
}

/* A filter may be left out. */
void filter_of(const bson_t *from, bson_t *view)
{
    if (!view_of(from, "filter", view)) {
        bson_init(view);
    }
}

/* NULL, and true, when it says none. */
bool read_prefs_of(struct call *call, const bson_t *from, mongoc_read_prefs_t **prefs)
{
    static const struct {
        const char *name;
        mongoc_read_mode_t mode;
    } modes[] = {
        {"primary", MONGOC_READ_PRIMARY},
        {"primaryPreferred", MONGOC_READ_PRIMARY_PREFERRED},
        {"secondary", MONGOC_READ_SECONDARY},
        {"secondaryPreferred", MONGOC_READ_SECONDARY_PREFERRED},
        {"nearest", MONGOC_READ_NEAREST},
    };
    const char *name = text_of(from, "readPreference");

    *prefs = NULL;
    for (size_t i = 0; name != NULL && i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(modes[i].name, name) == 0) {
            *prefs = mongoc_read_prefs_new(modes[i].mode);
        }
    }
    return name == NULL || *prefs != NULL || failed(call, "no read preference %s", name);
}

mongoc_write_concern_t *write_concern_of(const bson_t *from)
{
    bson_t said;
    if (!view_of(from, "writeConcern", &said)) {
        return NULL;
    }
    mongoc_write_concern_t *concern = mongoc_write_concern_new();
    const char *tag = text_of(&said, "w");
    if (tag != NULL) {
        mongoc_write_concern_set_wtag(concern, tag);
    } else if (bson_has_field(&said, "w")) {
        mongoc_write_concern_set_w(concern, (int32_t)number_of(&said, "w", 1));
    }
    if (bson_has_field(&said, "j")) {
        mongoc_write_concern_set_journal(concern, flag_of(&said, "j"));
    }
    if (bson_has_field(&said, "wtimeoutMS")) {
        mongoc_write_concern_set_wtimeout_int64(concern, number_of(&said, "wtimeoutMS", 0));
    }
    return concern;
}

mongoc_read_concern_t *read_concern_of(const bson_t *from)
{
    const char *level = text_of(from, "readConcern");
    if (level == NULL) {
        return NULL;
    }
    mongoc_read_concern_t *concern = mongoc_read_concern_new();
    mongoc_read_concern_set_level(concern, level);
    return concern;
}
