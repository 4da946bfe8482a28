#include "scan_internal.h"

#include <rekey/jobs/transform.h>
#include <stdlib.h>
#include <string.h>

#define COMMAND_MAX (48u << 20)

void rk_scan_batch_init(struct rk_scan_batch *batch)
{
    *batch = (struct rk_scan_batch){0};
}

static void drop_reply(struct rk_scan_batch *batch)
{
    if (batch->reply != NULL) {
        bson_destroy(batch->reply);
        free(batch->reply);
        batch->reply = NULL;
    }
}

void rk_scan_batch_deinit(struct rk_scan_batch *batch)
{
    drop_reply(batch);
}

static bool bounded(const struct rk_id *id, uint8_t open_type)
{
    return id != NULL && id->type != 0 && id->type != open_type;
}

static void put_bound(struct rk_bson_writer *w, const char *key, const struct rk_id *id)
{
    rk_bson_begin_doc(w, key);
    rk_bson_put_id(w, "_id", id);
    rk_bson_end(w);
}

static void put_id_order(struct rk_bson_writer *w, const char *key)
{
    rk_bson_begin_doc(w, key);
    rk_bson_put_int32(w, "_id", 1);
    rk_bson_end(w);
}

/* Top-level fields that are projected to besides those of the policy. */
#define EXTRA_FIELDS_MAX 64u /* an index has 32 paths at most */

struct projection {
    struct rk_bson_writer *w;
    const struct rk_policy *policy;
    uint32_t n_extra;
    struct rk_bson_elem extra[EXTRA_FIELDS_MAX]; /* keys only */
};

/* The first component of a path, unless it is there already (_id is): mongod refuses repetitions.
 */
static void project_extra(void *arg, const char *path, size_t path_len)
{
    static const uint8_t one[4] = {1, 0, 0, 0};
    struct projection *p = arg;
    const char *dot = memchr(path, '.', path_len);
    size_t len = dot != NULL ? (size_t)(dot - path) : path_len;
    bool known = p->n_extra == EXTRA_FIELDS_MAX || (len == 3 && memcmp(path, "_id", 3) == 0) ||
                 (p->policy != NULL && rk_path_child(&p->policy->root, path, len) != NULL);
    for (uint32_t i = 0; !known && i < p->n_extra; i++) {
        known = p->extra[i].key_len == len && memcmp(p->extra[i].key, path, len) == 0;
    }
    if (!known) {
        p->extra[p->n_extra++] = (struct rk_bson_elem){.key = path, .key_len = (uint32_t)len};
        rk_bson_put(p->w, RK_BSON_INT32, path, len, one, sizeof one);
    }
}

/* Top-level fields only: an inclusion of "contacts.phone" would drop the array elements that are
 * no documents, and with them the positions that concrete paths are made of. */
static void put_projection(struct rk_bson_writer *w, const struct rk_scan *scan)
{
    static const uint8_t one[4] = {1, 0, 0, 0};
    const struct rk_policy *policy = scan->policy;
    struct projection projection = {.w = w, .policy = policy};
    rk_bson_begin_doc(w, "projection");
    rk_bson_put_int32(w, "_id", 1);
    for (size_t i = 0; policy != NULL && i < policy->root.n_children; i++) {
        const struct rk_path_node *node = &policy->root.children[i];
        rk_bson_put(w, RK_BSON_INT32, node->name, node->name_len, one, sizeof one);
    }
    if (policy != NULL && policy->tenant != NULL) {
        project_extra(&projection, policy->tenant, strlen(policy->tenant));
    }
    if (policy != NULL && scan->shard_key != NULL) {
        rk_shard_key_paths(scan->shard_key, project_extra, &projection);
    }
    rk_bson_end(w);
}

