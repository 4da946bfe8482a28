#include "preflight_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CODE_UNAUTHORIZED 13

void rk_preflight_init(struct rk_preflight *preflight)
{
    preflight->shard_key.len = 0;
    preflight->warnings = bson_new();
}

void rk_preflight_deinit(struct rk_preflight *preflight)
{
    bson_destroy(preflight->warnings);
}

struct look {
    mongoc_client_t *client;
    const struct rk_ns *ns;
    const struct rk_policy *policy;
    struct rk_preflight *out;
};

__attribute__((format(printf, 2, 3))) static void warn(const struct look *look, const char *format,
                                                       ...)
{
    char text[512];
    char buf[16];
    const char *key;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    bson_uint32_to_string(bson_count_keys(look->out->warnings), &key, buf, sizeof buf);
    BSON_APPEND_UTF8(look->out->warnings, key, text);
}

/* Runs a command whose reply is a cursor's first batch. */
static enum rk_status first_batch(const struct look *look, const char *db, bson_t *command,
                                  bson_t *reply, struct rk_bson_iter *iter, struct rk_error *err)
{
    enum rk_status status = rk_command_run_bson(look->client, db, command, reply, err);
    bson_destroy(command);
    return status == RK_OK ? rk_reply_batch(reply, iter, err) : status;
}

static bool text_is(const struct rk_bson_view *doc, const char *key, const char *wanted)
{
    struct rk_bson_elem elem;
    const char *text;
    uint32_t len;
    return rk_bson_find(doc, key, &elem) && rk_bson_elem_utf8(&elem, &text, &len) &&
           len == strlen(wanted) && memcmp(text, wanted, len) == 0;
}

static bool flag(const struct rk_bson_view *doc, const char *key)
{
    struct rk_bson_elem elem;
    return rk_bson_find(doc, key, &elem) && rk_bson_elem_truthy(&elem);
}

static void look_at_options(const struct look *look, const struct rk_bson_view *options)
{
    struct rk_bson_elem elem;
    struct rk_bson_view validator;
    if (flag(options, "capped")) {
        warn(look,
             "%s is capped: where documents grow, mongod removes the oldest with the next insert "
             "(before 5.0 it refuses to let them grow, and they become dead letters)",
             look->ns->full);
    }
    if (rk_bson_find(options, "validator", &elem) && rk_bson_elem_view(&elem, &validator) &&
        validator.len > 5 && !text_is(options, "validationAction", "warn") &&
        !text_is(options, "validationLevel", "off")) {
        warn(look, "%s has a validator: documents that it refuses become dead letters",
             look->ns->full);
    }
}

static enum rk_status look_at_collection(const struct look *look, struct rk_error *err)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view doc;
    struct rk_bson_view options;
    const char *full = look->ns->full;
    const char *type = "";
    uint32_t type_len = 0;
    bson_t reply;
    enum rk_status status = first_batch(look, look->ns->db,
                                        BCON_NEW("listCollections", BCON_INT32(1), "filter", "{",
                                                 "name", BCON_UTF8(look->ns->coll), "}"),
                                        &reply, &iter, err);
    if (status != RK_OK) {
        goto done;
    }
    if (!rk_batch_next(&iter, &doc)) {
        status = rk_error_set(err, RK_EREFUSED, "there is no collection %s", full);
        goto done;
    }
    if (rk_bson_find(&doc, "type", &elem)) {
        (void)rk_bson_elem_utf8(&elem, &type, &type_len);
    }
    if (!text_is(&doc, "type", "collection")) {
        status =
            rk_error_set(err, RK_EREFUSED, "%s is a %.*s, not a collection of documents of its own",
                         full, (int)type_len, type);
        goto done;
    }
    bool has_options = rk_bson_find(&doc, "options", &elem) && rk_bson_elem_view(&elem, &options);
    if (!rk_bson_find(&doc, "idIndex", &elem) &&
        !(has_options && rk_bson_find(&options, "clusteredIndex", &elem))) {
        status =
            rk_error_set(err, RK_EREFUSED,
                         "%s has no index on _id, which a sweep goes along; create it first", full);
        goto done;
    }
    if (has_options) {
        look_at_options(look, &options);
    }
done:
    bson_destroy(&reply);
    return status;
}

static void look_at_unique(const struct look *look, const struct rk_bson_view *index,
                           const struct rk_bson_view *key)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem path;
    struct rk_bson_elem elem;
    const char *name = "";
    uint32_t name_len = 0;
    if (rk_bson_find(index, "name", &elem)) {
        (void)rk_bson_elem_utf8(&elem, &name, &name_len);
    }
    rk_bson_iter_init(&iter, key);
    while (rk_bson_next(&iter, &path) == RK_BSON_STEP_ELEM) {
        if (rk_path_relate(look->policy, path.key, path.key_len).relation != RK_PATH_UNRELATED) {
            warn(look,
                 "%s: the unique index %.*s covers the protected path %s; of values that are equal "
                 "but lie under two keys, all but one become dead letters",
                 look->ns->full, (int)name_len, name, path.key);
            return;
        }
    }
}

