/*
 * Encrypting the protected fields of a document in one pass: everything else is copied in runs of
 * untouched bytes.
 *
 * Fails closed: whatever could be a protected value and cannot be encrypted is refused.
 */
#include "policy_internal.h"

#include <stdio.h>

struct encrypt {
    struct rk_crypt *crypt;
    const char *ns;
    struct rk_bson_writer *w;
    struct rk_error *err;
    bool replaced;
};

static const char *type_name(uint8_t bson_type)
{
    static const char *const names[] = {
        [RK_BSON_DOUBLE] = "double",       [RK_BSON_STRING] = "string",
        [RK_BSON_DOCUMENT] = "object",     [RK_BSON_ARRAY] = "array",
        [RK_BSON_BINARY] = "binData",      [RK_BSON_UNDEFINED] = "undefined",
        [RK_BSON_OID] = "objectId",        [RK_BSON_BOOL] = "bool",
        [RK_BSON_DATE] = "date",           [RK_BSON_NULL] = "null",
        [RK_BSON_REGEX] = "regex",         [RK_BSON_DBPOINTER] = "dbPointer",
        [RK_BSON_CODE] = "javascript",     [RK_BSON_SYMBOL] = "symbol",
        [RK_BSON_INT32] = "int",           [RK_BSON_CODEWSCOPE] = "javascriptWithScope",
        [RK_BSON_TIMESTAMP] = "timestamp", [RK_BSON_INT64] = "long",
        [RK_BSON_DECIMAL128] = "decimal",
    };
    if (bson_type == RK_BSON_MINKEY) {
        return "minKey";
    }
    if (bson_type == RK_BSON_MAXKEY) {
        return "maxKey";
    }
    return bson_type < sizeof names / sizeof names[0] && names[bson_type] != NULL ? names[bson_type]
                                                                                  : "unknown";
}

/* Equal values of these types have equal bytes, which is what deterministic encryption compares.
 * A symbol equals a string, a double another number. */
static bool equal_bytewise(uint8_t bson_type)
{
    switch (bson_type) {
    case RK_BSON_STRING:
    case RK_BSON_BINARY:
    case RK_BSON_OID:
    case RK_BSON_BOOL:
    case RK_BSON_DATE:
    case RK_BSON_CODE:
    case RK_BSON_INT32:
    case RK_BSON_TIMESTAMP:
    case RK_BSON_INT64:
        return true;
    default:
        return false;
    }
}

enum rk_field_fit rk_field_fits(const struct rk_field *field, uint8_t bson_type)
{
    switch (bson_type) {
    case RK_BSON_NULL:
    case RK_BSON_UNDEFINED:
    case RK_BSON_MINKEY:
    case RK_BSON_MAXKEY:
        return RK_FIT_NEVER;
    default:
        break;
    }
    if (field->algorithm == RK_ALGORITHM_DETERMINISTIC && !equal_bytewise(bson_type)) {
        return RK_FIT_NOT_DETERMINISTIC;
    }
    return field->bson_type == 0 || field->bson_type == bson_type ? RK_FIT_YES : RK_FIT_OTHER_TYPE;
}

bool rk_document_type_allowed(const char *ns, const struct rk_field *field, uint8_t bson_type,
                              struct rk_error *err)
{
    if (bson_type == RK_BSON_NULL) {
        return true;
    }
    switch (rk_field_fits(field, bson_type)) {
    case RK_FIT_YES:
        return true;
    case RK_FIT_NEVER:
        (void)rk_error_set_code(err, RK_EREFUSED, RK_CODE_UNENCRYPTABLE,
                                "%s, path \"%s\": a value of type %s cannot be encrypted; store "
                                "null or leave the field out",
                                ns, field->path, type_name(bson_type));
        break;
    case RK_FIT_NOT_DETERMINISTIC:
        (void)rk_error_set_code(err, RK_EREFUSED, RK_CODE_UNENCRYPTABLE,
                                "%s, path \"%s\": a value of type %s cannot be encrypted "
                                "deterministically, since equal values may differ in their bytes; "
                                "use algorithm random, or store it as another type (string, long)",
                                ns, field->path, type_name(bson_type));
        break;
    case RK_FIT_OTHER_TYPE:
        (void)rk_error_set_code(err, RK_EREFUSED, RK_CODE_UNENCRYPTABLE,
                                "%s, path \"%s\": a value of type %s is not what the policy says "
                                "of this field; use type %s, or drop type from the policy",
                                ns, field->path, type_name(bson_type), type_name(field->bson_type));
        break;
    }
    return false;
}

