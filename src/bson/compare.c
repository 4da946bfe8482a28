#include <rekey/bson/compare.h>

#include "number_internal.h"

#define DEPTH_MAX 200u /* mongod's */

static int compare_values(const struct rk_bson_elem *a, const struct rk_bson_elem *b,
                          unsigned depth);

static int sign(bool below, bool above)
{
    return (int)above - (int)below;
}

/* Types that compare equal as types have the same rank. */
static int rank(uint8_t type)
{
    switch (type) {
    case RK_BSON_MINKEY:
        return 0;
    case RK_BSON_UNDEFINED:
        return 1;
    case RK_BSON_NULL:
        return 2;
    case RK_BSON_INT32:
    case RK_BSON_INT64:
    case RK_BSON_DOUBLE:
    case RK_BSON_DECIMAL128:
        return 3;
    case RK_BSON_STRING:
    case RK_BSON_SYMBOL:
        return 4;
    case RK_BSON_DOCUMENT:
        return 5;
    case RK_BSON_ARRAY:
        return 6;
    case RK_BSON_BINARY:
        return 7;
    case RK_BSON_OID:
        return 8;
    case RK_BSON_BOOL:
        return 9;
    case RK_BSON_DATE:
        return 10;
    case RK_BSON_TIMESTAMP:
        return 11;
    case RK_BSON_REGEX:
        return 12;
    case RK_BSON_DBPOINTER:
        return 13;
    case RK_BSON_CODE:
        return 14;
    case RK_BSON_CODEWSCOPE:
        return 15;
    default:
        return 16; /* MaxKey; walking lets no unknown type through */
    }
}

static int compare_bytes(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order != 0 ? order : sign(a_len<b_len, a_len> b_len);
}

/* A length with its text, which walking has checked. */
static int compare_text(const uint8_t *a, const uint8_t *b)
{
    return compare_bytes(a + 4, rk_load_u32(a), b + 4, rk_load_u32(b));
}

/* Length, then subtype, then bytes. */
static int compare_binary(const struct rk_bson_elem *a, const struct rk_bson_elem *b)
{
    if (a->value_len != b->value_len) {
        return a->value_len < b->value_len ? -1 : 1;
    }
    return memcmp(a->value + 4, b->value + 4, a->value_len - 4);
}

static int compare_documents(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len,
                             unsigned depth)
{
    struct rk_bson_view x;
    struct rk_bson_view y;
    if (depth > DEPTH_MAX || !rk_bson_view_init(&x, a, a_len) || !rk_bson_view_init(&y, b, b_len)) {
        return compare_bytes(a, a_len, b, b_len);
    }
    struct rk_bson_iter i;
    struct rk_bson_iter j;
    rk_bson_iter_init(&i, &x);
    rk_bson_iter_init(&j, &y);
    for (;;) {
        struct rk_bson_elem p;
        struct rk_bson_elem q;
        enum rk_bson_step left = rk_bson_next(&i, &p);
        enum rk_bson_step right = rk_bson_next(&j, &q);
        if (left == RK_BSON_STEP_MALFORMED || right == RK_BSON_STEP_MALFORMED) {
            return compare_bytes(a, a_len, b, b_len);
        }
        if (left == RK_BSON_STEP_END || right == RK_BSON_STEP_END) {
            return (int)(right == RK_BSON_STEP_END) - (int)(left == RK_BSON_STEP_END);
        }
        int order = rank(p.type) - rank(q.type);
        if (order == 0) {
            order = strcmp(p.key, q.key);
        }
        if (order == 0) {
            order = compare_values(&p, &q, depth + 1);
        }
        if (order != 0) {
            return order;
        }
    }
}

/* Pattern, then options: two C strings one after the other. */
static int compare_regexes(const struct rk_bson_elem *a, const struct rk_bson_elem *b)
{
    const char *x = (const char *)a->value;
    const char *y = (const char *)b->value;
    int order = strcmp(x, y);
    return order != 0 ? order : strcmp(x + strlen(x) + 1, y + strlen(y) + 1);
}

/* Length, code, scope. */
static int compare_scoped_code(const struct rk_bson_elem *a, const struct rk_bson_elem *b,
                               unsigned depth)
{
    int order = compare_text(a->value + 4, b->value + 4);
    size_t x = 8u + rk_load_u32(a->value + 4);
    size_t y = 8u + rk_load_u32(b->value + 4);
    return order != 0 ? order
                      : compare_documents(a->value + x, a->value_len - x, b->value + y,
                                          b->value_len - y, depth);
}

/* Both of the same rank. */
static int compare_values(const struct rk_bson_elem *a, const struct rk_bson_elem *b,
                          unsigned depth)
{
    switch (a->type) {
    case RK_BSON_INT32:
    case RK_BSON_INT64:
    case RK_BSON_DOUBLE:
    case RK_BSON_DECIMAL128:
        return rk_bson_compare_numbers(a, b);
    case RK_BSON_STRING:
    case RK_BSON_SYMBOL:
    case RK_BSON_CODE:
        return compare_text(a->value, b->value);
    case RK_BSON_DOCUMENT:
    case RK_BSON_ARRAY:
        return compare_documents(a->value, a->value_len, b->value, b->value_len, depth);
    case RK_BSON_BINARY:
        return compare_binary(a, b);
    case RK_BSON_DATE:
        return sign(rk_load_i64(a->value) < rk_load_i64(b->value),
                    rk_load_i64(a->value) > rk_load_i64(b->value));
    case RK_BSON_TIMESTAMP:
        return sign(rk_load_u64(a->value) < rk_load_u64(b->value),
                    rk_load_u64(a->value) > rk_load_u64(b->value));
    case RK_BSON_REGEX:
        return compare_regexes(a, b);
    case RK_BSON_CODEWSCOPE:
        return compare_scoped_code(a, b, depth);
    case RK_BSON_DBPOINTER:
        if (a->value_len != b->value_len) {
            return a->value_len < b->value_len ? -1 : 1;
        }
        return memcmp(a->value, b->value, a->value_len);
    default: /* ObjectId and bool by their bytes; the others have no value */
        return memcmp(a->value, b->value, a->value_len);
    }
}

int rk_bson_compare(const struct rk_bson_elem *a, const struct rk_bson_elem *b)
{
    int order = rank(a->type) - rank(b->type);
    return order != 0 ? order : compare_values(a, b, 1);
}
