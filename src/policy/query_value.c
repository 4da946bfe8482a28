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

static unsigned encodings_of(const struct rk_field *field, const struct rk_bson_elem *value,
                             struct encoding out[2])
{
    int64_t v;
    unsigned n = 0;
    if (!rk_bson_elem_int(value, &v)) {
        out[0] =
            (struct encoding){.type = value->type, .value = value->value, .len = value->value_len};
        return 1;
    }
    if (v >= INT32_MIN && v <= INT32_MAX && field->bson_type != RK_BSON_INT64) {
        out[n].type = RK_BSON_INT32;
        rk_store_u32(out[n].number, (uint32_t)v);
        out[n].len = 4;
        out[n].value = out[n].number;
        n++;
    }
    if (field->bson_type != RK_BSON_INT32) {
        out[n].type = RK_BSON_INT64;
        rk_store_u64(out[n].number, (uint64_t)v);
        out[n].len = 8;
        out[n].value = out[n].number;
        n++;
    }
    return n;
}

/* Legacy formats in which a value of this type may lie. */
static size_t legacy_forms(const struct rk_field *field, const struct rk_bson_elem *value)
{
    size_t n = 0;
    for (size_t i = 0; i < field->n_legacy; i++) {
        n += rk_legacy_forms(&field->legacy[i], value->type, value->value, value->value_len);
    }
    return n;
}

/* Nothing lies deterministically under a key that stays with its provider; those are last. */
static struct rk_key_versions at_hand(struct rk_key_versions versions)
{
    while (versions.n > 0 && rk_data_key_remote(versions.keys[versions.n - 1]) != NULL) {
        versions.n--;
    }
    return versions;
}

struct rk_field_keys rk_field_keys(const struct rk_scope *scope, const struct rk_field *field)
{
    const struct rk_keyset *set = scope->crypt->keys;
    char buf[RK_KEY_NAME_SIZE];
    const char *name = rk_tenant_key(&scope->crypt->tenant, field, buf);
    struct rk_field_keys keys = {.n = 0};
    if (name == NULL) {
        return keys;
    }
    keys.of[0] = at_hand(rk_keyset_versions(set, name));
    keys.current = keys.of[0].current;
    for (size_t i = 0; i < field->n_former; i++) {
        keys.of[i + 1] = at_hand(rk_keyset_versions(set, field->former[i]));
    }
    for (size_t i = 0; i <= field->n_former; i++) {
        keys.n += keys.of[i].n;
        keys.missing_id = keys.missing_id != 0 ? keys.missing_id : keys.of[i].missing_id;
    }
    return keys;
}

static const struct rk_data_key *nth_key(const struct rk_field_keys *keys, size_t i)
{
    size_t k = 0;
    while (i >= keys->of[k].n) {
        i -= keys->of[k++].n;
    }
    return keys->of[k].keys[i];
}

size_t rk_compare_forms(const struct rk_comparison *cmp, const struct rk_bson_elem *value)
{
    struct encoding encodings[2];
    const struct rk_field *field = cmp->match.field;
    return encodings_of(field, value, encodings) * rk_field_keys(cmp->scope, field).n +
           legacy_forms(field, value) + (field->accept_plaintext ? 1 : 0);
}

static enum rk_verdict failed(const struct rk_comparison *cmp, enum rk_status status,
                              struct rk_bson_writer *w)
{
    if (status == RK_ELIMIT || status == RK_ENOMEM) {
        w->status = status; /* asked for once, at the end */
        return RK_VERDICT_REPLACE;
    }
    return rk_refuse(cmp->scope, RK_CODE_INTERNAL, "encryption", cmp->path->key, cmp->path->key_len,
                     "failed; see the proxy's log");
}

static enum rk_verdict put_sealed(const struct rk_comparison *cmp, const struct encoding *enc,
                                  const struct rk_data_key *key, const char *name,
                                  struct rk_bson_writer *w)
{
    uint8_t head[BINARY_HEAD_LEN] = {0, 0, 0, 0, RK_ENVELOPE_SUBTYPE};
    const struct rk_field *field = cmp->match.field;
    struct rk_crypt *crypt = cmp->scope->crypt;
    rk_bson_put(w, RK_BSON_BINARY, name, strlen(name), head, sizeof head);
    if (w->status != RK_OK) {
        return RK_VERDICT_REPLACE;
    }
    size_t at = w->out->len;
    crypt->keys_bound = true;
    enum rk_status status =
        rk_envelope_seal(crypt->aead, key, RK_ALGORITHM_DETERMINISTIC, field->field_id,
                         crypt->now_s, enc->type, enc->value, enc->len, w->out);
    if (status != RK_OK) {
        return failed(cmp, status, w);
    }
    rk_store_u32(w->out->data + at - BINARY_HEAD_LEN, (uint32_t)(w->out->len - at));
    crypt->values_encrypted++;
    return RK_VERDICT_REPLACE;
}

