#include "scan_internal.h"

#include <rekey/base/clock.h>
#include <rekey/jobs/key_wait.h>
#include <rekey/jobs/transform.h>
#include <rekey/jobs/usage.h>
#include <rekey/jobs/verify.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BINARY_HEAD_LEN 5u
#define SCRATCH_MAX (17u << 20)
#define HELD_BYTES (4u << 20) /* of documents that wait to be counted together */
#define HELD_BYTES_MAX (HELD_BYTES + (17u << 20))
#define PATH_MAX_BYTES 65536u

struct verify {
    const struct rk_verify_options *options;
    const struct rk_policy *policy;
    struct rk_verify_result *result;
    struct rk_aead *aead;
    struct rk_tenant tenant; /* of the document at hand */
    struct rk_buf path;
    struct rk_buf scratch;
    bool outside;            /* the provider may open values itself: documents are held */
    struct rk_buf held;      /* one after the other */
    struct rk_error failure; /* of the provider */
    int64_t estimated;       /* documents */
    uint64_t random;
};

static bool chosen(struct verify *v)
{
    if (v->options->deep) {
        return true;
    }
    v->random ^= v->random << 13;
    v->random ^= v->random >> 7;
    v->random ^= v->random << 17;
    return v->options->sample > 0 &&
           v->random % (uint64_t)(v->estimated > 0 ? v->estimated : 1) < v->options->sample;
}

static void count_key(struct rk_verify_field *field, uint32_t id)
{
    for (size_t i = 0; i < field->n_keys; i++) {
        if (field->keys[i].id == id) {
            field->keys[i].values++;
            return;
        }
    }
    if (field->n_keys < RK_VERIFY_KEYS_MAX) {
        field->keys[field->n_keys++] = (struct rk_verify_key){id, 1};
    }
}

/* RK_OK and *opens, or a failure that is not the value's. */
static enum rk_status open_result(struct verify *v, enum rk_status status, bool *opens)
{
    rk_buf_cleanse(&v->scratch);
    *opens = status == RK_OK;
    return status == RK_ENOMEM || status == RK_ELIMIT ? status : RK_OK;
}

/* Is it the current key of the name that the document is to lie under? */
static bool is_current(const struct verify *v, const struct rk_field *field, uint32_t key_id)
{
    char buf[RK_KEY_NAME_SIZE];
    const char *name = rk_tenant_key(&v->tenant, field, buf);
    const struct rk_data_key *current =
        name != NULL ? rk_keyset_current(v->options->keys, name) : NULL;
    return current != NULL && rk_data_key_id(current) == key_id;
}

static enum rk_status verify_envelope(struct verify *v, const struct rk_field *field,
                                      const struct rk_value *value, struct rk_verify_field *out)
{
    const struct rk_keyset *keys = v->options->keys;
    struct rk_envelope envelope;
    bool opens = true;
    if (!rk_envelope_parse(value->data + BINARY_HEAD_LEN, value->len - BINARY_HEAD_LEN,
                           &envelope)) {
        out->undecryptable++;
        return RK_OK;
    }
    count_key(out, envelope.key_id);
    const struct rk_data_key *key = rk_keyset_find(keys, envelope.key_id);
    if (key == NULL) {
        out->undecryptable++;
        return RK_OK;
    }
    if (chosen(v)) {
        enum rk_status status =
            open_result(v, rk_envelope_open(v->aead, key, &envelope, &v->scratch), &opens);
        if (status != RK_OK) {
            return status;
        }
        out->opened++;
    }
    if (!opens) {
        out->undecryptable++;
    } else if (!is_current(v, field, envelope.key_id)) {
        out->old_key++;
    } else if (envelope.algorithm != field->algorithm || envelope.field_id != field->field_id) {
        out->mismatched++;
    } else {
        out->current++;
    }
    return RK_OK;
}

static enum rk_status verify_other(struct verify *v, const struct rk_field *field,
                                   const struct rk_value *value, struct rk_verify_field *out)
{
    bool matches = false;
    bool opens = false;
    bool try = chosen(v);
    for (size_t i = 0; !opens && i < field->n_legacy; i++) {
        const struct rk_legacy_format *format = &field->legacy[i];
        if (!rk_legacy_matches(format, value->type, value->data, value->len)) {
            continue;
        }
        matches = true;
        if (!try) {
            break;
        }
        enum rk_status status =
            open_result(v,
                        rk_legacy_open(v->aead, v->options->keys, format, value->type, value->data,
                                       value->len, &v->scratch),
                        &opens);
        if (status != RK_OK) {
            return status;
        }
    }
    if (!matches) {
        out->plaintext++;
    } else if (try && !opens) {
        out->undecryptable++;
    } else {
        out->legacy++;
        out->opened += try;
    }
    return RK_OK;
}