/* from may be NULL. */
static void put_read_concern(struct rk_bson_writer *w, bool snapshot,
                             const struct rk_scan_from *from)
{
    rk_bson_begin_doc(w, "readConcern");
    rk_bson_put_string(w, "level", snapshot ? "snapshot" : "majority");
    if (from != NULL && from->after != 0) {
        uint8_t time[8];
        rk_store_u64(time, from->after);
        rk_bson_put(w, RK_BSON_TIMESTAMP, "afterClusterTime", strlen("afterClusterTime"), time,
                    sizeof time);
    }
    rk_bson_end(w);
    if (from != NULL) {
        rk_bson_put_int64(w, "maxTimeMS", from->max_time_ms);
    }
}

static void put_find(struct rk_bson_writer *w, const struct rk_ns *ns, const struct rk_scan *scan)
{
    bool resumed = scan->after != NULL && scan->after->type != 0;
    const struct rk_id *min = resumed ? scan->after : scan->min;
    rk_bson_begin(w);
    rk_bson_put_string(w, "find", ns->coll);
    put_read_concern(w, scan->snapshot, scan->from);
    if (!scan->whole) {
        put_projection(w, scan);
    }
    put_id_order(w, "hint");
    put_id_order(w, "sort");
    if (resumed || bounded(min, RK_BSON_MINKEY)) {
        put_bound(w, "min", min);
    }
    if (resumed) {
        /* min is inclusive. Neither skip nor one document more would do: the one to be left out
         * may be gone by now, or fill the whole reply. */
        rk_bson_begin_doc(w, "filter");
        rk_bson_begin_doc(w, "_id");
        rk_bson_put_id(w, "$ne", scan->after);
        rk_bson_end(w);
        rk_bson_end(w);
    }
    if (bounded(scan->max, RK_BSON_MAXKEY)) {
        put_bound(w, "max", scan->max);
    }
    if (scan->skip > 0) {
        rk_bson_put_int64(w, "skip", scan->skip);
    }
    rk_bson_put_int64(w, "limit", scan->limit);
    rk_bson_put_int64(w, "batchSize", scan->limit);
    rk_bson_end(w);
}

/* A reply that reached 16 MiB before the limit leaves a cursor behind; server NULL: on the primary.
 */
static void kill_cursor(mongoc_client_t *client, const struct rk_ns *ns, const uint32_t *server,
                        int64_t cursor)
{
    bson_t command = BSON_INITIALIZER;
    bson_t cursors;
    BSON_APPEND_UTF8(&command, "killCursors", ns->coll);
    BSON_APPEND_ARRAY_BEGIN(&command, "cursors", &cursors);
    BSON_APPEND_INT64(&cursors, "0", cursor);
    bson_append_array_end(&command, &cursors);
    /* Should this fail, mongod drops the cursor with its session. */
    if (server == NULL) {
        (void)mongoc_client_command_simple(client, ns->db, &command, NULL, NULL, NULL);
    } else {
        (void)mongoc_client_command_simple_with_server_id(client, ns->db, &command, NULL, *server,
                                                          NULL, NULL);
    }
    bson_destroy(&command);
}

