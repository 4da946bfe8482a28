/*
 * Jobs for the control plane: indexes, creation, and the state changes that people ask for.
 */
#include "preflight_internal.h"

#include <rekey/jobs/store.h>
#include <rekey/jobs/transform.h>
#include <rekey/keys/audit.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A key activated this recently may not have reached every instance; generous, since the time of
 * the first key's activation was taken from another clock than the server's. */
#define KEY_NEW_MS 600000

enum rk_status rk_jobs_prepare(mongoc_client_t *client, const char *state_db, struct rk_error *err)
{
    bson_t *commands[] = {
        BCON_NEW("createIndexes", BCON_UTF8("jobStatus"), "indexes", "[", "{", "key", "{", "jobId",
                 BCON_INT32(1), "state", BCON_INT32(1), "seq", BCON_INT32(1), "}", "name",
                 BCON_UTF8("jobId_state_seq"), "}", "{", "key", "{", "jobId", BCON_INT32(1), "seq",
                 BCON_INT32(1), "}", "name", BCON_UTF8("jobId_seq"), "unique", BCON_BOOL(true), "}",
                 "{", "key", "{", "jobId", BCON_INT32(1), "slot", BCON_INT32(1), "}", "name",
                 BCON_UTF8("jobId_slot"), "unique", BCON_BOOL(true), "partialFilterExpression", "{",
                 "state", BCON_UTF8("running"), "slot", "{", "$exists", BCON_BOOL(true), "}", "}",
                 "}", "]"),
        BCON_NEW("createIndexes", BCON_UTF8("jobs"), "indexes", "[", "{", "key", "{", "ns",
                 BCON_INT32(1), "}", "name", BCON_UTF8("ns_active"), "unique", BCON_BOOL(true),
                 "partialFilterExpression", "{", "active", BCON_BOOL(true), "}", "}", "]"),
        BCON_NEW("createIndexes", BCON_UTF8("deadLetters"), "indexes", "[", "{", "key", "{", "ns",
                 BCON_INT32(1), "docId", BCON_INT32(1), "path", BCON_INT32(1), "}", "name",
                 BCON_UTF8("ns_docId_path"), "unique", BCON_BOOL(true), "}", "{", "key", "{",
                 "resolved", BCON_INT32(1), "retry", BCON_INT32(1), "}", "name",
                 BCON_UTF8("resolved_retry"), "}", "]"),
    };
    enum rk_status status = RK_OK;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (status == RK_OK) {
            bson_t reply;
            status = rk_command_run_bson(client, state_db, commands[i], &reply, err);
            bson_destroy(&reply);
        }
        bson_destroy(commands[i]);
    }
    return status;
}

struct creation {
    const bson_oid_t *id;
    const struct rk_job_spec *spec;
    struct rk_preflight preflight;
    int64_t key_id;
    int64_t activated_at_ms;
};

/* The key that became current last, of whatever name: who knows of it knows of all before it. 0
 * when there is none yet. */
