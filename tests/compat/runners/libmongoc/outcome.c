/* A step's result: its value, or libmongoc's error in the contract's words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

/* ---- values -------------------------------------------------------------------------------- */

bool done(struct call *call)
{
    return BSON_APPEND_NULL(&call->ok, "ok");
}

bool done_number(struct call *call, int64_t number)
{
    return BSON_APPEND_INT64(&call->ok, "ok", number);
}

bool done_document(struct call *call, const bson_t *document)
{
    return BSON_APPEND_DOCUMENT(&call->ok, "ok", document);
}

/* The value of a field, null where there is none. */
bool done_field(struct call *call, const bson_t *from, const char *name)
{
    bson_iter_t iter;
    if (!bson_iter_init_find(&iter, from, name)) {
        return done(call);
    }
    return BSON_APPEND_VALUE(&call->ok, "ok", bson_iter_value(&iter));
}

/* All that the cursor gives; takes the cursor. */
bool collect(struct call *call, mongoc_cursor_t *cursor)
{
    bson_t list;
    const bson_t *document;
    uint32_t n = 0;

    BSON_APPEND_ARRAY_BEGIN(&call->ok, "ok", &list);
    while (mongoc_cursor_next(cursor, &document)) {
        char buffer[16];
        const char *key;
        bson_uint32_to_string(n++, &key, buffer, sizeof buffer);
        BSON_APPEND_DOCUMENT(&list, key, document);
    }
    bson_append_array_end(&call->ok, &list);
    bool ok = !mongoc_cursor_error_document(cursor, &call->error, &document);
    if (!ok && document != NULL) {
        bson_concat(&call->reply, document);
    }
    mongoc_cursor_destroy(cursor);
    return ok;
}

/* ---- errors -------------------------------------------------------------------------------- */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void append_labels(bson_t *said, const bson_t *reply)
{
    const char *labels[16];
    size_t n = 0;
    bson_t list;
    bson_iter_t iter;

    if (!view_of(reply, "errorLabels", &list) || !bson_iter_init(&iter, &list)) {
        return;
    }
    while (n < sizeof labels / sizeof labels[0] && bson_iter_next(&iter)) {
        labels[n++] = bson_iter_utf8(&iter, NULL);
    }
    qsort(labels, n, sizeof labels[0], compare_texts);
    BSON_APPEND_ARRAY_BEGIN(said, "labels", &list);
    for (size_t i = 0; i < n; i++) {
        char buffer[16];
        const char *key;
        bson_uint32_to_string((uint32_t)i, &key, buffer, sizeof buffer);
        BSON_APPEND_UTF8(&list, key, labels[i]);
    }
    bson_append_array_end(said, &list);
}

/* Copies index and code of each write error; false when there is none. */
static bool append_write_errors(bson_t *said, const bson_t *reply)
{
    bson_t errors;
    bson_t list;
    bson_iter_t iter;

    if (!view_of(reply, "writeErrors", &errors) || bson_empty(&errors)) {
        return false;
    }
    BSON_APPEND_ARRAY_BEGIN(said, "writeErrors", &list);
    bson_iter_init(&iter, &errors);
    while (bson_iter_next(&iter)) {
        bson_t one;
        bson_t entry;
        bson_iter_t inner;
        const uint8_t *data;
        uint32_t len;
        bson_iter_document(&iter, &len, &data);
        bson_init_static(&entry, data, len);
        BSON_APPEND_DOCUMENT_BEGIN(&list, bson_iter_key(&iter), &one);
        BSON_APPEND_INT64(&one, "index", number_of(&entry, "index", 0));
        if (bson_iter_init_find(&inner, &entry, "code")) {
            BSON_APPEND_VALUE(&one, "code", bson_iter_value(&inner));
        }
        bson_append_document_end(&list, &one);
    }
    bson_append_array_end(said, &list);
    return true;
}

static void append_write_concern_error(bson_t *said, const bson_t *reply)
{
    bson_t found;
    bson_t first;
    bson_t error;

    if (view_of(reply, "writeConcernErrors", &found) && view_of(&found, "0", &first)) {
        found = first;
    } else if (!view_of(reply, "writeConcernError", &found)) {
        return;
    }
    BSON_APPEND_DOCUMENT_BEGIN(said, "writeConcernError", &error);
    BSON_APPEND_INT64(&error, "code", number_of(&found, "code", 0));
    bson_append_document_end(said, &error);
}

static const char *kind_of(const struct call *call, bool write_errors)
{
    if (strcmp(call->op, "insertMany") == 0 || strcmp(call->op, "bulkWrite") == 0) {
        if (write_errors || call->error.domain == MONGOC_ERROR_WRITE_CONCERN) {
            return "bulk";
        }
    }
    if (write_errors) {
        return "write";
    }
    switch (call->error.domain) {
    case MONGOC_ERROR_SERVER:
    case MONGOC_ERROR_QUERY:
        return "command";
    case MONGOC_ERROR_WRITE_CONCERN:
        return "write";
    case MONGOC_ERROR_STREAM:
    case MONGOC_ERROR_SERVER_SELECTION:
        return "network";
    default:
        return "client";
    }
}

static char *error_result(struct call *call)
{
    bson_t result = BSON_INITIALIZER;
    bson_t said;
    bson_t write_errors = BSON_INITIALIZER;

    fprintf(stderr, "%s: domain %u, code %u: %s\n", call->op, call->error.domain, call->error.code,
            call->error.message);
    bool many = append_write_errors(&write_errors, &call->reply);
    BSON_APPEND_DOCUMENT_BEGIN(&result, "error", &said);
    const char *kind = kind_of(call, many);
    BSON_APPEND_UTF8(&said, "kind", kind);
    if (strcmp(kind, "command") == 0 || strcmp(kind, "write") == 0) {
        BSON_APPEND_INT64(&said, "code", call->error.code);
    }
    append_labels(&said, &call->reply);
    bson_concat(&said, &write_errors);
    append_write_concern_error(&said, &call->reply);
    bson_append_document_end(&result, &said);
    char *json = bson_as_relaxed_extended_json(&result, NULL);
    bson_destroy(&write_errors);
    bson_destroy(&result);
    return json;
}

char *call_result(struct call *call, bool ok)
{
    if (!ok) {
        return error_result(call);
    }
    if (call->json != NULL) {
        return bson_strdup_printf("{\"ok\": %s}", call->json);
    }
    return bson_as_canonical_extended_json(&call->ok, NULL);
}
