#include "verify_internal.h"

#include <rekey/base/clock.h>
#include <rekey/jobs/key_wait.h>
#include <rekey/jobs/transform.h>

#include <stdlib.h>
#include <string.h>

#define BINARY_HEAD_LEN 5u
#define SCRATCH_MAX (17u << 20)
#define HELD_BYTES (4u << 20) /* of documents that wait to be counted together */
#define HELD_BYTES_MAX (HELD_BYTES + (17u << 20))
#define PATH_MAX_BYTES 65536u

struct rk_verifier {
    struct rk_verify_options options;
    const struct rk_policy *policy; /* NULL: only usage is counted */
    struct rk_census *total;
    struct rk_census *census; /* that is being added to: total, or held_census */
    struct rk_census held_census;
    struct rk_keyset *keys;
    uint64_t generation;
    uint32_t absent; /* a key that could not be had since the last settle */
    struct rk_aead *aead;
    struct rk_tenant tenant; /* of the document at hand */
    struct rk_buf path;
    struct rk_buf scratch; /* a plaintext; always cleansed */
    struct rk_buf again;   /* the envelope that it makes */
    bool outside;          /* the provider may open values itself: documents are held */
    struct rk_buf held;    /* one after the other */
    struct rk_error failure;
    int64_t expected; /* documents */
    uint64_t random;
};

static const _Atomic bool never = false;

static bool chosen(struct rk_verifier *v)
{
    if (v->options.deep) {
        return true;
    }
    v->random ^= v->random << 13;
    v->random ^= v->random >> 7;
    v->random ^= v->random << 17;
    return v->options.sample > 0 &&
           v->random % (uint64_t)(v->expected > 0 ? v->expected : 1) < v->options.sample;
}

static void refresh_keys(struct rk_verifier *v)
{
    uint64_t generation = rk_key_service_generation(v->options.service);
    if (v->keys == NULL || generation != v->generation) {
        rk_keyset_unref(v->keys);
        v->keys = rk_key_service_keyset(v->options.service);
        v->generation = generation;
    }
}

/* NULL: it is not to be had, so nothing under it can be read. */
static const struct rk_data_key *find_key(struct rk_verifier *v, uint32_t id)
{
    const struct rk_data_key *key = rk_keyset_find(v->keys, id);
    if (key == NULL && id != v->absent) {
        enum rk_status status = rk_key_wait(v->options.service, id, &never, NULL);
        refresh_keys(v);
        key = rk_keyset_find(v->keys, id);
        v->absent = status == RK_OK ? 0 : id;
    }
    return key;
}

/* RK_OK and *opens, or a failure that is not the value's. */
static enum rk_status open_result(enum rk_status status, bool *opens)
{
    *opens = status == RK_OK;
    return status == RK_ENOMEM || status == RK_ELIMIT ? status : RK_OK;
}

/* Is it the current key of the name that the document is to lie under? */
static bool is_current(const struct rk_verifier *v, const struct rk_field *field, uint32_t key_id)
{
    char buf[RK_KEY_NAME_SIZE];
    const char *name = rk_tenant_key(&v->tenant, field, buf);
    const struct rk_data_key *current = name != NULL ? rk_keyset_current(v->keys, name) : NULL;
    return current != NULL && rk_data_key_id(current) == key_id;
}

/* Encrypts the plaintext in scratch again: deterministic envelopes come out the same, or no
 * equality finds the value. */
static enum rk_status seal_again(struct rk_verifier *v, const struct rk_data_key *key,
                                 const struct rk_envelope *e, struct rk_field_census *out,
                                 bool *same)
{
    *same = true;
    if (e->algorithm != RK_ALGORITHM_DETERMINISTIC || e->remote) {
        return RK_OK;
    }
    rk_buf_clear(&v->again);
    enum rk_status status =
        rk_envelope_seal(v->aead, key, e->algorithm, e->field_id, 0, e->bson_type, v->scratch.data,
                         v->scratch.len, &v->again);
    bool sealed = false;
    status = open_result(status, &sealed);
    *same = sealed && v->again.len == e->len && memcmp(v->again.data, e->data, e->len) == 0;
    out->round_trips += *same;
    return status;
}

