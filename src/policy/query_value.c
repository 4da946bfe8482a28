/*
 * Comparing a deterministic field with a value: the value becomes its ciphertext under every key
 * that records may still be under, and under each integer type that mongod holds equal to it.
 */
#include "command_internal.h"

#include <rekey/crypto/envelope.h>
#include <stdio.h>

#define BINARY_HEAD_LEN 5u
#define EMPTY_LEN 5u

/* A value as it can lie stored: mongod compares numbers across types, ciphertext cannot. */
struct encoding {
    uint8_t type;
    uint8_t number[8];
    const uint8_t *value;
    uint32_t len;
};

static unsigned encodings_of(const struct rk_bson_elem *value, struct encoding out[2])
{
    int64_t v;
    unsigned n = 0;
    if (!rk_bson_elem_int(value, &v)) {
        out[0] =
            (struct encoding){.type = value->type, .value = value->value, .len = value->value_len};
        return 1;
    }
    if (v >= INT32_MIN && v <= INT32_MAX) {
        out[n].type = RK_BSON_INT32;
        rk_store_u32(out[n].number, (uint32_t)v);
        out[n].len = 4;
        out[n].value = out[n].number;
        n++;
    }
    out[n].type = RK_BSON_INT64;
    rk_store_u64(out[n].number, (uint64_t)v);
    out[n].len = 8;
    out[n].value = out[n].number;
    return n + 1;
}

size_t rk_candidates_count(const struct rk_scope *scope, const struct rk_bson_elem *value)
{
    struct encoding encodings[2];
    return encodings_of(value, encodings) * rk_keyset_count(scope->crypt->keys);
}

static enum rk_verdict put_candidate(const struct rk_comparison *cmp, const struct encoding *enc,
                                     const struct rk_data_key *key, const char *name,
                                     size_t name_len, struct rk_bson_writer *w)
{
    uint8_t head[BINARY_HEAD_LEN] = {0, 0, 0, 0, RK_ENVELOPE_SUBTYPE};
    const struct rk_field *field = cmp->match.field;
    struct rk_crypt *crypt = cmp->scope->crypt;
    rk_bson_put(w, RK_BSON_BINARY, name, name_len, head, sizeof head);
    if (w->status != RK_OK) {
        return RK_VERDICT_REPLACE; /* the writer's status is asked for once, at the end */
    }
    size_t at = w->out->len;
    enum rk_status status =
        rk_envelope_seal(crypt->aead, key, RK_ALGORITHM_DETERMINISTIC, field->field_id,
                         crypt->now_s, enc->type, enc->value, enc->len, w->out);
    if (status == RK_ELIMIT || status == RK_ENOMEM) {
        w->status = status;
        return RK_VERDICT_REPLACE;
    }
    if (status != RK_OK) {
        return rk_refuse(cmp->scope, RK_CODE_INTERNAL, "encryption", cmp->path->key,
                         cmp->path->key_len, "failed; see the proxy's log");
    }
    rk_store_u32(w->out->data + at - BINARY_HEAD_LEN, (uint32_t)(w->out->len - at));
    crypt->values_encrypted++;
    return RK_VERDICT_REPLACE;
}

static enum rk_verdict put_all(const struct rk_comparison *cmp, const struct rk_bson_elem *value,
                               unsigned *index, struct rk_bson_writer *w)
{
    struct encoding encodings[2];
    unsigned n = encodings_of(value, encodings);
    const struct rk_keyset *keys = cmp->scope->crypt->keys;
    enum rk_verdict verdict = RK_VERDICT_REPLACE;
    for (size_t k = 0; k < rk_keyset_count(keys) && !rk_stops(verdict); k++) {
        for (unsigned i = 0; i < n && !rk_stops(verdict); i++) {
            char name[16];
            int len = snprintf(name, sizeof name, "%u", (*index)++);
            verdict =
                put_candidate(cmp, &encodings[i], rk_keyset_at(keys, k), name, (size_t)len, w);
        }
    }
    return verdict;
}

static enum rk_verdict refuse(const struct rk_comparison *cmp, int code, const char *what,
                              const char *advice)
{
    return rk_refuse(cmp->scope, code, what, cmp->path->key, cmp->path->key_len, advice);
}