enum rk_verdict rk_document_verdict(const struct rk_bson_writer *w, enum rk_verdict verdict,
                                    const char *ns, struct rk_error *err)
{
    switch (rk_bson_writer_status(w)) {
    case RK_OK:
        return verdict;
    case RK_ELIMIT:
        (void)rk_error_set_code(err, RK_ELIMIT, RK_CODE_TOO_LARGE,
                                "%s: the message outgrew the size limit while its protected fields "
                                "were rewritten; use smaller documents or batches",
                                ns);
        break;
    case RK_ENOMEM:
        (void)rk_error_set_code(err, RK_ENOMEM, RK_CODE_MEMORY, "%s: out of memory", ns);
        break;
    case RK_EINVAL:
        (void)rk_error_set_code(err, RK_EINVAL, RK_CODE_INVALID_BSON,
                                "%s: a protected value is not valid BSON, or nested too deep", ns);
        break;
    default:
        (void)rk_error_set_code(err, rk_bson_writer_status(w), RK_CODE_INTERNAL,
                                "%s: a protected field could not be rewritten (%s)", ns,
                                rk_status_name(rk_bson_writer_status(w)));
        break;
    }
    return RK_VERDICT_REJECT;
}

void rk_document_copy_run(struct rk_bson_writer *w, const uint8_t *from, const uint8_t *to)
{
    if (from < to) {
        /* Neighbouring elements are copied as one: the writer looks at nothing but the bytes. */
        const struct rk_bson_elem run = {.start = from, .len = (uint32_t)(to - from)};
        rk_bson_copy(w, &run);
    }
}

static enum rk_verdict reject_envelope(const char *ns, const struct rk_field *field,
                                       const char *problem, struct rk_error *err)
{
    (void)rk_error_set_code(err, RK_EREFUSED, RK_CODE_UNENCRYPTABLE,
                            "%s, path \"%s\": the value looks like Rekey's own ciphertext but %s; "
                            "write the plaintext",
                            ns, field->path, problem);
    return RK_VERDICT_REJECT;
}

/* Does the key have the name of the statement's tenant? One tenant's key must not be what another
 * one's record depends on. */
static bool is_own(const struct rk_crypt *crypt, const struct rk_field *field, uint32_t key_id)
{
    char buf[RK_KEY_NAME_SIZE];
    const char *name = rk_tenant_key(&crypt->tenant, field, buf);
    return !field->by_tenant ||
           (name != NULL && strcmp(rk_keyset_known(crypt->keys, key_id)->name, name) == 0);
}

/*
 * An application that reads through the proxy never sees an envelope, but a script that copies
 * raw data does. What it hands in is kept only if it is genuine and for this very field: a forged
 * one would be plaintext on disk, or an error for every later reader.
 */
