/* Reads of a collection, and its indexes. */
#include <string.h>

#include "runner.h"

static bool find(struct call *call)
{
    bson_t filter;
    filter_of(&call->args, &filter);
    return collect(call,
                   mongoc_collection_find_with_opts(call->collection, &filter, &call->opts, NULL));
}

static bool find_one(struct call *call)
{
    bson_t filter;
    const bson_t *document;

    filter_of(&call->args, &filter);
    BSON_APPEND_INT64(&call->opts, "limit", 1);
    BSON_APPEND_BOOL(&call->opts, "singleBatch", true);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(call->collection, &filter, &call->opts, NULL);
    bool found = mongoc_cursor_next(cursor, &document);
    bool ok = true;
    if (found) {
        done_document(call, document);
    } else if (mongoc_cursor_error_document(cursor, &call->error, &document)) {
        bson_concat(&call->reply, document);
        ok = false;
    } else {
        done(call);
    }
    mongoc_cursor_destroy(cursor);
    return ok;
}

static bool count_documents(struct call *call)
{
    bson_t filter;
    filter_of(&call->args, &filter);
    bson_destroy(&call->reply);
    int64_t n = mongoc_collection_count_documents(call->collection, &filter, &call->opts, NULL,
                                                  &call->reply, &call->error);
    return n >= 0 && done_number(call, n);
}

static bool estimated_document_count(struct call *call)
{
    bson_destroy(&call->reply);
    int64_t n = mongoc_collection_estimated_document_count(call->collection, &call->opts, NULL,
                                                           &call->reply, &call->error);
    return n >= 0 && done_number(call, n);
}

/* libmongoc has no helper; its manual shows the command. */
static bool distinct(struct call *call)
{
    const char *name;
    bson_t filter;
    bson_t command = BSON_INITIALIZER;

    if (!need_text(call, "fieldName", &name)) {
        return false;
    }
    filter_of(&call->args, &filter);
    BSON_APPEND_UTF8(&command, "distinct", mongoc_collection_get_name(call->collection));
    BSON_APPEND_UTF8(&command, "key", name);
    BSON_APPEND_DOCUMENT(&command, "query", &filter);
    bson_destroy(&call->reply);
    bool ok = mongoc_collection_read_command_with_opts(call->collection, &command, NULL,
                                                       &call->opts, &call->reply, &call->error);
    bson_destroy(&command);
    return ok && done_field(call, &call->reply, "values");
}

static bool aggregate(struct call *call)
{
    bson_t pipeline;
    return need_view(call, "pipeline", &pipeline) &&
           collect(call, mongoc_collection_aggregate(call->collection, MONGOC_QUERY_NONE, &pipeline,
                                                     &call->opts, NULL));
}

/* An index is its keys, a name and the options as they are; the helper for it is deprecated. */
static void describe_index(const struct call *call, const bson_t *keys, bson_t *index)
{
    bson_iter_t iter;

    BSON_APPEND_DOCUMENT(index, "key", keys);
    if (text_of(&call->args, "name") == NULL) {
        char *name = mongoc_collection_keys_to_index_string(keys);
        BSON_APPEND_UTF8(index, "name", name);
        bson_free(name);
    }
    bson_iter_init(&iter, &call->args);
    while (bson_iter_next(&iter)) {
        if (strcmp(bson_iter_key(&iter), "keys") != 0) {
            BSON_APPEND_VALUE(index, bson_iter_key(&iter), bson_iter_value(&iter));
        }
    }
}

static bool create_index(struct call *call)
{
    bson_t keys;
    bson_t command = BSON_INITIALIZER;
    bson_t indexes;
    bson_t index;
    bson_t opts = BSON_INITIALIZER;

    if (!need_view(call, "keys", &keys)) {
        return false;
    }
    BSON_APPEND_UTF8(&command, "createIndexes", mongoc_collection_get_name(call->collection));
    BSON_APPEND_ARRAY_BEGIN(&command, "indexes", &indexes);
    BSON_APPEND_DOCUMENT_BEGIN(&indexes, "0", &index);
    describe_index(call, &keys, &index);
    done_field(call, &index, "name");
    bson_append_document_end(&indexes, &index);
    bson_append_array_end(&command, &indexes);
    bool ok =
        call->session == NULL || mongoc_client_session_append(call->session, &opts, &call->error);
    if (ok) {
        bson_destroy(&call->reply);
        ok = mongoc_collection_write_command_with_opts(call->collection, &command, &opts,
                                                       &call->reply, &call->error);
    }
    bson_destroy(&opts);
    bson_destroy(&command);
    return ok;
}

static bool list_indexes(struct call *call)
{
    return collect(call, mongoc_collection_find_indexes_with_opts(call->collection, &call->opts));
}

static bool drop_index(struct call *call)
{
    const char *name;
    return need_text(call, "name", &name) &&
           mongoc_collection_drop_index_with_opts(call->collection, name, &call->opts,
                                                  &call->error) &&
           done(call);
}

static bool drop(struct call *call)
{
    return mongoc_collection_drop_with_opts(call->collection, &call->opts, &call->error) &&
           done(call);
}

static bool rename_collection(struct call *call)
{
    const char *to;
    return need_text(call, "to", &to) &&
           mongoc_collection_rename_with_opts(call->collection, call->scenario->db, to, false,
                                              &call->opts, &call->error) &&
           done(call);
}

const struct op ops_collection[] = {
    {"find", find, " filter "},
    {"findOne", find_one, " filter "},
    {"countDocuments", count_documents, " filter "},
    {"estimatedDocumentCount", estimated_document_count, ""},
    {"distinct", distinct, " fieldName filter "},
    {"aggregate", aggregate, " pipeline "},
    {"createIndex", create_index, " "},
    {"listIndexes", list_indexes, ""},
    {"dropIndex", drop_index, " name "},
    {"drop", drop, ""},
    {"rename", rename_collection, " to "},
    {NULL, NULL, NULL},
};
