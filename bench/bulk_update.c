/*
 * What a sweep is measured against: unordered bulk updates by _id with libmongoc, each a $set of
 * one binary field, majority write concern. Reads the _ids first; only the updates are timed.
 *
 *   bench_bulk_update URI DB COLLECTION FIELD VALUE_BYTES THREADS BATCH [transactions]
 *
 * transactions: each batch is one.
 *
 * Prints one JSON line: {"docs": N, "seconds": S, "updates_per_s": R}; N is what mongod modified.
 */
#include <mongoc/mongoc.h>
#include <pthread.h>
#include <rekey/base/clock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 64u
#define SUBTYPE_USER ((bson_subtype_t)0x8E)

struct ids {
    bson_oid_t *list;
    size_t n;
    size_t cap;
};

struct worker {
    pthread_t thread;
    mongoc_client_pool_t *pool;
    const char *db;
    const char *coll;
    const char *field;
    size_t value_len;
    size_t batch;
    bool transactions;
    const bson_oid_t *ids;
    size_t n;
    size_t done;
    size_t modified;
    bool failed;
};

static bool read_ids(mongoc_client_pool_t *pool, const char *db, const char *coll, struct ids *ids)
{
    const bson_t *doc;
    bson_iter_t iter;
    bson_t filter = BSON_INITIALIZER;
    bson_error_t error;
    bool ok = true;
    mongoc_client_t *client = mongoc_client_pool_pop(pool);
    mongoc_collection_t *collection = mongoc_client_get_collection(client, db, coll);
    bson_t *opts = BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}", "hint", "{", "_id",
                            BCON_INT32(1), "}", "sort", "{", "_id", BCON_INT32(1), "}");
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(collection, &filter, opts, NULL);
    while (ok && mongoc_cursor_next(cursor, &doc)) {
        if (ids->n == ids->cap) {
            ids->cap = ids->cap == 0 ? 65536 : ids->cap * 2;
            ids->list = realloc(ids->list, ids->cap * sizeof *ids->list);
        }
        ok = ids->list != NULL && bson_iter_init_find(&iter, doc, "_id") &&
             BSON_ITER_HOLDS_OID(&iter);
        if (ok) {
            ids->list[ids->n++] = *bson_iter_oid(&iter);
        }
    }
    if (mongoc_cursor_error(cursor, &error)) {
        (void)fprintf(stderr, "bulk_update: %s\n", error.message);
        ok = false;
    }
    mongoc_cursor_destroy(cursor);
    bson_destroy(opts);
    mongoc_collection_destroy(collection);
    mongoc_client_pool_push(pool, client);
    return ok;
}

static mongoc_client_session_t *begin(mongoc_client_t *client, bson_t *opts, bson_error_t *error)
{
    mongoc_client_session_t *session = mongoc_client_start_session(client, NULL, error);
    mongoc_transaction_opt_t *majority = mongoc_transaction_opts_new();
    mongoc_write_concern_t *concern = mongoc_write_concern_new();
    mongoc_write_concern_set_wmajority(concern, 0);
    mongoc_transaction_opts_set_write_concern(majority, concern);
    if (session != NULL && (!mongoc_client_session_start_transaction(session, majority, error) ||
                            !mongoc_client_session_append(session, opts, error))) {
        mongoc_client_session_destroy(session);
        session = NULL;
    }
    mongoc_write_concern_destroy(concern);
    mongoc_transaction_opts_destroy(majority);
    return session;
}

