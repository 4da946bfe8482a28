/* Cursors and change streams that have a name. */
#include <string.h>
#include <unistd.h>

#include "runner.h"

#define TAILABLE_WAIT_US (1000 * 1000)
#define TAILABLE_PAUSE_US (20 * 1000)
#define STREAM_WAIT_US (10 * 1000 * 1000)

static bool open_cursor(struct call *call, mongoc_cursor_t *cursor)
{
    const char *name;
    const bson_t *reply;
    bool ok = need_text(call, "as", &name);

    if (ok && mongoc_cursor_error_document(cursor, &call->error, &reply)) {
        bson_concat(&call->reply, reply);
        ok = false;
    }
    if (!ok) {
        mongoc_cursor_destroy(cursor);
        return false;
    }
    struct named *named = scenario_name(call->scenario, name);
    named->cursor = cursor;
    named->within = call->session;
    named->tailable = text_of(&call->args, "cursorType") != NULL &&
                      strcmp(text_of(&call->args, "cursorType"), "exhaust") != 0;
    return done(call);
}

static bool open_find(struct call *call)
{
    bson_t filter;
    const char *type = text_of(&call->args, "cursorType");

    if (type != NULL && strcmp(type, "exhaust") == 0) {
        BSON_APPEND_BOOL(&call->opts, "exhaust", true);
    } else if (type != NULL) {
        BSON_APPEND_BOOL(&call->opts, "tailable", true);
        BSON_APPEND_BOOL(&call->opts, "awaitData", strcmp(type, "tailableAwait") == 0);
    }
    filter_of(&call->args, &filter);
    return open_cursor(
        call, mongoc_collection_find_with_opts(call->collection, &filter, &call->opts, NULL));
}

static bool open_aggregate(struct call *call)
{
    bson_t pipeline;
    return need_view(call, "pipeline", &pipeline) &&
           open_cursor(call, mongoc_collection_aggregate(call->collection, MONGOC_QUERY_NONE,
                                                         &pipeline, &call->opts, NULL));
}

static bool watch(struct call *call)
{
    bson_t pipeline;
    const bson_t *reply;
    const char *name;
    const char *on = text_of(&call->args, "on");
    const char *from = text_of(&call->args, "resumeFrom");
    mongoc_change_stream_t *stream;

    if (!need_text(call, "as", &name)) {
        return false;
    }
    if (!view_of(&call->args, "pipeline", &pipeline)) {
        bson_init(&pipeline);
    }
    if (from != NULL) {
        struct named *earlier = scenario_find(call->scenario, from, false);
        if (earlier == NULL || earlier->token == NULL) {
            return failed(call, "stream %s has no token", from);
        }
        BSON_APPEND_DOCUMENT(&call->opts, "resumeAfter", earlier->token);
    }
    if (on != NULL && strcmp(on, "cluster") == 0) {
        stream = mongoc_client_watch(call->client, &pipeline, &call->opts);
    } else if (on != NULL && strcmp(on, "database") == 0) {
        stream = mongoc_database_watch(call->database, &pipeline, &call->opts);
    } else {
        stream = mongoc_collection_watch(call->collection, &pipeline, &call->opts);
    }
    if (mongoc_change_stream_error_document(stream, &call->error, &reply)) {
        bson_concat(&call->reply, reply);
        mongoc_change_stream_destroy(stream);
        return false;
    }
    struct named *named = scenario_name(call->scenario, name);
    named->stream = stream;
    named->within = call->session;
    return done(call);
}

static bool next_of_cursor(struct call *call, struct named *named)
{
    const bson_t *document;
    int64_t deadline = bson_get_monotonic_time() + TAILABLE_WAIT_US;

    if (!mongoc_cursor_more(named->cursor)) {
        return done(call); /* its end was seen before */
    }
    while (!mongoc_cursor_next(named->cursor, &document)) {
        if (mongoc_cursor_error_document(named->cursor, &call->error, &document)) {
            bson_concat(&call->reply, document);
            return false;
        }
        if (!named->tailable || !mongoc_cursor_more(named->cursor) ||
            bson_get_monotonic_time() > deadline) {
            return done(call);
        }
        usleep(TAILABLE_PAUSE_US);
    }
    return done_document(call, document);
}

static bool next_of_stream(struct call *call, struct named *named)
{
    const bson_t *document;
    const bson_t *token;
    int64_t deadline = bson_get_monotonic_time() + STREAM_WAIT_US;
    bool found;

    while (!(found = mongoc_change_stream_next(named->stream, &document))) {
        if (mongoc_change_stream_error_document(named->stream, &call->error, &document)) {
            bson_concat(&call->reply, document);
            return false;
        }
        if (bson_get_monotonic_time() > deadline) {
            break;
        }
    }
    token = mongoc_change_stream_get_resume_token(named->stream);
    if (token != NULL) {
        bson_destroy(named->token);
        named->token = bson_copy(token);
    }
    return found ? done_document(call, document) : done(call);
}

static struct named *need_cursor(struct call *call)
{
    const char *name;
    struct named *named = NULL;

    if (need_text(call, "cursor", &name)) {
        named = scenario_find(call->scenario, name, false);
    }
    if (named == NULL || (named->cursor == NULL && named->stream == NULL)) {
        failed(call, "%s: no such cursor", call->op);
        return NULL;
    }
    return named;
}

static bool next(struct call *call)
{
    struct named *named = need_cursor(call);
    if (named == NULL) {
        return false;
    }
    return named->cursor != NULL ? next_of_cursor(call, named) : next_of_stream(call, named);
}

static bool close_cursor(struct call *call)
{
    struct named *named = need_cursor(call);
    if (named == NULL) {
        return false;
    }
    named_close(named);
    return done(call);
}

const struct op ops_cursors[] = {
    {"openFind", open_find, " as filter cursorType "},
    {"openAggregate", open_aggregate, " as pipeline "},
    {"watch", watch, " as pipeline on resumeFrom "},
    {"next", next, " cursor "},
    {"closeCursor", close_cursor, " cursor "},
    {NULL, NULL, NULL},
};
