#include "command_internal.h"
#include "transform_internal.h"

#include <rekey/jobs/estimate.h>
#include <rekey/policy/tenant.h>

#include <string.h>

#define PATH_MAX_BYTES 65536u

struct look {
    const struct rk_estimate_options *options;
    struct rk_estimate *out;
    struct rk_tenant tenant; /* of the document at hand */
    bool needs;              /* the document */
};

static void count_key(struct rk_estimate *out, uint32_t id)
{
    size_t i = 0;
    while (i < out->n_keys && out->keys[i].id != id) {
        i++;
    }
    if (i < RK_ESTIMATE_KEYS_MAX) {
        out->keys[i].id = id;
        out->keys[i].values++;
        out->n_keys += i == out->n_keys;
    }
}

static bool is_current(const struct look *look, const struct rk_field *field, uint32_t id)
{
    char buf[RK_KEY_NAME_SIZE];
    const char *name = rk_tenant_key(&look->tenant, field, buf);
    for (size_t i = 0; name != NULL && i < look->options->n_keys; i++) {
        const struct rk_key_record *key = &look->options->keys[i];
        if (key->id == id) {
            return key->state == RK_KEY_CURRENT && strcmp(key->name, name) == 0;
        }
    }
    return false;
}

static enum rk_status look_at_value(void *arg, const struct rk_field *field,
                                    const struct rk_value *value, const char *path, size_t path_len)
{
    struct look *look = arg;
    struct rk_envelope envelope;
    (void)path;
    (void)path_len;
    if (value->type == RK_BSON_NULL || value->type == RK_BSON_UNDEFINED) {
        return RK_OK;
    }
    bool claims = rk_value_is_envelope(value);
    if (claims && rk_envelope_parse(value->data + RK_BINARY_HEAD_LEN,
                                    value->len - RK_BINARY_HEAD_LEN, &envelope)) {
        bool done = is_current(look, field, envelope.key_id) &&
                    envelope.algorithm == field->algorithm && envelope.field_id == field->field_id;
        count_key(look->out, envelope.key_id);
        look->out->current += done;
        look->needs = look->needs || (!done && !look->options->encrypt);
    } else if (!claims && rk_value_is_legacy(field, value)) {
        look->out->legacy++;
        look->needs = look->needs || !look->options->encrypt;
    } else if (!claims) {
        look->out->plaintext++;
        look->needs = look->needs || look->options->encrypt;
    }
    return RK_OK;
}

static enum rk_status look_at_documents(mongoc_cursor_t *cursor, const struct rk_policy *policy,
                                        struct look *look, struct rk_error *err)
{
    struct rk_buf path;
    const bson_t *doc;
    bson_error_t cause;
    enum rk_status status = RK_OK;
    rk_buf_init(&path, PATH_MAX_BYTES);
    while (status == RK_OK && mongoc_cursor_next(cursor, &doc)) {
        const struct rk_bson_view view = rk_reply_view(doc);
        look->needs = false;
        rk_tenant_of_document(policy, &view, &look->tenant);
        status = rk_protected_values(&policy->root, &view, &path, look_at_value, look);
        look->out->sampled++;
        look->out->needing += look->needs;
    }
    rk_buf_deinit(&path);
    if (status != RK_OK) {
        return rk_error_set(err, status, "cannot read a document of %s", policy->ns);
    }
    return mongoc_cursor_error(cursor, &cause)
               ? rk_error_set_code(err, RK_EIO, (int)cause.code, "%s", cause.message)
               : RK_OK;
}

static enum rk_status read_size(mongoc_client_t *client, const struct rk_ns *ns,
                                struct rk_estimate *out, struct rk_error *err)
{
    bson_t reply;
    bson_t *command = BCON_NEW("collStats", BCON_UTF8(ns->coll));
    enum rk_status status = rk_command_run_bson(client, ns->db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK) {
        out->documents = rk_view_int(&view, "count");
        out->bytes = rk_view_int(&view, "size");
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

enum rk_status rk_estimate(mongoc_client_t *client, const char *ns_text,
                           const struct rk_estimate_options *options, struct rk_estimate *out,
                           struct rk_error *err)
{
    struct rk_ns ns;
    struct look look = {.options = options, .out = out};
    *out = (struct rk_estimate){0};
    const struct rk_policy *policy =
        rk_ns_parse(&ns, ns_text)
            ? rk_policy_find(options->policies, ns.db, strlen(ns.db), ns.coll, strlen(ns.coll))
            : NULL;
    if (policy == NULL) {
        return rk_error_set(err, RK_ENOENT, "no policy protects %s", ns_text);
    }
    enum rk_status status = read_size(client, &ns, out, err);
    if (status != RK_OK) {
        return status;
    }
    mongoc_collection_t *collection = mongoc_client_get_collection(client, ns.db, ns.coll);
    bson_t *pipeline = BCON_NEW("pipeline", "[", "{", "$sample", "{", "size",
                                BCON_INT64((int64_t)options->sample), "}", "}", "]");
    mongoc_cursor_t *cursor =
        mongoc_collection_aggregate(collection, MONGOC_QUERY_NONE, pipeline, NULL, NULL);
    status = look_at_documents(cursor, policy, &look, err);
    mongoc_cursor_destroy(cursor);
    bson_destroy(pipeline);
    mongoc_collection_destroy(collection);
    return status;
}

int64_t rk_estimate_needing(const struct rk_estimate *estimate)
{
    return estimate->sampled == 0
               ? 0
               : (int64_t)((double)estimate->documents * (double)estimate->needing /
                           (double)estimate->sampled);
}
