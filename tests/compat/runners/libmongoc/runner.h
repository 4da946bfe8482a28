/* The runner for libmongoc: one JSON request per line in, one JSON answer per line out.
 * tests/compat/README.md is the contract.
 *
 * main.c reads requests and keeps a pool of clients for each uri. scenario.c runs steps; the
 * operations are in the files of their names, as tables. outcome.c writes results.
 *
 * libmongoc's clients are for one thread at a time. A scenario has one of its own, for all that has
 * a name (sessions, cursors, streams) and for what does not run at once with anything. */
#ifndef COMPAT_RUNNER_H
#define COMPAT_RUNNER_H

#include <mongoc/mongoc.h>
#include <pthread.h>

/* Not one of libmongoc's error domains: the request or the scenario is wrong. */
#define DOMAIN_RUNNER 9999

struct pool {
    char *uri;
    mongoc_client_pool_t *clients; /* NULL after `close`, until it is needed again */
    struct pool *next;
};

/* A session, a cursor or a change stream. A closed stream keeps its token. */
struct named {
    char *name;
    mongoc_client_session_t *session;
    mongoc_cursor_t *cursor;
    mongoc_change_stream_t *stream;
    bson_t *token;
    bool tailable;
    const mongoc_client_session_t *within; /* of a cursor or stream; NULL: none */
    struct named *next;
};

struct scenario {
    struct pool *pool;
    const char *db;
    mongoc_client_t *client; /* NULL until a step needs it */
    pthread_mutex_t lock;    /* held by the thread whose step uses client or names */
    struct named *names;
};

/* One step on its way. The views point into the request. */
struct call {
    struct scenario *scenario;
    mongoc_client_t *client;
    mongoc_client_session_t *session; /* NULL: none */
    mongoc_database_t *database;
    mongoc_collection_t *collection;
    const char *op;
    bson_t step;
    bson_t args;
    bson_t opts; /* args less those that the operation reads itself, and the session */
    bson_t ok;   /* the value under the key "ok" */
    char *json;  /* instead of ok: a list of results */
    bson_error_t error;
    bson_t reply; /* of a failed operation */
};

struct op {
    const char *name;
    bool (*run)(struct call *call);
    const char *reads; /* arguments that it reads itself, with a space on both sides of each */
};

/* Tables end with a NULL name. */
extern const struct op ops_collection[];
extern const struct op ops_modify[];
extern const struct op ops_database[];
extern const struct op ops_cursors[];
extern const struct op ops_sessions[];
extern const struct op ops_concurrently[];

/* scenario.c */
mongoc_client_t *scenario_client(struct scenario *scenario, bson_error_t *error);
void scenario_release(struct scenario *scenario);
struct named *scenario_find(struct scenario *scenario, const char *name, bool session);
void named_close(struct named *named);
struct named *scenario_name(struct scenario *scenario, const char *name);
char *scenario_step(struct scenario *scenario, const bson_t *step);

void call_init(struct call *call, struct scenario *scenario, const bson_t *step);
bool call_run(struct call *call, mongoc_client_t *client, mongoc_client_session_t *inherited);
void call_deinit(struct call *call);

/* main.c */
mongoc_client_t *pool_pop(struct pool *pool, bson_error_t *error);
void pool_close(struct pool *pool);

/* args.c; those that return false for what is missing and take the call set its error. */
const char *text_of(const bson_t *from, const char *name);
int64_t number_of(const bson_t *from, const char *name, int64_t otherwise);
bool flag_of(const bson_t *from, const char *name);
bool view_of(const bson_t *from, const char *name, bson_t *view);
bool need_view(struct call *call, const char *name, bson_t *view);
bool need_text(struct call *call, const char *name, const char **text);
void filter_of(const bson_t *from, bson_t *view);
bool failed(struct call *call, const char *format, const char *what);
bool read_prefs_of(struct call *call, const bson_t *from, mongoc_read_prefs_t **prefs);
mongoc_write_concern_t *write_concern_of(const bson_t *from);
mongoc_read_concern_t *read_concern_of(const bson_t *from);

/* outcome.c */
bool done(struct call *call);
bool done_number(struct call *call, int64_t number);
bool done_document(struct call *call, const bson_t *document);
bool done_field(struct call *call, const bson_t *from, const char *name);
bool collect(struct call *call, mongoc_cursor_t *cursor);
char *call_result(struct call *call, bool ok);

#endif