static enum rk_verdict check_envelope(struct rk_crypt *crypt, const char *ns,
                                      const struct rk_field *field, const uint8_t *data, size_t len,
                                      struct rk_error *err)
{
    struct rk_envelope envelope;
    if (!rk_envelope_parse(data, len, &envelope)) {
        return reject_envelope(ns, field, "is damaged or of an unknown version", err);
    }
    if (envelope.field_id != field->field_id || envelope.algorithm != field->algorithm) {
        return reject_envelope(ns, field, "was made for another field or algorithm", err);
    }
    const struct rk_data_key *key = rk_keyset_find(crypt->keys, envelope.key_id);
    if (key == NULL) {
        if (rk_crypt_key_absent(crypt, envelope.key_id)) {
            return reject_envelope(ns, field, "names a key that does not exist", err);
        }
        crypt->missing_key = envelope.key_id;
        return RK_VERDICT_HOLD;
    }
    if (!is_own(crypt, field, envelope.key_id)) {
        return reject_envelope(ns, field, "lies under another tenant's key", err);
    }
    rk_buf_clear(&crypt->scratch);
    enum rk_status status = rk_envelope_open(crypt->aead, key, &envelope, &crypt->scratch);
    rk_buf_cleanse(&crypt->scratch);
    return status == RK_OK ? RK_VERDICT_FORWARD
                           : reject_envelope(ns, field, "does not authenticate", err);
}

static void seal(struct rk_crypt *crypt, const struct rk_data_key *key,
                 const struct rk_field *field, const struct rk_bson_elem *elem, const char *name,
                 size_t name_len, struct rk_bson_writer *w)
{
    uint8_t head[5];
    size_t size = rk_envelope_size(key, field->algorithm, elem->value_len);
    if (size > INT32_MAX && w->status == RK_OK) {
        w->status = RK_ELIMIT;
    }
    rk_store_u32(head, (uint32_t)size);
    head[4] = RK_ENVELOPE_SUBTYPE;
    rk_bson_put(w, RK_BSON_BINARY, name, name_len, head, sizeof head);
    if (w->status == RK_OK) {
        w->status =
            rk_envelope_seal(crypt->aead, key, field->algorithm, field->field_id, crypt->now_s,
                             elem->type, elem->value, elem->value_len, w->out);
    }
    if (w->status == RK_OK) {
        crypt->values_encrypted++;
    }
}

/* mongod stores the time of the write in place of Timestamp(0, 0). */
static bool is_empty_timestamp(const struct rk_bson_elem *elem)
{
    static const uint8_t empty[8] = {0};
    return elem->type == RK_BSON_TIMESTAMP && memcmp(elem->value, empty, sizeof empty) == 0;
}

/* What stands for a value that nobody can read must not replace it when it is written back. */
static bool stands_for_unreadable(const struct rk_bson_elem *elem)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem first;
    if (elem->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(elem, &view)) {
        return false;
    }
    rk_bson_iter_init(&iter, &view);
    return rk_bson_next(&iter, &first) == RK_BSON_STEP_ELEM &&
           rk_bson_key_is(&first, RK_UNREADABLE_KEY);
}