/* Form i of the field's legacy formats. */
static enum rk_verdict put_legacy(const struct rk_comparison *cmp, const struct rk_bson_elem *value,
                                  size_t i, const char *name, struct rk_bson_writer *w)
{
    const struct rk_field *field = cmp->match.field;
    struct rk_crypt *crypt = cmp->scope->crypt;
    for (size_t k = 0; k < field->n_legacy; k++) {
        const struct rk_legacy_format *format = &field->legacy[k];
        size_t n = rk_legacy_forms(format, value->type, value->value, value->value_len);
        if (i >= n) {
            i -= n;
            continue;
        }
        rk_bson_put(w, rk_legacy_stored_type(format), name, strlen(name), NULL, 0);
        if (w->status != RK_OK) {
            return RK_VERDICT_REPLACE;
        }
        enum rk_status status = rk_legacy_seal(crypt->aead, crypt->keys, format, i, value->type,
                                               value->value, value->value_len, w->out);
        if (status == RK_ENOKEY) {
            return rk_refuse(cmp->scope, RK_CODE_OPERATION_FAILED, "equality", cmp->path->key,
                             cmp->path->key_len,
                             "the key of its legacy format is not in the keyring");
        }
        return status == RK_OK ? RK_VERDICT_REPLACE : failed(cmp, status, w);
    }
    return failed(cmp, RK_EINVAL, w);
}

/* The value as it came: records that were never encrypted are found by it. */
static void put_plain(const struct rk_comparison *cmp, const struct rk_bson_elem *value,
                      const char *name, struct rk_bson_writer *w)
{
    if ((cmp->flags & RK_QUERY_EXPR) == 0) {
        rk_bson_copy_as(w, name, strlen(name), value);
        return;
    }
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, name, strlen(name));
    rk_bson_copy_as(w, "$literal", strlen("$literal"), value);
    rk_bson_end(w);
}

enum rk_verdict rk_compare_put(const struct rk_comparison *cmp, const struct rk_bson_elem *value,
                               size_t i, const char *name, struct rk_bson_writer *w)
{
    struct encoding encodings[2];
    const struct rk_field *field = cmp->match.field;
    const struct rk_field_keys keys = rk_field_keys(cmp->scope, field);
    unsigned n = encodings_of(field, value, encodings);
    size_t sealed = n * keys.n;
    if (i < sealed) {
        return put_sealed(cmp, &encodings[i % n], nth_key(&keys, i / n), name, w);
    }
    if (i - sealed < legacy_forms(field, value)) {
        return put_legacy(cmp, value, i - sealed, name, w);
    }
    put_plain(cmp, value, name, w);
    return RK_VERDICT_REPLACE;
}

enum rk_verdict rk_compare_put_all(const struct rk_comparison *cmp,
                                   const struct rk_bson_elem *value, unsigned *index,
                                   struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_REPLACE;
    size_t n = rk_compare_forms(cmp, value);
    for (size_t i = 0; i < n && !rk_stops(verdict); i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%u", (*index)++);
        verdict = rk_compare_put(cmp, value, i, name, w);
    }
    return verdict;
}

bool rk_field_same(const struct rk_field *a, const struct rk_field *b)
{
    return a->field_id == b->field_id && strcmp(a->key, b->key) == 0;
}

bool rk_field_is_exact(const struct rk_scope *scope, const struct rk_field *field, const char **why)
{
    if (field == NULL) {
        return false;
    }
    const struct rk_field_keys keys = rk_field_keys(scope, field);
    if (field->algorithm != RK_ALGORITHM_DETERMINISTIC) {
        *why = "randomly encrypted values cannot be compared by the server; make the field "
               "deterministic in the policy, or do this in the application";
    } else if (field->by_tenant) {
        *why = "equal values of two tenants lie under two keys; do this in the application";
    } else if (field->n_legacy > 0 || field->accept_plaintext) {
        *why = "equal values may lie there in several formats; sweep the collection, then drop "
               "legacy and accept_plaintext from the policy";
    } else if (keys.missing_id != 0) {
        *why = RK_MISSING_ADVICE;
    } else if (keys.n != 1 || keys.current == NULL) {
        *why = "equal values may lie there under several keys; do this in the application, or wait "
               "until the sweep is done and only one key is left";
    } else if (field->bson_type == 0) {
        *why = "equal numbers of two types have different ciphertexts; give the field's type in "
               "the policy";
    } else if (scope->moved) {
        *why = RK_MOVED_ADVICE;
    } else if (scope->collation) {
        *why = RK_COLLATION_ADVICE;
    } else {
        scope->crypt->keys_bound = true;
        return true;
    }
    return false;
}

