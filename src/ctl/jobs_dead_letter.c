/* One dead letter: its fields as people and programs read them; rekeyctl dead-letters show. Of the
 * raw value only what it is, never its bytes. */
#include "jobs_internal.h"

#include <rekey/crypto/envelope.h>
#include <rekey/jobs/dead_letters.h>

#include <bson/bson.h>
#include <mongoc/mongoc.h>
#include <string.h>

const char *rk_ctl_letter_text(const bson_t *entry, const char *key)
{
    bson_iter_t iter;
    bson_iter_t found;
    return bson_iter_init(&iter, entry) && bson_iter_find_descendant(&iter, key, &found) &&
                   BSON_ITER_HOLDS_UTF8(&found)
               ? bson_iter_utf8(&found, NULL)
               : "";
}

int64_t rk_ctl_letter_number(const bson_t *entry, const char *key)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, entry, key) ? bson_iter_as_int64(&iter) : 0;
}

int64_t rk_ctl_letter_date(const bson_t *entry, const char *key)
{
    bson_iter_t iter;
    bson_iter_t found;
    return bson_iter_init(&iter, entry) && bson_iter_find_descendant(&iter, key, &found) &&
                   BSON_ITER_HOLDS_DATE_TIME(&found)
               ? bson_iter_date_time(&found)
               : 0;
}

const char *rk_ctl_letter_id(const bson_t *entry, char out[RK_CTL_LETTER_ID_LEN])
{
    bson_iter_t iter;
    out[0] = '\0';
    if (bson_iter_init_find(&iter, entry, "_id") && BSON_ITER_HOLDS_OID(&iter)) {
        bson_oid_to_string(bson_iter_oid(&iter), out);
    }
    return out;
}

char *rk_ctl_letter_doc_id(const bson_t *entry)
{
    bson_t only = BSON_INITIALIZER;
    bson_iter_t iter;
    if (bson_iter_init_find(&iter, entry, "docId")) {
        bson_append_iter(&only, "_id", -1, &iter);
    }
    char *text = bson_as_relaxed_extended_json(&only, NULL);
    bson_destroy(&only);
    return text;
}

static bool flag_of(const bson_t *entry, const char *key)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, entry, key) && bson_iter_as_bool(&iter);
}

const char *rk_ctl_letter_state(const bson_t *entry)
{
    if (flag_of(entry, "resolved")) {
        return "resolved";
    }
    if (bson_has_field(entry, "discarded")) {
        return "discarded";
    }
    return flag_of(entry, "retry") ? "retry asked" : "open";
}

void rk_ctl_append_letter(bson_t *doc, const bson_t *entry)
{
    char id[RK_CTL_LETTER_ID_LEN];
    char when[RK_CTL_TIME_LEN];
    bson_iter_t iter;
    bson_t discarded;
    BSON_APPEND_UTF8(doc, "id", rk_ctl_letter_id(entry, id));
    BSON_APPEND_UTF8(doc, "ns", rk_ctl_letter_text(entry, "ns"));
    if (bson_iter_init_find(&iter, entry, "docId")) {
        bson_append_iter(doc, "docId", -1, &iter);
    }
    BSON_APPEND_UTF8(doc, "path", rk_ctl_letter_text(entry, "path"));
    BSON_APPEND_UTF8(doc, "reason", rk_ctl_letter_text(entry, "reason"));
    BSON_APPEND_INT64(doc, "attempts", rk_ctl_letter_number(entry, "attempts"));
    BSON_APPEND_UTF8(doc, "firstSeen", rk_ctl_time(rk_ctl_letter_date(entry, "firstSeen"), when));
    BSON_APPEND_UTF8(doc, "lastSeen", rk_ctl_time(rk_ctl_letter_date(entry, "lastSeen"), when));
    BSON_APPEND_BOOL(doc, "resolved", flag_of(entry, "resolved"));
    BSON_APPEND_BOOL(doc, "retry", flag_of(entry, "retry"));
    BSON_APPEND_UTF8(doc, "state", rk_ctl_letter_state(entry));
    if (bson_has_field(entry, "discarded")) {
        BSON_APPEND_DOCUMENT_BEGIN(doc, "discarded", &discarded);
        BSON_APPEND_UTF8(&discarded, "by", rk_ctl_letter_text(entry, "discarded.by"));
        BSON_APPEND_UTF8(&discarded, "at",
                         rk_ctl_time(rk_ctl_letter_date(entry, "discarded.at"), when));
        BSON_APPEND_UTF8(&discarded, "reason", rk_ctl_letter_text(entry, "discarded.reason"));
        bson_append_document_end(doc, &discarded);
    }
}

