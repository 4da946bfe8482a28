/*
 * A growable byte buffer with a hard cap.
 *
 * Ownership: rk_buf_init/_deinit for embedded use; rk_buf_take moves the bytes out. The cap is
 * fixed at init; growth past it fails with RK_ELIMIT and leaves the buffer as it was. Every
 * append either happens whole or not at all.
 */
#ifndef REKEY_BASE_BUF_H
#define REKEY_BASE_BUF_H

#include <rekey/base/bytes.h>
#include <rekey/base/status.h>

struct rk_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    size_t max; /* bytes; growth past it is refused */
};

void rk_buf_init(struct rk_buf *buf, size_t max);
void rk_buf_deinit(struct rk_buf *buf);

/* Empties the buffer, keeps its memory. */
void rk_buf_clear(struct rk_buf *buf);

/* Overwrites every byte that the buffer ever held with zeros, then empties it. */
void rk_buf_cleanse(struct rk_buf *buf);

/* Makes room for extra more bytes: data + len may then be written and len advanced. */
RK_MUST_CHECK enum rk_status rk_buf_reserve(struct rk_buf *buf, size_t extra);

RK_MUST_CHECK enum rk_status rk_buf_append(struct rk_buf *buf, const void *data, size_t len);
RK_MUST_CHECK enum rk_status rk_buf_append_u8(struct rk_buf *buf, uint8_t v);
RK_MUST_CHECK enum rk_status rk_buf_append_u32(struct rk_buf *buf, uint32_t v);
RK_MUST_CHECK enum rk_status rk_buf_append_u64(struct rk_buf *buf, uint64_t v);

/* Drops the first n bytes (n <= len). */
void rk_buf_consume(struct rk_buf *buf, size_t n);

/* Gives the bytes to the caller (free() them); the buffer is empty afterwards. */
uint8_t *rk_buf_take(struct rk_buf *buf, size_t *len);

#endif
