/* Signing off what a verification has proved (see proof.h). */
#include "command_internal.h"
#include "verify_internal.h"

#include <rekey/jobs/proof.h>
#include <rekey/jobs/store.h>
#include <rekey/keys/audit.h>
#include <string.h>

#define JOBS_MAX 1000

struct signing {
    const struct rk_proof *proof;
    const bson_oid_t *job;
    const char *actor;
};

static enum rk_status sign(mongoc_client_t *client, const char *state_db, void *arg,
                           struct rk_error *err)
{
    const struct signing *s = arg;
    bson_oid_t proof_id;
    bson_t reply;
    bson_oid_init_from_string(&proof_id, s->proof->id);
    bson_t *command = BCON_NEW(
        "update", BCON_UTF8("jobs"), "updates", "[", "{", "q", "{", "_id", BCON_OID(s->job),
        "state", BCON_UTF8("complete"), "verifiedAt", "{", "$exists", BCON_BOOL(false), "}", "}",
        "u", "{", "$set", "{", "verifiedBy", BCON_UTF8(s->actor), "proof", BCON_OID(&proof_id), "}",
        "$currentDate", "{", "verifiedAt", BCON_BOOL(true), "}", "}", "}", "]");
    rk_mongo_majority_writes(command);
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_check_writes(&reply, "to sign the job off", err);
    }
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK) {
        status = rk_view_int(&view, "n") == 0
                     ? rk_error_set(err, RK_ESTATE, "it was signed off or removed meanwhile")
                     : rk_error_set(err, RK_OK, "proof %s: %lld documents", s->proof->id,
                                    (long long)rk_proof_documents(s->proof));
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

static enum rk_status sign_job(mongoc_client_t *client, const char *state_db,
                               const struct rk_proof *proof, const bson_oid_t *job,
                               const char *actor, int64_t *n, struct rk_error *err)
{
    char id[RK_JOB_ID_LEN];
    struct signing signing = {proof, job, actor};
    bson_oid_to_string(job, id);
    const struct rk_audit_event event = {
        .actor = actor, .action = "job.verify", .target = id, .detail = proof->id};
    enum rk_status status = rk_audited(client, state_db, &event, sign, &signing, err);
    *n += status == RK_OK;
    return status == RK_ESTATE ? RK_OK : status; /* what was proved, was */
}

/* Jobs that had ended when the counting began, and that nobody has signed yet. */
static bson_t *find_jobs(const struct rk_proof_part *part)
{
    return BCON_NEW("find", BCON_UTF8("jobs"), "filter", "{", "ns", BCON_UTF8(part->ns), "state",
                    BCON_UTF8("complete"), "completedAt", "{", "$lte",
                    BCON_DATE_TIME(part->started_at_ms), "}", "verifiedAt", "{", "$exists",
                    BCON_BOOL(false), "}", "}", "projection", "{", "_id", BCON_INT32(1), "}",
                    "limit", BCON_INT32(JOBS_MAX), "batchSize", BCON_INT32(JOBS_MAX), "readConcern",
                    "{", "level", BCON_UTF8("majority"), "}");
}

static enum rk_status sign_part(mongoc_client_t *client, const char *state_db,
                                const struct rk_proof *proof, const struct rk_proof_part *part,
                                const char *actor, int64_t *n, struct rk_error *err)
{
    struct rk_bson_view job;
    struct rk_bson_iter iter;
    bson_t reply;
    bson_t *command = find_jobs(part);
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_batch(&reply, &iter, err);
    }
    while (status == RK_OK && rk_batch_next(&iter, &job)) {
        bson_oid_t id;
        if (rk_view_oid(&job, "_id", &id)) {
            status = sign_job(client, state_db, proof, &id, actor, n, err);
        }
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

enum rk_status rk_proof_sign(mongoc_client_t *client, const char *state_db,
                             const struct rk_proof *proof, const char *actor, int64_t *n,
                             struct rk_error *err)
{
    enum rk_status status = RK_OK;
    *n = 0;
    for (size_t i = 0; i < proof->n_parts && status == RK_OK; i++) {
        const struct rk_proof_part *part = &proof->parts[i];
        if (rk_census_holds(&part->census)) {
            status = sign_part(client, state_db, proof, part, actor, n, err);
        }
    }
    return status;
}
