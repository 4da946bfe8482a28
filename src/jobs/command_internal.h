/*
 * Commands to mongod as raw BSON, and what their failures mean for the caller.
 */
#ifndef REKEY_JOBS_COMMAND_INTERNAL_H
#define REKEY_JOBS_COMMAND_INTERNAL_H

#include <mongoc/mongoc.h>
#include <rekey/bson/rewrite.h>
#include <rekey/keys/mongo.h>

/* "db.collection", taken apart once. */
struct rk_ns {
    char full[320];
    char db[64];
    char coll[256];
};
RK_MUST_CHECK bool rk_ns_parse(struct rk_ns *ns, const char *text);

/* An owned _id; type 0: none. */
struct rk_id {
    uint8_t type;
    struct rk_buf value;
};
void rk_id_init(struct rk_id *id);
void rk_id_deinit(struct rk_id *id);
RK_MUST_CHECK enum rk_status rk_id_set(struct rk_id *id, uint8_t type, const void *data,
                                       size_t len);
RK_MUST_CHECK enum rk_status rk_id_set_elem(struct rk_id *id, const struct rk_bson_elem *elem);
void rk_bson_put_id(struct rk_bson_writer *w, const char *key, const struct rk_id *id);

/* {type and key}: an ObjectId, a string, {$literal: text}, {w: "majority", wtimeout}. */
void rk_bson_put_oid(struct rk_bson_writer *w, const char *key, const bson_oid_t *oid);
void rk_bson_put_string(struct rk_bson_writer *w, const char *key, const char *text);
void rk_bson_put_literal(struct rk_bson_writer *w, const char *key, const char *text);
void rk_bson_begin_doc(struct rk_bson_writer *w, const char *key);
void rk_bson_begin_array(struct rk_bson_writer *w, const char *key);
void rk_bson_put_majority(struct rk_bson_writer *w, uint32_t wtimeout_ms);
/* The same for a command that libbson builds; rk_mongo_majority_writes: with no lease's timeout. */
void rk_bson_append_majority(bson_t *command, uint32_t wtimeout_ms);
/* key: {$add: ["$$NOW", ms]}, for updates with a pipeline. */
void rk_bson_put_now_plus(struct rk_bson_writer *w, const char *key, int64_t ms);

/*
 * Runs a command on the primary and checks ok, and writeConcernError for writes; not what became of
 * single statements, see rk_reply_check_writes. reply is always initialised (bson_destroy it).
 *   RK_EIO       the server cannot be reached, steps down, is out of room or timed out: the same
 *                command may succeed later
 *   RK_EREFUSED  the server said no; err->code has its code
 */
RK_MUST_CHECK enum rk_status rk_command_run(mongoc_client_t *client, const char *db,
                                            const struct rk_buf *command, bson_t *reply,
                                            struct rk_error *err);

/* The same for a command that libbson built. */
RK_MUST_CHECK enum rk_status rk_command_run_bson(mongoc_client_t *client, const char *db,
                                                 const bson_t *command, bson_t *reply,
                                                 struct rk_error *err);

/* The same for a read, on a server of this mode's choice; *server says which one it was. */
RK_MUST_CHECK enum rk_status rk_command_run_on(mongoc_client_t *client, const char *db,
                                               const struct rk_buf *command,
                                               mongoc_read_mode_t mode, uint32_t *server,
                                               bson_t *reply, struct rk_error *err);

/* The same two for what libmongoc runs by itself, a cursor or a list of collections. */
enum rk_status rk_command_error(struct rk_error *err, const char *what, const bson_error_t *cause);

/* Is a server's error code one that passes by itself? */
bool rk_code_transient(int code);

/*
 * What became of the statements of an insert or update that is ok: behind a mongos, even an
 * election of a shard is no more than an entry of writeErrors. RK_EIO and RK_EREFUSED as above;
 * what: was refused, for the error. One that is no duplicate key tells before those that are.
 */
RK_MUST_CHECK enum rk_status rk_reply_check_writes(const bson_t *reply, const char *what,
                                                   struct rk_error *err);
/* Is it nothing but keys that a unique index had already why a write failed? */
bool rk_is_duplicate(enum rk_status status, const struct rk_error *err);

/* The reply as a view. */
struct rk_bson_view rk_reply_view(const bson_t *reply);
/* An integer of the reply; missing counts as 0. */
int64_t rk_view_int(const struct rk_bson_view *view, const char *key);
/* Milliseconds since 1970; 0: missing, or no date. */
int64_t rk_view_date(const struct rk_bson_view *view, const char *key);
/* False: missing, or no ObjectId. */
bool rk_view_oid(const struct rk_bson_view *view, const char *key, bson_oid_t *oid);
/* The documents of a cursor's first batch, one after the other. RK_EIO: the reply is malformed. */
RK_MUST_CHECK enum rk_status rk_reply_batch(const bson_t *reply, struct rk_bson_iter *docs,
                                            struct rk_error *err);
/* False at the end. */
bool rk_batch_next(struct rk_bson_iter *docs, struct rk_bson_view *doc);
/* Follows keys down through documents and arrays. */
bool rk_view_path(const struct rk_bson_view *view, const char *const *keys, size_t n_keys,
                  struct rk_bson_elem *elem);

#endif
