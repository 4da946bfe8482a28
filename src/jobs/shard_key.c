#include "shard_key_internal.h"

#include <string.h>

#define PART_OVERHEAD 16u /* {$eq: } */

bool rk_shard_key_set(struct rk_shard_key *key, const struct rk_bson_view *doc)
{
    if (doc->len > sizeof key->doc) {
        return false;
    }
    memcpy(key->doc, doc->data, doc->len);
    key->len = doc->len;
    return true;
}

void rk_shard_key_paths(const struct rk_shard_key *key, rk_shard_path_fn *fn, void *arg)
{
    struct rk_bson_view view = {key->doc, key->len};
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    if (key->len == 0) {
        return;
    }
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (!rk_bson_key_is(&elem, "_id")) {
            fn(arg, elem.key, elem.key_len);
        }
    }
}

/* Through documents only: mongod stores no array on the way to a shard key's value. */
static bool find_path(const struct rk_bson_view *doc, const char *path, size_t len,
                      struct rk_bson_elem *elem)
{
    struct rk_bson_view at = *doc;
    const char *end = path + len;
    for (;;) {
        const char *dot = memchr(path, '.', (size_t)(end - path));
        size_t part = (size_t)((dot != NULL ? dot : end) - path);
        struct rk_bson_iter iter;
        bool found = false;
        rk_bson_iter_init(&iter, &at);
        while (!found && rk_bson_next(&iter, elem) == RK_BSON_STEP_ELEM) {
            found = elem->key_len == part && memcmp(elem->key, path, part) == 0;
        }
        if (!found || dot == NULL) {
            return found;
        }
        if (elem->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(elem, &at)) {
            return false;
        }
        path = dot + 1;
    }
}

struct putting {
    struct rk_bson_writer *w;
    const struct rk_bson_view *doc;
};

static void put_path(void *arg, const char *path, size_t len)
{
    const struct putting *p = arg;
    struct rk_bson_elem elem;
    rk_bson_begin_sub(p->w, RK_BSON_DOCUMENT, path, len);
    if (find_path(p->doc, path, len, &elem)) {
        rk_bson_put(p->w, elem.type, "$eq", 3, elem.value, elem.value_len);
    } else {
        rk_bson_put(p->w, RK_BSON_NULL, "$eq", 3, NULL, 0);
    }
    rk_bson_end(p->w);
}

struct measuring {
    const struct rk_bson_view *doc;
    size_t size;
};

static void add_path(void *arg, const char *path, size_t len)
{
    struct measuring *m = arg;
    struct rk_bson_elem elem;
    m->size += PART_OVERHEAD + len;
    m->size += find_path(m->doc, path, len, &elem) ? elem.value_len : 0;
}

size_t rk_shard_key_size(const struct rk_shard_key *key, const struct rk_bson_view *doc)
{
    struct measuring m = {.doc = doc};
    rk_shard_key_paths(key, add_path, &m);
    return m.size;
}

void rk_shard_key_put(const struct rk_shard_key *key, struct rk_bson_writer *w,
                      const struct rk_bson_view *doc)
{
    struct putting p = {w, doc};
    rk_shard_key_paths(key, put_path, &p);
}
