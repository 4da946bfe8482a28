/* The commands. A key that is not listed here ends the program. */
#include "store.h"

#include <rekey/bson/rewrite.h>
#include <stdio.h>
#include <string.h>

#define CODE_DUPLICATE_KEY 11000
#define CODE_MIN_NOT_BEFORE_MAX 51175

struct run {
    struct model_store *store;
    const struct model_call *call;
    struct model_collection *c;
    struct rk_bson_writer w; /* the reply */
};

/* The arguments of a command or statement; all of which the caller has to know. */
static void only_keys(const struct rk_bson_view *doc, const char *const *known)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    rk_bson_iter_init(&iter, doc);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        size_t i = 0;
        while (known[i] != NULL && strcmp(known[i], e.key) != 0) {
            i++;
        }
        if (known[i] == NULL) {
            MODEL_DIE("the model does not know the argument %s", e.key);
        }
    }
}

static struct rk_bson_view doc_arg(const struct rk_bson_view *doc, const char *key)
{
    static const uint8_t nothing[] = {5, 0, 0, 0, 0};
    struct rk_bson_elem e;
    struct rk_bson_view view;
    if (rk_bson_find(doc, key, &e) && rk_bson_elem_view(&e, &view)) {
        return view;
    }
    return (struct rk_bson_view){nothing, sizeof nothing};
}

static int64_t int_arg(const struct rk_bson_view *doc, const char *key, int64_t otherwise)
{
    struct rk_bson_elem e;
    int64_t v = otherwise;
    if (rk_bson_find(doc, key, &e) && !rk_bson_elem_int(&e, &v)) {
        MODEL_DIE("%s is no number", key);
    }
    return v;
}

static bool flag(const struct rk_bson_view *doc, const char *key)
{
    struct rk_bson_elem e;
    return rk_bson_find(doc, key, &e) && rk_bson_elem_truthy(&e);
}

static bool text_is(const struct rk_bson_elem *e, const char *text)
{
    return e->type == RK_BSON_STRING && strcmp((const char *)e->value + 4, text) == 0;
}

static void put_ok(struct rk_bson_writer *w)
{
    rk_bson_put_double(w, "ok", 1.0);
}

static void refuse(struct run *r, int32_t code, const char *message)
{
    rk_bson_put_double(&r->w, "ok", 0.0);
    rk_bson_put_utf8(&r->w, "errmsg", message, strlen(message));
    rk_bson_put_int32(&r->w, "code", code);
}

static void commit_if_majority(struct run *r)
{
    struct rk_bson_view concern = doc_arg(&r->call->command, "writeConcern");
    struct rk_bson_elem w = model_field(&concern, "w");
    if (!text_is(&w, "majority")) {
        return;
    }
    if (!r->call->uncommitted) {
        model_store_commit(r->store);
        return;
    }
    rk_bson_begin_sub(&r->w, RK_BSON_DOCUMENT, "writeConcernError", strlen("writeConcernError"));
    rk_bson_put_int32(&r->w, "code", 64);
    rk_bson_put_utf8(&r->w, "errmsg", "waiting for replication timed out", 33);
    rk_bson_end(&r->w);
}

/* ---- looking for documents */

struct found {
    struct model_slot *slots[MODEL_DOCS_MAX];
    struct rk_bson_view docs[MODEL_DOCS_MAX];
    uint32_t n;
};

/* closing: it asks whether a job is over, of which documents only the _id matters. */
static bool reads_committed(const struct run *r, bool closing)
{
    struct rk_bson_view concern = doc_arg(&r->call->command, "readConcern");
    struct rk_bson_elem level = model_field(&concern, "level");
    if (level.type == 0 || text_is(&level, "local")) {
        return false;
    }
    if (!text_is(&level, "majority")) {
        MODEL_DIE("the model does not know this readConcern");
    }
    bool documents = strcmp(r->call->db, "app") == 0;
    return r->store->mutation != (documents ? MODEL_LOCAL_SCANS
                                  : closing ? MODEL_LOCAL_CLOSE
                                            : MODEL_LOCAL_PLAN);
}

static void search(struct run *r, const struct rk_bson_view *filter, bool committed,
                   struct found *found)
{
    struct rk_buf copy;
    rk_buf_init(&copy, 1u << 20);
    struct rk_bson_view mine =
        model_mutate_filter(r->store, &r->call->command, r->c, filter, &copy);
    found->n = 0;
    for (uint32_t i = 0; i < r->c->n; i++) {
        struct model_slot *slot = &r->c->slots[i];
        const struct model_doc *doc = committed ? slot->committed : slot->latest;
        if (doc != NULL) {
            struct rk_bson_view view = model_doc_view(doc);
            if (model_matches(&mine, &view, r->call->now_ms)) {
                found->slots[found->n] = slot;
                found->docs[found->n++] = view;
            }
        }
    }
    rk_buf_deinit(&copy);
}

