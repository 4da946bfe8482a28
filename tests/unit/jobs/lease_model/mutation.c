#include "store.h"

#include <rekey/bson/rewrite.h>
#include <string.h>

static bool is_a(const struct rk_bson_view *command, const char *name)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem first;
    rk_bson_iter_init(&iter, command);
    return rk_bson_next(&iter, &first) == RK_BSON_STEP_ELEM && strcmp(first.key, name) == 0;
}

static bool has(const struct rk_bson_view *doc, const char *key)
{
    struct rk_bson_elem elem;
    return rk_bson_find(doc, key, &elem);
}

static struct rk_bson_view finished(const struct rk_bson_writer *w)
{
    if (rk_bson_writer_status(w) != RK_OK) {
        MODEL_DIE("cannot build a document");
    }
    return (struct rk_bson_view){w->out->data, (uint32_t)w->out->len};
}

/* The document without key; with only, without everything else instead. */
static struct rk_bson_view without(const struct rk_bson_view *doc, const char *key, bool only,
                                   struct rk_buf *copy)
{
    struct rk_bson_writer w;
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    rk_buf_clear(copy);
    rk_bson_writer_init(&w, copy);
    rk_bson_begin(&w);
    rk_bson_iter_init(&iter, doc);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        if ((strcmp(e.key, key) == 0) == only) {
            rk_bson_copy(&w, &e);
        }
    }
    rk_bson_end(&w);
    return finished(&w);
}

/* {jobId: {$eq: nothing}}: none but those that are not there */
static struct rk_bson_view no_running(const struct rk_bson_view *filter, struct rk_buf *copy)
{
    struct rk_bson_writer w;
    struct rk_bson_elem job = model_field(filter, "jobId");
    rk_buf_clear(copy);
    rk_bson_writer_init(&w, copy);
    rk_bson_begin(&w);
    rk_bson_copy(&w, &job);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "state", 5);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "$in", 3);
    rk_bson_put_utf8(&w, "0", "pending", 7);
    rk_bson_put_utf8(&w, "1", "failed", 6);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    return finished(&w);
}

struct rk_bson_view model_mutate_filter(const struct model_store *store,
                                        const struct rk_bson_view *command,
                                        const struct model_collection *c,
                                        const struct rk_bson_view *filter, struct rk_buf *copy)
{
    bool ranges = strcmp(c->name, "jobStatus") == 0;
    bool checkpoint = ranges && is_a(command, "update") && has(filter, "epoch");
    switch (store->mutation) {
    case MODEL_NO_EPOCH_FILTER:
        return checkpoint ? without(filter, "epoch", false, copy) : *filter;
    case MODEL_NO_STATE_FILTER:
        return checkpoint ? without(filter, "state", false, copy) : *filter;
    case MODEL_NO_ORDER:
        return checkpoint ? without(filter, "scanned", false, copy) : *filter;
    case MODEL_NO_LEASE_CHECK:
        return ranges ? without(filter, "$expr", false, copy) : *filter;
    case MODEL_LOCAL_PLAN:
        /* Several planners at once, which the lease makes rare and does not rule out. */
        return strcmp(c->name, "jobs") == 0 ? without(filter, "$or", false, copy) : *filter;
    case MODEL_NO_COMPARE:
        return is_a(command, "update") && has(filter, "s") ? without(filter, "_id", true, copy)
                                                           : *filter;
    case MODEL_NO_RESUME_POINT:
        return is_a(command, "find") && has(command, "min") ? without(filter, "_id", false, copy)
                                                            : *filter;
    case MODEL_ANY_NOTE:
        return ranges && is_a(command, "update") ? without(filter, "splitOff._id", false, copy)
                                                 : *filter;
    case MODEL_BLIND_CLOSE:
        return ranges && is_a(command, "find") && has(command, "projection") &&
                       model_field(filter, "state").type == RK_BSON_DOCUMENT
                   ? no_running(filter, copy)
                   : *filter;
    default:
        return *filter;
    }
}

static void override(struct rk_buf *doc, const char *key, const struct rk_bson_elem *value)
{
    struct rk_bson_writer w;
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    struct rk_buf copy;
    struct rk_bson_view view = {doc->data, (uint32_t)doc->len};
    rk_buf_init(&copy, doc->max);
    rk_bson_writer_init(&w, &copy);
    rk_bson_begin(&w);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        if (strcmp(e.key, key) != 0) {
            rk_bson_copy(&w, &e);
        }
    }
    if (value->type != 0) {
        rk_bson_put(&w, value->type, key, strlen(key), value->value, value->value_len);
    }
    rk_bson_end(&w);
    (void)finished(&w);
    rk_buf_deinit(doc);
    *doc = copy;
}

void model_mutate_document(const struct model_store *store, const struct rk_bson_view *command,
                           const struct model_collection *c, const struct rk_bson_view *old,
                           struct rk_buf *doc)
{
    static const uint8_t yes = 1;
    bool ranges = strcmp(c->name, "jobStatus") == 0;
    bool claim = ranges && is_a(command, "findAndModify");
    const struct rk_bson_elem nothing = {0};
    struct rk_bson_elem value;
    switch (store->mutation) {
    case MODEL_NO_EPOCH_GROWTH:
        value = model_field(old, "epoch");
        if (claim) {
            override(doc, "epoch", &value);
        }
        break;
    case MODEL_EARLY_POSITION:
        value = model_field(old, "endId");
        if (claim && value.type != RK_BSON_MAXKEY) {
            override(doc, "position", &value);
        }
        break;
    case MODEL_FORGOTTEN_COUNTS:
        value = model_field(old, "scanned");
        if (ranges && !claim) {
            override(doc, "scanned", &value);
        }
        break;
    case MODEL_FORGOTTEN_SPLIT:
        if (claim) {
            override(doc, "splitOff", &nothing);
        }
        break;
    case MODEL_FORGOTTEN_CUT:
        if (ranges) {
            override(doc, "cutEndId", &nothing);
        }
        break;
    case MODEL_EARLY_PLAN:
        if (strcmp(c->name, "jobs") == 0 && has(old, "planComplete")) {
            value = (struct rk_bson_elem){.type = RK_BSON_BOOL, .value = &yes, .value_len = 1};
            override(doc, "planComplete", &value);
        }
        break;
    default:
        break;
    }
}
