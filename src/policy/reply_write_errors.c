/*
 * The errors of single statements in the reply to a batch. Numbers, order and counts are the
 * server's; of those statements that it saw only a replacement of, code and message are Rekey's.
 */
#include "reply_internal.h"

#include <rekey/policy/write_errors.h>

static bool index_of(const struct rk_bson_view *entry, const char *name, uint32_t *index)
{
    struct rk_bson_elem elem;
    int64_t v;
    if (!rk_bson_find(entry, name, &elem) || !rk_bson_elem_int(&elem, &v) || v < 0 ||
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
    if (!rk_bson_elem_view(entry, &view) || !index_of(&view, "index", &index) ||
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

/* With which mongod ends a bulkWrite whose results have become too many: not about the statement.
 */
#define CODE_EXCEEDED_MEMORY 146

/* {ok: 0, idx, code, errmsg, n, nModified} of MongoDB 8.0. What else the server may say is about an
 * error that is not the program's. */
enum rk_verdict rk_reply_bulk_result(struct rk_reply *r, const struct rk_bson_elem *result,
                                     const struct rk_trail *up)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_write_error error;
    uint32_t index;
    int64_t code;
    if (!rk_bson_elem_view(result, &view) || !index_of(&view, "idx", &index) ||
        !rk_bson_find(&view, "code", &elem) || !rk_bson_elem_int(&elem, &code) ||
        code == CODE_EXCEEDED_MEMORY ||
        !rk_write_errors_find(r->info->write_errors, index, &error)) {
        return rk_decrypt_elem(&r->d, NULL, result, up);
    }
    rk_bson_begin_sub(r->d.w, RK_BSON_DOCUMENT, result->key, result->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (rk_bson_key_is(&elem, "code")) {
            rk_bson_put_int32(r->d.w, "code", error.code);
            rk_bson_put_utf8(r->d.w, "errmsg", error.message, error.message_len);
        } else if (rk_bson_key_is(&elem, "ok") || rk_bson_key_is(&elem, "idx") ||
                   rk_bson_key_is(&elem, "n") || rk_bson_key_is(&elem, "nModified")) {
            rk_bson_copy(r->d.w, &elem);
        }
    }
    rk_bson_end(r->d.w);
    r->d.changed = true;
    return RK_VERDICT_FORWARD;
}
