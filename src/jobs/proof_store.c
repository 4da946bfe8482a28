/* Proofs as documents (see proof.h). */
#include "proof_internal.h"

#include <rekey/keys/mongo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void append_index(bson_t *array, size_t i, bson_t *entry)
{
    char text[16];
    const char *key;
    size_t len = bson_uint32_to_string((uint32_t)i, &key, text, sizeof text);
    bson_append_document_begin(array, key, (int)len, entry);
}

static void append_usage(bson_t *doc, const char *field, const struct rk_usage *usage)
{
    bson_t array;
    bson_t entry;
    bson_append_array_begin(doc, field, -1, &array);
    for (size_t i = 0; i < usage->n; i++) {
        append_index(&array, i, &entry);
        BSON_APPEND_INT64(&entry, "id", (int64_t)usage->keys[i].id);
        BSON_APPEND_INT64(&entry, "values", usage->keys[i].values);
        bson_append_document_end(&array, &entry);
    }
    bson_append_array_end(doc, &array);
}

static void append_parts(bson_t *doc, const struct rk_proof *proof)
{
    bson_t array;
    bson_t entry;
    BSON_APPEND_ARRAY_BEGIN(doc, "namespaces", &array);
    for (size_t i = 0; i < proof->n_parts; i++) {
        append_index(&array, i, &entry);
        BSON_APPEND_UTF8(&entry, "ns", proof->parts[i].ns);
        BSON_APPEND_INT64(&entry, "documents", proof->parts[i].census.documents);
        append_usage(&entry, "keys", &proof->parts[i].census.usage);
        bson_append_document_end(&array, &entry);
    }
    bson_append_array_end(doc, &array);
}

static bson_t *completion(const struct rk_pass *pass, const struct rk_proof *proof)
{
    bson_t set = BSON_INITIALIZER;
    append_parts(&set, proof);
    append_usage(&set, "deadLetters", &proof->dead_letters);
    if (pass->request->verify != NULL) {
        BSON_APPEND_BOOL(&set, "ok", rk_proof_holds(proof));
    }
    bson_t *command = BCON_NEW(
        "findAndModify", BCON_UTF8("proofs"), "query", "{", "_id", BCON_OID(&pass->id), "owner",
        BCON_UTF8(pass->owner), "epoch", BCON_INT64(pass->epoch), "}", "update", "{", "$set",
        BCON_DOCUMENT(&set), "$currentDate", "{", "completedAt", BCON_BOOL(true), "}", "}", "new",
        BCON_BOOL(true), "fields", "{", "completedAt", BCON_INT32(1), "}", "writeConcern", "{", "w",
        BCON_UTF8("majority"), "wtimeout", BCON_INT64((int64_t)pass->lease.wtimeout_ms), "}");
    bson_destroy(&set);
    return command;
}