static bool is_envelope(uint8_t type, const uint8_t *data, uint32_t len)
{
    return type == RK_BSON_BINARY &&
           rk_envelope_claims(data[4], data + BINARY_HEAD_LEN, len - BINARY_HEAD_LEN);
}

/* Adds (sign 1) an envelope to those elsewhere, or takes it back (sign -1). */
static void count_elsewhere(struct verify *v, const uint8_t *data, uint32_t len, int sign)
{
    struct rk_envelope envelope;
    bool parsed = rk_envelope_parse(data + BINARY_HEAD_LEN, len - BINARY_HEAD_LEN, &envelope);
    const struct rk_keyset_key *key =
        parsed ? rk_keyset_known(v->options->keys, envelope.key_id) : NULL;
    v->result->elsewhere += sign;
    v->result->elsewhere_old_key += key == NULL || key->role != RK_KEY_WRITES ? sign : 0;
}

/* Counts every envelope of a document; verify_value takes those at protected paths back. */
static enum rk_status count_any(void *arg, const uint8_t *data, uint32_t len)
{
    count_elsewhere(arg, data, len, 1);
    return RK_OK;
}

static enum rk_status verify_value(void *arg, const struct rk_field *field,
                                   const struct rk_value *value, const char *path, size_t path_len)
{
    struct verify *v = arg;
    struct rk_verify_field *out = &v->result->fields[field - v->policy->fields];
    (void)path;
    (void)path_len;
    if (value->type == RK_BSON_NULL || value->type == RK_BSON_UNDEFINED) {
        out->null++;
        return RK_OK;
    }
    if (is_envelope(value->type, value->data, value->len)) {
        count_elsewhere(v, value->data, value->len, -1);
        return verify_envelope(v, field, value, out);
    }
    return verify_other(v, field, value, out);
}

static void take_estimate(void *arg, int64_t documents)
{
    struct verify *v = arg;
    v->estimated = documents;
}

static enum rk_status count_document(struct verify *v, const struct rk_bson_view *doc)
{
    enum rk_status status = rk_envelopes_visit(doc, count_any, v);
    rk_tenant_of_document(v->policy, doc, &v->tenant);
    if (status == RK_OK) {
        status = rk_protected_values(&v->policy->root, doc, &v->path, verify_value, v);
    }
    v->result->documents += status == RK_OK ? 1 : 0;
    return status;
}

/* ---- values that the provider opens: a pass over many documents that asks, one that counts */

/* What a pass changes. */
struct counts {
    int64_t documents;
    int64_t elsewhere;
    int64_t elsewhere_old_key;
    uint64_t random;
    struct rk_verify_field *fields;
};

static bool counts_keep(const struct verify *v, struct counts *counts)
{
    const struct rk_verify_result *r = v->result;
    *counts = (struct counts){r->documents, r->elsewhere, r->elsewhere_old_key, v->random,
                              calloc(r->n_fields, sizeof *r->fields)};
    if (counts->fields != NULL) {
        memcpy(counts->fields, r->fields, r->n_fields * sizeof *r->fields);
    }
    return counts->fields != NULL;
}

static void counts_restore(struct verify *v, const struct counts *counts)
{
    struct rk_verify_result *r = v->result;
    r->documents = counts->documents;
    r->elsewhere = counts->elsewhere;
    r->elsewhere_old_key = counts->elsewhere_old_key;
    v->random = counts->random;
    memcpy(r->fields, counts->fields, r->n_fields * sizeof *r->fields);
}

static enum rk_status count_held(struct verify *v)
{
    enum rk_status status = RK_OK;
    for (size_t off = 0; off < v->held.len && status == RK_OK;) {
        struct rk_bson_view doc;
        if (!rk_bson_view_init(&doc, v->held.data + off, v->held.len - off)) {
            return RK_EINVAL;
        }
        status = count_document(v, &doc);
        off += doc.len;
    }
    return status;
}

static enum rk_status count_in_passes(struct verify *v, const struct counts *before,
                                      struct rk_remote **remote)
{
    static const _Atomic bool never = false;
    enum rk_status status = count_held(v);
    while (status == RK_OK && rk_remote_wanted(*remote)) {
        counts_restore(v, before);
        status = rk_values_wait(v->options->service, remote, &never, &v->failure);
        rk_remote_rewind(*remote);
        if (status == RK_OK) {
            status = count_held(v);
        }
    }
    return status;
}