static enum rk_status run_find(mongoc_client_t *client, const struct rk_ns *ns,
                               const struct rk_buf *command, const struct rk_scan_from *from,
                               uint32_t limit, struct rk_scan_batch *batch, struct rk_error *err)
{
    static const char *const batch_path[] = {"cursor", "firstBatch"};
    static const char *const id_path[] = {"cursor", "id"};
    static const char *const time_path[] = {"cursor", "atClusterTime"};
    struct rk_bson_elem elem;
    int64_t cursor = 0;
    uint32_t server = 0;
    drop_reply(batch);
    batch->reply = aligned_alloc(_Alignof(bson_t), sizeof(bson_t));
    if (batch->reply == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    enum rk_status status =
        from == NULL
            ? rk_command_run(client, ns->db, command, batch->reply, err)
            : rk_command_run_on(client, ns->db, command, from->mode, &server, batch->reply, err);
    if (status != RK_OK) {
        return status;
    }
    struct rk_bson_view view = rk_reply_view(batch->reply);
    if (!rk_view_path(&view, id_path, 2, &elem) || !rk_bson_elem_int(&elem, &cursor) ||
        !rk_view_path(&view, batch_path, 2, &elem) || !rk_bson_elem_view(&elem, &batch->docs)) {
        return rk_error_set(err, RK_EIO, "mongod's reply to find is malformed");
    }
    struct rk_bson_iter iter;
    enum rk_bson_step step;
    uint32_t n = 0;
    rk_bson_iter_init(&iter, &batch->docs);
    while ((step = rk_bson_next(&iter, &elem)) == RK_BSON_STEP_ELEM) {
        n++;
    }
    if (step == RK_BSON_STEP_MALFORMED) {
        return rk_error_set(err, RK_EIO, "mongod's reply to find is malformed");
    }
    batch->n = n;
    batch->exhausted = cursor == 0 && n < limit;
    batch->at = rk_view_path(&view, time_path, 2, &elem) && elem.type == RK_BSON_TIMESTAMP
                    ? rk_load_u64(elem.value)
                    : 0;
    if (cursor != 0) {
        kill_cursor(client, ns, from != NULL ? &server : NULL, cursor);
    }
    return RK_OK;
}

static enum rk_status finish_find(mongoc_client_t *client, const struct rk_ns *ns,
                                  const struct rk_bson_writer *w, const struct rk_scan_from *from,
                                  uint32_t limit, struct rk_scan_batch *batch, struct rk_error *err)
{
    if (rk_bson_writer_status(w) != RK_OK) {
        return rk_error_set(err, RK_ENOMEM, "cannot build a find command");
    }
    return run_find(client, ns, w->out, from, limit, batch, err);
}

/* The one document that a scan with min and without max leaves out. */
static enum rk_status read_max_key(mongoc_client_t *client, const struct rk_ns *ns,
                                   const struct rk_scan *scan, struct rk_buf *command,
                                   struct rk_scan_batch *batch, struct rk_error *err)
{
    struct rk_bson_writer w;
    rk_buf_clear(command);
    rk_bson_writer_init(&w, command);
    rk_bson_begin(&w);
    rk_bson_put_string(&w, "find", ns->coll);
    put_read_concern(&w, scan->snapshot, scan->from);
    if (!scan->whole) {
        put_projection(&w, scan);
    }
    rk_bson_begin_doc(&w, "filter");
    rk_bson_put(&w, RK_BSON_MAXKEY, "_id", 3, NULL, 0);
    rk_bson_end(&w);
    rk_bson_put_int32(&w, "limit", 2); /* so that one is less than the limit: nothing follows */
    rk_bson_end(&w);
    return finish_find(client, ns, &w, scan->from, 2, batch, err);
}

enum rk_status rk_scan_read(mongoc_client_t *client, const struct rk_ns *ns,
                            const struct rk_scan *scan, struct rk_scan_batch *batch,
                            struct rk_error *err)
{
    static const uint8_t none[] = {5, 0, 0, 0, 0};
    struct rk_buf command;
    struct rk_bson_writer w;
    bool resumed = scan->after != NULL && scan->after->type != 0;
    /* With min alone, mongod stops before the key MaxKey. */
    bool short_of_max = (resumed || bounded(scan->min, RK_BSON_MINKEY)) &&
                        !bounded(scan->max, RK_BSON_MAXKEY) && scan->skip == 0;
    if (resumed && scan->after->type == RK_BSON_MAXKEY) {
        /* Nothing follows, and mongod refuses such a min. */
        drop_reply(batch);
        batch->docs = (struct rk_bson_view){none, sizeof none};
        batch->n = 0;
        batch->exhausted = true;
        batch->at = 0;
        return RK_OK;
    }
    rk_buf_init(&command, COMMAND_MAX);
    rk_bson_writer_init(&w, &command);
    put_find(&w, ns, scan);
    enum rk_status status = finish_find(client, ns, &w, scan->from, scan->limit, batch, err);
    if (status == RK_OK && batch->exhausted && short_of_max) {
        if (batch->n == 0) {
            status = read_max_key(client, ns, scan, &command, batch, err);
        } else {
            batch->exhausted = false; /* asked for by the read after this one */
        }
    }
    rk_buf_deinit(&command);
    return status;
}

/* The documents whose _ids are in the array, n of them at most. */
static enum rk_status read_these(mongoc_client_t *client, const struct rk_ns *ns,
                                 const struct rk_scan *like, const struct rk_buf *ids, uint32_t n,
                                 struct rk_scan_batch *batch, struct rk_error *err)
{
    struct rk_buf command;
    struct rk_bson_writer w;
    rk_buf_init(&command, COMMAND_MAX);
    rk_bson_writer_init(&w, &command);
    rk_bson_begin(&w);
    rk_bson_put_string(&w, "find", ns->coll);
    put_read_concern(&w, false, NULL);
    put_projection(&w, like);
    rk_bson_begin_doc(&w, "filter");
    rk_bson_begin_doc(&w, "_id");
    rk_bson_put(&w, RK_BSON_ARRAY, "$in", 3, ids->data, (uint32_t)ids->len);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_put_int64(&w, "limit", (int64_t)n + 1);
    rk_bson_put_int64(&w, "batchSize", (int64_t)n + 1);
    rk_bson_end(&w);
    enum rk_status status = finish_find(client, ns, &w, NULL, n + 1, batch, err);
    rk_buf_deinit(&command);
    return status;
}

uint32_t rk_scan_count_ids(const struct rk_buf *ids)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    uint32_t n = 0;
    if (rk_bson_view_init(&view, ids->data, ids->len)) {
        rk_bson_iter_init(&iter, &view);
        while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
            n++;
        }
    }
    return n;
}

