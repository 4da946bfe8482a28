/* Updates: pipelines of $set and $unset, and the classic operators that src/jobs uses. Fields of
 * the top level only. */
#include "store.h"

#include <rekey/bson/rewrite.h>
#include <string.h>

#define FIELDS_MAX 48u

/* What is to become of a field. */
struct assignment {
    const char *key;
    struct rk_bson_elem value; /* type 0: away with it */
    bool used;
};

struct assignments {
    struct assignment list[FIELDS_MAX];
    uint32_t n;
    struct model_cells cells;
};

/* Most of it stays as it was: this is done often. */
static void begin(struct assignments *a, int64_t now_ms)
{
    a->n = 0;
    a->cells.n = 0;
    a->cells.now_ms = now_ms;
}

static void assign(struct assignments *a, const char *key, struct rk_bson_elem value)
{
    if (a->n == FIELDS_MAX || key[0] == '$' || strchr(key, '.') != NULL ||
        strcmp(key, "_id") == 0) {
        MODEL_DIE("the model cannot set %s", key);
    }
    a->list[a->n++] = (struct assignment){key, value, false};
}

static struct assignment *assigned(struct assignments *a, const char *key)
{
    for (uint32_t i = 0; i < a->n; i++) {
        if (strcmp(a->list[i].key, key) == 0) {
            return &a->list[i];
        }
    }
    return NULL;
}

static void put_value(struct rk_bson_writer *w, const char *key, const struct rk_bson_elem *value)
{
    if (value->type != 0) {
        rk_bson_put(w, value->type, key, strlen(key), value->value, value->value_len);
    }
}

static void apply(struct assignments *a, const struct rk_bson_view *in, struct rk_buf *out)
{
    struct rk_bson_writer w;
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    rk_buf_clear(out);
    rk_bson_writer_init(&w, out);
    rk_bson_begin(&w);
    rk_bson_iter_init(&iter, in);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        struct assignment *to = assigned(a, e.key);
        if (to == NULL) {
            rk_bson_copy(&w, &e);
        } else {
            to->used = true;
            put_value(&w, e.key, &to->value);
        }
    }
    for (uint32_t i = 0; i < a->n; i++) {
        if (!a->list[i].used) {
            put_value(&w, a->list[i].key, &a->list[i].value);
        }
    }
    rk_bson_end(&w);
    if (rk_bson_writer_status(&w) != RK_OK) {
        MODEL_DIE("cannot build a document");
    }
}

static struct rk_bson_view the_document(const struct rk_bson_elem *elem)
{
    struct rk_bson_view view;
    if (!rk_bson_elem_view(elem, &view)) {
        MODEL_DIE("%s is no document", elem->key);
    }
    return view;
}

/* ---- pipelines */

static void unset_stage(struct assignments *a, const struct rk_bson_elem *stage)
{
    struct rk_bson_view list;
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    if (stage->type == RK_BSON_STRING) {
        assign(a, (const char *)stage->value + 4, (struct rk_bson_elem){0});
        return;
    }
    list = the_document(stage);
    rk_bson_iter_init(&iter, &list);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        assign(a, (const char *)e.value + 4, (struct rk_bson_elem){0});
    }
}

static void run_stage(const struct rk_bson_elem *stage, const struct rk_bson_view *in,
                      int64_t now_ms, struct rk_buf *out)
{
    struct assignments a;
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    begin(&a, now_ms);
    if (strcmp(stage->key, "$unset") == 0) {
        unset_stage(&a, stage);
    } else if (strcmp(stage->key, "$set") == 0) {
        struct rk_bson_view set = the_document(stage);
        rk_bson_iter_init(&iter, &set);
        while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
            assign(&a, e.key, model_eval(&a.cells, &e, in)); /* missing: away with it */
        }
    } else {
        MODEL_DIE("the model does not know the stage %s", stage->key);
    }
    apply(&a, in, out);
}

static void run_pipeline(const struct rk_bson_elem *update, const struct rk_bson_view *old,
                         int64_t now_ms, struct rk_buf *out)
{
    struct rk_bson_view stages = the_document(update);
    struct rk_bson_view in = *old;
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    struct rk_bson_elem stage;
    struct rk_buf between;
    rk_buf_init(&between, 1u << 20);
    rk_bson_iter_init(&iter, &stages);
    for (uint32_t n = 0; rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM; n++) {
        struct rk_bson_view doc = the_document(&e);
        struct rk_bson_iter only;
        rk_bson_iter_init(&only, &doc);
        if (rk_bson_next(&only, &stage) != RK_BSON_STEP_ELEM) {
            MODEL_DIE("an empty stage");
        }
        if (n > 0) {
            rk_buf_clear(&between);
            if (rk_buf_append(&between, out->data, out->len) != RK_OK) {
                MODEL_DIE("out of memory");
            }
            in = (struct rk_bson_view){between.data, (uint32_t)between.len};
        }
        run_stage(&stage, &in, now_ms, out);
    }
    rk_buf_deinit(&between);
}

/* ---- classic */

static void increase(struct assignments *a, const struct rk_bson_elem *by,
                     const struct rk_bson_view *old)
{
    struct rk_bson_elem value = model_field(old, by->key);
    int64_t was = 0;
    int64_t more = 0;
    if (value.type == 0) {
        assign(a, by->key, *by);
        return;
    }
    if (!rk_bson_elem_int(&value, &was) || !rk_bson_elem_int(by, &more) ||
        by->type == RK_BSON_DOUBLE || value.type == RK_BSON_DOUBLE) {
        MODEL_DIE("$inc of type %d", value.type);
    }
    uint8_t *cell = a->cells.cells[a->cells.n++];
    bool wide = value.type == RK_BSON_INT64 || by->type == RK_BSON_INT64;
    rk_store_u64(cell, (uint64_t)(was + more));
    assign(a, by->key,
           (struct rk_bson_elem){.type = wide ? RK_BSON_INT64 : RK_BSON_INT32,
                                 .value = cell,
                                 .value_len = wide ? 8 : 4});
}