enum rk_status rk_pass_complete(const struct rk_pass *pass, struct rk_proof *proof,
                                struct rk_error *err)
{
    static const char *const date_path[] = {"value", "completedAt"};
    struct rk_bson_elem date;
    bson_t reply;
    bson_t *command = completion(pass, proof);
    enum rk_status status =
        rk_command_run_bson(pass->lease.client, pass->lease.state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK && rk_view_path(&view, date_path, 2, &date) && date.type == RK_BSON_DATE) {
        proof->completed_at_ms = rk_load_i64(date.value);
    } else if (status == RK_OK) {
        status = rk_error_set(err, RK_ESTATE, "another rekeyctl goes on with this scan");
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

static int64_t int_of(const bson_iter_t *document, const char *field)
{
    bson_iter_t iter;
    bson_iter_t found;
    return bson_iter_recurse(document, &iter) && bson_iter_find_descendant(&iter, field, &found) &&
                   BSON_ITER_HOLDS_INT(&found)
               ? bson_iter_as_int64(&found)
               : 0;
}

static enum rk_status read_usage(const bson_iter_t *array, struct rk_usage *usage)
{
    bson_iter_t entry;
    enum rk_status status = RK_OK;
    if (!BSON_ITER_HOLDS_ARRAY(array) || !bson_iter_recurse(array, &entry)) {
        return RK_EINVAL;
    }
    while (status == RK_OK && bson_iter_next(&entry)) {
        int64_t id = int_of(&entry, "id");
        status = id < 0 || id > UINT32_MAX
                     ? RK_EINVAL
                     : rk_usage_add_key(usage, (uint32_t)id, int_of(&entry, "values"));
    }
    return status;
}

static enum rk_status read_part(const bson_iter_t *entry, struct rk_proof_part *part)
{
    bson_iter_t iter;
    bson_iter_t found;
    if (!bson_iter_recurse(entry, &iter) || !bson_iter_find_descendant(&iter, "ns", &found) ||
        !BSON_ITER_HOLDS_UTF8(&found)) {
        return RK_EINVAL;
    }
    (void)snprintf(part->ns, sizeof part->ns, "%s", bson_iter_utf8(&found, NULL));
    part->census.documents = int_of(entry, "documents");
    return bson_iter_recurse(entry, &iter) && bson_iter_find_descendant(&iter, "keys", &found)
               ? read_usage(&found, &part->census.usage)
               : RK_EINVAL;
}

static enum rk_status read_parts(const bson_t *doc, struct rk_proof *proof)
{
    bson_iter_t array;
    bson_iter_t entry;
    enum rk_status status = RK_OK;
    if (!bson_iter_init_find(&array, doc, "namespaces") || !BSON_ITER_HOLDS_ARRAY(&array) ||
        !bson_iter_recurse(&array, &entry)) {
        return RK_EINVAL;
    }
    while (status == RK_OK && bson_iter_next(&entry)) {
        struct rk_proof_part *grown =
            realloc(proof->parts, (proof->n_parts + 1) * sizeof *proof->parts);
        if (grown == NULL) {
            return RK_ENOMEM;
        }
        proof->parts = grown;
        grown[proof->n_parts] = (struct rk_proof_part){.ns = ""};
        status = read_part(&entry, &grown[proof->n_parts++]);
    }
    return status;
}

static enum rk_status read_proof(const bson_t *doc, struct rk_proof *proof)
{
    bson_iter_t iter;
    if (bson_iter_init_find(&iter, doc, "_id") && BSON_ITER_HOLDS_OID(&iter)) {
        bson_oid_to_string(bson_iter_oid(&iter), proof->id);
    }
    if (bson_iter_init_find(&iter, doc, "startedAt") && BSON_ITER_HOLDS_DATE_TIME(&iter)) {
        proof->started_at_ms = bson_iter_date_time(&iter);
    }
    if (bson_iter_init_find(&iter, doc, "completedAt") && BSON_ITER_HOLDS_DATE_TIME(&iter)) {
        proof->completed_at_ms = bson_iter_date_time(&iter);
    }
    enum rk_status status = read_parts(doc, proof);
    return status == RK_OK && bson_iter_init_find(&iter, doc, "deadLetters")
               ? read_usage(&iter, &proof->dead_letters)
               : status;
}

enum rk_status rk_proof_last(mongoc_client_t *client, const char *state_db, struct rk_proof *out,
                             struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    const bson_t *doc;
    bson_t *filter = BCON_NEW("completedAt", "{", "$exists", BCON_BOOL(true), "}", "kind", "{",
                              "$ne", BCON_UTF8("verify"), "}");
    bson_t *opts = BCON_NEW("sort", "{", "completedAt", BCON_INT32(-1), "_id", BCON_INT32(-1), "}",
                            "limit", BCON_INT64(1));
    mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    mongoc_collection_t *proofs = mongoc_client_get_collection(client, state_db, "proofs");
    rk_mongo_majority_reads(opts);
    *out = (struct rk_proof){.id = ""};
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(proofs, filter, opts, primary);
    if (mongoc_cursor_next(cursor, &doc)) {
        status = read_proof(doc, out);
        if (status != RK_OK) {
            (void)rk_error_set(err, status, "the last scan's record is malformed");
        }
    } else if (mongoc_cursor_error(cursor, &cause)) {
        status = rk_mongo_error(err, "cannot read what the last scan found", &cause);
    } else {
        status = rk_error_set(err, RK_ENOENT, "nothing was scanned yet");
    }
    mongoc_cursor_destroy(cursor);
    mongoc_collection_destroy(proofs);
    mongoc_read_prefs_destroy(primary);
    bson_destroy(filter);
    bson_destroy(opts);
    return status;
}
