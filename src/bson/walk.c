#include <rekey/bson/walk.h>

#include <math.h>

#define BSON_DOC_MIN 5u

bool rk_bson_view_init(struct rk_bson_view *view, const uint8_t *data, size_t avail)
{
    if (avail < BSON_DOC_MIN) {
        return false;
    }
    uint32_t len = rk_load_u32(data);
    if (len < BSON_DOC_MIN || len > avail || len > INT32_MAX || data[len - 1] != 0) {
        return false;
    }
    view->data = data;
    view->len = len;
    return true;
}

void rk_bson_iter_init(struct rk_bson_iter *iter, const struct rk_bson_view *view)
{
    iter->pos = view->data + 4;
    iter->end = view->data + view->len - 1;
}

/* Length prefix, then that many bytes of which the last is NUL. */
static bool string_size(const uint8_t *p, size_t avail, uint32_t *size)
{
    if (avail < 5) {
        return false;
    }
    uint32_t len = rk_load_u32(p);
    if (len < 1 || len > avail - 4 || p[4 + len - 1] != 0) {
        return false;
    }
    *size = 4 + len;
    return true;
}

static bool document_size(const uint8_t *p, size_t avail, uint32_t *size)
{
    struct rk_bson_view view;
    if (!rk_bson_view_init(&view, p, avail)) {
        return false;
    }
    *size = view.len;
    return true;
}

static bool binary_size(const uint8_t *p, size_t avail, uint32_t *size)
{
    if (avail < 5) {
        return false;
    }
    uint32_t len = rk_load_u32(p);
    if (len > avail - 5) {
        return false;
    }
    *size = 5 + len;
    return true;
}

static bool regex_size(const uint8_t *p, size_t avail, uint32_t *size)
{
    size_t pattern = strnlen((const char *)p, avail);
    if (pattern == avail) {
        return false;
    }
    size_t options = strnlen((const char *)p + pattern + 1, avail - pattern - 1);
    if (options == avail - pattern - 1) {
        return false;
    }
    *size = (uint32_t)(pattern + options + 2);
    return true;
}

static bool codewscope_size(const uint8_t *p, size_t avail, uint32_t *size)
{
    if (avail < 4) {
        return false;
    }
    uint32_t total = rk_load_u32(p);
    uint32_t code = 0;
    uint32_t scope = 0;
    if (total > avail || total < 14 || !string_size(p + 4, total - 4, &code) ||
        !document_size(p + 4 + code, total - 4 - code, &scope) || 4 + code + scope != total) {
        return false;
    }
    *size = total;
    return true;
}

static bool fixed_size(uint32_t n, size_t avail, uint32_t *size)
{
    *size = n;
    return n <= avail;
}

bool rk_bson_value_size(uint8_t type, const uint8_t *p, size_t avail, uint32_t *size)
{
    switch (type) {
    case RK_BSON_DOUBLE:
    case RK_BSON_DATE:
    case RK_BSON_TIMESTAMP:
    case RK_BSON_INT64:
        return fixed_size(8, avail, size);
    case RK_BSON_STRING:
    case RK_BSON_CODE:
    case RK_BSON_SYMBOL:
        return string_size(p, avail, size);
    case RK_BSON_DOCUMENT:
    case RK_BSON_ARRAY:
        return document_size(p, avail, size);
    case RK_BSON_BINARY:
        return binary_size(p, avail, size);
    case RK_BSON_UNDEFINED:
    case RK_BSON_NULL:
    case RK_BSON_MINKEY:
    case RK_BSON_MAXKEY:
        return fixed_size(0, avail, size);
    case RK_BSON_OID:
        return fixed_size(12, avail, size);
    case RK_BSON_BOOL:
        return fixed_size(1, avail, size);
    case RK_BSON_REGEX:
        return regex_size(p, avail, size);
    case RK_BSON_DBPOINTER:
        if (!string_size(p, avail, size) || avail - *size < 12) {
            return false;
        }
        *size += 12;
        return true;
    case RK_BSON_CODEWSCOPE:
        return codewscope_size(p, avail, size);
    case RK_BSON_INT32:
        return fixed_size(4, avail, size);
    case RK_BSON_DECIMAL128:
        return fixed_size(16, avail, size);
    default:
        return false;
    }
}