/* What a raw value is. */
struct raw {
    const char *type;
    int64_t bytes;
    bool claims; /* to be an envelope */
    bool parsed;
    struct rk_envelope envelope;
};

static const char *type_name(bson_type_t type)
{
    static const char *const names[] = {
        [BSON_TYPE_DOUBLE] = "double",
        [BSON_TYPE_UTF8] = "string",
        [BSON_TYPE_DOCUMENT] = "object",
        [BSON_TYPE_ARRAY] = "array",
        [BSON_TYPE_BINARY] = "binData",
        [BSON_TYPE_UNDEFINED] = "undefined",
        [BSON_TYPE_OID] = "objectId",
        [BSON_TYPE_BOOL] = "bool",
        [BSON_TYPE_DATE_TIME] = "date",
        [BSON_TYPE_NULL] = "null",
        [BSON_TYPE_REGEX] = "regex",
        [BSON_TYPE_DBPOINTER] = "dbPointer",
        [BSON_TYPE_CODE] = "javascript",
        [BSON_TYPE_SYMBOL] = "symbol",
        [BSON_TYPE_CODEWSCOPE] = "javascriptWithScope",
        [BSON_TYPE_INT32] = "int",
        [BSON_TYPE_TIMESTAMP] = "timestamp",
        [BSON_TYPE_INT64] = "long",
        [BSON_TYPE_DECIMAL128] = "decimal",
    };
    size_t i = (size_t)type;
    return i < sizeof names / sizeof names[0] && names[i] != NULL ? names[i] : "other";
}

/* False: none is stored. */
static bool read_raw(const bson_t *entry, struct raw *raw)
{
    bson_iter_t iter;
    bson_subtype_t subtype;
    uint32_t len;
    const uint8_t *data;
    *raw = (struct raw){0};
    if (!bson_iter_init_find(&iter, entry, "raw")) {
        return false;
    }
    raw->type = type_name(bson_iter_type(&iter));
    if (BSON_ITER_HOLDS_UTF8(&iter)) {
        (void)bson_iter_utf8(&iter, &len);
        raw->bytes = len;
    } else if (BSON_ITER_HOLDS_BINARY(&iter)) {
        bson_iter_binary(&iter, &subtype, &len, &data);
        raw->bytes = len;
        raw->claims = rk_envelope_claims((uint8_t)subtype, data, len);
        raw->parsed = raw->claims && rk_envelope_parse(data, len, &raw->envelope);
    } else {
        bson_t alone = BSON_INITIALIZER;
        bson_append_iter(&alone, "", 0, &iter);
        raw->bytes = (int64_t)alone.len - 7; /* of a document with one field without a name */
        bson_destroy(&alone);
    }
    return true;
}

static const char *algorithm_name(const struct rk_envelope *envelope)
{
    return envelope->algorithm == RK_ALGORITHM_DETERMINISTIC ? "deterministic" : "random";
}

