/* Writes to a collection. */
#include <string.h>

#include "runner.h"

static bool acknowledged(const struct call *call)
{
    return mongoc_write_concern_is_acknowledged(
        mongoc_collection_get_write_concern(call->collection));
}

static void copy_field(bson_t *to, const char *as, const bson_t *from, const char *name)
{
    bson_iter_t iter;
    if (bson_iter_init_find(&iter, from, name)) {
        BSON_APPEND_VALUE(to, as, bson_iter_value(&iter));
    }
}

/* A document with the fields of the reply that the contract names. */
static bool done_fields(struct call *call, const char *const *fields, size_t n)
{
    bson_t said;

    BSON_APPEND_DOCUMENT_BEGIN(&call->ok, "ok", &said);
    if (acknowledged(call)) {
        for (size_t i = 0; i < n; i++) {
            copy_field(&said, fields[i], &call->reply, fields[i]);
        }
    } else {
        BSON_APPEND_BOOL(&said, "acknowledged", false);
    }
    return bson_append_document_end(&call->ok, &said);
}

static bool insert_one(struct call *call)
{
    bson_t document;
    bson_t said;

    if (!need_view(call, "document", &document)) {
        return false;
    }
    bson_destroy(&call->reply);
    if (!mongoc_collection_insert_one(call->collection, &document, &call->opts, &call->reply,
                                      &call->error)) {
        return false;
    }
    if (!acknowledged(call)) {
        return done_fields(call, NULL, 0);
    }
    BSON_APPEND_DOCUMENT_BEGIN(&call->ok, "ok", &said);
    copy_field(&said, "insertedId", &document, "_id");
    return bson_append_document_end(&call->ok, &said);
}

static bool insert_many(struct call *call)
{
    static const char *const fields[] = {"insertedCount"};
    bson_t list;
    bson_iter_t iter;

    if (!need_view(call, "documents", &list)) {
        return false;
    }
    uint32_t n = bson_count_keys(&list);
    bson_t *views = bson_malloc0(sizeof *views * (n + 1));
    const bson_t **documents = bson_malloc0(sizeof *documents * (n + 1));
    bson_iter_init(&iter, &list);
    for (uint32_t i = 0; i < n && bson_iter_next(&iter); i++) {
        const uint8_t *data;
        uint32_t len;
        bson_iter_document(&iter, &len, &data);
        bson_init_static(&views[i], data, len);
        documents[i] = &views[i];
    }
    bson_destroy(&call->reply);
    bool ok = mongoc_collection_insert_many(call->collection, documents, n, &call->opts,
                                            &call->reply, &call->error);
    bson_free(documents);
    bson_free(views);
    return ok && done_fields(call, fields, 1);
}

typedef bool (*update_fn)(mongoc_collection_t *, const bson_t *, const bson_t *, const bson_t *,
                          bson_t *, bson_error_t *);
typedef bool (*delete_fn)(mongoc_collection_t *, const bson_t *, const bson_t *, bson_t *,
                          bson_error_t *);

static bool update_with(struct call *call, update_fn update, const char *name)
{
    static const char *const fields[] = {"matchedCount", "modifiedCount", "upsertedId"};
    bson_t filter;
    bson_t change;

    if (!need_view(call, name, &change)) {
        return false;
    }
    filter_of(&call->args, &filter);
    bson_destroy(&call->reply);
    return update(call->collection, &filter, &change, &call->opts, &call->reply, &call->error) &&
           done_fields(call, fields, 3);
}

static bool update_one(struct call *call)
{
    return update_with(call, mongoc_collection_update_one, "update");
}

static bool update_many(struct call *call)
{
    return update_with(call, mongoc_collection_update_many, "update");
}

static bool replace_one(struct call *call)
{
    return update_with(call, mongoc_collection_replace_one, "replacement");
}

static bool delete_with(struct call *call, delete_fn delete)
{
    static const char *const fields[] = {"deletedCount"};
    bson_t filter;

    filter_of(&call->args, &filter);
    bson_destroy(&call->reply);
    return delete (call->collection, &filter, &call->opts, &call->reply, &call->error) &&
           done_fields(call, fields, 1);
}

static bool delete_one(struct call *call)
{
    return delete_with(call, mongoc_collection_delete_one);
}

static bool delete_many(struct call *call)
{
    return delete_with(call, mongoc_collection_delete_many);
}

/* ---- find and modify ----------------------------------------------------------------------- */

static bool find_and_modify(struct call *call, const char *change, unsigned flags)
{
    mongoc_find_and_modify_opts_t *opts = mongoc_find_and_modify_opts_new();
    const char *returned = text_of(&call->args, "returnDocument");
    bson_t filter;
    bson_t view;
    bool ok = change == NULL || need_view(call, change, &view);

    if (ok && change != NULL) {
        mongoc_find_and_modify_opts_set_update(opts, &view);
    }
    if (flag_of(&call->args, "upsert")) {
        flags |= MONGOC_FIND_AND_MODIFY_UPSERT;
    }
    if (returned != NULL && strcmp(returned, "after") == 0) {
        flags |= MONGOC_FIND_AND_MODIFY_RETURN_NEW;
    }
    mongoc_find_and_modify_opts_set_flags(opts, (mongoc_find_and_modify_flags_t)flags);
    if (view_of(&call->args, "projection", &view)) {
        mongoc_find_and_modify_opts_set_fields(opts, &view);
    }
    if (view_of(&call->args, "sort", &view)) {
        mongoc_find_and_modify_opts_set_sort(opts, &view);
    }
    filter_of(&call->args, &filter);
    mongoc_find_and_modify_opts_append(opts, &call->opts);
    if (ok) {
        bson_destroy(&call->reply);
        ok = mongoc_collection_find_and_modify_with_opts(call->collection, &filter, opts,
                                                         &call->reply, &call->error);
    }
    mongoc_find_and_modify_opts_destroy(opts);
    return ok && done_field(call, &call->reply, "value");
}