static int order_by(const struct rk_bson_view *sort, const struct rk_bson_view *a,
                    const struct rk_bson_view *b)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem key;
    int order = 0;
    rk_bson_iter_init(&iter, sort);
    while (order == 0 && rk_bson_next(&iter, &key) == RK_BSON_STEP_ELEM) {
        struct rk_bson_elem x = model_field(a, key.key);
        struct rk_bson_elem y = model_field(b, key.key);
        int64_t direction = 0;
        if (!rk_bson_elem_int(&key, &direction) || strchr(key.key, '.') != NULL) {
            MODEL_DIE("the model cannot sort by %s", key.key);
        }
        order = model_compare(&x, &y) * (direction < 0 ? -1 : 1);
    }
    return order;
}

static void sort_found(const struct rk_bson_view *sort, struct found *found)
{
    for (uint32_t i = 1; sort->len > 5 && i < found->n; i++) {
        struct model_slot *slot = found->slots[i];
        struct rk_bson_view doc = found->docs[i];
        uint32_t at = i;
        for (; at > 0 && order_by(sort, &found->docs[at - 1], &doc) > 0; at--) {
            found->slots[at] = found->slots[at - 1];
            found->docs[at] = found->docs[at - 1];
        }
        found->slots[at] = slot;
        found->docs[at] = doc;
    }
}

/* ---- find, count */

/* Index bounds; with min alone, mongod stops before the key MaxKey. */
static bool inside(const struct rk_bson_view *command, const struct rk_bson_view *doc)
{
    struct rk_bson_view min = doc_arg(command, "min");
    struct rk_bson_view max = doc_arg(command, "max");
    struct rk_bson_elem id = model_field(doc, "_id");
    struct rk_bson_elem from = model_field(&min, "_id");
    struct rk_bson_elem to = model_field(&max, "_id");
    if (from.type != 0 && model_compare(&id, &from) < 0) {
        return false;
    }
    if (to.type != 0) {
        return model_compare(&id, &to) < 0;
    }
    return from.type == 0 || id.type != RK_BSON_MAXKEY;
}

static void put_projected(struct rk_bson_writer *w, const struct rk_bson_view *projection,
                          const char *key, const struct rk_bson_view *doc)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    if (projection->len <= 5) {
        rk_bson_put_doc(w, RK_BSON_DOCUMENT, key, doc);
        return;
    }
    rk_bson_iter_init(&iter, projection);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        if (strchr(e.key, '.') != NULL || e.type != RK_BSON_INT32 || !rk_bson_elem_truthy(&e)) {
            MODEL_DIE("the model does not know the projection of %s", e.key);
        }
    }
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, key, strlen(key));
    rk_bson_iter_init(&iter, doc);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        if (strcmp(e.key, "_id") == 0 || model_field(projection, e.key).type != 0) {
            rk_bson_copy(w, &e);
        }
    }
    rk_bson_end(w);
}

static void begin_cursor(struct run *r)
{
    rk_bson_begin_sub(&r->w, RK_BSON_DOCUMENT, "cursor", 6);
    rk_bson_begin_sub(&r->w, RK_BSON_ARRAY, "firstBatch", 10);
}

static void end_cursor(struct run *r)
{
    char ns[128];
    int len = snprintf(ns, sizeof ns, "%s.%s", r->call->db, r->c->name);
    rk_bson_end(&r->w);
    rk_bson_put_int64(&r->w, "id", 0);
    rk_bson_put_utf8(&r->w, "ns", ns, (size_t)len);
    rk_bson_end(&r->w);
    put_ok(&r->w);
}

/* Index bounds that mongod does not take. */
static bool bounds_refused(const struct rk_bson_view *command)
{
    struct rk_bson_view min = doc_arg(command, "min");
    struct rk_bson_view max = doc_arg(command, "max");
    struct rk_bson_elem from = model_field(&min, "_id");
    struct rk_bson_elem to = model_field(&max, "_id");
    return from.type == RK_BSON_MAXKEY ||
           (from.type != 0 && to.type != 0 && model_compare(&from, &to) >= 0);
}

