/*
 * The condition of a compare-and-swap: the value is still the one that was read, in type and bytes.
 *
 * mongod's own equality is wider: it looks into arrays ("x" equals ["x", "y"]), across types (1,
 * 1.0 and NumberLong(1)) and, with a collation, past case and accents. An envelope contains what
 * no other value does, so for it plain equality is exact. Everything else is compared with its
 * type, not inside of arrays, and by the simple collation.
 *
 * The simple collation would also hold for the _id of the same statement, and an _id index with
 * another collation cannot look up strings by it. For such _ids the collection's collation stays,
 * and a string is compared by its first bytes as well.
 *
 * Of a document with many changes the whole top-level fields that hold them are compared: mongod
 * walks an array anew for each path into it, which for thousands takes seconds.
 *
 * Left as equal: numbers of one type and value (0.0 and -0.0; decimal 1.0 and 1.00), numbers of
 * several types inside of documents; with a string for _id and a collation other than the simple
 * one, also strings inside of documents, and what a string has behind its first bytes.
 */
#include "write_internal.h"

#include "transform_internal.h"

#include <string.h>

#define OVERHEAD 96u     /* of a condition's own keys and lengths */
#define WHOLE_MAX 65536u /* envelopes above it are compared by what makes them unique */
#define UNIQUE_LEN (RK_BINARY_HEAD_LEN + RK_ENVELOPE_HEADER_LEN + 24u) /* with nonce, or SIV */
#define VALUES_MAX 16u   /* more of them are compared with all that is around them */
#define PREFIX_MAX 1024u /* of a string: bytes that are compared in spite of the collation */
#define PREFIX_ESCAPED_MAX (4u * PREFIX_MAX + sizeof "\\A\\z")

static bool collates(uint8_t type)
{
    return type == RK_BSON_STRING || type == RK_BSON_SYMBOL || type == RK_BSON_DOCUMENT ||
           type == RK_BSON_ARRAY;
}

static bool is_long_envelope(const struct rk_value *value)
{
    return value->len > WHOLE_MAX && rk_value_is_envelope(value);
}

static bool is_text(const struct rk_value *value)
{
    return value->type == RK_BSON_STRING || value->type == RK_BSON_SYMBOL;
}

static bool holds_arrays(const struct rk_value *array)
{
    struct rk_bson_view view = {array->data, array->len};
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (elem.type == RK_BSON_ARRAY) {
            return true;
        }
    }
    return false;
}

static size_t value_size(const struct rk_value *old, size_t path_len)
{
    size_t size = OVERHEAD + path_len;
    if (is_long_envelope(old)) {
        return size + (size_t)2 * UNIQUE_LEN;
    }
    size += old->type == RK_BSON_ARRAY && holds_arrays(old) ? (size_t)2 * old->len : old->len;
    return is_text(old) ? size + PREFIX_ESCAPED_MAX : size;
}

/* Header and nonce, or synthetic IV, bit by bit: ones, and zeros. */
static void put_unique(struct rk_bson_writer *w, const struct rk_value *old)
{
    const uint8_t *data = old->data + RK_BINARY_HEAD_LEN;
    uint8_t zeros[UNIQUE_LEN - RK_BINARY_HEAD_LEN];
    for (size_t i = 0; i < sizeof zeros; i++) {
        zeros[i] = (uint8_t)~data[i];
    }
    rk_bson_put_binary(w, "$bitsAllSet", strlen("$bitsAllSet"), 0, data, sizeof zeros);
    rk_bson_put_binary(w, "$bitsAllClear", strlen("$bitsAllClear"), 0, zeros, sizeof zeros);
}

/* {$regex: "\A<the first bytes>"}, with \z when these are all: no collation applies to it. */
static void put_prefix(struct rk_bson_writer *w, const struct rk_value *old)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *text = old->data + sizeof(uint32_t);
    size_t len = old->len - sizeof(uint32_t) - 1;
    size_t used = len < PREFIX_MAX ? len : PREFIX_MAX;
    char pattern[PREFIX_ESCAPED_MAX];
    size_t n = 0;
    while (used < len && used > 0 && (text[used] & 0xC0u) == 0x80u) {
        used--; /* not in the middle of a character */
    }
    pattern[n++] = '\\';
    pattern[n++] = 'A';
    for (size_t i = 0; i < used; i++) {
        bool plain = text[i] >= 0x80u || (text[i] >= '0' && text[i] <= '9') ||
                     ((text[i] | 0x20u) >= 'a' && (text[i] | 0x20u) <= 'z');
        if (plain) {
            pattern[n++] = (char)text[i];
        } else {
            pattern[n++] = '\\';
            pattern[n++] = 'x';
            pattern[n++] = digits[text[i] >> 4];
            pattern[n++] = digits[text[i] & 15u];
        }
    }
    if (used == len) {
        pattern[n++] = '\\';
        pattern[n++] = 'z';
    }
    rk_bson_put_utf8(w, "$regex", pattern, n);
}

