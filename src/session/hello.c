#include "hello_internal.h"

#include <stdio.h>
#include <string.h>

#define OP_REPLY_HEAD_LEN 36u

struct rewrite {
    const struct rk_hello_rules *rules;
    const struct rk_bson_view *hello;
    struct rk_bson_writer *w;
    struct rk_hello_seen *seen;
    bool has_compression; /* the client's list is written */
};

static void put_members(struct rewrite *r, const struct rk_bson_elem *elem)
{
    struct rk_bson_view list;
    struct rk_bson_iter iter;
    struct rk_bson_elem entry;
    if (elem->type != RK_BSON_ARRAY || !rk_bson_elem_view(elem, &list)) {
        r->seen->unknown++; /* whatever it is, it must not carry an address to the client */
        return;
    }
    unsigned index = 0;
    rk_bson_begin_sub(r->w, RK_BSON_ARRAY, elem->key, elem->key_len);
    rk_bson_iter_init(&iter, &list);
    while (rk_bson_next(&iter, &entry) == RK_BSON_STEP_ELEM) {
        const char *text;
        uint32_t len;
        const char *mapped = rk_bson_elem_utf8(&entry, &text, &len)
                                 ? rk_routes_map(r->rules->routes, text, len)
                                 : NULL;
        if (mapped == NULL) {
            r->seen->unknown++;
            continue;
        }
        char key[12];
        (void)snprintf(key, sizeof key, "%u", index++);
        rk_bson_put_utf8(r->w, key, mapped, strlen(mapped));
    }
    rk_bson_end(r->w);
}

static void put_primary(struct rewrite *r, const struct rk_bson_elem *elem)
{
    const char *text;
    uint32_t len;
    const char *mapped =
        rk_bson_elem_utf8(elem, &text, &len) ? rk_routes_map(r->rules->routes, text, len) : NULL;
    if (mapped == NULL) {
        r->seen->unknown++;
    } else {
        rk_bson_put_utf8(r->w, elem->key, mapped, strlen(mapped));
    }
}

static void put_me(struct rewrite *r, const struct rk_bson_elem *elem)
{
    const char *me = r->rules->route->advertise;
    rk_bson_put_utf8(r->w, elem->key, me, strlen(me));
}

static void put_capped(struct rewrite *r, const struct rk_bson_elem *elem, uint32_t cap)
{
    int64_t value;
    if (cap != 0 && rk_bson_elem_int(elem, &value) && value > (int64_t)cap) {
        rk_bson_put_int32(r->w, elem->key, (int32_t)cap);
    } else {
        rk_bson_copy(r->w, elem);
    }
}

static void put_message_max(struct rewrite *r, const struct rk_bson_elem *elem)
{
    put_capped(r, elem, r->rules->message_bytes_max);
}

static void put_batch_max(struct rewrite *r, const struct rk_bson_elem *elem)
{
    put_capped(r, elem, r->rules->batch_docs_max);
}

static void put_compression(struct rewrite *r)
{
    if (r->seen->ok && r->rules->compression.n > 0 && !r->has_compression) {
        rk_hello_put_compressors(r->w, &r->rules->compression);
        r->has_compression = true;
    }
}

/* What the member took is the session's to know; what the client may use stands in its place. */
static void take_compression(struct rewrite *r, const struct rk_bson_elem *elem)
{
    (void)rk_hello_compressors(elem, &r->seen->compression);
    put_compression(r);
}

static void drop(struct rewrite *r, const struct rk_bson_elem *elem)
{
    (void)r;
    (void)elem;
}

/* single: the listener is all that there is of the set. */
static void put_only_host(struct rewrite *r, const struct rk_bson_elem *elem)
{
    const char *host = r->rules->route->advertise;
    rk_bson_begin_sub(r->w, RK_BSON_ARRAY, elem->key, elem->key_len);
    rk_bson_put_utf8(r->w, "0", host, strlen(host));
    rk_bson_end(r->w);
}

/* single: the address of another member would lead around the proxy, and this server under the
 * name of the primary would be a lie. */
static void put_primary_if_me(struct rewrite *r, const struct rk_bson_elem *elem)
{
    struct rk_bson_elem me;
    const char *primary_text;
    const char *me_text;
    uint32_t primary_len;
    uint32_t me_len;
    if (rk_bson_find(r->hello, "me", &me) && rk_bson_elem_utf8(&me, &me_text, &me_len) &&
        rk_bson_elem_utf8(elem, &primary_text, &primary_len) && me_len == primary_len &&
        memcmp(me_text, primary_text, me_len) == 0) {
        put_me(r, elem);
    }
}