static void run_find(struct run *r)
{
    static const char *const known[] = {"find", "filter",     "sort", "limit",       "batchSize",
                                        "skip", "hint",       "min",  "singleBatch", "readConcern",
                                        "max",  "projection", NULL};
    const struct rk_bson_view *command = &r->call->command;
    struct rk_bson_view filter = doc_arg(command, "filter");
    struct rk_bson_view sort = doc_arg(command, "sort");
    struct rk_bson_view projection = doc_arg(command, "projection");
    static struct found found;
    int64_t skip = int_arg(command, "skip", 0);
    int64_t limit = int_arg(command, "limit", INT64_MAX);
    int64_t batch = int_arg(command, "batchSize", 101);
    int64_t n = 0;
    only_keys(command, known);
    if (bounds_refused(command)) {
        refuse(r, CODE_MIN_NOT_BEFORE_MAX, "min() does not come before max()");
        return;
    }
    search(r, &filter, reads_committed(r, projection.len > 5), &found);
    sort_found(&sort, &found);
    begin_cursor(r);
    for (uint32_t i = 0; i < found.n && n < limit; i++) {
        if (!inside(command, &found.docs[i]) || skip-- > 0) {
            continue;
        }
        if (n == batch) {
            MODEL_DIE("the model has no cursors");
        }
        char key[16];
        (void)snprintf(key, sizeof key, "%d", (int)n++);
        put_projected(&r->w, &projection, key, &found.docs[i]);
    }
    end_cursor(r);
}

static void run_count(struct run *r)
{
    static const char *const known[] = {"count", "query", "limit", "hint", "readConcern", NULL};
    struct rk_bson_view filter = doc_arg(&r->call->command, "query");
    int64_t limit = int_arg(&r->call->command, "limit", 0);
    static struct found found;
    only_keys(&r->call->command, known);
    search(r, &filter, reads_committed(r, false), &found);
    rk_bson_put_int32(&r->w, "n",
                      (int32_t)(limit > 0 && limit < found.n ? limit : (int64_t)found.n));
    put_ok(&r->w);
}

/* ---- writes */

static void begin_error(struct run *r, bool *any, uint32_t *n_errors, uint32_t index, int32_t code)
{
    char key[16];
    if (!*any) {
        rk_bson_begin_sub(&r->w, RK_BSON_ARRAY, "writeErrors", 11);
        *any = true;
    }
    (void)snprintf(key, sizeof key, "%u", (*n_errors)++);
    rk_bson_begin_sub(&r->w, RK_BSON_DOCUMENT, key, strlen(key));
    rk_bson_put_int32(&r->w, "index", (int32_t)index);
    rk_bson_put_int32(&r->w, "code", code);
    rk_bson_put_utf8(&r->w, "errmsg", "E11000 duplicate key error", 26);
    rk_bson_end(&r->w);
}

static void run_insert(struct run *r)
{
    static const char *const known[] = {"insert", "documents", "ordered", "writeConcern", NULL};
    struct rk_bson_view documents = doc_arg(&r->call->command, "documents");
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    struct rk_bson_view doc;
    bool errors = false;
    uint32_t n_errors = 0;
    uint32_t index = 0;
    int32_t n = 0;
    only_keys(&r->call->command, known);
    rk_bson_iter_init(&iter, &documents);
    for (; rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM && !errors; index++) {
        if (!rk_bson_elem_view(&e, &doc) || model_field(&doc, "_id").type == 0) {
            MODEL_DIE("an insert without _id");
        }
        if (model_store_conflict(r->store, r->c, NULL, &doc)) {
            begin_error(r, &errors, &n_errors, index, CODE_DUPLICATE_KEY);
        } else {
            model_store_put(r->store, r->c, NULL, doc.data, doc.len, r->call);
            n++;
        }
    }
    if (errors) {
        rk_bson_end(&r->w);
    }
    rk_bson_put_int32(&r->w, "n", n);
    put_ok(&r->w);
    commit_if_majority(r);
}

enum written { UNCHANGED, CHANGED, REFUSED };

/* slot NULL: an upsert. The document is then in the store's scratch buffer. */
static enum written write_one(struct run *r, const struct rk_bson_elem *update,
                              const struct rk_bson_view *filter, struct model_slot *slot)
{
    struct rk_buf *out = &r->store->scratch;
    struct rk_bson_view old = {NULL, 0};
    if (slot != NULL) {
        old = model_doc_view(slot->latest);
    }
    if (!model_update(update, filter, slot != NULL ? &old : NULL, r->call->now_ms,
                      &r->store->generated_ids, out)) {
        return UNCHANGED;
    }
    if (slot != NULL) {
        model_mutate_document(r->store, &r->call->command, r->c, &old, out);
    }
    struct rk_bson_view doc = {out->data, (uint32_t)out->len};
    if (model_store_conflict(r->store, r->c, slot, &doc)) {
        return REFUSED;
    }
    model_store_put(r->store, r->c, slot, doc.data, doc.len, r->call);
    return CHANGED;
}