/* {$not: {...}}: that it is no array; of an array, that no element is one, or equals it. */
static void put_not_inside(struct rk_bson_writer *w, const struct rk_value *old)
{
    rk_bson_begin_doc(w, "$not");
    if (old->type == RK_BSON_ARRAY) {
        rk_bson_begin_doc(w, "$elemMatch");
        if (holds_arrays(old)) {
            rk_bson_put(w, old->type, "$eq", 3, old->data, old->len);
        } else {
            rk_bson_put_int32(w, "$type", RK_BSON_ARRAY);
        }
        rk_bson_end(w);
    } else {
        rk_bson_put_int32(w, "$type", RK_BSON_ARRAY);
    }
    rk_bson_end(w);
}

static void put_value(struct rk_bson_writer *w, const char *path, size_t path_len,
                      const struct rk_value *old, bool collated)
{
    if (rk_value_is_envelope(old) && !is_long_envelope(old)) {
        rk_bson_put(w, old->type, path, path_len, old->data, old->len);
        return;
    }
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, path, path_len);
    if (is_long_envelope(old)) {
        put_unique(w, old);
    } else {
        rk_bson_put(w, old->type, "$eq", 3, old->data, old->len);
    }
    rk_bson_put_int32(w, "$type", old->type);
    put_not_inside(w, old);
    if (collated && is_text(old)) {
        put_prefix(w, old);
    }
    rk_bson_end(w);
}

/* What is compared, one after the other. */
struct parts {
    const struct rk_plan *plan;
    const struct rk_doc_plan *doc;
    struct rk_bson_iter fields;
    uint32_t next; /* change */
};

static void parts_init(struct parts *parts, const struct rk_plan *plan,
                       const struct rk_doc_plan *doc)
{
    *parts = (struct parts){.plan = plan, .doc = doc};
    rk_bson_iter_init(&parts->fields, &doc->doc);
}

static const struct rk_change *change_at(const struct parts *parts)
{
    return rk_plan_change(parts->plan, parts->doc->first_change + parts->next);
}

/* The next field with changes, past which parts->next moves. They are in the document's order. */
static bool next_field(struct parts *parts, const char **path, size_t *path_len,
                       struct rk_value *value)
{
    struct rk_bson_elem elem;
    while (rk_bson_next(&parts->fields, &elem) == RK_BSON_STEP_ELEM) {
        uint32_t first = parts->next;
        while (parts->next < parts->doc->n_changes &&
               change_at(parts)->old.data < elem.start + elem.len) {
            parts->next++;
        }
        if (parts->next > first) {
            *path = elem.key;
            *path_len = elem.key_len;
            *value = (struct rk_value){elem.type, elem.value, elem.value_len};
            return true;
        }
    }
    return false;
}

static bool next_part(struct parts *parts, const char **path, size_t *path_len,
                      struct rk_value *value)
{
    if (parts->next == parts->doc->n_changes) {
        return false;
    }
    if (parts->doc->n_changes > VALUES_MAX) {
        return next_field(parts, path, path_len, value);
    }
    const struct rk_change *change = change_at(parts);
    parts->next++;
    *path = (const char *)parts->plan->arena.data + change->path_off;
    *path_len = change->path_len;
    *value = change->old;
    return true;
}

size_t rk_condition_size(const struct rk_plan *plan, const struct rk_doc_plan *doc)
{
    struct parts parts;
    struct rk_value value;
    const char *path;
    size_t path_len;
    size_t size = OVERHEAD + doc->id.len;
    parts_init(&parts, plan, doc);
    while (next_part(&parts, &path, &path_len, &value)) {
        size += value_size(&value, path_len);
    }
    return size;
}

void rk_condition_put_id(struct rk_bson_writer *w, const struct rk_doc_plan *doc)
{
    if (doc->id.type == RK_BSON_DOCUMENT) {
        rk_bson_begin_doc(w, "_id"); /* or its keys might be read as operators */
        rk_bson_put(w, doc->id.type, "$eq", 3, doc->id.data, doc->id.len);
        rk_bson_end(w);
    } else {
        rk_bson_put(w, doc->id.type, "_id", 3, doc->id.data, doc->id.len);
    }
}

bool rk_condition_put(struct rk_bson_writer *w, const struct rk_plan *plan,
                      const struct rk_doc_plan *doc)
{
    struct parts parts;
    struct rk_value value;
    const char *path;
    size_t path_len;
    bool id_collates = collates(doc->id.type);
    bool any_collates = false;
    rk_condition_put_id(w, doc);
    parts_init(&parts, plan, doc);
    while (next_part(&parts, &path, &path_len, &value)) {
        put_value(w, path, path_len, &value, id_collates);
        any_collates = any_collates || collates(value.type);
    }
    return any_collates && !id_collates;
}