static bool run_batch(struct worker *w, mongoc_client_t *client, mongoc_collection_t *collection,
                      const bson_oid_t *ids, size_t n, uint8_t *value)
{
    bson_error_t error;
    bson_t reply;
    bson_iter_t iter;
    mongoc_client_session_t *session = NULL;
    bson_t *opts = BCON_NEW("ordered", BCON_BOOL(false));
    if (!w->transactions) {
        BCON_APPEND(opts, "writeConcern", "{", "w", BCON_UTF8("majority"), "}");
    } else if ((session = begin(client, opts, &error)) == NULL) {
        (void)fprintf(stderr, "bulk_update: %s\n", error.message);
        bson_destroy(opts);
        return false;
    }
    mongoc_bulk_operation_t *bulk =
        mongoc_collection_create_bulk_operation_with_opts(collection, opts);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        bson_t selector = BSON_INITIALIZER;
        bson_t update = BSON_INITIALIZER;
        bson_t set;
        /* Different for every document, so that none is a no-op. */
        memcpy(value, ids[i].bytes, sizeof ids[i].bytes);
        BSON_APPEND_OID(&selector, "_id", &ids[i]);
        BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &set);
        BSON_APPEND_BINARY(&set, w->field, SUBTYPE_USER, value, (uint32_t)w->value_len);
        bson_append_document_end(&update, &set);
        ok = mongoc_bulk_operation_update_one_with_opts(bulk, &selector, &update, NULL, &error);
        bson_destroy(&selector);
        bson_destroy(&update);
    }
    if (ok) {
        ok = mongoc_bulk_operation_execute(bulk, &reply, &error) != 0;
        if (bson_iter_init_find(&iter, &reply, "nModified")) {
            w->modified += (size_t)bson_iter_as_int64(&iter);
        }
        bson_destroy(&reply);
    }
    if (ok && session != NULL) {
        ok = mongoc_client_session_commit_transaction(session, NULL, &error);
    }
    if (!ok) {
        (void)fprintf(stderr, "bulk_update: %s\n", error.message);
    }
    mongoc_bulk_operation_destroy(bulk);
    if (session != NULL) {
        mongoc_client_session_destroy(session);
    }
    bson_destroy(opts);
    return ok;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    uint8_t *value = malloc(w->value_len);
    mongoc_client_t *client = mongoc_client_pool_pop(w->pool);
    mongoc_collection_t *collection = mongoc_client_get_collection(client, w->db, w->coll);
    w->failed = value == NULL;
    for (size_t i = 0; !w->failed && i < w->value_len; i++) {
        value[i] = (uint8_t)(rk_clock_mono_us() * 31 + i);
    }
    while (!w->failed && w->done < w->n) {
        size_t n = w->n - w->done < w->batch ? w->n - w->done : w->batch;
        w->failed = !run_batch(w, client, collection, w->ids + w->done, n, value);
        w->done += n;
    }
    mongoc_collection_destroy(collection);
    mongoc_client_pool_push(w->pool, client);
    free(value);
    return NULL;
}

static bool run(mongoc_client_pool_t *pool, char **argv, size_t threads, const struct ids *ids)
{
    struct worker workers[THREADS_MAX];
    bool ok = true;
    size_t modified = 0;
    uint64_t start = rk_clock_mono_us();
    for (size_t i = 0; i < threads; i++) {
        size_t from = ids->n * i / threads;
        workers[i] = (struct worker){
            .pool = pool,
            .db = argv[2],
            .coll = argv[3],
            .field = argv[4],
            .value_len = strtoul(argv[5], NULL, 10),
            .batch = strtoul(argv[7], NULL, 10),
            .transactions = argv[8] != NULL,
            .ids = ids->list + from,
            .n = ids->n * (i + 1) / threads - from,
        };
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0) {
            (void)fprintf(stderr, "bulk_update: cannot start a thread\n");
            exit(1);
        }
    }
    for (size_t i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        ok = ok && !workers[i].failed;
        modified += workers[i].modified;
    }
    double seconds = (double)(rk_clock_mono_us() - start) / 1e6;
    (void)printf("{\"docs\": %zu, \"seconds\": %.3f, \"updates_per_s\": %.0f}\n", modified, seconds,
                 (double)modified / seconds);
    return ok;
}

int main(int argc, char **argv)
{
    struct ids ids = {0};
    bool counts = argc == 8 || (argc == 9 && strcmp(argv[8], "transactions") == 0);
    if (!counts || strtoul(argv[5], NULL, 10) < sizeof ids.list->bytes ||
        strtoul(argv[6], NULL, 10) - 1 >= THREADS_MAX || strtoul(argv[7], NULL, 10) == 0) {
        (void)fprintf(
            stderr, "usage: %s URI DB COLLECTION FIELD VALUE_BYTES THREADS BATCH [transactions]\n",
            argv[0]);
        return 2;
    }
    mongoc_init();
    mongoc_uri_t *uri = mongoc_uri_new(argv[1]);
    mongoc_client_pool_t *pool = uri != NULL ? mongoc_client_pool_new(uri) : NULL;
    bool ok = pool != NULL && read_ids(pool, argv[2], argv[3], &ids) &&
              run(pool, argv, strtoul(argv[6], NULL, 10), &ids);
    free(ids.list);
    if (pool != NULL) {
        mongoc_client_pool_destroy(pool);
    }
    mongoc_uri_destroy(uri);
    mongoc_cleanup();
    return ok ? 0 : 1;
}