static void classic_field(struct assignments *a, const char *op, const struct rk_bson_elem *e,
                          const struct rk_bson_view *old, bool inserts, int64_t now_ms)
{
    if (strcmp(op, "$set") == 0) {
        assign(a, e->key, *e);
    } else if (strcmp(op, "$setOnInsert") == 0) {
        if (inserts) {
            assign(a, e->key, *e);
        }
    } else if (strcmp(op, "$unset") == 0) {
        assign(a, e->key, (struct rk_bson_elem){0});
    } else if (strcmp(op, "$inc") == 0) {
        increase(a, e, old);
    } else if (strcmp(op, "$currentDate") == 0 && e->type == RK_BSON_BOOL) {
        uint8_t *cell = a->cells.cells[a->cells.n++];
        rk_store_u64(cell, (uint64_t)now_ms);
        assign(a, e->key,
               (struct rk_bson_elem){.type = RK_BSON_DATE, .value = cell, .value_len = 8});
    } else {
        MODEL_DIE("the model does not know the update operator %s", op);
    }
}

/* New fields come in the order of their names. */
static void sort_assignments(struct assignments *a)
{
    for (uint32_t i = 1; i < a->n; i++) {
        struct assignment moved = a->list[i];
        uint32_t at = i;
        for (; at > 0 && strcmp(a->list[at - 1].key, moved.key) > 0; at--) {
            a->list[at] = a->list[at - 1];
        }
        a->list[at] = moved;
    }
}

static void run_operators(const struct rk_bson_elem *update, const struct rk_bson_view *old,
                          bool inserts, int64_t now_ms, struct rk_buf *out)
{
    struct assignments a;
    struct rk_bson_view ops = the_document(update);
    struct rk_bson_iter iter;
    struct rk_bson_elem op;
    begin(&a, now_ms);
    rk_bson_iter_init(&iter, &ops);
    while (rk_bson_next(&iter, &op) == RK_BSON_STEP_ELEM) {
        struct rk_bson_view fields = the_document(&op);
        struct rk_bson_iter each;
        struct rk_bson_elem e;
        rk_bson_iter_init(&each, &fields);
        while (rk_bson_next(&each, &e) == RK_BSON_STEP_ELEM) {
            classic_field(&a, op.key, &e, old, inserts, now_ms);
        }
    }
    sort_assignments(&a);
    apply(&a, old, out);
}

/* ---- upserts */

static void put_equality(struct rk_bson_writer *w, const struct rk_bson_elem *e)
{
    struct rk_bson_view ops;
    struct rk_bson_elem eq;
    if (e->key[0] == '$') {
        MODEL_DIE("the model does not know an upsert with %s", e->key);
    }
    if (e->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(e, &ops)) {
        rk_bson_copy(w, e);
    } else if (rk_bson_find(&ops, "$eq", &eq)) {
        rk_bson_copy_as(w, e->key, e->key_len, &eq);
    } else {
        MODEL_DIE("the model does not know an upsert with this %s", e->key);
    }
}

/* The element whose name comes next after that one. */
static bool next_by_name(const struct rk_bson_view *doc, const char *after,
                         struct rk_bson_elem *next)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    bool found = false;
    rk_bson_iter_init(&iter, doc);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        if (strcmp(e.key, after) > 0 && (!found || strcmp(e.key, next->key) < 0)) {
            *next = e;
            found = true;
        }
    }
    return found;
}

/* The fields that the filter gives a value, in the order of their names. */
static void base_document(const struct rk_bson_view *filter, uint64_t *generated_ids,
                          struct rk_buf *out)
{
    struct rk_bson_writer w;
    struct rk_bson_elem e;
    rk_bson_writer_init(&w, out);
    rk_bson_begin(&w);
    if (rk_bson_find(filter, "_id", &e)) {
        put_equality(&w, &e);
    } else {
        uint8_t id[12] = {0xff, 0xff, 0xff, 0xff};
        rk_store_u64(id + 4, ++*generated_ids);
        rk_bson_put(&w, RK_BSON_OID, "_id", 3, id, sizeof id);
    }
    for (bool any = next_by_name(filter, "", &e); any; any = next_by_name(filter, e.key, &e)) {
        if (strcmp(e.key, "_id") != 0) {
            put_equality(&w, &e);
        }
    }
    rk_bson_end(&w);
    if (rk_bson_writer_status(&w) != RK_OK) {
        MODEL_DIE("cannot build a document");
    }
}

bool model_update(const struct rk_bson_elem *update, const struct rk_bson_view *filter,
                  const struct rk_bson_view *old, int64_t now_ms, uint64_t *generated_ids,
                  struct rk_buf *out)
{
    struct rk_buf base;
    struct rk_bson_view in;
    rk_buf_init(&base, 1u << 20);
    if (old == NULL) {
        base_document(filter, generated_ids, &base);
        in = (struct rk_bson_view){base.data, (uint32_t)base.len};
    } else {
        in = *old;
    }
    if (update->type == RK_BSON_ARRAY) {
        run_pipeline(update, &in, now_ms, out);
    } else {
        run_operators(update, &in, old == NULL, now_ms, out);
    }
    bool changed =
        old == NULL || out->len != old->len || memcmp(out->data, old->data, old->len) != 0;
    rk_buf_deinit(&base);
    return changed;
}
