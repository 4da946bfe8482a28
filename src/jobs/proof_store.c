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
        BSON_APPEND_INT64(&entry, "documents", proof->parts[i].documents);
        append_usage(&entry, "keys", &proof->parts[i].usage);
        bson_append_document_end(&array, &entry);
    }
    bson_append_array_end(doc, &array);
}

enum rk_status rk_proof_store(mongoc_client_t *client, const char *state_db, const char *actor,
                              struct rk_proof *proof, struct rk_error *err)
{
    bson_error_t cause;
    bson_oid_t id;
    bson_t doc = BSON_INITIALIZER;
    bson_t opts = BSON_INITIALIZER;
    enum rk_status status = rk_mongo_now(client, &proof->completed_at_ms, err);
    if (status != RK_OK) {
        goto done;
    }
    bson_oid_init(&id, NULL);
    bson_oid_to_string(&id, proof->id);
    BSON_APPEND_OID(&doc, "_id", &id);
    BSON_APPEND_DATE_TIME(&doc, "startedAt", proof->started_at_ms);
    BSON_APPEND_DATE_TIME(&doc, "completedAt", proof->completed_at_ms);
    BSON_APPEND_UTF8(&doc, "by", actor);
    append_parts(&doc, proof);
    append_usage(&doc, "deadLetters", &proof->dead_letters);
    rk_mongo_majority_writes(&opts);
    mongoc_collection_t *proofs = mongoc_client_get_collection(client, state_db, "proofs");
    if (!mongoc_collection_insert_one(proofs, &doc, &opts, NULL, &cause)) {
        status = rk_mongo_error(err, "cannot store what the scan found", &cause);
    }
    mongoc_collection_destroy(proofs);
done:
    bson_destroy(&opts);
    bson_destroy(&doc);
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
    part->documents = int_of(entry, "documents");
    return bson_iter_recurse(entry, &iter) && bson_iter_find_descendant(&iter, "keys", &found)
               ? read_usage(&found, &part->usage)
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
    bson_t filter = BSON_INITIALIZER;
    bson_t *opts = BCON_NEW("sort", "{", "completedAt", BCON_INT32(-1), "_id", BCON_INT32(-1), "}",
                            "limit", BCON_INT64(1));
    mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    mongoc_collection_t *proofs = mongoc_client_get_collection(client, state_db, "proofs");
    rk_mongo_majority_reads(opts);
    *out = (struct rk_proof){.id = ""};
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(proofs, &filter, opts, primary);
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
    bson_destroy(&filter);
    bson_destroy(opts);
    return status;
}
