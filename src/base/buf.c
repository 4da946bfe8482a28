#include <rekey/base/buf.h>

#include <stdlib.h>

#define RK_BUF_MIN 256u

void rk_buf_init(struct rk_buf *buf, size_t max)
{
    *buf = (struct rk_buf){.max = max};
}

void rk_buf_deinit(struct rk_buf *buf)
{
    free(buf->data);
    *buf = (struct rk_buf){.max = buf->max};
}

void rk_buf_clear(struct rk_buf *buf)
{
    buf->len = 0;
}

void rk_buf_cleanse(struct rk_buf *buf)
{
    if (buf->data != NULL) {
        explicit_bzero(buf->data, buf->cap);
    }
    buf->len = 0;
}

enum rk_status rk_buf_reserve(struct rk_buf *buf, size_t extra)
{
    size_t need;
    if (!rk_add_size(buf->len, extra, &need) || need > buf->max) {
        return RK_ELIMIT;
    }
    if (need <= buf->cap) {
        return RK_OK;
    }
    size_t cap = buf->cap < RK_BUF_MIN ? RK_BUF_MIN : buf->cap;
    while (cap < need) {
        cap = cap > buf->max / 2 ? buf->max : cap * 2;
    }
    /* Not realloc: what moved would leave a copy behind that rk_buf_cleanse cannot reach. */
    uint8_t *data = malloc(cap);
    if (data == NULL) {
        return RK_ENOMEM;
    }
    if (buf->data != NULL) {
        memcpy(data, buf->data, buf->len);
        explicit_bzero(buf->data, buf->len);
        free(buf->data);
    }
    buf->data = data;
    buf->cap = cap;
    return RK_OK;
}

enum rk_status rk_buf_append(struct rk_buf *buf, const void *data, size_t len)
{
    enum rk_status status = rk_buf_reserve(buf, len);
    if (status == RK_OK && len > 0) {
        memcpy(buf->data + buf->len, data, len);
        buf->len += len;
    }
    return status;
}

enum rk_status rk_buf_append_u8(struct rk_buf *buf, uint8_t v)
{
    return rk_buf_append(buf, &v, 1);
}

enum rk_status rk_buf_append_u32(struct rk_buf *buf, uint32_t v)
{
    uint8_t bytes[4];
    rk_store_u32(bytes, v);
    return rk_buf_append(buf, bytes, sizeof bytes);
}

enum rk_status rk_buf_append_u64(struct rk_buf *buf, uint64_t v)
{
    uint8_t bytes[8];
    rk_store_u64(bytes, v);
    return rk_buf_append(buf, bytes, sizeof bytes);
}

void rk_buf_consume(struct rk_buf *buf, size_t n)
{
    if (n == 0) {
        return;
    }
    if (n < buf->len) {
        memmove(buf->data, buf->data + n, buf->len - n);
        buf->len -= n;
    } else {
        buf->len = 0;
    }
}

uint8_t *rk_buf_take(struct rk_buf *buf, size_t *len)
{
    uint8_t *data = buf->data;
    *len = buf->len;
    *buf = (struct rk_buf){.max = buf->max};
    return data;
}