enum rk_status rk_scan_read_ids(mongoc_client_t *client, const struct rk_ns *ns,
                                const struct rk_scan *like, const struct rk_buf *ids,
                                struct rk_scan_batch *batch, struct rk_error *err)
{
    uint32_t n = rk_scan_count_ids(ids);
    return n > 0 ? read_these(client, ns, like, ids, n, batch, err)
                 : rk_error_set(err, RK_EINVAL, "the list of documents is malformed");
}

enum rk_status rk_scan_read_planned(mongoc_client_t *client, const struct rk_ns *ns,
                                    const struct rk_scan *like, const struct rk_plan *plan,
                                    struct rk_scan_batch *batch, struct rk_error *err)
{
    struct rk_buf ids;
    struct rk_bson_writer w;
    uint32_t n = 0;
    rk_buf_init(&ids, COMMAND_MAX);
    rk_bson_writer_init(&w, &ids);
    rk_bson_begin(&w);
    for (size_t i = 0; i < rk_plan_count(plan); i++) {
        const struct rk_doc_plan *doc = rk_plan_doc(plan, i);
        if (doc->n_changes > 0 && doc->failure == NULL) {
            char buf[16];
            const char *index;
            size_t len = bson_uint32_to_string(n++, &index, buf, sizeof buf);
            rk_bson_put(&w, doc->id.type, index, len, doc->id.data, doc->id.len);
        }
    }
    rk_bson_end(&w);
    enum rk_status status = rk_bson_writer_status(&w) == RK_OK
                                ? read_these(client, ns, like, &ids, n, batch, err)
                                : rk_error_set(err, RK_ENOMEM, "cannot build a find command");
    rk_buf_deinit(&ids);
    return status;
}

void rk_scan_iter_init(struct rk_bson_iter *iter, const struct rk_scan_batch *batch)
{
    rk_bson_iter_init(iter, &batch->docs);
}

enum rk_status rk_scan_next(struct rk_bson_iter *iter, struct rk_bson_view *doc,
                            struct rk_bson_elem *id)
{
    struct rk_bson_elem elem;
    switch (rk_bson_next(iter, &elem)) {
    case RK_BSON_STEP_END:
        return RK_ENOENT;
    case RK_BSON_STEP_MALFORMED:
        return RK_EINVAL;
    case RK_BSON_STEP_ELEM:
        break;
    }
    return rk_bson_elem_view(&elem, doc) && rk_bson_find(doc, "_id", id) ? RK_OK : RK_EINVAL;
}