/* May the field be compared with this (not null) value? HOLD without a current key. */
static enum rk_verdict check_value(const struct rk_comparison *cmp,
                                   const struct rk_bson_elem *value)
{
    const struct rk_scope *scope = cmp->scope;
    const struct rk_field *field = cmp->match.field;
    int64_t integer;
    if (cmp->match.relation == RK_PATH_ABOVE) {
        return refuse(cmp, RK_CODE_ABOVE, "comparison",
                      "the value would hold protected fields; name them by their dotted paths");
    }
    if (field->algorithm != RK_ALGORITHM_DETERMINISTIC) {
        return refuse(cmp, RK_CODE_RANDOM_EQUALITY, "equality",
                      "a randomly encrypted field can only be tested with $exists or null; make "
                      "it deterministic in the policy to search it");
    }
    if (field->n_legacy > 0) {
        return refuse(cmp, RK_CODE_RANDOM_EQUALITY, "equality",
                      "records in a legacy format would be missed; sweep the collection, then "
                      "drop legacy from the policy");
    }
    if (scope->collation) {
        return refuse(cmp, RK_CODE_COLLATION, "equality",
                      "ciphertext cannot be compared by a collation; drop it from the command");
    }
    if (!rk_bson_elem_int(value, &integer) &&
        !rk_document_type_allowed(scope->ns, field, value->type, scope->err)) {
        return RK_VERDICT_REJECT;
    }
    if (rk_keyset_current(scope->crypt->keys) == NULL) {
        scope->crypt->missing_key = 0;
        return RK_VERDICT_HOLD;
    }
    if ((cmp->flags & RK_QUERY_UPSERT) != 0 && (cmp->flags & RK_QUERY_IN_OR) != 0) {
        return refuse(cmp, RK_CODE_PREDICATE, "$or in an upsert",
                      "the new document would miss the field; name it at the filter's top level");
    }
    return RK_VERDICT_REPLACE;
}

enum rk_verdict rk_compare_one(const struct rk_comparison *cmp, const char *key, const char *many,
                               const struct rk_bson_elem *value, struct rk_bson_writer *w)
{
    const char *name = key != NULL ? key : cmp->path->key;
    struct rk_bson_view view;
    /* Nothing protected can lie in an empty document or array. */
    bool empty_above = cmp->match.relation == RK_PATH_ABOVE && rk_bson_elem_view(value, &view) &&
                       view.len == EMPTY_LEN;
    if (rk_elem_is_null(value) || empty_above) {
        rk_bson_copy_as(w, name, strlen(name), value);
        return RK_VERDICT_FORWARD;
    }
    if (value->type == RK_BSON_REGEX) {
        return refuse(cmp, RK_CODE_PREDICATE, "a regular expression",
                      "ciphertext has no pattern; compare whole values");
    }
    enum rk_verdict verdict = check_value(cmp, value);
    if (rk_stops(verdict)) {
        return verdict;
    }
    unsigned index = 0;
    if (rk_candidates_count(cmp->scope, value) == 1) {
        struct encoding encodings[2];
        (void)encodings_of(value, encodings);
        return put_candidate(cmp, &encodings[0], rk_keyset_at(cmp->scope->crypt->keys, 0), name,
                             strlen(name), w);
    }
    if (key == NULL) {
        rk_bson_begin_sub(w, RK_BSON_DOCUMENT, name, strlen(name));
    }
    rk_bson_begin_sub(w, RK_BSON_ARRAY, many, strlen(many));
    verdict = put_all(cmp, value, &index, w);
    rk_bson_end(w);
    if (key == NULL) {
        rk_bson_end(w);
    }
    return verdict;
}

enum rk_verdict rk_compare_list(const struct rk_comparison *cmp, const struct rk_bson_elem *list,
                                struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem item;
    unsigned index = 0;
    if (list->type != RK_BSON_ARRAY || !rk_bson_elem_view(list, &view)) {
        return refuse(cmp, RK_CODE_TYPE_MISMATCH, list->key, "needs an array");
    }
    rk_bson_begin_sub(w, RK_BSON_ARRAY, list->key, list->key_len);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM) {
        if (rk_elem_is_null(&item)) {
            char name[16];
            int len = snprintf(name, sizeof name, "%u", index++);
            rk_bson_copy_as(w, name, (size_t)len, &item);
            continue;
        }
        if (item.type == RK_BSON_REGEX) {
            return refuse(cmp, RK_CODE_REGEX_IN, "a regular expression in a list",
                          "ciphertext has no pattern; list whole values");
        }
        verdict = check_value(cmp, &item);
        if (!rk_stops(verdict)) {
            verdict = put_all(cmp, &item, &index, w);
        }
        if (rk_stops(verdict)) {
            return verdict;
        }
    }
    rk_bson_end(w);
    return verdict;
}