static void append_raw(bson_t *doc, const struct raw *raw)
{
    bson_t out;
    bson_t envelope;
    char when[RK_CTL_TIME_LEN];
    BSON_APPEND_DOCUMENT_BEGIN(doc, "raw", &out);
    BSON_APPEND_UTF8(&out, "type", raw->type);
    BSON_APPEND_INT64(&out, "bytes", raw->bytes);
    BSON_APPEND_BOOL(&out, "damagedEnvelope", raw->claims && !raw->parsed);
    if (raw->parsed) {
        const struct rk_envelope *e = &raw->envelope;
        BSON_APPEND_DOCUMENT_BEGIN(&out, "envelope", &envelope);
        BSON_APPEND_INT64(&envelope, "keyId", (int64_t)e->key_id);
        BSON_APPEND_UTF8(&envelope, "algorithm", algorithm_name(e));
        BSON_APPEND_UTF8(&envelope, "type", type_name((bson_type_t)e->bson_type));
        BSON_APPEND_UTF8(&envelope, "encryptedAt",
                         rk_ctl_time((int64_t)e->encrypted_at_s * 1000, when));
        BSON_APPEND_BOOL(&envelope, "byProvider", e->remote);
        bson_append_document_end(&out, &envelope);
    }
    bson_append_document_end(doc, &out);
}

static void print_raw(const struct raw *raw)
{
    char when[RK_CTL_TIME_LEN];
    char number[RK_CTL_NUMBER_LEN];
    (void)printf("raw value:   %s, %s bytes\n", raw->type, rk_ctl_number(raw->bytes, number));
    if (raw->parsed) {
        const struct rk_envelope *e = &raw->envelope;
        (void)printf("encrypted:   under key %u%s, %s, a value of type %s, at %s\n", e->key_id,
                     e->remote ? " by its provider" : "", algorithm_name(e),
                     type_name((bson_type_t)e->bson_type),
                     rk_ctl_time((int64_t)e->encrypted_at_s * 1000, when));
    } else if (raw->claims) {
        (void)printf("encrypted:   the header is damaged\n");
    }
}

static void print_text(const bson_t *entry)
{
    char id[RK_CTL_LETTER_ID_LEN];
    char when[2][RK_CTL_TIME_LEN];
    struct raw raw;
    char *doc_id = rk_ctl_letter_doc_id(entry);
    (void)printf("dead letter: %s, %s\n", rk_ctl_letter_id(entry, id), rk_ctl_letter_state(entry));
    (void)printf("namespace:   %s\n", rk_ctl_letter_text(entry, "ns"));
    (void)printf("document:    %s\n", doc_id != NULL ? doc_id : "");
    (void)printf("path:        %s\n", rk_ctl_letter_text(entry, "path"));
    (void)printf("reason:      %s\n", rk_ctl_letter_text(entry, "reason"));
    (void)printf("attempts:    %lld, first %s, last %s\n",
                 (long long)rk_ctl_letter_number(entry, "attempts"),
                 rk_ctl_time(rk_ctl_letter_date(entry, "firstSeen"), when[0]),
                 rk_ctl_time(rk_ctl_letter_date(entry, "lastSeen"), when[1]));
    if (read_raw(entry, &raw)) {
        print_raw(&raw);
    } else {
        (void)printf("raw value:   not kept\n");
    }
    if (bson_has_field(entry, "discarded")) {
        (void)printf("discarded:   by %s at %s: %s\n", rk_ctl_letter_text(entry, "discarded.by"),
                     rk_ctl_time(rk_ctl_letter_date(entry, "discarded.at"), when[0]),
                     rk_ctl_letter_text(entry, "discarded.reason"));
    }
    bson_free(doc_id);
}

static void print_entry(void *arg, const bson_t *entry)
{
    const struct rk_ctl *ctl = arg;
    struct raw raw;
    if (!ctl->json) {
        print_text(entry);
        return;
    }
    bson_t doc = BSON_INITIALIZER;
    rk_ctl_append_letter(&doc, entry);
    if (read_raw(entry, &raw)) {
        append_raw(&doc, &raw);
    }
    (void)rk_ctl_print_json(&doc);
    bson_destroy(&doc);
}

enum rk_ctl_exit rk_ctl_run_dead_letters_show(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    if (argc != 2) {
        return rk_ctl_usage("dead-letters show takes the id of one");
    }
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status = rk_dead_letters_get(client, ctl->config->upstream.state_db, argv[1],
                                                print_entry, ctl, &err);
    mongoc_client_pool_push(ctl->client_pool, client);
    return status == RK_OK ? RK_CTL_OK : rk_ctl_job_fail(&err);
}