enum rk_verdict rk_document_encrypt_value(struct rk_crypt *crypt, const char *ns,
                                          const struct rk_field *field,
                                          const struct rk_bson_elem *elem, const char *key,
                                          size_t key_len, struct rk_bson_writer *w,
                                          struct rk_error *err)
{
    if (stands_for_unreadable(elem)) {
        (void)rk_error_set_code(err, RK_EREFUSED, RK_CODE_UNENCRYPTABLE,
                                "%s, path \"%s\": this document stands for a value that cannot be "
                                "read any more, and would replace it; leave the field as it is, or "
                                "$unset it",
                                ns, field->path);
        return RK_VERDICT_REJECT;
    }
    if (!rk_document_type_allowed(ns, field, elem->type, err)) {
        return RK_VERDICT_REJECT;
    }
    if (is_empty_timestamp(elem)) {
        (void)rk_error_set_code(
            err, RK_EREFUSED, RK_CODE_UNENCRYPTABLE,
            "%s, path \"%s\": the server cannot fill in an empty timestamp that "
            "is encrypted; write the time itself",
            ns, field->path);
        return RK_VERDICT_REJECT;
    }
    if (elem->type == RK_BSON_BINARY &&
        rk_envelope_claims(elem->value[4], elem->value + 5, elem->value_len - 5)) {
        enum rk_verdict verdict =
            check_envelope(crypt, ns, field, elem->value + 5, elem->value_len - 5, err);
        if (verdict != RK_VERDICT_FORWARD) {
            return verdict;
        }
        rk_bson_copy_as(w, key, key_len, elem);
        return rk_document_verdict(w, RK_VERDICT_FORWARD, ns, err);
    }
    if (elem->type == RK_BSON_NULL) {
        rk_bson_copy_as(w, key, key_len, elem);
        return rk_document_verdict(w, RK_VERDICT_FORWARD, ns, err);
    }
    char buf[RK_KEY_NAME_SIZE];
    const char *name = rk_tenant_key(&crypt->tenant, field, buf);
    if (name == NULL) {
        return rk_crypt_no_tenant(crypt, ns, field, err);
    }
    const struct rk_data_key *current = rk_keyset_current(crypt->keys, name);
    if (current == NULL) {
        if (rk_crypt_key_absent(crypt, 0)) {
            (void)rk_error_set_code(
                err, RK_ENOKEY, RK_CODE_OPERATION_FAILED,
                "%s, path \"%s\": there is no current data key to encrypt with; "
                "make one with rekeyctl keys rotate",
                ns, field->path);
            return RK_VERDICT_REJECT;
        }
        return rk_crypt_hold_name(crypt, name);
    }
    if (rk_data_key_remote(current) != NULL && field->algorithm == RK_ALGORITHM_DETERMINISTIC) {
        (void)rk_error_set_code(err, RK_ESTATE, RK_CODE_OPERATION_FAILED,
                                "%s, path \"%s\": data key %u stays with its provider, which "
                                "encrypts nothing deterministically; make the field random, or "
                                "rotate to a key of keys.vault.mode envelope",
                                ns, field->path, rk_data_key_id(current));
        return RK_VERDICT_REJECT;
    }
    seal(crypt, current, field, elem, key, key_len, w);
    return rk_document_verdict(w, RK_VERDICT_REPLACE, ns, err);
}

/* False positives of the scan are common enough (bytes in strings) to be looked at. */
static bool claims_within(struct rk_bson_iter iter)
{
    struct rk_bson_elem elem;
    struct rk_bson_view view;
    struct rk_bson_iter inner;
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (elem.type == RK_BSON_BINARY &&
            rk_envelope_claims(elem.value[4], elem.value + 5, elem.value_len - 5)) {
            return true;
        }
        if (rk_bson_elem_view(&elem, &view)) {
            rk_bson_iter_init(&inner, &view);
            if (claims_within(inner)) {
                return true;
            }
        }
    }
    return false;
}

enum rk_verdict rk_document_check_plain(const char *ns, const uint8_t *from, const uint8_t *to,
                                        struct rk_error *err)
{
    const struct rk_bson_iter run = {.pos = from, .end = to};
    if (from >= to || rk_envelope_scan(from, (size_t)(to - from)) == NULL || !claims_within(run)) {
        return RK_VERDICT_FORWARD;
    }
    (void)rk_error_set_code(err, RK_EREFUSED, RK_CODE_UNENCRYPTABLE,
                            "%s: a value at an unprotected path looks like Rekey's own ciphertext "
                            "(binary subtype %u with its first bytes); no reader could tell them "
                            "apart",
                            ns, RK_ENVELOPE_SUBTYPE);
    return RK_VERDICT_REJECT;
}

/*
 * mongod stores keys with dots and leading dollars since 5.0. Such a key that spells a protected
 * path is no path to mongod, and nothing would ever find and encrypt its value.
 */
static bool spells_protected(const struct rk_path_node *node, const struct rk_bson_elem *elem)
{
    return (elem->key[0] == '$' || memchr(elem->key, '.', elem->key_len) != NULL) &&
           rk_path_relate_from(node, elem->key, elem->key_len).relation != RK_PATH_UNRELATED;
}

