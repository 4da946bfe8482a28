#include "scan_internal.h"

#include <rekey/base/clock.h>
#include <rekey/jobs/transform.h>
#include <rekey/jobs/verify.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_DOCS 2000u
#define BINARY_HEAD_LEN 5u
#define SCRATCH_MAX (17u << 20)
#define PATH_MAX_BYTES 65536u
#define DEPTH_MAX 200u /* mongod stores at most 180 levels */
#define BARRIER_MAX_MS 30000
#define CODE_NOT_A_REPLICA_SET 123

struct verify {
    const struct rk_verify_options *options;
    const struct rk_policy *policy;
    struct rk_verify_result *result;
    struct rk_aead *aead;
    struct rk_buf path;
    struct rk_buf scratch;
    int64_t estimated; /* documents */
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
    } else if (envelope.key_id != rk_data_key_id(rk_keyset_current(keys))) {
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
    uint32_t current = rk_data_key_id(rk_keyset_current(v->options->keys));
    struct rk_envelope envelope;
    bool parsed = rk_envelope_parse(data + BINARY_HEAD_LEN, len - BINARY_HEAD_LEN, &envelope);
    v->result->elsewhere += sign;
    v->result->elsewhere_old_key += !parsed || envelope.key_id != current ? sign : 0;
}

/* Counts all envelopes of a document; verify_value takes those at protected paths back. */
static enum rk_status count_all(struct verify *v, const struct rk_bson_view *doc, unsigned depth)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view sub;
    enum rk_bson_step step;
    enum rk_status status = depth > DEPTH_MAX ? RK_ELIMIT : RK_OK;
    rk_bson_iter_init(&iter, doc);
    while (status == RK_OK && (step = rk_bson_next(&iter, &elem)) != RK_BSON_STEP_END) {
        if (step == RK_BSON_STEP_MALFORMED) {
            status = RK_EINVAL;
        } else if (rk_bson_elem_view(&elem, &sub)) {
            status = count_all(v, &sub, depth + 1);
        } else if (is_envelope(elem.type, elem.value, elem.value_len)) {
            count_elsewhere(v, elem.value, elem.value_len, 1);
        }
    }
    return status;
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

static enum rk_status scan(struct verify *v, mongoc_client_t *client, const struct rk_ns *ns,
                           struct rk_error *err)
{
    struct rk_scan_batch batch;
    struct rk_id position;
    enum rk_status status = RK_OK;
    rk_scan_batch_init(&batch);
    rk_id_init(&position);
    do {
        struct rk_scan next = {.after = &position, .whole = true, .limit = BATCH_DOCS};
        struct rk_bson_iter iter;
        struct rk_bson_view doc;
        struct rk_bson_elem id = {0};
        status = rk_scan_read(client, ns, &next, &batch, err);
        if (status != RK_OK) {
            break;
        }
        rk_scan_iter_init(&iter, &batch);
        while ((status = rk_scan_next(&iter, &doc, &id)) == RK_OK) {
            status = count_all(v, &doc, 1);
            if (status == RK_OK) {
                status = rk_protected_values(&v->policy->root, &doc, &v->path, verify_value, v);
            }
            if (status != RK_OK) {
                break;
            }
            v->result->documents++;
        }
        if (status == RK_ENOENT) {
            status = id.type == 0 ? RK_OK : rk_id_set_elem(&position, &id);
        }
        if (status != RK_OK) {
            rk_error_set(err, status, "cannot verify a document of %s: %s", ns->full,
                         rk_status_name(status));
        } else if (v->options->progress != NULL) {
            v->options->progress(v->options->progress_arg, ns->full, v->result->documents,
                                 v->estimated);
        }
    } while (status == RK_OK && !batch.exhausted);
    rk_id_deinit(&position);
    rk_scan_batch_deinit(&batch);
    return status;
}

/* Also the barrier before the majority reads of the scan: a linearizable one waits until all that
 * was written before it cannot be lost, so the scan sees it. */
static enum rk_status estimate(struct verify *v, mongoc_client_t *client, const struct rk_ns *ns,
                               struct rk_error *err)
{
    struct rk_error cause = {0};
    bson_t reply;
    bson_t *command =
        BCON_NEW("count", BCON_UTF8(ns->coll), "readConcern", "{", "level",
                 BCON_UTF8("linearizable"), "}", "maxTimeMS", BCON_INT32(BARRIER_MAX_MS));
    enum rk_status status = rk_command_run_bson(client, ns->db, command, &reply, &cause);
    if (status == RK_EREFUSED && cause.code == CODE_NOT_A_REPLICA_SET) {
        bson_t *plain = BCON_NEW("count", BCON_UTF8(ns->coll)); /* a standalone forgets nothing */
        bson_destroy(&reply);
        status = rk_command_run_bson(client, ns->db, plain, &reply, &cause);
        bson_destroy(plain);
    }
    struct rk_bson_view view = rk_reply_view(&reply);
    v->estimated = rk_view_int(&view, "n");
    if (status != RK_OK && err != NULL) {
        *err = cause;
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
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
    enum rk_status status = prepare(&v, &ns, err);
    if (status == RK_OK) {
        status = estimate(&v, client, &ns, err);
    }
    if (status == RK_OK) {
        status = scan(&v, client, &ns, err);
    }
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