static enum rk_status look_at_indexes(const struct look *look, struct rk_error *err)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view index;
    struct rk_bson_view key;
    bson_t reply;
    enum rk_status status = first_batch(
        look, look->ns->db, BCON_NEW("listIndexes", BCON_UTF8(look->ns->coll)), &reply, &iter, err);
    while (status == RK_OK && rk_batch_next(&iter, &index)) {
        if (flag(&index, "unique") && rk_bson_find(&index, "key", &elem) &&
            rk_bson_elem_view(&elem, &key)) {
            look_at_unique(look, &index, &key);
        }
    }
    bson_destroy(&reply);
    return status;
}

static bool is_mongos(const struct look *look, struct rk_error *err)
{
    bson_t reply;
    bson_t *command = BCON_NEW("hello", BCON_INT32(1));
    bool known = rk_command_run_bson(look->client, "admin", command, &reply, err) == RK_OK;
    struct rk_bson_view view = rk_reply_view(&reply);
    bool mongos = !known || text_is(&view, "msg", "isdbgrid");
    bson_destroy(&reply);
    bson_destroy(command);
    return mongos;
}

struct refusal {
    const struct look *look;
    enum rk_status status;
    struct rk_error *err;
};

static void refuse_protected(void *arg, const char *path, size_t len)
{
    struct refusal *r = arg;
    if (rk_path_relate(r->look->policy, path, len).relation != RK_PATH_UNRELATED) {
        r->status = rk_error_set(r->err, RK_EREFUSED,
                                 "%s is sharded by \"%.*s\", which is protected: values of a shard "
                                 "key cannot be encrypted anew where they lie",
                                 r->look->ns->full, (int)len, path);
    }
}

static enum rk_status take_shard_key(const struct look *look, const struct rk_bson_view *key,
                                     struct rk_error *err)
{
    struct refusal refusal = {look, RK_OK, err};
    if (!rk_shard_key_set(&look->out->shard_key, key)) {
        return rk_error_set(err, RK_EREFUSED, "the shard key of %s has more than %u bytes",
                            look->ns->full, RK_SHARD_KEY_BYTES_MAX);
    }
    rk_shard_key_paths(&look->out->shard_key, refuse_protected, &refusal);
    return refusal.status;
}

/* config.collections has a document for each sharded collection; behind a replica set that is none
 * of a cluster's there is nothing. (MongoDB manual, "Config Database") */
static enum rk_status look_at_shards(const struct look *look, struct rk_error *err)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view doc;
    struct rk_bson_view key;
    struct rk_error cause = {0};
    bson_t reply;
    enum rk_status status = first_batch(
        look, "config",
        BCON_NEW("find", BCON_UTF8("collections"), "filter", "{", "_id", BCON_UTF8(look->ns->full),
                 "dropped", "{", "$ne", BCON_BOOL(true), "}", "unsplittable", "{", "$ne",
                 BCON_BOOL(true), "}", "}", "limit", BCON_INT32(1)),
        &reply, &iter, &cause);
    if (status == RK_OK && rk_batch_next(&iter, &doc)) {
        status = rk_bson_find(&doc, "key", &elem) && rk_bson_elem_view(&elem, &key)
                     ? take_shard_key(look, &key, &cause)
                     : rk_error_set(&cause, RK_EREFUSED, "config.collections has no key for %s",
                                    look->ns->full);
    }
    if (status == RK_EREFUSED && cause.code == CODE_UNAUTHORIZED && !is_mongos(look, NULL)) {
        status = RK_OK;
    }
    if (status != RK_OK && err != NULL) {
        *err = cause;
    }
    bson_destroy(&reply);
    return status;
}

enum rk_status rk_preflight(mongoc_client_t *client, const struct rk_ns *ns,
                            const struct rk_policy *policy, struct rk_preflight *preflight,
                            struct rk_error *err)
{
    struct look look = {client, ns, policy, preflight};
    if (strncmp(ns->coll, "system.", strlen("system.")) == 0) {
        return rk_error_set(err, RK_EREFUSED, "%s is mongod's own", ns->full);
    }
    enum rk_status status = look_at_collection(&look, err);
    if (status == RK_OK) {
        status = look_at_indexes(&look, err);
    }
    return status == RK_OK ? look_at_shards(&look, err) : status;
}
