/*
 * Reading raw BSON without building a tree (bsonspec.org, version 1.1).
 *
 * A view borrows its bytes and is valid as long as they are. rk_bson_next checks the element
 * that it returns: type known, key terminated, value inside the document. It does not descend;
 * rk_bson_validate checks a whole document, nested ones included, against a depth limit, and
 * is the way to meet foreign bytes first. Nothing here allocates.
 */
#ifndef REKEY_BSON_WALK_H
#define REKEY_BSON_WALK_H

#include <rekey/base/bytes.h>

enum rk_bson_type {
    RK_BSON_DOUBLE = 0x01,
    RK_BSON_STRING = 0x02,
    RK_BSON_DOCUMENT = 0x03,
    RK_BSON_ARRAY = 0x04,
    RK_BSON_BINARY = 0x05,
    RK_BSON_UNDEFINED = 0x06,
    RK_BSON_OID = 0x07,
    RK_BSON_BOOL = 0x08,
    RK_BSON_DATE = 0x09,
    RK_BSON_NULL = 0x0A,
    RK_BSON_REGEX = 0x0B,
    RK_BSON_DBPOINTER = 0x0C,
    RK_BSON_CODE = 0x0D,
    RK_BSON_SYMBOL = 0x0E,
    RK_BSON_CODEWSCOPE = 0x0F,
    RK_BSON_INT32 = 0x10,
    RK_BSON_TIMESTAMP = 0x11,
    RK_BSON_INT64 = 0x12,
    RK_BSON_DECIMAL128 = 0x13,
    RK_BSON_MINKEY = 0xFF,
    RK_BSON_MAXKEY = 0x7F,
};

/* A whole document: its 4-byte length, elements and closing NUL. */
struct rk_bson_view {
    const uint8_t *data;
    uint32_t len;
};

struct rk_bson_iter {
    const uint8_t *pos;
    const uint8_t *end; /* the closing NUL */
};

struct rk_bson_elem {
    uint8_t type;         /* enum rk_bson_type */
    const char *key;      /* NUL-terminated */
    uint32_t key_len;     /* without the NUL */
    const uint8_t *start; /* the type byte */
    uint32_t len;         /* of the whole element: type, key, value */
    const uint8_t *value;
    uint32_t value_len;
};

enum rk_bson_step {
    RK_BSON_STEP_ELEM,
    RK_BSON_STEP_END,
    RK_BSON_STEP_MALFORMED,
};

/* Takes the document at data (at most avail bytes). False unless its length and closing NUL hold.
 */
bool rk_bson_view_init(struct rk_bson_view *view, const uint8_t *data, size_t avail);

void rk_bson_iter_init(struct rk_bson_iter *iter, const struct rk_bson_view *view);
enum rk_bson_step rk_bson_next(struct rk_bson_iter *iter, struct rk_bson_elem *elem);

/* Size in bytes of a value of this type at p, at most avail; false when it does not fit or
 * the type is unknown. */
bool rk_bson_value_size(uint8_t type, const uint8_t *p, size_t avail, uint32_t *size);

/* True when the view and all documents and arrays inside are well-formed and at most depth_max
 * levels deep (the view itself is level 1). Checks strings' terminators, not UTF-8. */
bool rk_bson_validate(const struct rk_bson_view *view, unsigned depth_max);

/* First element with this key, or false. */
bool rk_bson_find(const struct rk_bson_view *view, const char *key, struct rk_bson_elem *elem);

/* The sub-document or array that elem holds. False unless its type is one of the two. */
bool rk_bson_elem_view(const struct rk_bson_elem *elem, struct rk_bson_view *view);
/* The document inside a code-with-scope element. False for other types. */
bool rk_bson_elem_scope(const struct rk_bson_elem *elem, struct rk_bson_view *view);

/* The text of a string (or symbol or code) element, without its NUL. False for other types. */
bool rk_bson_elem_utf8(const struct rk_bson_elem *elem, const char **text, uint32_t *len);

/* Truth as mongod reads flags: bool, int32, int64 or double that is not 0. */
bool rk_bson_elem_truthy(const struct rk_bson_elem *elem);

/* True and *out when elem is int32, int64 or an integral double. */
bool rk_bson_elem_int(const struct rk_bson_elem *elem, int64_t *out);

bool rk_bson_key_is(const struct rk_bson_elem *elem, const char *key);

#endif