enum rk_bson_step rk_bson_next(struct rk_bson_iter *iter, struct rk_bson_elem *elem)
{
    if (iter->pos == iter->end) {
        return RK_BSON_STEP_END;
    }
    const uint8_t *p = iter->pos;
    size_t avail = (size_t)(iter->end - p);
    size_t key_len = strnlen((const char *)p + 1, avail - 1);
    if (key_len == avail - 1) {
        return RK_BSON_STEP_MALFORMED;
    }
    const uint8_t *value = p + 1 + key_len + 1;
    uint32_t value_len = 0;
    if (!rk_bson_value_size(p[0], value, (size_t)(iter->end - value), &value_len)) {
        return RK_BSON_STEP_MALFORMED;
    }
    *elem = (struct rk_bson_elem){
        .type = p[0],
        .key = (const char *)p + 1,
        .key_len = (uint32_t)key_len,
        .start = p,
        .len = (uint32_t)(value - p) + value_len,
        .value = value,
        .value_len = value_len,
    };
    iter->pos = value + value_len;
    return RK_BSON_STEP_ELEM;
}

/* After the value's total length and the code string. */
bool rk_bson_elem_scope(const struct rk_bson_elem *elem, struct rk_bson_view *view)
{
    if (elem->type != RK_BSON_CODEWSCOPE) {
        return false;
    }
    uint32_t code = rk_load_u32(elem->value + 4);
    return rk_bson_view_init(view, elem->value + 8 + code, elem->value_len - 8 - code);
}

bool rk_bson_validate(const struct rk_bson_view *view, unsigned depth_max)
{
    if (depth_max == 0) {
        return false;
    }
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    for (;;) {
        struct rk_bson_view sub;
        switch (rk_bson_next(&iter, &elem)) {
        case RK_BSON_STEP_END:
            return true;
        case RK_BSON_STEP_MALFORMED:
            return false;
        case RK_BSON_STEP_ELEM:
            if (elem.type == RK_BSON_BOOL && elem.value[0] > 1) {
                return false;
            }
            if (rk_bson_elem_view(&elem, &sub) && !rk_bson_validate(&sub, depth_max - 1)) {
                return false;
            }
            if (elem.type == RK_BSON_CODEWSCOPE &&
                (!rk_bson_elem_scope(&elem, &sub) || !rk_bson_validate(&sub, depth_max - 1))) {
                return false;
            }
            break;
        }
    }
}

bool rk_bson_find(const struct rk_bson_view *view, const char *key, struct rk_bson_elem *elem)
{
    struct rk_bson_iter iter;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, elem) == RK_BSON_STEP_ELEM) {
        if (rk_bson_key_is(elem, key)) {
            return true;
        }
    }
    return false;
}

bool rk_bson_elem_view(const struct rk_bson_elem *elem, struct rk_bson_view *view)
{
    return (elem->type == RK_BSON_DOCUMENT || elem->type == RK_BSON_ARRAY) &&
           rk_bson_view_init(view, elem->value, elem->value_len);
}

bool rk_bson_elem_utf8(const struct rk_bson_elem *elem, const char **text, uint32_t *len)
{
    if (elem->type != RK_BSON_STRING && elem->type != RK_BSON_SYMBOL &&
        elem->type != RK_BSON_CODE) {
        return false;
    }
    *text = (const char *)elem->value + 4;
    *len = elem->value_len - 5;
    return true;
}

bool rk_bson_elem_truthy(const struct rk_bson_elem *elem)
{
    double d;
    switch (elem->type) {
    case RK_BSON_BOOL:
        return elem->value[0] != 0;
    case RK_BSON_INT32:
        return rk_load_i32(elem->value) != 0;
    case RK_BSON_INT64:
        return rk_load_i64(elem->value) != 0;
    case RK_BSON_DOUBLE:
        memcpy(&d, elem->value, sizeof d);
        return d != 0.0;
    default:
        return false;
    }
}

bool rk_bson_elem_int(const struct rk_bson_elem *elem, int64_t *out)
{
    double d;
    switch (elem->type) {
    case RK_BSON_INT32:
        *out = rk_load_i32(elem->value);
        return true;
    case RK_BSON_INT64:
        *out = rk_load_i64(elem->value);
        return true;
    case RK_BSON_DOUBLE:
        memcpy(&d, elem->value, sizeof d);
        if (!(d >= -9007199254740992.0 && d <= 9007199254740992.0) || d != floor(d)) {
            return false;
        }
        *out = (int64_t)d;
        return true;
    default:
        return false;
    }
}

bool rk_bson_key_is(const struct rk_bson_elem *elem, const char *key)
{
    return strcmp(elem->key, key) == 0;
}
