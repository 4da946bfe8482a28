/*
 * Decrypting whatever is encrypted in a run of BSON: envelopes by their own mark wherever they
 * stand, legacy values at the policy's paths.
 *
 * The next possible envelope is looked up once and remembered (rk_decrypt.mark), so that all that
 * lies before it is copied without being entered, and the bytes are scanned once in all.
 */
#include <stdio.h>

#include "policy_internal.h"

#define PATH_SHOWN 160 /* bytes of a path in a message */

void rk_decrypt_init(struct rk_decrypt *d, struct rk_crypt *crypt,
                     enum rk_undecryptable undecryptable, const char *ns, const uint8_t *data,
                     size_t len, struct rk_bson_writer *w, struct rk_error *err)
{
    const uint8_t *mark = rk_envelope_scan(data, len);
    *d = (struct rk_decrypt){.crypt = crypt,
                             .undecryptable = undecryptable,
                             .ns = ns,
                             .w = w,
                             .err = err,
                             .mark = mark != NULL ? mark : data + len,
                             .end = data + len};
}

/* Can there be an envelope in this element? Asked in rising order of elements. */
static bool is_marked(struct rk_decrypt *d, const struct rk_bson_elem *elem)
{
    if (d->mark < elem->start) {
        const uint8_t *mark = rk_envelope_scan(elem->start, (size_t)(d->end - elem->start));
        d->mark = mark != NULL ? mark : d->end;
    }
    return d->mark < elem->start + elem->len;
}

static bool needs_work(struct rk_decrypt *d, const struct rk_path_node *node,
                       const struct rk_bson_elem *elem)
{
    return (node != NULL && node->has_legacy) || is_marked(d, elem);
}

/* The keys of a trail, outermost first; cut on the left when it is long. */
static const char *show_path(const struct rk_trail *trail, char out[PATH_SHOWN])
{
    size_t pos = PATH_SHOWN - 1;
    out[pos] = '\0';
    for (; trail != NULL; trail = trail->up) {
        size_t len = trail->key_len;
        if (len + 4 > pos) {
            pos -= out[pos] == '.' ? 2 : 3;
            memcpy(out + pos, "...", 3);
            break;
        }
        pos -= len;
        memcpy(out + pos, trail->key, len);
        if (trail->up != NULL) {
            out[--pos] = '.';
        }
    }
    return out + pos;
}

enum rk_verdict rk_decrypt_malformed(struct rk_decrypt *d, const struct rk_trail *at)
{
    char path[PATH_SHOWN];
    (void)rk_error_set_code(d->err, RK_EINVAL, RK_CODE_INVALID_BSON,
                            "%s: the data at \"%s\" is not valid BSON", d->ns, show_path(at, path));
    return RK_VERDICT_REJECT;
}

static enum rk_verdict undecryptable(struct rk_decrypt *d, const struct rk_bson_elem *elem,
                                     const struct rk_trail *at, const char *reason)
{
    if (d->undecryptable == RK_UNDECRYPTABLE_LEAVE) {
        rk_bson_copy(d->w, elem);
        return RK_VERDICT_FORWARD;
    }
    char path[PATH_SHOWN];
    (void)rk_error_set_code(d->err, RK_EAUTH, RK_CODE_OPERATION_FAILED,
                            "%s: the encrypted value at \"%s\" cannot be decrypted: %s", d->ns,
                            show_path(at, path), reason);
    return RK_VERDICT_REJECT;
}

/*
 * Nobody will ever read this value again: its key was destroyed, or its record is gone. That is no
 * reason to keep the other values of a batch from whoever may read them.
 */
static enum rk_verdict unreadable(struct rk_decrypt *d, const struct rk_bson_elem *elem,
                                  uint32_t key_id, const struct rk_keyset_key *known)
{
    struct rk_bson_writer *w = d->w;
    const struct rk_unreadable *as = d->policy != NULL ? &d->policy->unreadable : NULL;
    if (d->undecryptable == RK_UNDECRYPTABLE_LEAVE) {
        rk_bson_copy(w, elem);
        return RK_VERDICT_FORWARD;
    }
    d->changed = true;
    if (as != NULL && as->placeholder && as->text == NULL) {
        rk_bson_put(w, RK_BSON_NULL, elem->key, elem->key_len, NULL, 0);
    } else if (as != NULL && as->placeholder) {
        rk_bson_put_utf8(w, elem->key, as->text, strlen(as->text));
    } else {
        rk_bson_begin_sub(w, RK_BSON_DOCUMENT, elem->key, elem->key_len);
        const char *what = known != NULL ? "key destroyed" : "key missing";
        rk_bson_put_utf8(w, RK_UNREADABLE_KEY, what, strlen(what));
        rk_bson_put_int64(w, "keyId", key_id);
        if (known != NULL) {
            rk_bson_put_utf8(w, "key", known->name, strlen(known->name));
        }
        rk_bson_end(w);
    }
    return RK_VERDICT_FORWARD;
}

