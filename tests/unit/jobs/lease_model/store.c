#include "store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void model_die(const char *file, int line, const char *format, ...)
{
    va_list args;
    (void)fprintf(stderr, "%s:%d: ", file, line);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fprintf(stderr, "\n");
    abort();
}

struct rk_bson_view model_doc_view(const struct model_doc *doc)
{
    return (struct rk_bson_view){doc->data, doc->len};
}

static struct model_doc *doc_new(const uint8_t *data, uint32_t len)
{
    struct model_doc *doc = malloc(sizeof *doc + len);
    if (doc == NULL) {
        MODEL_DIE("out of memory");
    }
    doc->refs = 1;
    doc->len = len;
    memcpy(doc->data, data, len);
    return doc;
}

static struct model_doc *doc_ref(struct model_doc *doc)
{
    if (doc != NULL) {
        doc->refs++;
    }
    return doc;
}

static void doc_unref(struct model_doc *doc)
{
    if (doc != NULL && --doc->refs == 0) {
        free(doc);
    }
}

void model_store_init(struct model_store *store, enum model_mutation mutation,
                      model_observer_fn *observer, void *arg)
{
    store->n = 0;
    store->n_journal = 0;
    store->mutation = mutation;
    store->observer = observer;
    store->observer_arg = arg;
    store->generated_ids = 0;
    rk_buf_init(&store->scratch, 1u << 20);
}

void model_store_deinit(struct model_store *store)
{
    for (uint32_t i = 0; i < store->n_journal; i++) {
        doc_unref(store->journal[i].after);
    }
    for (uint32_t i = 0; i < store->n; i++) {
        struct model_collection *c = &store->collections[i];
        for (uint32_t j = 0; j < c->n; j++) {
            doc_unref(c->slots[j].latest);
            doc_unref(c->slots[j].committed);
        }
        for (uint32_t j = 0; j < c->n_unique; j++) {
            doc_unref(c->unique[j].keys);
            doc_unref(c->unique[j].partial);
        }
    }
    rk_buf_deinit(&store->scratch);
}

struct model_collection *model_store_collection(struct model_store *store, const char *name)
{
    for (uint32_t i = 0; i < store->n; i++) {
        if (strcmp(store->collections[i].name, name) == 0) {
            return &store->collections[i];
        }
    }
    if (store->n == MODEL_COLLECTIONS_MAX) {
        MODEL_DIE("too many collections: %s", name);
    }
    struct model_collection *c = &store->collections[store->n++];
    (void)snprintf(c->name, sizeof c->name, "%s", name);
    c->n = 0;
    c->n_unique = 0;
    return c;
}

void model_store_commit(struct model_store *store)
{
    uint32_t n = store->n_journal;
    store->n_journal = 0; /* nothing is written meanwhile: observers only look */
    for (uint32_t i = 0; i < n; i++) {
        struct model_entry *e = &store->journal[i];
        struct model_doc *before = e->slot->committed;
        e->slot->committed = e->after;
        if (store->observer != NULL) {
            const struct model_change change = {e->collection, before, e->after, e->actor,
                                                e->now_ms};
            store->observer(store->observer_arg, &change);
        }
        doc_unref(before);
    }
}

void model_store_roll_back(struct model_store *store)
{
    for (uint32_t i = 0; i < store->n_journal; i++) {
        struct model_entry *e = &store->journal[i];
        doc_unref(e->slot->latest);
        e->slot->latest = doc_ref(e->slot->committed);
        doc_unref(e->after);
    }
    store->n_journal = 0;
}

void model_store_put(struct model_store *store, struct model_collection *c, struct model_slot *slot,
                     const uint8_t *data, uint32_t len, const struct model_call *call)
{
    if (store->n_journal == MODEL_DOCS_MAX || (slot == NULL && c->n == MODEL_DOCS_MAX)) {
        MODEL_DIE("too many documents or uncommitted writes");
    }
    if (slot == NULL) {
        slot = &c->slots[c->n++];
        *slot = (struct model_slot){NULL, NULL};
    }
    struct model_doc *doc = data != NULL ? doc_new(data, len) : NULL;
    doc_unref(slot->latest);
    slot->latest = doc;
    store->journal[store->n_journal++] =
        (struct model_entry){c, slot, doc_ref(doc), call->actor, call->now_ms};
}

/* ---- unique indexes */

void model_store_index(struct model_collection *c, const struct rk_bson_view *keys,
                       const struct rk_bson_elem *partial)
{
    struct rk_bson_view view;
    for (uint32_t i = 0; i < c->n_unique; i++) {
        if (c->unique[i].keys->len == keys->len &&
            memcmp(c->unique[i].keys->data, keys->data, keys->len) == 0) {
            return;
        }
    }
    if (c->n_unique == MODEL_INDEXES_MAX) {
        MODEL_DIE("too many indexes on %s", c->name);
    }
    struct model_index *index = &c->unique[c->n_unique++];
    index->keys = doc_new(keys->data, keys->len);
    index->partial = partial->type != 0 && rk_bson_elem_view(partial, &view)
                         ? doc_new(view.data, view.len)
                         : NULL;
}

static bool same_keys(const struct rk_bson_view *keys, const struct rk_bson_view *a,
                      const struct rk_bson_view *b)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem key;
    rk_bson_iter_init(&iter, keys);
    while (rk_bson_next(&iter, &key) == RK_BSON_STEP_ELEM) {
        struct rk_bson_elem x = model_field(a, key.key);
        struct rk_bson_elem y = model_field(b, key.key);
        if (model_compare(&x, &y) != 0) {
            return false;
        }
    }
    return true;
}

static bool indexed(const struct model_index *index, const struct rk_bson_view *doc)
{
    if (index->partial == NULL) {
        return true;
    }
    struct rk_bson_view filter = model_doc_view(index->partial);
    return model_matches(&filter, doc, 0);
}

static bool conflicts(const struct model_store *store, const struct model_collection *c,
                      const struct rk_bson_view *doc, const struct rk_bson_view *other)
{
    /* {_id: 1} */
    static const uint8_t by_id[] = {14, 0, 0, 0, 0x10, '_', 'i', 'd', 0, 1, 0, 0, 0, 0};
    const struct rk_bson_view id_keys = {by_id, sizeof by_id};
    bool found = same_keys(&id_keys, doc, other);
    bool blind = store->mutation == MODEL_NO_UNIQUE_SEQ && strcmp(c->name, "jobStatus") == 0;
    for (uint32_t i = 0; !found && !blind && i < c->n_unique; i++) {
        struct rk_bson_view keys = model_doc_view(c->unique[i].keys);
        found = indexed(&c->unique[i], doc) && indexed(&c->unique[i], other) &&
                same_keys(&keys, doc, other);
    }
    return found;
}

bool model_store_conflict(const struct model_store *store, const struct model_collection *c,
                          const struct model_slot *slot, const struct rk_bson_view *doc)
{
    for (uint32_t i = 0; i < c->n; i++) {
        if (&c->slots[i] != slot && c->slots[i].latest != NULL) {
            struct rk_bson_view other = model_doc_view(c->slots[i].latest);
            if (conflicts(store, c, doc, &other)) {
                return true;
            }
        }
    }
    return false;
}
