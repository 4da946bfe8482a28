/* What a pass is bound to, as digests. */
#include "proof_internal.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

static void add(EVP_MD_CTX *ctx, const void *data, size_t len)
{
    uint64_t size = len;
    (void)EVP_DigestUpdate(ctx, &size, sizeof size);
    (void)EVP_DigestUpdate(ctx, data, len);
}

static void add_text(EVP_MD_CTX *ctx, const char *text)
{
    add(ctx, text != NULL ? text : "", text != NULL ? strlen(text) : 0);
}

static void add_int(EVP_MD_CTX *ctx, int64_t n)
{
    add(ctx, &n, sizeof n);
}

/* Empty, which is nobody's digest, when OpenSSL cannot hash. */
static void end(EVP_MD_CTX *ctx, char digest[RK_DIGEST_LEN])
{
    uint8_t bytes[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    digest[0] = '\0';
    if (ctx != NULL && EVP_DigestFinal_ex(ctx, bytes, &len) == 1) {
        for (unsigned i = 0; i < len && 2 * i + 2 < RK_DIGEST_LEN; i++) {
            (void)snprintf(digest + 2 * i, 3, "%02x", bytes[i]);
        }
    }
    EVP_MD_CTX_free(ctx);
}

static EVP_MD_CTX *begin(void)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

static void add_field(EVP_MD_CTX *ctx, const struct rk_field *field)
{
    add_text(ctx, field->path);
    add_text(ctx, field->key);
    add_int(ctx, field->by_tenant);
    add_int(ctx, field->algorithm);
    add_int(ctx, field->field_id);
    for (size_t i = 0; i < field->n_legacy; i++) {
        add_int(ctx, field->legacy[i].cipher);
        add_text(ctx, field->legacy[i].key);
    }
}

void rk_pass_digest(struct rk_pass *pass)
{
    const struct rk_proof_request *request = pass->request;
    EVP_MD_CTX *ctx = begin();
    if (ctx != NULL && request->verify != NULL) {
        add_int(ctx, request->verify->deep);
        add_int(ctx, request->verify->sample);
        for (size_t i = 0; i < rk_policy_set_count(request->policies); i++) {
            const struct rk_policy *policy = rk_policy_set_at(request->policies, i);
            add_text(ctx, policy->ns);
            add_text(ctx, policy->tenant);
            for (size_t j = 0; j < policy->n_fields; j++) {
                add_field(ctx, &policy->fields[j]);
            }
        }
    }
    end(ctx, pass->digest);
}

/* The highest id that is current is the one that is written under (registry.h). */
static bson_t *pipeline(int64_t up_to)
{
    bson_t *match =
        up_to == 0 ? bson_new() : BCON_NEW("first", "{", "$lte", BCON_INT64(up_to), "}");
    bson_t *stages = BCON_NEW(
        "0", "{", "$group", "{", "_id", BCON_UTF8("$name"), "first", "{", "$min", BCON_UTF8("$_id"),
        "}", "last", "{", "$max", BCON_UTF8("$_id"), "}", "current", "{", "$max", "{", "$cond", "[",
        "{", "$eq", "[", BCON_UTF8("$state"), BCON_UTF8("current"), "]", "}", BCON_UTF8("$_id"),
        BCON_INT64(0), "]", "}", "}", "destroyed", "{", "$sum", "{", "$cond", "[", "{", "$eq", "[",
        BCON_UTF8("$state"), BCON_UTF8("destroyed"), "]", "}", BCON_INT64(1), BCON_INT64(0), "]",
        "}", "}", "}", "}", "1", "{", "$match", BCON_DOCUMENT(match), "}", "2", "{", "$sort", "{",
        "first", BCON_INT32(1), "}", "}");
    bson_destroy(match);
    return stages;
}

enum rk_status rk_pass_keys(const struct rk_lease *lease, int64_t *up_to,
                            char digest[RK_DIGEST_LEN], struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    const bson_t *name;
    int64_t last = 0;
    EVP_MD_CTX *ctx = begin();
    bson_t *stages = pipeline(*up_to);
    bson_t *opts = BCON_NEW("readConcern", "{", "level", BCON_UTF8("majority"), "}");
    bson_t array = BSON_INITIALIZER;
    BSON_APPEND_ARRAY(&array, "pipeline", stages);
    mongoc_collection_t *keys =
        mongoc_client_get_collection(lease->client, lease->state_db, "keys");
    mongoc_cursor_t *cursor =
        mongoc_collection_aggregate(keys, MONGOC_QUERY_NONE, &array, opts, NULL);
    while (ctx != NULL && mongoc_cursor_next(cursor, &name)) {
        struct rk_bson_view view = rk_reply_view(name);
        add_int(ctx, rk_view_int(&view, "first"));
        add_int(ctx, rk_view_int(&view, "current"));
        add_int(ctx, rk_view_int(&view, "destroyed"));
        last = rk_view_int(&view, "last") > last ? rk_view_int(&view, "last") : last;
    }
    if (mongoc_cursor_error(cursor, &cause)) {
        status = rk_command_error(err, "cannot read the keys", &cause);
    }
    *up_to = *up_to == 0 ? last : *up_to;
    mongoc_cursor_destroy(cursor);
    mongoc_collection_destroy(keys);
    bson_destroy(&array);
    bson_destroy(opts);
    bson_destroy(stages);
    end(ctx, digest);
    return status == RK_OK && digest[0] == '\0' ? rk_error_set(err, RK_ENOMEM, "cannot hash")
                                                : status;
}