typedef void put_fn(struct rewrite *r, const struct rk_bson_elem *elem);

static const struct {
    const char *key;
    put_fn *mirror;
    put_fn *single;
} rules_by_key[] = {
    {"hosts", put_members, put_only_host},
    {"passives", put_members, drop},
    {"arbiters", put_members, drop},
    {"primary", put_primary, put_primary_if_me},
    {"me", put_me, put_me},
    {"maxMessageSizeBytes", put_message_max, put_message_max},
    {"maxWriteBatchSize", put_batch_max, put_batch_max},
    {"compression", take_compression, take_compression},
};

static void put_elem(struct rewrite *r, const struct rk_bson_elem *elem)
{
    bool mirror = r->rules->route->role == RK_ROLE_MEMBER;
    for (size_t i = 0; i < sizeof rules_by_key / sizeof rules_by_key[0]; i++) {
        if (rk_bson_key_is(elem, rules_by_key[i].key)) {
            (mirror ? rules_by_key[i].mirror : rules_by_key[i].single)(r, elem);
            return;
        }
    }
    rk_bson_copy(r->w, elem);
}

static enum rk_status put_document(const struct rk_hello_rules *rules, const uint8_t *doc,
                                   size_t len, struct rk_buf *out, struct rk_hello_seen *seen)
{
    struct rk_bson_view view;
    struct rk_bson_writer w;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    if (!rk_bson_view_init(&view, doc, len)) {
        return RK_EINVAL;
    }
    rk_bson_writer_init(&w, out);
    struct rewrite r = {.rules = rules, .hello = &view, .w = &w, .seen = seen};
    seen->ok = rk_bson_find(&view, "ok", &elem) && rk_bson_elem_truthy(&elem);
    rk_bson_begin(&w);
    rk_bson_iter_init(&iter, &view);
    enum rk_bson_step step;
    while ((step = rk_bson_next(&iter, &elem)) == RK_BSON_STEP_ELEM) {
        put_elem(&r, &elem);
    }
    put_compression(&r);
    rk_bson_end(&w);
    return step == RK_BSON_STEP_MALFORMED ? RK_EINVAL : rk_bson_writer_status(&w);
}

static enum rk_status rewrite_msg(const struct rk_hello_rules *rules, const uint8_t *data,
                                  size_t len, struct rk_buf *out, struct rk_hello_seen *seen)
{
    struct rk_msg msg;
    const char *why;
    size_t start;
    if (rk_msg_parse(data, len, &msg, &why) != RK_PARSE_OK) {
        return RK_EINVAL;
    }
    enum rk_status status =
        rk_msg_begin(out, msg.frame.request_id, msg.frame.response_to, msg.flags, &start);
    if (status == RK_OK) {
        status = rk_msg_section_body(out);
    }
    if (status == RK_OK) {
        status = put_document(rules, msg.body, msg.body_len, out, seen);
    }
    if (status == RK_OK) {
        rk_msg_end(out, start);
    }
    return status;
}

static enum rk_status rewrite_reply(const struct rk_hello_rules *rules, const uint8_t *data,
                                    size_t len, struct rk_buf *out, struct rk_hello_seen *seen)
{
    struct rk_op_reply reply;
    if (rk_op_reply_parse(data, len, &reply) != RK_PARSE_OK || reply.n_returned != 1) {
        return RK_EINVAL;
    }
    enum rk_status status = rk_buf_append(out, data, OP_REPLY_HEAD_LEN);
    if (status == RK_OK) {
        status = put_document(rules, reply.docs, reply.docs_len, out, seen);
    }
    if (status == RK_OK) {
        rk_store_u32(out->data, (uint32_t)out->len);
    }
    return status;
}

enum rk_status rk_hello_rewrite(const struct rk_hello_rules *rules, const uint8_t *data, size_t len,
                                struct rk_buf *out, struct rk_hello_seen *seen)
{
    struct rk_frame frame;
    rk_buf_clear(out);
    *seen = (struct rk_hello_seen){0};
    if (rk_frame_parse(data, len, RK_FRAME_LEN_MAX, &frame) != RK_PARSE_OK) {
        return RK_EINVAL;
    }
    return frame.opcode == RK_OP_REPLY ? rewrite_reply(rules, data, len, out, seen)
                                       : rewrite_msg(rules, data, len, out, seen);
}
