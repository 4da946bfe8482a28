/* Running steps, one after another or at once, and what they name. */
#include <stdlib.h>
#include <string.h>

#include "runner.h"

/* ---- names --------------------------------------------------------------------------------- */

mongoc_client_t *scenario_client(struct scenario *scenario, bson_error_t *error)
{
    if (scenario->client == NULL) {
        scenario->client = pool_pop(scenario->pool, error);
    }
    return scenario->client;
}

void named_close(struct named *named)
{
    if (named->cursor != NULL) {
        mongoc_cursor_destroy(named->cursor);
    }
    if (named->stream != NULL) {
        mongoc_change_stream_destroy(named->stream);
    }
    if (named->session != NULL) {
        mongoc_client_session_destroy(named->session); /* aborts its transaction */
    }
    named->within = NULL;
    named->cursor = NULL;
    named->stream = NULL;
    named->session = NULL;
}

/* Cursors before sessions: a cursor may be in one. */
void scenario_release(struct scenario *scenario)
{
    for (struct named *named = scenario->names; named != NULL; named = named->next) {
        if (named->session == NULL) {
            named_close(named);
        }
    }
    while (scenario->names != NULL) {
        struct named *named = scenario->names;
        scenario->names = named->next;
        named_close(named);
        if (named->token != NULL) {
            bson_destroy(named->token);
        }
        bson_free(named->name);
        bson_free(named);
    }
    if (scenario->client != NULL) {
        mongoc_client_pool_push(scenario->pool->clients, scenario->client);
        scenario->client = NULL;
    }
}

/* The latest of that name; sessions have names of their own. */
struct named *scenario_find(struct scenario *scenario, const char *name, bool session)
{
    for (struct named *named = scenario->names; named != NULL; named = named->next) {
        if (strcmp(named->name, name) == 0 && (named->session != NULL) == session) {
            return named;
        }
    }
    return NULL;
}

struct named *scenario_name(struct scenario *scenario, const char *name)
{
    struct named *named = bson_malloc0(sizeof *named);
    named->name = bson_strdup(name);
    named->next = scenario->names;
    scenario->names = named;
    return named;
}

/* ---- calls --------------------------------------------------------------------------------- */

void call_init(struct call *call, struct scenario *scenario, const bson_t *step)
{
    memset(call, 0, sizeof *call);
    call->scenario = scenario;
    bson_init_static(&call->step, bson_get_data(step), step->len);
    if (!view_of(step, "args", &call->args)) {
        bson_init(&call->args);
    }
    call->op = text_of(step, "op");
    if (call->op == NULL) {
        call->op = "";
    }
    bson_init(&call->opts);
    bson_init(&call->ok);
    bson_init(&call->reply);
}

void call_deinit(struct call *call)
{
    if (call->collection != NULL) {
        mongoc_collection_destroy(call->collection);
    }
    if (call->database != NULL) {
        mongoc_database_destroy(call->database);
    }
    bson_free(call->json);
    bson_destroy(&call->opts);
    bson_destroy(&call->ok);
    bson_destroy(&call->reply);
}

static const struct op *find_op(const char *name)
{
    const struct op *const tables[] = {ops_collection, ops_modify,   ops_database,
                                       ops_cursors,    ops_sessions, ops_concurrently};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        for (const struct op *op = tables[i]; op->name != NULL; op++) {
            if (strcmp(op->name, name) == 0) {
                return op;
            }
        }
    }
    return NULL;
}

static const char *session_name(const struct call *call)
{
    const char *name = text_of(&call->step, "session");
    return name != NULL ? name : text_of(&call->args, "session");
}

/* The database and collection objects, with the preference and the concerns of the step. */
static bool open_objects(struct call *call)
{
    mongoc_read_prefs_t *prefs;
    if (!read_prefs_of(call, &call->step, &prefs)) {
        return false;
    }
    mongoc_read_concern_t *read_concern = read_concern_of(&call->step);
    mongoc_write_concern_t *write_concern = write_concern_of(&call->step);
    const char *name = text_of(&call->step, "coll");

    call->database = mongoc_client_get_database(call->client, call->scenario->db);
    if (prefs != NULL) {
        mongoc_database_set_read_prefs(call->database, prefs);
    }
    if (read_concern != NULL) {
        mongoc_database_set_read_concern(call->database, read_concern);
    }
    if (write_concern != NULL) {
        mongoc_database_set_write_concern(call->database, write_concern);
    }
    call->collection =
        mongoc_database_get_collection(call->database, name != NULL ? name : "people");
    mongoc_read_prefs_destroy(prefs);
    mongoc_read_concern_destroy(read_concern);
    mongoc_write_concern_destroy(write_concern);
    return true;
}

