/* Operations of the database and of the client, and GridFS. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner.h"

static bool command_on(struct call *call, const char *db)
{
    bson_t command;
    const mongoc_read_prefs_t *prefs = NULL;

    if (!need_view(call, "command", &command)) {
        return false;
    }
    if (text_of(&call->step, "readPreference") != NULL) {
        prefs = mongoc_database_get_read_prefs(call->database);
    }
    bson_destroy(&call->reply);
    return mongoc_client_command_with_opts(call->client, db, &command, prefs, &call->opts,
                                           &call->reply, &call->error) &&
           done_document(call, &call->reply);
}

static bool run_command(struct call *call)
{
    return command_on(call, call->scenario->db);
}

static bool admin_command(struct call *call)
{
    return command_on(call, "admin");
}

static bool aggregate_database(struct call *call)
{
    bson_t pipeline;
    return need_view(call, "pipeline", &pipeline) &&
           collect(call, mongoc_database_aggregate(call->database, &pipeline, &call->opts, NULL));
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool list_collections(struct call *call)
{
    bson_t list;
    size_t n = 0;
    char **names =
        mongoc_database_get_collection_names_with_opts(call->database, &call->opts, &call->error);

    if (names == NULL) {
        return false;
    }
    while (names[n] != NULL) {
        n++;
    }
    qsort(names, n, sizeof names[0], compare_names);
    BSON_APPEND_ARRAY_BEGIN(&call->ok, "ok", &list);
    for (size_t i = 0; i < n; i++) {
        char buffer[16];
        const char *key;
        bson_uint32_to_string((uint32_t)i, &key, buffer, sizeof buffer);
        BSON_APPEND_UTF8(&list, key, names[i]);
    }
    bson_append_array_end(&call->ok, &list);
    bson_strfreev(names);
    return true;
}

static bool create_collection(struct call *call)
{
    const char *name;
    if (!need_text(call, "name", &name)) {
        return false;
    }
    mongoc_collection_t *collection =
        mongoc_database_create_collection(call->database, name, &call->opts, &call->error);
    if (collection == NULL) {
        return false;
    }
    mongoc_collection_destroy(collection);
    return done(call);
}

static bool ping(struct call *call)
{
    bson_t command = BSON_INITIALIZER;

    BSON_APPEND_INT32(&command, "ping", 1);
    bson_destroy(&call->reply);
    bool ok = mongoc_client_command_simple(call->client, "admin", &command, NULL, &call->reply,
                                           &call->error);
    bson_destroy(&command);
    return ok && done(call);
}

static bool close_client(struct call *call)
{
    mongoc_collection_destroy(call->collection);
    mongoc_database_destroy(call->database);
    call->collection = NULL;
    call->database = NULL;
    scenario_release(call->scenario);
    pool_close(call->scenario->pool);
    return done(call);
}

static bool sleep_for(struct call *call)
{
    usleep((useconds_t)number_of(&call->args, "ms", 0) * 1000);
    return done(call);
}

/* ---- GridFS -------------------------------------------------------------------------------- */

static mongoc_gridfs_bucket_t *bucket_of(struct call *call, bson_value_t *id)
{
    bson_iter_t iter;
    if (!bson_iter_init_find(&iter, &call->args, "id")) {
        failed(call, "%s needs an id", call->op);
        return NULL;
    }
    bson_value_copy(bson_iter_value(&iter), id);
    return mongoc_gridfs_bucket_new(call->database, NULL, NULL, &call->error);
}

/* Takes the stream; base64 has no blanks here and may end in padding. */
static bool write_base64(struct call *call, mongoc_stream_t *stream, const char *base64)
{
    size_t len = strlen(base64);
    uint8_t *data = bson_malloc(len + 1);
    int decoded = EVP_DecodeBlock(data, (const uint8_t *)base64, (int)len);

    for (size_t i = len; decoded > 0 && i > 0 && base64[i - 1] == '='; i--) {
        decoded--;
    }
    bool ok =
        decoded == 0 || mongoc_stream_write(stream, data, (size_t)decoded, 0) == (ssize_t)decoded;
    ok = mongoc_stream_close(stream) == 0 && ok;
    ok = !mongoc_gridfs_bucket_stream_error(stream, &call->error) && ok;
    mongoc_stream_destroy(stream);
    bson_free(data);
    return ok;
}

static bool gridfs_upload(struct call *call)
{
    bson_value_t id = {.value_type = BSON_TYPE_NULL};
    const char *base64;
    const char *file;
    mongoc_stream_t *stream = NULL;

    if (!need_text(call, "dataBase64", &base64) || !need_text(call, "filename", &file)) {
        return false;
    }
    mongoc_gridfs_bucket_t *bucket = bucket_of(call, &id);
    if (bucket != NULL) {
        stream = mongoc_gridfs_bucket_open_upload_stream_with_id(bucket, &id, file, &call->opts,
                                                                 &call->error);
    }
    bool ok = stream != NULL && write_base64(call, stream, base64) && done(call);
    mongoc_gridfs_bucket_destroy(bucket);
    bson_value_destroy(&id);
    return ok;
}

/* Takes the stream. */
static bool read_base64(struct call *call, mongoc_stream_t *stream)
{
    uint8_t piece[3 * 4096];
    char text[4 * 4096 + 1];
    bson_string_t *base64 = bson_string_new(NULL);
    ssize_t n;

    /* Whole pieces until the last, so that their encodings can be joined. */
    while ((n = mongoc_stream_read(stream, piece, sizeof piece, sizeof piece, 0)) > 0) {
        EVP_EncodeBlock((uint8_t *)text, piece, (int)n);
        bson_string_append(base64, text);
    }
    bool ok = n == 0 && !mongoc_gridfs_bucket_stream_error(stream, &call->error);
    if (ok) {
        BSON_APPEND_UTF8(&call->ok, "ok", base64->str);
    }
    bson_string_free(base64, true);
    mongoc_stream_destroy(stream);
    return ok;
}

static bool gridfs_download(struct call *call)
{
    bson_value_t id = {.value_type = BSON_TYPE_NULL};
    mongoc_stream_t *stream = NULL;
    mongoc_gridfs_bucket_t *bucket = bucket_of(call, &id);

    if (bucket != NULL) {
        stream = mongoc_gridfs_bucket_open_download_stream(bucket, &id, &call->error);
    }
    bool ok = stream != NULL && read_base64(call, stream);
    mongoc_gridfs_bucket_destroy(bucket);
    bson_value_destroy(&id);
    return ok;
}

static bool gridfs_delete(struct call *call)
{
    bson_value_t id = {.value_type = BSON_TYPE_NULL};
    mongoc_gridfs_bucket_t *bucket = bucket_of(call, &id);
    bool ok = bucket != NULL && mongoc_gridfs_bucket_delete_by_id(bucket, &id, &call->error) &&
              done(call);

    mongoc_gridfs_bucket_destroy(bucket);
    bson_value_destroy(&id);
    return ok;
}

const struct op ops_database[] = {
    {"runCommand", run_command, " command "},
    {"adminCommand", admin_command, " command "},
    {"aggregateDatabase", aggregate_database, " pipeline "},
    {"listCollections", list_collections, ""},
    {"createCollection", create_collection, " name "},
    {"ping", ping, ""},
    {"close", close_client, ""},
    {"sleep", sleep_for, " ms "},
    {"gridfsUpload", gridfs_upload, " id filename dataBase64 "},
    {"gridfsDownload", gridfs_download, " id "},
    {"gridfsDelete", gridfs_delete, " id "},
    {NULL, NULL, NULL},
};