static enum rk_verdict refuse(const struct rk_comparison *cmp, int code, const char *what,
                              const char *advice)
{
    return rk_refuse(cmp->scope, code, what, cmp->path->key, cmp->path->key_len, advice);
}

/* May an integer of some type be there? */
static bool is_integer(uint8_t bson_type)
{
    return bson_type == 0 || bson_type == RK_BSON_INT32 || bson_type == RK_BSON_INT64;
}

static bool legacy_is_random(const struct rk_field *field)
{
    for (size_t i = 0; i < field->n_legacy; i++) {
        if (!field->legacy[i].iv_fixed) {
            return true;
        }
    }
    return false;
}

enum rk_verdict rk_compare_check(const struct rk_comparison *cmp, const struct rk_bson_elem *value)
{
    const struct rk_scope *scope = cmp->scope;
    const struct rk_field *field = cmp->match.field;
    int64_t integer;
    if (cmp->match.relation == RK_PATH_ABOVE) {
        return refuse(cmp, RK_CODE_ABOVE, "comparison",
                      "the value would hold protected fields; name them by their dotted paths");
    }
    if (rk_is_anything(cmp->match.node)) {
        return refuse(cmp, RK_CODE_PREDICATE, "comparison",
                      "an earlier stage put values of several kinds there; compare before it");
    }
    if (field->algorithm != RK_ALGORITHM_DETERMINISTIC) {
        return refuse(cmp, RK_CODE_RANDOM_EQUALITY, "equality",
                      "a randomly encrypted field can only be tested with $exists or null; make "
                      "it deterministic in the policy to search it");
    }
    if (legacy_is_random(field)) {
        return refuse(cmp, RK_CODE_RANDOM_EQUALITY, "equality",
                      "records in a legacy format with random iv would be missed; sweep the "
                      "collection, then drop legacy from the policy");
    }
    if (scope->collation) {
        return refuse(cmp, RK_CODE_COLLATION, "equality", RK_COLLATION_ADVICE);
    }
    if (!(rk_bson_elem_int(value, &integer) && is_integer(field->bson_type)) &&
        !rk_document_type_allowed(scope->ns, field, value->type, scope->err)) {
        return RK_VERDICT_REJECT;
    }
    const struct rk_field_keys keys = rk_field_keys(scope, field);
    if (keys.current == NULL) {
        char buf[RK_KEY_NAME_SIZE];
        const char *name = rk_tenant_key(&scope->crypt->tenant, field, buf);
        return name != NULL ? rk_crypt_hold_name(scope->crypt, name)
                            : rk_crypt_no_tenant(scope->crypt, scope->ns, field, scope->err);
    }
    if (rk_data_key_remote(keys.current) != NULL) {
        return refuse(cmp, RK_CODE_OPERATION_FAILED, "equality",
                      "the current data key stays with its provider, which encrypts nothing "
                      "deterministically; rotate to a key of keys.vault.mode envelope");
    }
    if (keys.missing_id != 0) {
        return refuse(cmp, RK_CODE_OPERATION_FAILED, "equality", RK_MISSING_ADVICE);
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
    enum rk_verdict verdict = rk_compare_check(cmp, value);
    if (rk_stops(verdict)) {
        return verdict;
    }
    unsigned index = 0;
    if (rk_compare_forms(cmp, value) == 1) {
        return rk_compare_put(cmp, value, 0, name, w);
    }
    if (key == NULL) {
        rk_bson_begin_sub(w, RK_BSON_DOCUMENT, name, strlen(name));
    }
    rk_bson_begin_sub(w, RK_BSON_ARRAY, many, strlen(many));
    verdict = rk_compare_put_all(cmp, value, &index, w);
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
        verdict = rk_compare_check(cmp, &item);
        if (!rk_stops(verdict)) {
            verdict = rk_compare_put_all(cmp, &item, &index, w);
        }
        if (rk_stops(verdict)) {
            return verdict;
        }
    }
    rk_bson_end(w);
    return verdict;
}
