/* What rekeyctl verify says. */
#include "prove_internal.h"
#include "verify_internal.h"

#include <bson/bson.h>
#include <stdlib.h>

static void append_usage(bson_t *doc, const struct rk_usage *usage)
{
    bson_t keys;
    BSON_APPEND_DOCUMENT_BEGIN(doc, "keys", &keys);
    for (size_t i = 0; i < usage->n; i++) {
        char buf[16];
        const char *key;
        size_t len = bson_uint32_to_string(usage->keys[i].id, &key, buf, sizeof buf);
        bson_append_int64(&keys, key, (int)len, usage->keys[i].values);
    }
    bson_append_document_end(doc, &keys);
}

static void append_field(bson_t *fields, uint32_t i, const struct rk_field_census *f)
{
    char buf[16];
    const char *key;
    bson_t doc;
    size_t len = bson_uint32_to_string(i, &key, buf, sizeof buf);
    bson_append_document_begin(fields, key, (int)len, &doc);
    BSON_APPEND_UTF8(&doc, "path", f->path);
#define APPEND(member, name) BSON_APPEND_INT64(&doc, name, f->member);
    RK_FIELD_COUNTS(APPEND)
    append_usage(&doc, &f->keys);
    bson_append_document_end(fields, &doc);
}

static void append_part(bson_t *namespaces, uint32_t i, const struct rk_proof_part *part)
{
    const struct rk_census *census = &part->census;
    char buf[16];
    const char *key;
    bson_t entry;
    bson_t fields;
    size_t len = bson_uint32_to_string(i, &key, buf, sizeof buf);
    bson_append_document_begin(namespaces, key, (int)len, &entry);
    BSON_APPEND_UTF8(&entry, "ns", part->ns);
    BSON_APPEND_INT64(&entry, "documents", census->documents);
    BSON_APPEND_BOOL(&entry, "ok", rk_census_holds(census));
    BSON_APPEND_INT64(&entry, "elsewhere", census->elsewhere);
    BSON_APPEND_INT64(&entry, "elsewhereOldKey", census->elsewhere_old_key);
    append_usage(&entry, &census->usage);
    BSON_APPEND_ARRAY_BEGIN(&entry, "fields", &fields);
    for (size_t j = 0; j < census->n_fields; j++) {
        append_field(&fields, (uint32_t)j, &census->fields[j]);
    }
    bson_append_array_end(&entry, &fields);
    bson_append_document_end(namespaces, &entry);
}

static enum rk_ctl_exit print_json(const struct rk_ctl_verified *verified)
{
    const struct rk_proof *proof = verified->proof;
    char when[RK_CTL_TIME_LEN];
    bson_t doc = BSON_INITIALIZER;
    bson_t namespaces;
    BSON_APPEND_BOOL(&doc, "ok", rk_proof_holds(proof));
    BSON_APPEND_INT64(&doc, "currentKey", (int64_t)verified->current_key);
    BSON_APPEND_UTF8(&doc, "proof", proof->id);
    BSON_APPEND_UTF8(&doc, "startedAt", rk_ctl_time(proof->started_at_ms, when));
    BSON_APPEND_UTF8(&doc, "completedAt", rk_ctl_time(proof->completed_at_ms, when));
    BSON_APPEND_BOOL(&doc, "resumed", proof->resumed);
    BSON_APPEND_INT64(&doc, "documents", rk_proof_documents(proof));
    BSON_APPEND_INT64(&doc, "jobsSignedOff", verified->jobs);
    BSON_APPEND_ARRAY_BEGIN(&doc, "namespaces", &namespaces);
    for (size_t i = 0; i < proof->n_parts; i++) {
        append_part(&namespaces, (uint32_t)i, &proof->parts[i]);
    }
    bson_append_array_end(&doc, &namespaces);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_status add_row(struct rk_ctl_table *table, const char *ns,
                              const struct rk_field_census *f)
{
    char n[8][RK_CTL_NUMBER_LEN];
    const char *const cells[] = {
        ns,
        f->path,
        rk_ctl_number(f->current, n[0]),
        rk_ctl_number(f->old_key, n[1]),
        rk_ctl_number(f->mismatched, n[2]),
        rk_ctl_number(f->legacy, n[3]),
        rk_ctl_number(f->plaintext, n[4]),
        rk_ctl_number(f->undecryptable, n[5]),
        rk_ctl_number(f->null, n[6]),
        rk_ctl_number(f->opened, n[7]),
    };
    return rk_ctl_table_row(table, cells);
}

static void print_elsewhere(const struct rk_proof *proof)
{
    char all[RK_CTL_NUMBER_LEN];
    char old[RK_CTL_NUMBER_LEN];
    for (size_t i = 0; i < proof->n_parts; i++) {
        const struct rk_census *census = &proof->parts[i].census;
        if (census->elsewhere > 0) {
            (void)printf("%s: %s encrypted values at paths that no policy protects, %s of them "
                         "not under the current key\n",
                         proof->parts[i].ns, rk_ctl_number(census->elsewhere, all),
                         rk_ctl_number(census->elsewhere_old_key, old));
        }
    }
}

static void print_conclusion(const struct rk_ctl_verified *verified)
{
    char number[RK_CTL_NUMBER_LEN];
    (void)printf("%s documents scanned; %s; proof %s\n",
                 rk_ctl_number(rk_proof_documents(verified->proof), number),
                 rk_proof_holds(verified->proof) ? "every value is under the current key"
                                                 : "NOT every value is under the current key",
                 verified->proof->id);
    if (verified->jobs > 0) {
        (void)printf("signed off %s jobs\n", rk_ctl_number(verified->jobs, number));
    }
}

static enum rk_ctl_exit print_table(const struct rk_proof *proof)
{
    static const char *const headers[] = {"NAMESPACE",  "FIELD",        "CURRENT", "OLD KEY",
                                          "OTHER FORM", "LEGACY",       "PLAIN",   "UNREADABLE",
                                          "NULL",       "OPENED TO SEE"};
    struct rk_ctl_table *table = NULL;
    struct rk_error err;
    enum rk_status status = rk_ctl_table_new(headers, sizeof headers / sizeof headers[0], &table);
    for (size_t i = 0; i < proof->n_parts; i++) {
        const struct rk_proof_part *part = &proof->parts[i];
        for (size_t j = 0; status == RK_OK && j < part->census.n_fields; j++) {
            status = add_row(table, part->ns, &part->census.fields[j]);
        }
    }
    if (status == RK_OK) {
        rk_ctl_table_print(table);
        print_elsewhere(proof);
    } else {
        (void)rk_error_set(&err, status, "cannot print the result: %s", rk_status_name(status));
    }
    rk_ctl_table_free(table);
    return status == RK_OK ? RK_CTL_OK : rk_ctl_fail(&err);
}

enum rk_ctl_exit rk_ctl_print_verified(const struct rk_ctl *ctl,
                                       const struct rk_ctl_verified *verified)
{
    if (ctl->json) {
        return print_json(verified);
    }
    enum rk_ctl_exit code = print_table(verified->proof);
    if (code == RK_CTL_OK) {
        print_conclusion(verified);
    }
    return code;
}