static void append_options(struct call *call, const struct op *op)
{
    bson_iter_t iter;
    bson_iter_init(&iter, &call->args);
    while (bson_iter_next(&iter)) {
        char *word = bson_strdup_printf(" %s ", bson_iter_key(&iter));
        if (strstr(op->reads, word) == NULL) {
            BSON_APPEND_VALUE(&call->opts, bson_iter_key(&iter), bson_iter_value(&iter));
        }
        bson_free(word);
    }
}

/* On failure error says why, and reply what the server said. */
bool call_run(struct call *call, mongoc_client_t *client, mongoc_client_session_t *inherited)
{
    const struct op *op = find_op(call->op);
    const char *name = session_name(call);

    if (op == NULL) {
        return failed(call, "no operation %s", call->op);
    }
    call->client = client;
    call->session = inherited;
    if (inherited == NULL && name != NULL) {
        struct named *named = scenario_find(call->scenario, name, true);
        if (named == NULL) {
            return failed(call, "no session %s", name);
        }
        call->session = named->session;
    }
    append_options(call, op);
    if (call->session != NULL &&
        !mongoc_client_session_append(call->session, &call->opts, &call->error)) {
        return false;
    }
    return open_objects(call) && op->run(call);
}

/* Steps that use names use the scenario's own client. */
static bool uses_names(const struct call *call)
{
    return session_name(call) != NULL || text_of(&call->args, "cursor") != NULL ||
           text_of(&call->args, "as") != NULL || text_of(&call->args, "resumeFrom") != NULL;
}

char *scenario_step(struct scenario *scenario, const bson_t *step)
{
    struct call call;
    call_init(&call, scenario, step);
    mongoc_client_t *client = scenario_client(scenario, &call.error);
    bool ok = client != NULL && call_run(&call, client, NULL);
    char *result = call_result(&call, ok);
    call_deinit(&call);
    return result;
}

/* ---- at once ------------------------------------------------------------------------------- */

struct thread {
    pthread_t id;
    struct scenario *scenario;
    bson_t step;
    char *result;
};

static void *run_thread(void *argument)
{
    struct thread *thread = argument;
    struct call call;

    call_init(&call, thread->scenario, &thread->step);
    if (uses_names(&call)) {
        pthread_mutex_lock(&thread->scenario->lock);
        thread->result = scenario_step(thread->scenario, &thread->step);
        pthread_mutex_unlock(&thread->scenario->lock);
    } else {
        mongoc_client_t *client = mongoc_client_pool_pop(thread->scenario->pool->clients);
        bool ok = call_run(&call, client, NULL);
        thread->result = call_result(&call, ok);
        /* The call's objects are the client's. */
        mongoc_collection_destroy(call.collection);
        mongoc_database_destroy(call.database);
        call.collection = NULL;
        call.database = NULL;
        mongoc_client_pool_push(thread->scenario->pool->clients, client);
    }
    call_deinit(&call);
    return NULL;
}

static bool concurrently(struct call *call)
{
    bson_t steps;
    bson_iter_t iter;

    if (!need_view(call, "steps", &steps)) {
        return false;
    }
    uint32_t n = 0;
    struct thread *threads = bson_malloc0(sizeof *threads * (bson_count_keys(&steps) + 1));
    bson_iter_init(&iter, &steps);
    while (bson_iter_next(&iter)) {
        struct thread *thread = &threads[n++];
        thread->scenario = call->scenario;
        view_of(&steps, bson_iter_key(&iter), &thread->step);
        if (pthread_create(&thread->id, NULL, run_thread, thread) != 0) {
            abort(); /* of the machine, not of the driver: there is no result to give */
        }
    }
    bson_string_t *list = bson_string_new("[");
    for (uint32_t i = 0; i < n; i++) {
        pthread_join(threads[i].id, NULL);
        bson_string_append_printf(list, "%s%s", i > 0 ? ", " : "", threads[i].result);
        bson_free(threads[i].result);
    }
    bson_string_append(list, "]");
    bson_free(threads);
    call->json = bson_string_free(list, false);
    return true;
}

const struct op ops_concurrently[] = {
    {"concurrently", concurrently, " steps "},
    {NULL, NULL, NULL},
};