static enum rk_status settle_held(struct verify *v)
{
    struct counts before;
    enum rk_status status = RK_ENOMEM;
    struct rk_remote *remote =
        rk_remote_new(RK_JOBS_REMOTE_BYTES_MAX, (uint32_t)(rk_clock_wall_ms() / 1000));
    if (counts_keep(v, &before) && remote != NULL) {
        rk_aead_set_remote(v->aead, remote);
        status = count_in_passes(v, &before, &remote);
        rk_aead_set_remote(v->aead, NULL);
    }
    rk_buf_clear(&v->held);
    free(before.fields);
    rk_remote_free(remote);
    return status;
}

static enum rk_status verify_document(void *arg, const struct rk_bson_view *doc)
{
    struct verify *v = arg;
    if (!v->outside) {
        return count_document(v, doc);
    }
    enum rk_status status = rk_buf_append(&v->held, doc->data, doc->len);
    return status == RK_OK && v->held.len >= HELD_BYTES ? settle_held(v) : status;
}

static void tell_progress(void *arg)
{
    const struct verify *v = arg;
    if (v->options->progress != NULL) {
        v->options->progress(v->options->progress_arg, v->result->ns, v->result->documents,
                             v->estimated);
    }
}

static enum rk_status prepare(struct verify *v, const struct rk_ns *ns, struct rk_error *err)
{
    v->policy =
        rk_policy_find(v->options->policies, ns->db, strlen(ns->db), ns->coll, strlen(ns->coll));
    if (v->policy == NULL) {
        return rk_error_set(err, RK_ENOENT, "no policy protects %s", ns->full);
    }
    v->result->n_fields = v->policy->n_fields;
    v->result->fields = calloc(v->policy->n_fields, sizeof *v->result->fields);
    if (v->result->fields == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < v->policy->n_fields; i++) {
        v->result->fields[i].path = v->policy->fields[i].path;
    }
    return rk_aead_new(&v->aead, err);
}

enum rk_status rk_verify_namespace(mongoc_client_t *client, const char *ns_text,
                                   const struct rk_verify_options *options,
                                   struct rk_verify_result *out, struct rk_error *err)
{
    struct rk_ns ns;
    struct verify v = {.options = options, .result = out, .random = rk_clock_mono_us() | 1u};
    *out = (struct rk_verify_result){0};
    if (!rk_ns_parse(&ns, ns_text)) {
        return rk_error_set(err, RK_EINVAL, "\"%s\" is no namespace: it must read db.collection",
                            ns_text);
    }
    (void)snprintf(out->ns, sizeof out->ns, "%s", ns.full);
    rk_buf_init(&v.path, PATH_MAX_BYTES);
    rk_buf_init(&v.scratch, SCRATCH_MAX);
    rk_buf_init(&v.held, HELD_BYTES_MAX);
    v.outside = options->service != NULL && rk_key_service_answers(options->service);
    enum rk_status status = prepare(&v, &ns, err);
    if (status == RK_OK) {
        const struct rk_scan_visitor visitor = {take_estimate, verify_document, tell_progress, &v};
        status = rk_scan_all(client, &ns, &visitor, err);
    }
    if (status == RK_OK && v.held.len > 0) {
        status = settle_held(&v);
        if (status != RK_OK) {
            (void)rk_error_set(err, status, "cannot verify %s: %s", ns.full,
                               rk_status_name(status));
        }
    }
    if (status != RK_OK && v.failure.message[0] != '\0') {
        (void)rk_error_set(err, status, "cannot verify %s: %s", ns.full, v.failure.message);
    }
    rk_buf_deinit(&v.held);
    rk_aead_free(v.aead);
    rk_buf_cleanse(&v.scratch);
    rk_buf_deinit(&v.scratch);
    rk_buf_deinit(&v.path);
    return status;
}

void rk_verify_result_deinit(struct rk_verify_result *result)
{
    free(result->fields);
    result->fields = NULL;
    result->n_fields = 0;
}

bool rk_verify_holds(const struct rk_verify_result *result)
{
    if (result->elsewhere_old_key != 0) {
        return false;
    }
    for (size_t i = 0; i < result->n_fields; i++) {
        const struct rk_verify_field *f = &result->fields[i];
        if (f->old_key + f->mismatched + f->legacy + f->plaintext + f->undecryptable != 0) {
            return false;
        }
    }
    return true;
}