static bool find_one_and_update(struct call *call)
{
    return find_and_modify(call, "update", MONGOC_FIND_AND_MODIFY_NONE);
}

static bool find_one_and_replace(struct call *call)
{
    return find_and_modify(call, "replacement", MONGOC_FIND_AND_MODIFY_NONE);
}

static bool find_one_and_delete(struct call *call)
{
    return find_and_modify(call, NULL, MONGOC_FIND_AND_MODIFY_REMOVE);
}

/* ---- bulk writes --------------------------------------------------------------------------- */

static void model_options(const bson_t *model, bson_t *opts)
{
    bson_init(opts);
    bson_copy_to_excluding_noinit(model, opts, "filter", "update", "replacement", NULL);
}

static bool add_model(struct call *call, mongoc_bulk_operation_t *bulk, const char *kind,
                      const bson_t *model)
{
    bson_t filter;
    bson_t change = BSON_INITIALIZER;
    bson_t opts;
    bson_error_t *error = &call->error;
    bool ok;

    filter_of(model, &filter);
    if (!view_of(model, "update", &change) && !view_of(model, "replacement", &change)) {
        view_of(model, "document", &change);
    }
    model_options(model, &opts);
    if (strcmp(kind, "insertOne") == 0) {
        ok = mongoc_bulk_operation_insert_with_opts(bulk, &change, NULL, error);
    } else if (strcmp(kind, "updateOne") == 0) {
        ok = mongoc_bulk_operation_update_one_with_opts(bulk, &filter, &change, &opts, error);
    } else if (strcmp(kind, "updateMany") == 0) {
        ok = mongoc_bulk_operation_update_many_with_opts(bulk, &filter, &change, &opts, error);
    } else if (strcmp(kind, "replaceOne") == 0) {
        ok = mongoc_bulk_operation_replace_one_with_opts(bulk, &filter, &change, &opts, error);
    } else if (strcmp(kind, "deleteOne") == 0) {
        ok = mongoc_bulk_operation_remove_one_with_opts(bulk, &filter, &opts, error);
    } else if (strcmp(kind, "deleteMany") == 0) {
        ok = mongoc_bulk_operation_remove_many_with_opts(bulk, &filter, &opts, error);
    } else {
        ok = failed(call, "no request %s", kind);
    }
    bson_destroy(&opts);
    return ok;
}

static bool add_models(struct call *call, mongoc_bulk_operation_t *bulk)
{
    bson_t requests;
    bson_t request;
    bson_t model;
    bson_iter_t iter;
    bson_iter_t inner;
    bool ok = need_view(call, "requests", &requests) && bson_iter_init(&iter, &requests);

    while (ok && bson_iter_next(&iter)) {
        ok = view_of(&requests, bson_iter_key(&iter), &request) &&
             bson_iter_init(&inner, &request) && bson_iter_next(&inner) &&
             view_of(&request, bson_iter_key(&inner), &model) &&
             add_model(call, bulk, bson_iter_key(&inner), &model);
    }
    return ok;
}

static bool done_bulk(struct call *call)
{
    static const char *const counts[][2] = {
        {"insertedCount", "nInserted"}, {"matchedCount", "nMatched"},
        {"modifiedCount", "nModified"}, {"deletedCount", "nRemoved"},
        {"upsertedCount", "nUpserted"},
    };
    bson_t said;
    bson_t ids;
    bson_t upserted;
    bson_t entry;
    bson_iter_t iter;

    BSON_APPEND_DOCUMENT_BEGIN(&call->ok, "ok", &said);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        copy_field(&said, counts[i][0], &call->reply, counts[i][1]);
    }
    BSON_APPEND_DOCUMENT_BEGIN(&said, "upsertedIds", &ids);
    bool some = view_of(&call->reply, "upserted", &upserted) && bson_iter_init(&iter, &upserted);
    while (some && bson_iter_next(&iter) && view_of(&upserted, bson_iter_key(&iter), &entry)) {
        char *index = bson_strdup_printf("%d", (int)number_of(&entry, "index", 0));
        copy_field(&ids, index, &entry, "_id");
        bson_free(index);
    }
    bson_append_document_end(&said, &ids);
    return bson_append_document_end(&call->ok, &said);
}

static bool bulk_write(struct call *call)
{
    mongoc_bulk_operation_t *bulk =
        mongoc_collection_create_bulk_operation_with_opts(call->collection, &call->opts);
    bool ok = add_models(call, bulk);
    if (ok) {
        bson_destroy(&call->reply);
        ok = mongoc_bulk_operation_execute(bulk, &call->reply, &call->error) != 0;
    }
    mongoc_bulk_operation_destroy(bulk);
    if (!ok) {
        return false;
    }
    return acknowledged(call) ? done_bulk(call) : done_fields(call, NULL, 0);
}

const struct op ops_modify[] = {
    {"insertOne", insert_one, " document "},
    {"insertMany", insert_many, " documents "},
    {"updateOne", update_one, " filter update "},
    {"updateMany", update_many, " filter update "},
    {"replaceOne", replace_one, " filter replacement "},
    {"deleteOne", delete_one, " filter "},
    {"deleteMany", delete_many, " filter "},
    {"findOneAndUpdate", find_one_and_update,
     " filter update projection sort upsert returnDocument "},
    {"findOneAndReplace", find_one_and_replace,
     " filter replacement projection sort upsert returnDocument "},
    {"findOneAndDelete", find_one_and_delete, " filter projection sort "},
    {"bulkWrite", bulk_write, " requests "},
    {NULL, NULL, NULL},
};
