/* A whole collection, document by document (see scan_internal.h). */
#include "scan_internal.h"

#define BATCH_DOCS 2000u
#define BARRIER_MAX_MS 30000
#define CODE_NOT_A_REPLICA_SET 123

/* The barrier before the majority reads of the scan: a linearizable read waits until all that was
 * written before it cannot be lost, so the scan sees it. */
static enum rk_status barrier(mongoc_client_t *client, const struct rk_ns *ns, int64_t *documents,
                              struct rk_error *err)
{
    struct rk_error cause = {0};
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
    if (status != RK_OK && err != NULL) {
        *err = cause;
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* RK_OK: all of the batch was visited, and position is its last _id. */
static enum rk_status visit_batch(const struct rk_scan_batch *batch,
                                  const struct rk_scan_visitor *visitor, struct rk_id *position)
{
    struct rk_bson_iter iter;
    struct rk_bson_view doc;
    struct rk_bson_elem id = {0};
    enum rk_status status;
    rk_scan_iter_init(&iter, batch);
    while ((status = rk_scan_next(&iter, &doc, &id)) == RK_OK) {
        status = visitor->each(visitor->arg, &doc);
        if (status != RK_OK) {
            return status;
        }
    }
    if (status == RK_ENOENT) {
        status = id.type == 0 ? RK_OK : rk_id_set_elem(position, &id);
    }
    return status;
}

enum rk_status rk_scan_all(mongoc_client_t *client, const struct rk_ns *ns,
                           const struct rk_scan_visitor *visitor, struct rk_error *err)
{
    struct rk_scan_batch batch;
    struct rk_id position;
    int64_t documents = 0;
    enum rk_status status = barrier(client, ns, &documents, err);
    if (status != RK_OK) {
        return status;
    }
    if (visitor->first != NULL) {
        visitor->first(visitor->arg, documents);
    }
    rk_scan_batch_init(&batch);
    rk_id_init(&position);
    do {
        const struct rk_scan next = {.after = &position, .whole = true, .limit = BATCH_DOCS};
        status = rk_scan_read(client, ns, &next, &batch, err);
        if (status != RK_OK) {
            break;
        }
        status = visit_batch(&batch, visitor, &position);
        if (status != RK_OK) {
            (void)rk_error_set(err, status, "cannot look through a document of %s: %s", ns->full,
                               rk_status_name(status));
        } else if (visitor->batch_done != NULL) {
            visitor->batch_done(visitor->arg);
        }
    } while (status == RK_OK && !batch.exhausted);
    rk_id_deinit(&position);
    rk_scan_batch_deinit(&batch);
    return status;
}
