/*
 * What a view that was made past Rekey shows of protected collections. The policy's own answer to
 * its creation decides: where that would have been let through as it is, nothing protected comes
 * out of it, and queries on it need no care.
 */
#include "catalog_internal.h"

#include <rekey/policy/command.h>

#define MESSAGE_BYTES_MAX (48u << 20)

/* {create: coll, viewOn, pipeline, $db: db}, as a client would have sent it. */
static enum rk_status put_message(const struct rk_catalog_entry *entry, struct rk_buf *out)
{
    size_t start = 0;
    bson_t body = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&body, "create", entry->coll);
    BSON_APPEND_UTF8(&body, "viewOn", entry->reads_from[0]);
    bool whole = entry->pipeline == NULL || BSON_APPEND_ARRAY(&body, "pipeline", entry->pipeline);
    BSON_APPEND_UTF8(&body, "$db", entry->db);
    enum rk_status status = whole ? rk_msg_begin(out, 1, 0, 0, &start) : RK_ELIMIT;
    if (status == RK_OK) {
        status = rk_msg_section_body(out);
    }
    if (status == RK_OK) {
        status = rk_buf_append(out, bson_get_data(&body), body.len);
    }
    if (status == RK_OK) {
        rk_msg_end(out, start);
    }
    bson_destroy(&body);
    return status;
}

/* Without any key: what would need one compares something protected. */
static enum rk_verdict judge(const struct rk_policy_set *policies, struct rk_aead *aead,
                             struct rk_keyset *no_keys, const struct rk_buf *message)
{
    struct rk_crypt crypt = {.aead = aead, .keys = no_keys};
    struct rk_command_info info;
    struct rk_error err;
    struct rk_msg msg;
    struct rk_buf out;
    const char *why = NULL;
    enum rk_verdict verdict = RK_VERDICT_REJECT;
    rk_buf_init(&out, MESSAGE_BYTES_MAX);
    rk_buf_init(&crypt.scratch, MESSAGE_BYTES_MAX);
    if (rk_msg_parse(message->data, message->len, &msg, &why) == RK_PARSE_OK) {
        verdict = rk_command_rewrite(policies, &crypt, message->data, message->len, &msg, &out,
                                     &info, &err);
    }
    rk_buf_deinit(&crypt.scratch);
    rk_buf_deinit(&out);
    return verdict;
}

bool rk_catalog_view_is_harmless(const struct rk_catalog_entry *entry,
                                 const struct rk_policy_set *policies)
{
    struct rk_aead *aead = NULL;
    struct rk_keyset *no_keys = NULL;
    struct rk_buf message;
    bool harmless = false;
    rk_buf_init(&message, MESSAGE_BYTES_MAX);
    if (rk_aead_new(&aead, NULL) == RK_OK &&
        rk_keyset_new(NULL, 0, NULL, 0, &no_keys, NULL) == RK_OK &&
        put_message(entry, &message) == RK_OK) {
        harmless = judge(policies, aead, no_keys, &message) == RK_VERDICT_FORWARD;
    }
    rk_buf_deinit(&message);
    rk_keyset_unref(no_keys);
    rk_aead_free(aead);
    return harmless;
}