static enum rk_verdict reject_key(struct encrypt *e, const struct rk_bson_elem *elem)
{
    int code = elem->key[0] == '$' ? RK_CODE_DOLLAR_KEY : RK_CODE_DOTTED_KEY;
    (void)rk_error_set_code(e->err, RK_EREFUSED, code,
                            "%s: the key \"%.100s\" of a document spells a protected path; nest "
                            "documents instead of writing dots or $ into the key",
                            e->ns, elem->key);
    return RK_VERDICT_REJECT;
}

static enum rk_verdict encrypt_elements(struct encrypt *e, const struct rk_path_node *node,
                                        bool in_array, const struct rk_bson_view *view);

static enum rk_verdict copy_plain(struct encrypt *e, const uint8_t *from, const uint8_t *to)
{
    rk_document_copy_run(e->w, from, to);
    return rk_document_verdict(e->w, rk_document_check_plain(e->ns, from, to, e->err), e->ns,
                               e->err);
}

/* An element at or above a protected path. FORWARD: go on. */
static enum rk_verdict encrypt_elem(struct encrypt *e, const struct rk_path_node *node,
                                    const struct rk_bson_elem *elem)
{
    if (node->field != NULL) {
        enum rk_verdict verdict = rk_document_encrypt_value(e->crypt, e->ns, node->field, elem,
                                                            elem->key, elem->key_len, e->w, e->err);
        if (verdict == RK_VERDICT_REPLACE) {
            e->replaced = true;
            verdict = RK_VERDICT_FORWARD;
        }
        return verdict;
    }
    struct rk_bson_view sub;
    if (!rk_bson_elem_view(elem, &sub)) {
        return copy_plain(e, elem->start, elem->start + elem->len);
    }
    rk_bson_begin_sub(e->w, elem->type, elem->key, elem->key_len);
    /* The writer's depth limit is what bounds this recursion: ask before descending. */
    enum rk_verdict verdict = rk_document_verdict(e->w, RK_VERDICT_FORWARD, e->ns, e->err);
    if (verdict == RK_VERDICT_FORWARD) {
        verdict = encrypt_elements(e, node, elem->type == RK_BSON_ARRAY, &sub);
    }
    rk_bson_end(e->w);
    return rk_document_verdict(e->w, verdict, e->ns, e->err);
}

static enum rk_verdict encrypt_elements(struct encrypt *e, const struct rk_path_node *node,
                                        bool in_array, const struct rk_bson_view *view)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    const uint8_t *run = iter.pos;
    for (;;) {
        enum rk_bson_step step = rk_bson_next(&iter, &elem);
        if (step == RK_BSON_STEP_END) {
            return copy_plain(e, run, iter.end);
        }
        if (step == RK_BSON_STEP_MALFORMED) {
            (void)rk_error_set_code(e->err, RK_EINVAL, RK_CODE_INVALID_BSON,
                                    "%s: a document is not valid BSON", e->ns);
            return RK_VERDICT_REJECT;
        }
        const struct rk_path_node *child = rk_path_step(node, in_array, elem.key, elem.key_len);
        if (child == NULL) {
            if (spells_protected(node, &elem)) {
                return reject_key(e, &elem);
            }
            continue;
        }
        enum rk_verdict verdict = copy_plain(e, run, elem.start);
        if (verdict == RK_VERDICT_FORWARD) {
            verdict = encrypt_elem(e, child, &elem);
        }
        if (verdict != RK_VERDICT_FORWARD) {
            return verdict;
        }
        run = iter.pos;
    }
}

enum rk_verdict rk_document_encrypt(struct rk_crypt *crypt, const char *ns,
                                    const struct rk_path_node *node,
                                    const struct rk_bson_view *view, struct rk_bson_writer *w,
                                    struct rk_error *err)
{
    struct encrypt e = {.crypt = crypt, .ns = ns, .w = w, .err = err};
    enum rk_verdict verdict = encrypt_elements(&e, node, false, view);
    return verdict == RK_VERDICT_FORWARD && e.replaced ? RK_VERDICT_REPLACE : verdict;
}