static enum rk_status try_open(struct rk_verifier *v, const struct rk_data_key *key,
                               const struct rk_envelope *e, struct rk_field_census *out,
                               bool *opens, bool *same)
{
    enum rk_status status = open_result(rk_envelope_open(v->aead, key, e, &v->scratch), opens);
    if (status == RK_OK && *opens) {
        status = seal_again(v, key, e, out, same);
    }
    rk_buf_cleanse(&v->scratch);
    out->opened += status == RK_OK;
    return status;
}

static enum rk_status verify_envelope(struct rk_verifier *v, const struct rk_field *field,
                                      const struct rk_value *value, struct rk_field_census *out)
{
    struct rk_envelope envelope;
    bool opens = true;
    bool same = true;
    if (!rk_envelope_parse(value->data + BINARY_HEAD_LEN, value->len - BINARY_HEAD_LEN,
                           &envelope)) {
        out->undecryptable++;
        return RK_OK;
    }
    enum rk_status status = rk_usage_add_key(&out->keys, envelope.key_id, 1);
    const struct rk_data_key *key = find_key(v, envelope.key_id);
    if (status == RK_OK && key != NULL && chosen(v)) {
        status = try_open(v, key, &envelope, out, &opens, &same);
    }
    if (status != RK_OK) {
        return status;
    }
    if (key == NULL || !opens) {
        out->undecryptable++;
    } else if (!is_current(v, field, envelope.key_id)) {
        out->old_key++;
    } else if (!same || envelope.algorithm != field->algorithm ||
               envelope.field_id != field->field_id) {
        out->mismatched++;
    } else {
        out->current++;
    }
    return RK_OK;
}

static enum rk_status verify_other(struct rk_verifier *v, const struct rk_field *field,
                                   const struct rk_value *value, struct rk_field_census *out)
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
        enum rk_status status = open_result(rk_legacy_open(v->aead, v->keys, format, value->type,
                                                           value->data, value->len, &v->scratch),
                                            &opens);
        rk_buf_cleanse(&v->scratch);
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
static void count_elsewhere(struct rk_verifier *v, const uint8_t *data, uint32_t len, int sign)
{
    struct rk_envelope envelope;
    bool parsed = rk_envelope_parse(data + BINARY_HEAD_LEN, len - BINARY_HEAD_LEN, &envelope);
    const struct rk_keyset_key *key = parsed ? rk_keyset_known(v->keys, envelope.key_id) : NULL;
    v->census->elsewhere += sign;
    v->census->elsewhere_old_key += key == NULL || key->role != RK_KEY_WRITES ? sign : 0;
}

/* Counts every envelope of a document; verify_value takes those at protected paths back. */
static enum rk_status count_any(void *arg, const uint8_t *data, uint32_t len)
{
    struct rk_verifier *v = arg;
    if (v->policy != NULL) {
        count_elsewhere(v, data, len, 1);
    }
    return rk_usage_add_value(&v->census->usage, data, len);
}