static enum rk_status read_current_key(mongoc_client_t *client, const char *state_db,
                                       int64_t *key_id, int64_t *activated_at_ms,
                                       struct rk_error *err)
{
    static const char *const key_path[] = {"cursor", "firstBatch", "0"};
    struct rk_bson_elem elem;
    struct rk_bson_view key;
    bson_t reply;
    bson_t *command =
        BCON_NEW("find", BCON_UTF8("keys"), "filter", "{", "state", BCON_UTF8("current"), "}",
                 "sort", "{", "activatedAt", BCON_INT32(-1), "_id", BCON_INT32(-1), "}", "limit",
                 BCON_INT32(1), "readConcern", "{", "level", BCON_UTF8("majority"), "}");
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    *key_id = 0;
    *activated_at_ms = 0;
    if (status == RK_OK && rk_view_path(&view, key_path, 3, &elem) &&
        rk_bson_elem_view(&elem, &key)) {
        *key_id = rk_view_int(&key, "_id");
        if (rk_bson_find(&key, "activatedAt", &elem) && elem.type == RK_BSON_DATE) {
            *activated_at_ms = rk_load_i64(elem.value);
        }
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* notBefore: the settling time from now on when the key is new, else now. */
static void put_not_before(bson_t *set, const struct creation *c)
{
    BCON_APPEND(set, "notBefore", "{", "$cond", "[", "{", "$gt", "[",
                BCON_DATE_TIME(c->activated_at_ms), "{", "$subtract", "[", BCON_UTF8("$$NOW"),
                BCON_INT64(KEY_NEW_MS), "]", "}", "]", "}", "{", "$add", "[", BCON_UTF8("$$NOW"),
                BCON_INT64((int64_t)c->spec->settle_ms), "]", "}", BCON_UTF8("$$NOW"), "]", "}");
}

static void put_literal(bson_t *set, const char *key, const char *text)
{
    BCON_APPEND(set, key, "{", "$literal", BCON_UTF8(text), "}");
}

static void put_preflight(bson_t *set, const struct rk_preflight *found)
{
    if (found->shard_key.len > 0) {
        bson_t key;
        if (bson_init_static(&key, found->shard_key.doc, found->shard_key.len)) {
            BCON_APPEND(set, "shardKey", "{", "$literal", BCON_DOCUMENT(&key), "}");
        }
    }
    if (!bson_empty(found->warnings)) {
        BCON_APPEND(set, "warnings", "{", "$literal", BCON_ARRAY(found->warnings), "}");
    }
}

/* An upsert instead of an insert, because only an update can take the server's clock. */
static enum rk_status create(mongoc_client_t *client, const char *state_db, void *arg,
                             struct rk_error *err)
{
    const struct creation *c = arg;
    bson_t reply;
    bson_t set = BSON_INITIALIZER;
    put_literal(&set, "transform", c->spec->transform);
    put_literal(&set, "ns", c->spec->ns);
    put_literal(&set, "createdBy", c->spec->actor);
    put_preflight(&set, &c->preflight);
    BCON_APPEND(&set, "format", BCON_INT32(RK_JOB_FORMAT), "state", BCON_UTF8("planning"), "active",
                BCON_BOOL(true), "createdAt", BCON_UTF8("$$NOW"), "keyId", BCON_INT64(c->key_id),
                "plannerOwner", BCON_NULL, "plannerEpoch", BCON_INT64(0), "planComplete",
                BCON_BOOL(false), "error", BCON_UTF8(""), "priority",
                BCON_INT32(c->spec->terms.priority), "concurrency",
                BCON_INT32((int32_t)c->spec->terms.concurrency));
    put_not_before(&set, c);
    bson_t *command = BCON_NEW("update", BCON_UTF8("jobs"), "updates", "[", "{", "q", "{", "_id",
                               BCON_OID(c->id), "}", "u", "[", "{", "$set", BCON_DOCUMENT(&set),
                               "}", "]", "upsert", BCON_BOOL(true), "}", "]");
    rk_mongo_majority_writes(command);
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_check_writes(&reply, "the job", err);
    }
    if (rk_is_duplicate(status, err)) {
        status = rk_error_set(err, RK_ESTATE, "%s has an active job already", c->spec->ns);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(&set);
    return status;
}

static void tell_warnings(const struct rk_job_spec *spec, const struct rk_preflight *found)
{
    bson_iter_t iter;
    if (spec->warn != NULL && bson_iter_init(&iter, found->warnings)) {
        while (bson_iter_next(&iter)) {
            spec->warn(spec->arg, bson_iter_utf8(&iter, NULL));
        }
    }
}

static enum rk_status check_spec(const struct rk_job_spec *spec, struct rk_ns *ns,
                                 const struct rk_policy **policy, struct rk_error *err)
{
    if (rk_transform_find(spec->transform) == NULL) {
        return rk_error_set(err, RK_EINVAL, "there is no transform \"%s\"", spec->transform);
    }
    if (!rk_ns_parse(ns, spec->ns)) {
        return rk_error_set(err, RK_EINVAL, "\"%s\" is no namespace: it must read db.collection",
                            spec->ns);
    }
    *policy = rk_policy_find(spec->policies, ns->db, strlen(ns->db), ns->coll, strlen(ns->coll));
    return *policy != NULL ? RK_OK
                           : rk_error_set(err, RK_ENOENT, "no policy protects %s", spec->ns);
}

enum rk_status rk_jobs_create(mongoc_client_t *client, const char *state_db,
                              const struct rk_job_spec *spec, char id[RK_JOB_ID_LEN],
                              struct rk_error *err)
{
    struct rk_ns ns;
    const struct rk_policy *policy = NULL;
    bson_oid_t oid;
    struct creation creation = {.id = &oid, .spec = spec};
    enum rk_status status = check_spec(spec, &ns, &policy, err);
    if (status != RK_OK) {
        return status;
    }
    rk_preflight_init(&creation.preflight);
    status = rk_jobs_prepare(client, state_db, err);
    if (status == RK_OK) {
        status = rk_preflight(client, &ns, policy, &creation.preflight, err);
    }
    if (status == RK_OK) {
        status =
            read_current_key(client, state_db, &creation.key_id, &creation.activated_at_ms, err);
    }
    if (status == RK_OK) {
        bson_oid_init(&oid, NULL);
        bson_oid_to_string(&oid, id);
        const struct rk_audit_event event = {
            .actor = spec->actor, .action = "job.start", .target = spec->ns};
        status = rk_audited(client, state_db, &event, create, &creation, err);
    }
    if (status == RK_OK) {
        tell_warnings(spec, &creation.preflight);
    }
    rk_preflight_deinit(&creation.preflight);
    return status;
}

struct action {
    const char *name;
    const char *from[3]; /* states */
    const char *to;
    bool active; /* afterwards */
};

static const struct action actions[] = {
    [RK_JOB_PAUSE] = {"pause", {"planning", "running", "running"}, "paused", true},
    [RK_JOB_RESUME] = {"resume", {"paused", "failed", "failed"}, "running", true},
    [RK_JOB_CANCEL] = {"cancel", {"planning", "running", "paused"}, "cancelled", false},
};

const char *rk_job_action_name(enum rk_job_action action)
{
    return actions[action].name;
}

struct acting {
    const bson_oid_t *id;
    enum rk_job_action action;
};

static enum rk_status why_not(mongoc_client_t *client, const char *state_db, const struct acting *a,
                              struct rk_error *err)
{
    static const char *const state_path[] = {"cursor", "firstBatch", "0", "state"};
    struct rk_bson_elem elem;
    const char *state;
    uint32_t len;
    bson_t reply;
    bson_t *command = BCON_NEW("find", BCON_UTF8("jobs"), "filter", "{", "_id", BCON_OID(a->id),
                               "}", "limit", BCON_INT32(1));
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK && rk_view_path(&view, state_path, 4, &elem) &&
        rk_bson_elem_utf8(&elem, &state, &len)) {
        /* Asked for twice, it is done once. */
        status = strcmp(state, actions[a->action].to) == 0
                     ? RK_OK
                     : rk_error_set(err, RK_ESTATE, "cannot %s a job that is %.*s",
                                    actions[a->action].name, (int)len, state);
    } else if (status == RK_OK) {
        status = rk_error_set(err, RK_ENOENT, "there is no such job");
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

/* Failed ranges get a fresh set of attempts. */
static enum rk_status revive_ranges(mongoc_client_t *client, const char *state_db,
                                    const bson_oid_t *job, struct rk_error *err)
{
    bson_t reply;
    bson_t *command =
        BCON_NEW("update", BCON_UTF8("jobStatus"), "updates", "[", "{", "q", "{", "jobId",
                 BCON_OID(job), "state", BCON_UTF8("failed"), "}", "u", "{", "$set", "{", "state",
                 BCON_UTF8("pending"), "attempts", BCON_INT64(0), "}", "$unset", "{", "finishedAt",
                 BCON_INT32(1), "}", "}", "multi", BCON_BOOL(true), "}", "]");
    rk_mongo_majority_writes(command);
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    if (status == RK_OK) {
        status = rk_reply_check_writes(&reply, "to try the failed ranges again", err);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

static enum rk_status act(mongoc_client_t *client, const char *state_db, void *arg,
                          struct rk_error *err)
{
    const struct acting *a = arg;
    const struct action *action = &actions[a->action];
    struct rk_bson_elem elem;
    bson_t reply;
    if (a->action == RK_JOB_RESUME) {
        /* First, or an engine might close the running job as failed again. */
        enum rk_status revived = revive_ranges(client, state_db, a->id, err);
        if (revived != RK_OK) {
            return revived;
        }
    }
    bson_t *command =
        BCON_NEW("findAndModify", BCON_UTF8("jobs"), "query", "{", "_id", BCON_OID(a->id), "state",
                 "{", "$in", "[", BCON_UTF8(action->from[0]), BCON_UTF8(action->from[1]),
                 BCON_UTF8(action->from[2]), "]", "}", "}", "update", "{", "$set", "{", "state",
                 BCON_UTF8(action->to), "active", BCON_BOOL(action->active), "error", BCON_UTF8(""),
                 "}", "}");
    rk_mongo_majority_writes(command);
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (rk_is_duplicate(status, err)) {
        status = rk_error_set(err, RK_ESTATE, "another job is active on the same namespace");
    } else if (status == RK_OK &&
               (!rk_bson_find(&view, "value", &elem) || elem.type != RK_BSON_DOCUMENT)) {
        status = why_not(client, state_db, a, err);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}

enum rk_status rk_jobs_act(mongoc_client_t *client, const char *state_db, const char *id,
                           enum rk_job_action action, const char *actor, struct rk_error *err)
{
    bson_oid_t oid;
    char name[32];
    if (!bson_oid_is_valid(id, strlen(id))) {
        return rk_error_set(err, RK_EINVAL, "\"%s\" is no job id: it has 24 hex digits", id);
    }
    bson_oid_init_from_string(&oid, id);
    (void)snprintf(name, sizeof name, "job.%s", actions[action].name);
    struct acting acting = {&oid, action};
    const struct rk_audit_event event = {.actor = actor, .action = name, .target = id};
    return rk_audited(client, state_db, &event, act, &acting, err);
}

/* ---- how a job stands among others -------------------------------------------------------- */

struct setting {
    const bson_oid_t *id;
    const struct rk_job_terms *terms;
    unsigned which;
};

static void tell_terms(const struct rk_bson_view *before, const struct setting *s,
                       struct rk_error *why)
{
    char detail[160] = "";
    size_t used = 0;
    if ((s->which & RK_JOB_TERM_PRIORITY) != 0) {
        used = (size_t)snprintf(detail, sizeof detail, "priority: %lld -> %d",
                                (long long)rk_view_int(before, "priority"), s->terms->priority);
    }
    if ((s->which & RK_JOB_TERM_CONCURRENCY) != 0) {
        (void)snprintf(detail + used, sizeof detail - used, "%sconcurrency: %lld -> %u",
                       used > 0 ? "; " : "", (long long)rk_view_int(before, "concurrency"),
                       s->terms->concurrency);
    }
    (void)rk_error_set(why, RK_OK, "%s", detail);
}

static enum rk_status set_terms(mongoc_client_t *client, const char *state_db, void *arg,
                                struct rk_error *err)
{
    const struct setting *s = arg;
    struct rk_bson_elem elem;
    struct rk_bson_view before;
    bson_t reply;
    bson_t set = BSON_INITIALIZER;
    if ((s->which & RK_JOB_TERM_PRIORITY) != 0) {
        BSON_APPEND_INT32(&set, "priority", s->terms->priority);
    }
    if ((s->which & RK_JOB_TERM_CONCURRENCY) != 0) {
        BSON_APPEND_INT32(&set, "concurrency", (int32_t)s->terms->concurrency);
    }
    bson_t *command =
        BCON_NEW("findAndModify", BCON_UTF8("jobs"), "query", "{", "_id", BCON_OID(s->id), "active",
                 BCON_BOOL(true), "}", "update", "{", "$set", BCON_DOCUMENT(&set), "}");
    rk_mongo_majority_writes(command);
    enum rk_status status = rk_command_run_bson(client, state_db, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    if (status == RK_OK &&
        (!rk_bson_find(&view, "value", &elem) || !rk_bson_elem_view(&elem, &before))) {
        status = rk_error_set(err, RK_ENOENT, "there is no such job, or it has ended");
    } else if (status == RK_OK) {
        tell_terms(&before, s, err);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(&set);
    return status;
}

enum rk_status rk_jobs_set(mongoc_client_t *client, const char *state_db, const char *id,
                           const struct rk_job_terms *terms, unsigned which, const char *actor,
                           struct rk_error *err)
{
    bson_oid_t oid;
    struct setting setting = {&oid, terms, which};
    const struct rk_audit_event event = {.actor = actor, .action = "job.set", .target = id};
    if (!bson_oid_is_valid(id, strlen(id))) {
        return rk_error_set(err, RK_EINVAL, "\"%s\" is no job id: it has 24 hex digits", id);
    }
    bson_oid_init_from_string(&oid, id);
    return rk_audited(client, state_db, &event, set_terms, &setting, err);
}
