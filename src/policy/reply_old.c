/*
 * Which documents of a reply lie under an old key: what the sweep may rewrite first.
 */
#include <rekey/policy/reply.h>

#include "reply_internal.h"

struct old {
    const struct rk_keyset *keys;
    bool legacy; /* values without a mark may be old, too */
    rk_old_document_fn *fn;
    void *arg;
};

static bool is_old(const struct old *o, const struct rk_bson_view *doc)
{
    const uint8_t *end = doc->data + doc->len;
    const uint8_t *mark = rk_envelope_scan(doc->data, doc->len);
    if (mark == NULL) {
        return o->legacy;
    }
    for (; mark != NULL; mark = rk_envelope_scan(mark + 1, (size_t)(end - mark - 1))) {
        uint32_t id = 0;
        if (rk_envelope_names_key(mark + 1, (size_t)(end - mark - 1), &id)) {
            const struct rk_keyset_key *key = rk_keyset_known(o->keys, id);
            if (key != NULL && key->role != RK_KEY_WRITES) {
                return true;
            }
        }
    }
    return false;
}

static void look_at(const struct old *o, const struct rk_bson_elem *elem)
{
    struct rk_bson_view doc;
    struct rk_bson_elem id;
    if (elem->type == RK_BSON_DOCUMENT && rk_bson_elem_view(elem, &doc) &&
        rk_bson_find(&doc, "_id", &id) && !rk_reply_is_event(&doc) && is_old(o, &doc)) {
        o->fn(o->arg, id.type, id.value, id.value_len);
    }
}

static void look_at_batch(const struct old *o, const struct rk_bson_view *body)
{
    struct rk_bson_elem elem;
    struct rk_bson_view cursor;
    struct rk_bson_view docs;
    struct rk_bson_iter iter;
    if (!rk_bson_find(body, "cursor", &elem) || !rk_bson_elem_view(&elem, &cursor) ||
        (!rk_bson_find(&cursor, "firstBatch", &elem) &&
         !rk_bson_find(&cursor, "nextBatch", &elem)) ||
        !rk_bson_elem_view(&elem, &docs)) {
        return;
    }
    rk_bson_iter_init(&iter, &docs);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        look_at(o, &elem);
    }
}

void rk_reply_old_documents(const struct rk_keyset *keys, const struct rk_command_info *info,
                            const struct rk_msg *msg, rk_old_document_fn *fn, void *arg)
{
    struct rk_bson_view body;
    struct rk_bson_elem elem;
    if (info->policy == NULL || !rk_bson_view_init(&body, msg->body, msg->body_len)) {
        return;
    }
    const struct old o = {.keys = keys, .legacy = info->policy->has_legacy, .fn = fn, .arg = arg};
    look_at_batch(&o, &body);
    if (rk_bson_find(&body, "value", &elem)) {
        look_at(&o, &elem);
    }
}