static enum rk_status verify_value(void *arg, const struct rk_field *field,
                                   const struct rk_value *value, const char *path, size_t path_len)
{
    struct rk_verifier *v = arg;
    struct rk_field_census *out = &v->census->fields[field - v->policy->fields];
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

static enum rk_status count_document(struct rk_verifier *v, const struct rk_bson_view *doc)
{
    enum rk_status status = rk_envelopes_visit(doc, count_any, v);
    if (status == RK_OK && v->policy != NULL) {
        rk_tenant_of_document(v->policy, doc, &v->tenant);
        status = rk_protected_values(&v->policy->root, doc, &v->path, verify_value, v);
    }
    v->census->documents += status == RK_OK ? 1 : 0;
    return status;
}

/* ---- values that the provider opens: a pass over many documents that asks, one that counts */

static enum rk_status count_held(struct rk_verifier *v)
{
    enum rk_status status = RK_OK;
    rk_census_clear(&v->held_census);
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

static enum rk_status count_in_passes(struct rk_verifier *v, struct rk_remote **remote)
{
    uint64_t random = v->random;
    enum rk_status status = count_held(v);
    while (status == RK_OK && rk_remote_wanted(*remote)) {
        v->random = random; /* the same values are chosen */
        status = rk_values_wait(v->options.service, remote, &never, &v->failure);
        rk_remote_rewind(*remote);
        if (status == RK_OK) {
            status = count_held(v);
        }
    }
    return status;
}

static enum rk_status settle_held(struct rk_verifier *v)
{
    enum rk_status status = RK_ENOMEM;
    struct rk_remote *remote =
        rk_remote_new(RK_JOBS_REMOTE_BYTES_MAX, (uint32_t)(rk_clock_wall_ms() / 1000));
    if (remote != NULL) {
        rk_aead_set_remote(v->aead, remote);
        v->census = &v->held_census;
        status = count_in_passes(v, &remote);
        v->census = v->total;
        rk_aead_set_remote(v->aead, NULL);
    }
    rk_buf_clear(&v->held);
    rk_remote_free(remote);
    return status == RK_OK ? rk_census_add(v->total, &v->held_census) : status;
}

static enum rk_status tell(struct rk_verifier *v, enum rk_status status, struct rk_error *err)
{
    if (status == RK_OK) {
        return RK_OK;
    }
    const char *why = v->failure.message[0] != '\0' ? v->failure.message : rk_status_name(status);
    return rk_error_set(err, status, "cannot look through a document: %s", why);
}

enum rk_status rk_verifier_add(struct rk_verifier *v, const struct rk_bson_view *doc,
                               struct rk_error *err)
{
    v->failure.message[0] = '\0';
    if (!v->outside) {
        return tell(v, count_document(v, doc), err);
    }
    enum rk_status status = rk_buf_append(&v->held, doc->data, doc->len);
    return tell(v, status == RK_OK && v->held.len >= HELD_BYTES ? settle_held(v) : status, err);
}

enum rk_status rk_verifier_settle(struct rk_verifier *v, struct rk_error *err)
{
    v->failure.message[0] = '\0';
    enum rk_status status = v->held.len > 0 ? settle_held(v) : RK_OK;
    if (v->policy != NULL) {
        refresh_keys(v);
        v->absent = 0;
    }
    return tell(v, status, err);
}

void rk_verifier_expect(struct rk_verifier *v, int64_t documents)
{
    v->expected = documents;
}

enum rk_status rk_verifier_new(const struct rk_verify_options *options,
                               const struct rk_policy *policy, struct rk_census *census,
                               struct rk_verifier **out, struct rk_error *err)
{
    struct rk_verifier *v = calloc(1, sizeof *v);
    *out = v;
    if (v == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    v->total = v->census = census;
    v->random = rk_clock_mono_us() | 1u;
    rk_buf_init(&v->path, PATH_MAX_BYTES);
    rk_buf_init(&v->scratch, SCRATCH_MAX);
    rk_buf_init(&v->again, SCRATCH_MAX);
    rk_buf_init(&v->held, HELD_BYTES_MAX);
    if (options == NULL || policy == NULL) {
        return RK_OK;
    }
    v->options = *options;
    v->policy = policy;
    v->outside = rk_key_service_answers(options->service);
    refresh_keys(v);
    if (rk_census_init(&v->held_census, policy) != RK_OK) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    return rk_aead_new(&v->aead, err);
}

void rk_verifier_free(struct rk_verifier *v)
{
    if (v == NULL) {
        return;
    }
    rk_census_deinit(&v->held_census);
    rk_keyset_unref(v->keys);
    rk_aead_free(v->aead);
    rk_buf_cleanse(&v->scratch);
    rk_buf_deinit(&v->scratch);
    rk_buf_deinit(&v->again);
    rk_buf_deinit(&v->held);
    rk_buf_deinit(&v->path);
    free(v);
}
