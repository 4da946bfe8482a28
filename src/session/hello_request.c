/* What a client offers in its hello, and what of that goes on to the member. */
#include "hello_internal.h"

#include <stdio.h>
#include <string.h>

#define CODE_INVALID_OPTIONS 72

/* Old drivers wrap a command as {$query: {...}}; once, and in OP_QUERY only. */
static bool wraps(const struct rk_bson_elem *elem)
{
    return elem->type == RK_BSON_DOCUMENT &&
           (rk_bson_key_is(elem, "$query") || rk_bson_key_is(elem, "query"));
}

static bool lists_compressors(const struct rk_bson_elem *elem)
{
    return elem->type == RK_BSON_ARRAY && rk_bson_key_is(elem, "compression");
}

static bool asks_for_load_balancer(const struct rk_bson_elem *elem)
{
    return rk_bson_key_is(elem, "loadBalanced") && rk_bson_elem_truthy(elem);
}

/* The first member that is wanted, of the command or of the one that it wraps. */
static bool find_member(const struct rk_bson_view *view, bool wanted(const struct rk_bson_elem *),
                        bool inside, struct rk_bson_elem *found)
{
    struct rk_bson_iter iter;
    struct rk_bson_view inner;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, found) == RK_BSON_STEP_ELEM) {
        if (wanted(found)) {
            return true;
        }
        if (!inside && wraps(found) && rk_bson_elem_view(found, &inner)) {
            struct rk_bson_elem deeper;
            if (find_member(&inner, wanted, true, &deeper)) {
                *found = deeper;
                return true;
            }
        }
    }
    return false;
}

unsigned rk_hello_compressors(const struct rk_bson_elem *list, struct rk_compressors *known)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem entry;
    unsigned n = 0;
    *known = (struct rk_compressors){0};
    if (list->type != RK_BSON_ARRAY || !rk_bson_elem_view(list, &view)) {
        return 0;
    }
    rk_bson_iter_init(&iter, &view);
    for (; rk_bson_next(&iter, &entry) == RK_BSON_STEP_ELEM; n++) {
        const char *name;
        uint32_t len;
        enum rk_compressor id;
        if (rk_bson_elem_utf8(&entry, &name, &len) && rk_compressor_find(name, len, &id)) {
            rk_compressors_add(known, id);
        }
    }
    return n;
}

/* The member refuses a list of anything else; it is to see such a one as it came. */
static bool lists_names_only(const struct rk_bson_elem *list)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem entry;
    if (!rk_bson_elem_view(list, &view)) {
        return false;
    }
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &entry) == RK_BSON_STEP_ELEM) {
        if (entry.type != RK_BSON_STRING) {
            return false;
        }
    }
    return true;
}

void rk_hello_put_compressors(struct rk_bson_writer *w, const struct rk_compressors *list)
{
    rk_bson_begin_sub(w, RK_BSON_ARRAY, "compression", strlen("compression"));
    for (unsigned i = 0; i < list->n; i++) {
        const char *name = rk_compressor_name((enum rk_compressor)list->ids[i]);
        char key[12];
        (void)snprintf(key, sizeof key, "%u", i);
        rk_bson_put_utf8(w, key, name, strlen(name));
    }
    rk_bson_end(w);
}

static void put_elements(struct rk_bson_writer *w, const struct rk_bson_view *view,
                         const struct rk_compressors *offer, bool inside)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view inner;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (lists_compressors(&elem)) {
            rk_hello_put_compressors(w, offer);
        } else if (!inside && wraps(&elem) && rk_bson_elem_view(&elem, &inner)) {
            rk_bson_begin_sub(w, RK_BSON_DOCUMENT, elem.key, elem.key_len);
            put_elements(w, &inner, offer, true);
            rk_bson_end(w);
        } else {
            rk_bson_copy(w, &elem);
        }
    }
}

/* The document of a request, and the bytes that stay around it. */
struct request {
    struct rk_bson_view doc;
    const uint8_t *before;
    size_t before_len;
    const uint8_t *after;
    size_t after_len;
};

static bool take_apart(const uint8_t *data, size_t len, struct request *request)
{
    struct rk_op_query query;
    struct rk_msg msg;
    const char *why;
    *request = (struct request){.before = data};
    if (rk_op_query_parse(data, len, &query) == RK_PARSE_OK) {
        request->before_len = (size_t)(query.query - data);
        request->after = query.rest;
        request->after_len = query.rest_len;
        return rk_bson_view_init(&request->doc, query.query, query.query_len);
    }
    if (rk_msg_parse(data, len, &msg, &why) != RK_PARSE_OK || msg.n_sequences > 0) {
        return false;
    }
    request->before_len = (size_t)(msg.body - data);
    return rk_bson_view_init(&request->doc, msg.body, msg.body_len);
}

static enum rk_status put_request(const struct request *request, const struct rk_compressors *offer,
                                  struct rk_buf *out)
{
    struct rk_bson_writer w;
    enum rk_status status = rk_buf_append(out, request->before, request->before_len);
    if (status != RK_OK) {
        return status;
    }
    rk_bson_writer_init(&w, out);
    rk_bson_begin(&w);
    put_elements(&w, &request->doc, offer, false);
    rk_bson_end(&w);
    status = rk_bson_writer_status(&w);
    if (status == RK_OK) {
        status = rk_buf_append(out, request->after, request->after_len);
    }
    if (status != RK_OK) {
        return status;
    }
    rk_store_u32(out->data, (uint32_t)out->len);
    if (rk_load_i32(out->data + 12) == RK_OP_MSG) {
        /* The checksum, if there was one, was of other bytes; it is not among these. */
        uint32_t flags = rk_load_u32(out->data + RK_FRAME_HEADER_LEN);
        rk_store_u32(out->data + RK_FRAME_HEADER_LEN, flags & ~(uint32_t)RK_MSG_CHECKSUM_PRESENT);
    }
    return RK_OK;
}

enum rk_status rk_hello_offer(const struct rk_compressors *client,
                              const struct rk_compressors *upstream, const uint8_t *data,
                              size_t len, struct rk_buf *out, struct rk_hello_offer *offer)
{
    struct request request;
    struct rk_bson_elem list;
    struct rk_compressors known;
    rk_buf_clear(out);
    *offer = (struct rk_hello_offer){0};
    if (!take_apart(data, len, &request) || !rk_bson_validate(&request.doc, RK_HELLO_DEPTH_MAX) ||
        !find_member(&request.doc, lists_compressors, false, &list) || !lists_names_only(&list)) {
        return RK_OK;
    }
    unsigned listed = rk_hello_compressors(&list, &known);
    offer->made = true;
    offer->client = rk_compressors_common(&known, client);
    if (offer->client.n > 0) { /* a client that will not compress gives no cause to */
        offer->upstream = rk_compressors_common(&known, upstream);
    }
    return offer->upstream.n == listed ? RK_OK : put_request(&request, &offer->upstream, out);
}

bool rk_hello_refused(const uint8_t *data, size_t len, struct rk_error *err)
{
    struct request request;
    struct rk_bson_elem found;
    if (!take_apart(data, len, &request) ||
        !find_member(&request.doc, asks_for_load_balancer, false, &found)) {
        return false;
    }
    (void)rk_error_set_code(err, RK_EREFUSED, CODE_INVALID_OPTIONS,
                            "Rekey does not serve load balancer mode: remove loadBalanced=true "
                            "from the connection string and name Rekey's listeners");
    return true;
}