struct update_totals {
    int32_t n;
    int32_t modified;
    bool errors;
    uint32_t n_errors;
    uint32_t index;
    uint32_t n_upserted;
    struct rk_buf upserted;  /* an array */
    struct rk_bson_writer w; /* into it */
};

static void note_upserted(struct run *r, struct update_totals *t)
{
    char key[16];
    struct rk_bson_view doc = {r->store->scratch.data, (uint32_t)r->store->scratch.len};
    struct rk_bson_elem id = model_field(&doc, "_id");
    (void)snprintf(key, sizeof key, "%u", t->n_upserted++);
    rk_bson_begin_sub(&t->w, RK_BSON_DOCUMENT, key, strlen(key));
    rk_bson_put_int32(&t->w, "index", (int32_t)t->index);
    rk_bson_copy(&t->w, &id);
    rk_bson_end(&t->w);
}

static void run_statement(struct run *r, const struct rk_bson_view *statement,
                          struct update_totals *t)
{
    static const char *const known[] = {"q", "u", "multi", "upsert", NULL};
    struct rk_bson_view filter = doc_arg(statement, "q");
    struct rk_bson_elem update = model_field(statement, "u");
    static struct found found;
    only_keys(statement, known);
    search(r, &filter, false, &found);
    if (found.n == 0 && flag(statement, "upsert")) {
        if (write_one(r, &update, &filter, NULL) == REFUSED) {
            begin_error(r, &t->errors, &t->n_errors, t->index, CODE_DUPLICATE_KEY);
        } else {
            t->n++;
            note_upserted(r, t);
        }
    }
    for (uint32_t i = 0; i < found.n; i++) {
        enum written written = write_one(r, &update, &filter, found.slots[i]);
        if (written == REFUSED) {
            begin_error(r, &t->errors, &t->n_errors, t->index, CODE_DUPLICATE_KEY);
            return;
        }
        t->n++;
        t->modified += written == CHANGED;
        if (!flag(statement, "multi")) {
            return;
        }
    }
}

static void run_update(struct run *r)
{
    static const char *const known[] = {"update", "updates", "ordered", "writeConcern", NULL};
    struct rk_bson_view updates = doc_arg(&r->call->command, "updates");
    struct rk_bson_elem ordered = model_field(&r->call->command, "ordered");
    bool goes_on = ordered.type != 0 && !rk_bson_elem_truthy(&ordered);
    struct update_totals t = {0};
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    struct rk_bson_view statement;
    rk_buf_init(&t.upserted, 1u << 20);
    rk_bson_writer_init(&t.w, &t.upserted);
    rk_bson_begin(&t.w);
    only_keys(&r->call->command, known);
    rk_bson_iter_init(&iter, &updates);
    for (; rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM && (!t.errors || goes_on); t.index++) {
        if (!rk_bson_elem_view(&e, &statement)) {
            MODEL_DIE("an update that is no document");
        }
        run_statement(r, &statement, &t);
    }
    if (t.errors) {
        rk_bson_end(&r->w);
    }
    rk_bson_put_int32(&r->w, "n", t.n);
    rk_bson_end(&t.w);
    if (t.n_upserted > 0) {
        const struct rk_bson_view upserted = {t.upserted.data, (uint32_t)t.upserted.len};
        rk_bson_put_doc(&r->w, RK_BSON_ARRAY, "upserted", &upserted);
    }
    rk_bson_put_int32(&r->w, "nModified", t.modified);
    put_ok(&r->w);
    commit_if_majority(r);
    rk_buf_deinit(&t.upserted);
}