/* True when the plaintext was appended or the writer is out of room; false: not decryptable. */
static bool opened(struct rk_decrypt *d, enum rk_status status, size_t rollback, bool old_key)
{
    if (status == RK_OK) {
        d->changed = true;
        d->crypt->values_decrypted++;
        d->crypt->values_old_key += old_key ? 1 : 0;
        return true;
    }
    d->w->out->len = rollback;
    if (status == RK_ENOMEM || status == RK_ELIMIT) {
        d->w->status = status;
        return true;
    }
    return false;
}

/* Plaintext is written where it belongs, behind the key, and taken back when it fails. */
static enum rk_verdict open_envelope(struct rk_decrypt *d, const struct rk_bson_elem *elem,
                                     const struct rk_trail *at)
{
    struct rk_crypt *crypt = d->crypt;
    struct rk_envelope envelope;
    char reason[64];
    if (!rk_envelope_parse(elem->value + 5, elem->value_len - 5, &envelope)) {
        return undecryptable(d, elem, at, "it is damaged or of an unknown version");
    }
    const struct rk_keyset_key *known = rk_keyset_known(crypt->keys, envelope.key_id);
    /* Ids only ever rise: what a registry with a later key does not list will not come. */
    if (known != NULL ? known->role == RK_KEY_GONE
                      : envelope.key_id <= rk_keyset_newest(crypt->keys) ||
                            rk_crypt_key_absent(crypt, envelope.key_id)) {
        return unreadable(d, elem, envelope.key_id, known);
    }
    const struct rk_data_key *key = rk_keyset_find(crypt->keys, envelope.key_id);
    if (key == NULL) {
        /* So many keys that do not exist are no accident: no reason to fail where it may be left.
         */
        bool forged =
            d->undecryptable == RK_UNDECRYPTABLE_LEAVE && crypt->n_absent >= RK_CRYPT_ABSENT_MAX;
        if (!forged && !rk_crypt_key_absent(crypt, envelope.key_id)) {
            crypt->missing_key = envelope.key_id;
            return RK_VERDICT_HOLD;
        }
        return unreadable(d, elem, envelope.key_id, NULL);
    }
    size_t rollback = d->w->out->len;
    rk_bson_put(d->w, envelope.bson_type, elem->key, elem->key_len, NULL, 0);
    if (d->w->status != RK_OK) {
        return RK_VERDICT_FORWARD;
    }
    enum rk_status status = rk_envelope_open(crypt->aead, key, &envelope, d->w->out);
    bool old_key = rk_keyset_known(crypt->keys, envelope.key_id)->role != RK_KEY_WRITES;
    if (opened(d, status, rollback, old_key)) {
        return RK_VERDICT_FORWARD;
    }
    (void)snprintf(reason, sizeof reason,
                   envelope.remote ? "the provider of key %u does not open it"
                                   : "it does not authenticate under key %u",
                   envelope.key_id);
    return undecryptable(d, elem, at, reason);
}

