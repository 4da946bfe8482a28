/*
 * Writing raw BSON in one pass into a struct rk_buf: untouched elements are copied as they are,
 * lengths of open documents are patched when they close.
 *
 * A writer borrows its buffer. Failures (memory, the buffer's cap, depth) stick: later calls do
 * nothing and rk_bson_writer_status tells, so that a sequence of appends is checked once.
 */
#ifndef REKEY_BSON_REWRITE_H
#define REKEY_BSON_REWRITE_H

#include <rekey/base/buf.h>
#include <rekey/bson/walk.h>

#define RK_BSON_WRITER_DEPTH_MAX 256

struct rk_bson_writer {
    struct rk_buf *out;
    enum rk_status status;
    unsigned depth;
    size_t open[RK_BSON_WRITER_DEPTH_MAX]; /* offsets of the lengths to patch */
};

void rk_bson_writer_init(struct rk_bson_writer *w, struct rk_buf *out);
RK_MUST_CHECK enum rk_status rk_bson_writer_status(const struct rk_bson_writer *w);

/* A document without a key: the outermost, or a member of an OP_MSG document sequence. */
void rk_bson_begin(struct rk_bson_writer *w);
/* A sub-document or array (type) under key. */
void rk_bson_begin_sub(struct rk_bson_writer *w, uint8_t type, const char *key, size_t key_len);
/* Closes the innermost open document and patches its length. */
void rk_bson_end(struct rk_bson_writer *w);

/* Copies an element as it stands. */
void rk_bson_copy(struct rk_bson_writer *w, const struct rk_bson_elem *elem);
/* Copies an element's value under another key. */
void rk_bson_copy_as(struct rk_bson_writer *w, const char *key, size_t key_len,
                     const struct rk_bson_elem *elem);
/* An element with these value bytes (exactly as BSON lays them out for the type). */
void rk_bson_put(struct rk_bson_writer *w, uint8_t type, const char *key, size_t key_len,
                 const void *value, size_t value_len);

void rk_bson_put_int32(struct rk_bson_writer *w, const char *key, int32_t v);
void rk_bson_put_int64(struct rk_bson_writer *w, const char *key, int64_t v);
void rk_bson_put_double(struct rk_bson_writer *w, const char *key, double v);
void rk_bson_put_bool(struct rk_bson_writer *w, const char *key, bool v);
void rk_bson_put_utf8(struct rk_bson_writer *w, const char *key, const char *text, size_t len);
void rk_bson_put_binary(struct rk_bson_writer *w, const char *key, size_t key_len, uint8_t subtype,
                        const void *data, size_t len);
void rk_bson_put_doc(struct rk_bson_writer *w, uint8_t type, const char *key,
                     const struct rk_bson_view *doc);

#endif