static void run_delete(struct run *r)
{
    static const char *const known[] = {"delete", "deletes", "writeConcern", NULL};
    static const char *const known_here[] = {"q", "limit", NULL};
    struct rk_bson_view deletes = doc_arg(&r->call->command, "deletes");
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    struct rk_bson_view statement;
    static struct found found;
    int32_t n = 0;
    only_keys(&r->call->command, known);
    rk_bson_iter_init(&iter, &deletes);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM && rk_bson_elem_view(&e, &statement)) {
        struct rk_bson_view filter = doc_arg(&statement, "q");
        int64_t limit = int_arg(&statement, "limit", 0);
        only_keys(&statement, known_here);
        search(r, &filter, false, &found);
        for (uint32_t i = 0; i < found.n && (limit == 0 || (int64_t)i < limit); i++) {
            model_store_put(r->store, r->c, found.slots[i], NULL, 0, r->call);
            n++;
        }
    }
    rk_bson_put_int32(&r->w, "n", n);
    put_ok(&r->w);
    commit_if_majority(r);
}

static void run_find_and_modify(struct run *r)
{
    static const char *const known[] = {"findAndModify", "query",        "sort", "update",
                                        "new",           "writeConcern", NULL};
    const struct rk_bson_view *command = &r->call->command;
    struct rk_bson_view filter = doc_arg(command, "query");
    struct rk_bson_view sort = doc_arg(command, "sort");
    struct rk_bson_elem update = model_field(command, "update");
    static struct found found;
    struct model_slot *slot = NULL;
    struct rk_buf old;
    struct rk_bson_view value = {NULL, 0};
    rk_buf_init(&old, 1u << 20);
    only_keys(command, known);
    search(r, &filter, false, &found);
    sort_found(&sort, &found);
    if (found.n > 0) {
        slot = found.slots[0];
        if (!flag(command, "new") &&
            rk_buf_append(&old, slot->latest->data, slot->latest->len) != RK_OK) {
            MODEL_DIE("out of memory");
        }
        if (write_one(r, &update, &filter, slot) == REFUSED) {
            refuse(r, CODE_DUPLICATE_KEY, "E11000 duplicate key error");
            rk_buf_deinit(&old);
            return;
        }
        value = flag(command, "new") ? model_doc_view(slot->latest)
                                     : (struct rk_bson_view){old.data, (uint32_t)old.len};
    }
    rk_bson_begin_sub(&r->w, RK_BSON_DOCUMENT, "lastErrorObject", 15);
    rk_bson_put_int32(&r->w, "n", slot != NULL);
    rk_bson_put_bool(&r->w, "updatedExisting", slot != NULL);
    rk_bson_end(&r->w);
    if (slot != NULL) {
        rk_bson_put_doc(&r->w, RK_BSON_DOCUMENT, "value", &value);
    } else {
        rk_bson_put(&r->w, RK_BSON_NULL, "value", 5, NULL, 0);
    }
    put_ok(&r->w);
    commit_if_majority(r);
    rk_buf_deinit(&old);
}

static void run_create_indexes(struct run *r)
{
    static const char *const known[] = {"createIndexes", "indexes", NULL};
    struct rk_bson_view indexes = doc_arg(&r->call->command, "indexes");
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    struct rk_bson_view index;
    only_keys(&r->call->command, known);
    rk_bson_iter_init(&iter, &indexes);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM && rk_bson_elem_view(&e, &index)) {
        struct rk_bson_view keys = doc_arg(&index, "key");
        struct rk_bson_elem partial = model_field(&index, "partialFilterExpression");
        if (flag(&index, "unique")) {
            model_store_index(r->c, &keys, &partial);
        }
    }
    put_ok(&r->w);
}

void model_store_run(struct model_store *store, const struct model_call *call, struct rk_buf *reply)
{
    static const struct {
        const char *name;
        void (*run)(struct run *r);
    } commands[] = {
        {"find", run_find},
        {"update", run_update},
        {"findAndModify", run_find_and_modify},
        {"count", run_count},
        {"insert", run_insert},
        {"delete", run_delete},
        {"createIndexes", run_create_indexes},
    };
    struct run r = {.store = store, .call = call};
    struct rk_bson_iter iter;
    struct rk_bson_elem first;
    rk_bson_iter_init(&iter, &call->command);
    if (rk_bson_next(&iter, &first) != RK_BSON_STEP_ELEM || first.type != RK_BSON_STRING) {
        MODEL_DIE("this is no command on a collection");
    }
    r.c = model_store_collection(store, (const char *)first.value + 4);
    rk_bson_writer_init(&r.w, reply);
    rk_bson_begin(&r.w);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(first.key, commands[i].name) == 0) {
            commands[i].run(&r);
            rk_bson_end(&r.w);
            if (rk_bson_writer_status(&r.w) != RK_OK) {
                MODEL_DIE("cannot build a reply");
            }
            return;
        }
    }
    MODEL_DIE("the model does not know the command %s", first.key);
}