static enum rk_verdict open_legacy(struct rk_decrypt *d, const struct rk_field *field,
                                   const struct rk_bson_elem *elem, const struct rk_trail *at)
{
    bool matched = false;
    const char *missing = NULL;
    for (size_t i = 0; i < field->n_legacy; i++) {
        const struct rk_legacy_format *format = &field->legacy[i];
        if (!rk_legacy_matches(format, elem->type, elem->value, elem->value_len)) {
            continue;
        }
        matched = true;
        size_t rollback = d->w->out->len;
        rk_bson_put(d->w, format->bson_type, elem->key, elem->key_len, NULL, 0);
        if (d->w->status != RK_OK) {
            return RK_VERDICT_FORWARD;
        }
        enum rk_status status = rk_legacy_open(d->crypt->aead, d->crypt->keys, format, elem->type,
                                               elem->value, elem->value_len, d->w->out);
        if (opened(d, status, rollback, true)) {
            return RK_VERDICT_FORWARD;
        }
        if (status == RK_ENOKEY) {
            missing = format->key;
        }
    }
    if (!matched) {
        /* Plaintext from before any encryption, or null. */
        rk_bson_copy(d->w, elem);
        return RK_VERDICT_FORWARD;
    }
    if (missing == NULL) {
        return undecryptable(d, elem, at, "it opens under none of the field's legacy formats");
    }
    if (rk_keyset_newest(d->crypt->keys) == 0 && !rk_crypt_key_absent(d->crypt, 0)) {
        /* No key at all means that the first load is still to come, legacy keys included. */
        return rk_crypt_hold_name(d->crypt, RK_KEY_NAME_DEFAULT);
    }
    char reason[128];
    (void)snprintf(reason, sizeof reason, "there is no legacy key named \"%.64s\"", missing);
    return undecryptable(d, elem, at, reason);
}

enum rk_verdict rk_decrypt_elem(struct rk_decrypt *d, const struct rk_path_node *node,
                                const struct rk_bson_elem *elem, const struct rk_trail *up)
{
    const struct rk_trail at = {.up = up, .key = elem->key, .key_len = elem->key_len};
    struct rk_bson_view sub;
    if (!needs_work(d, node, elem)) {
        rk_bson_copy(d->w, elem);
        return RK_VERDICT_FORWARD;
    }
    if (elem->type == RK_BSON_BINARY &&
        rk_envelope_claims(elem->value[4], elem->value + 5, elem->value_len - 5)) {
        return open_envelope(d, elem, &at);
    }
    if (!rk_bson_elem_view(elem, &sub)) {
        if (node != NULL && node->field != NULL) {
            return open_legacy(d, node->field, elem, &at);
        }
        rk_bson_copy(d->w, elem);
        return RK_VERDICT_FORWARD;
    }
    rk_bson_begin_sub(d->w, elem->type, elem->key, elem->key_len);
    /* The writer's depth limit is what bounds this recursion: do not descend past it. */
    if (d->w->status != RK_OK) {
        return RK_VERDICT_FORWARD;
    }
    enum rk_verdict verdict = rk_decrypt_elements(d, node, elem->type == RK_BSON_ARRAY, &sub, &at);
    rk_bson_end(d->w);
    return verdict;
}

enum rk_verdict rk_decrypt_elements(struct rk_decrypt *d, const struct rk_path_node *node,
                                    bool in_array, const struct rk_bson_view *view,
                                    const struct rk_trail *up)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    const uint8_t *run = iter.pos;
    if (node != NULL && !node->has_legacy) {
        node = NULL;
    }
    while (d->w->status == RK_OK) {
        enum rk_bson_step step = rk_bson_next(&iter, &elem);
        if (step == RK_BSON_STEP_END) {
            rk_document_copy_run(d->w, run, iter.end);
            return RK_VERDICT_FORWARD;
        }
        if (step == RK_BSON_STEP_MALFORMED) {
            return rk_decrypt_malformed(d, up);
        }
        const struct rk_path_node *child =
            node != NULL ? rk_path_step(node, in_array, elem.key, elem.key_len) : NULL;
        if (!needs_work(d, child, &elem)) {
            continue;
        }
        rk_document_copy_run(d->w, run, elem.start);
        enum rk_verdict verdict = rk_decrypt_elem(d, child, &elem, up);
        if (verdict != RK_VERDICT_FORWARD) {
            return verdict;
        }
        run = iter.pos;
    }
    return RK_VERDICT_FORWARD;
}

enum rk_verdict rk_document_decrypt(struct rk_crypt *crypt, enum rk_undecryptable undecryptable,
                                    const char *ns, const struct rk_path_node *node,
                                    const struct rk_bson_view *view, struct rk_bson_writer *w,
                                    struct rk_error *err)
{
    struct rk_decrypt d;
    rk_decrypt_init(&d, crypt, undecryptable, ns, view->data, view->len, w, err);
    enum rk_verdict verdict = rk_decrypt_elements(&d, node, false, view, NULL);
    if (verdict == RK_VERDICT_FORWARD && d.changed) {
        verdict = RK_VERDICT_REPLACE;
    }
    return rk_document_verdict(w, verdict, ns, err);
}
