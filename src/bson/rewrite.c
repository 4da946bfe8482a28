#include <rekey/bson/rewrite.h>

#include <string.h>

void rk_bson_writer_init(struct rk_bson_writer *w, struct rk_buf *out)
{
    w->out = out;
    w->status = RK_OK;
    w->depth = 0;
}

enum rk_status rk_bson_writer_status(const struct rk_bson_writer *w)
{
    return w->status;
}

static void append(struct rk_bson_writer *w, const void *data, size_t len)
{
    if (w->status == RK_OK) {
        w->status = rk_buf_append(w->out, data, len);
    }
}

/* One check of the buffer, not three: heads are most of what a sweep writes. */
static void append_head(struct rk_bson_writer *w, uint8_t type, const char *key, size_t key_len)
{
    if (w->status == RK_OK) {
        w->status = rk_buf_reserve(w->out, key_len + 2);
    }
    if (w->status == RK_OK) {
        uint8_t *at = w->out->data + w->out->len;
        *at++ = type;
        memcpy(at, key, key_len);
        at[key_len] = '\0';
        w->out->len += key_len + 2;
    }
}

void rk_bson_begin(struct rk_bson_writer *w)
{
    if (w->status != RK_OK) {
        return;
    }
    if (w->depth == RK_BSON_WRITER_DEPTH_MAX) {
        w->status = RK_ELIMIT;
        return;
    }
    w->open[w->depth++] = w->out->len;
    append(w, "\0\0\0\0", 4);
}

void rk_bson_begin_sub(struct rk_bson_writer *w, uint8_t type, const char *key, size_t key_len)
{
    append_head(w, type, key, key_len);
    rk_bson_begin(w);
}

void rk_bson_end(struct rk_bson_writer *w)
{
    append(w, "", 1);
    if (w->status == RK_OK) {
        size_t start = w->open[--w->depth];
        rk_store_u32(w->out->data + start, (uint32_t)(w->out->len - start));
    }
}

void rk_bson_copy(struct rk_bson_writer *w, const struct rk_bson_elem *elem)
{
    append(w, elem->start, elem->len);
}

void rk_bson_copy_as(struct rk_bson_writer *w, const char *key, size_t key_len,
                     const struct rk_bson_elem *elem)
{
    rk_bson_put(w, elem->type, key, key_len, elem->value, elem->value_len);
}

void rk_bson_put(struct rk_bson_writer *w, uint8_t type, const char *key, size_t key_len,
                 const void *value, size_t value_len)
{
    append_head(w, type, key, key_len);
    append(w, value, value_len);
}

void rk_bson_put_int32(struct rk_bson_writer *w, const char *key, int32_t v)
{
    uint8_t bytes[4];
    rk_store_u32(bytes, (uint32_t)v);
    rk_bson_put(w, RK_BSON_INT32, key, strlen(key), bytes, sizeof bytes);
}

void rk_bson_put_int64(struct rk_bson_writer *w, const char *key, int64_t v)
{
    uint8_t bytes[8];
    rk_store_u64(bytes, (uint64_t)v);
    rk_bson_put(w, RK_BSON_INT64, key, strlen(key), bytes, sizeof bytes);
}

void rk_bson_put_double(struct rk_bson_writer *w, const char *key, double v)
{
    uint64_t bits;
    uint8_t bytes[8];
    memcpy(&bits, &v, sizeof bits);
    rk_store_u64(bytes, bits);
    rk_bson_put(w, RK_BSON_DOUBLE, key, strlen(key), bytes, sizeof bytes);
}

void rk_bson_put_bool(struct rk_bson_writer *w, const char *key, bool v)
{
    uint8_t byte = v ? 1 : 0;
    rk_bson_put(w, RK_BSON_BOOL, key, strlen(key), &byte, 1);
}

void rk_bson_put_utf8(struct rk_bson_writer *w, const char *key, const char *text, size_t len)
{
    uint8_t size[4];
    rk_store_u32(size, (uint32_t)(len + 1));
    append_head(w, RK_BSON_STRING, key, strlen(key));
    append(w, size, sizeof size);
    append(w, text, len);
    append(w, "", 1);
}

void rk_bson_put_binary(struct rk_bson_writer *w, const char *key, size_t key_len, uint8_t subtype,
                        const void *data, size_t len)
{
    uint8_t head[5];
    rk_store_u32(head, (uint32_t)len);
    head[4] = subtype;
    append_head(w, RK_BSON_BINARY, key, key_len);
    append(w, head, sizeof head);
    append(w, data, len);
}

void rk_bson_put_doc(struct rk_bson_writer *w, uint8_t type, const char *key,
                     const struct rk_bson_view *doc)
{
    rk_bson_put(w, type, key, strlen(key), doc->data, doc->len);
}
