/* A whole collection, document by document (see scan_internal.h). */
#include "scan_internal.h"

#define BARRIER_MAX_MS 30000
#define READ_MAX_MS 60000u /* of a member that is behind */
#define CODE_NOT_A_REPLICA_SET 123

/* The barrier before the majority reads of the scan: a linearizable read waits until all that was
 * written before it cannot be lost. Its time is what members other than the primary wait for. */
static enum rk_status barrier(mongoc_client_t *client, const struct rk_ns *ns,
                              struct rk_scan_from *from, int64_t *documents, struct rk_error *err)
{
    struct rk_error cause = {0};
    struct rk_bson_elem time;
    bson_t reply;
    bson_t *command =
        BCON_NEW("count", BCON_UTF8(ns->coll), "readConcern", "{", "level",
                 BCON_UTF8("linearizable"), "}", "maxTimeMS", BCON_INT32(BARRIER_MAX_MS));
    enum rk_status status = rk_command_run_bson(client, ns->db, command, &reply, &cause);
    if (status == RK_EREFUSED && cause.code == CODE_NOT_A_REPLICA_SET) {
        bson_t *plain = BCON_NEW("count", BCON_UTF8(ns->coll)); /* a standalone forgets nothing */
        bson_destroy(&reply);
        status = rk_command_run_bson(client, ns->db, plain, &reply, &cause);
        bson_destroy(plain);
    }
    struct rk_bson_view view = rk_reply_view(&reply);
    *documents = rk_view_int(&view, "n");
    if (status == RK_OK && rk_bson_find(&view, "operationTime", &time) &&
        time.type == RK_BSON_TIMESTAMP) {
        from->after = rk_load_u64(time.value);
    }
    if (status != RK_OK && err != NULL) {
        *err = cause;
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* RK_OK: all of the batch was visited, and position is its last _id. */
static enum rk_status visit_batch(const struct rk_ns *ns, const struct rk_scan_batch *batch,
                                  const struct rk_scan_visitor *visitor, struct rk_id *position,
                                  struct rk_error *err)
{
    struct rk_bson_iter iter;
    struct rk_bson_view doc;
    struct rk_bson_elem id = {0};
    enum rk_status status;
    rk_scan_iter_init(&iter, batch);
    while ((status = rk_scan_next(&iter, &doc, &id)) == RK_OK) {
        status = visitor->each(visitor->arg, &doc, err);
        if (status != RK_OK) {
            return status;
        }
    }
    if (status != RK_ENOENT) {
        return rk_error_set(err, status, "mongod returned a malformed document of %s", ns->full);
    }
    status = id.type == 0 ? RK_OK : rk_id_set_elem(position, &id);
    return status == RK_OK ? RK_OK : rk_error_set(err, status, "out of memory");
}

mongoc_read_mode_t rk_scan_mode(enum rk_config_scan read_preference)
{
    static const mongoc_read_mode_t modes[] = {
        [RK_CONFIG_SCAN_PRIMARY] = MONGOC_READ_PRIMARY,
        [RK_CONFIG_SCAN_SECONDARY] = MONGOC_READ_SECONDARY,
        [RK_CONFIG_SCAN_SECONDARY_PREFERRED] = MONGOC_READ_SECONDARY_PREFERRED,
        [RK_CONFIG_SCAN_NEAREST] = MONGOC_READ_NEAREST,
    };
    return modes[read_preference];
}

enum rk_status rk_scan_all(mongoc_client_t *client, const struct rk_ns *ns, mongoc_read_mode_t mode,
                           uint32_t batch_docs, const struct rk_scan_visitor *visitor,
                           struct rk_id *position, struct rk_error *err)
{
    struct rk_scan_batch batch;
    struct rk_scan_from from = {.mode = mode, .max_time_ms = READ_MAX_MS};
    int64_t documents = 0;
    enum rk_status status = barrier(client, ns, &from, &documents, err);
    if (status != RK_OK) {
        return status;
    }
    visitor->first(visitor->arg, documents);
    rk_scan_batch_init(&batch);
    do {
        const struct rk_scan next = {.from = mode == MONGOC_READ_PRIMARY ? NULL : &from,
                                     .after = position,
                                     .whole = true,
                                     .limit = batch_docs};
        status = rk_scan_read(client, ns, &next, &batch, err);
        if (status == RK_OK) {
            status = visit_batch(ns, &batch, visitor, position, err);
        }
        if (status == RK_OK) {
            status = visitor->batch_done(visitor->arg, batch.n, err);
        }
    } while (status == RK_OK && !batch.exhausted);
    rk_scan_batch_deinit(&batch);
    return status;
}
