/*
 * The errors of single statements in the reply to a batch. Numbers, order and counts are the
 * server's; of those statements that it saw only a replacement of, code and message are Rekey's.
 */
#include "reply_internal.h"

#include <rekey/policy/write_errors.h>

static bool index_of(const struct rk_bson_view *entry, uint32_t *index)
{
    struct rk_bson_elem elem;
    int64_t v;
    if (!rk_bson_find(entry, "index", &elem) || !rk_bson_elem_int(&elem, &v) || v < 0 ||
        v > UINT32_MAX) {
        return false;
    }
    *index = (uint32_t)v;
    return true;
}

enum rk_verdict rk_reply_write_error(struct rk_reply *r, const struct rk_bson_elem *entry,
                                     const struct rk_trail *up)
{
    struct rk_bson_view view;
    struct rk_write_error error;
    uint32_t index;
    if (!rk_bson_elem_view(entry, &view) || !index_of(&view, &index) ||
        !rk_write_errors_find(r->info->write_errors, index, &error)) {
        return rk_decrypt_elem(&r->d, NULL, entry, up);
    }
    rk_bson_begin_sub(r->d.w, RK_BSON_DOCUMENT, entry->key, entry->key_len);
    rk_bson_put_int32(r->d.w, "index", (int32_t)error.index);
    rk_bson_put_int32(r->d.w, "code", error.code);
    rk_bson_put_utf8(r->d.w, "errmsg", error.message, error.message_len);
    rk_bson_end(r->d.w);
    r->d.changed = true;
    return RK_VERDICT_FORWARD;
}
