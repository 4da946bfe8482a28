/* The document of a pass: beginning one, going on with one, holding it (see proof.h). */
#include "proof_internal.h"

#include <rekey/base/backoff.h>
#include <rekey/base/clock.h>
#include <string.h>
#include <unistd.h>

#define LOOK_AGAIN_MS 250u

static const char *kind_of(const struct rk_proof_request *request)
{
    return request->verify != NULL ? "verify" : "count";
}

static const char *scope_of(const struct rk_proof_request *request)
{
    if (request->verify != NULL && request->only != NULL) {
        return request->only;
    }
    return request->verify == NULL && request->everywhere ? "everywhere" : "protected";
}

static enum rk_status run(const struct rk_pass *pass, const bson_t *command, bson_t *reply,
                          struct rk_error *err)
{
    return rk_command_run_bson(pass->lease.client, pass->lease.state_db, command, reply, err);
}

static void put_literal(bson_t *set, const char *key, const char *text)
{
    BCON_APPEND(set, key, "{", "$literal", BCON_UTF8(text), "}");
}

static void put_lease(bson_t *set, const struct rk_pass *pass)
{
    put_literal(set, "owner", pass->owner);
    BCON_APPEND(set, "leaseUntil", "{", "$add", "[", BCON_UTF8("$$NOW"),
                BCON_INT64((int64_t)pass->lease.lease_ms), "]", "}");
}

/* The same that is asked for, not ended, and not too old. */
static bson_t *same_pass(const struct rk_pass *pass)
{
    return BCON_NEW("kind", BCON_UTF8(kind_of(pass->request)), "scope",
                    BCON_UTF8(scope_of(pass->request)), "digest", BCON_UTF8(pass->digest),
                    "completedAt", "{", "$exists", BCON_BOOL(false), "}", "abandonedAt", "{",
                    "$exists", BCON_BOOL(false), "}", "startedAt", "{", "$gte",
                    BCON_DATE_TIME(pass->request->not_before_ms), "}");
}

static bson_t *held_by_me(const struct rk_pass *pass)
{
    return BCON_NEW("_id", BCON_OID(&pass->id), "owner", BCON_UTF8(pass->owner), "epoch",
                    BCON_INT64(pass->epoch));
}

/* findAndModify with a pipeline of one $set stage; *found: value is the document afterwards, as
 * long as reply is. Takes query and set. */
static enum rk_status find_and_set(const struct rk_pass *pass, bson_t *query, bson_t *set,
                                   bool upsert, bson_t *reply, struct rk_bson_view *value,
                                   bool *found, struct rk_error *err)
{
    struct rk_bson_elem elem;
    bson_t *command = BCON_NEW(
        "findAndModify", BCON_UTF8("proofs"), "query", BCON_DOCUMENT(query), "update", "[", "{",
        "$set", BCON_DOCUMENT(set), "}", "]", "new", BCON_BOOL(true), "upsert", BCON_BOOL(upsert),
        "sort", "{", "startedAt", BCON_INT32(-1), "}", "writeConcern", "{", "w",
        BCON_UTF8("majority"), "wtimeout", BCON_INT64((int64_t)pass->lease.wtimeout_ms), "}");
    enum rk_status status = run(pass, command, reply, err);
    struct rk_bson_view view = rk_reply_view(reply);
    *found = status == RK_OK && rk_bson_find(&view, "value", &elem) &&
             elem.type == RK_BSON_DOCUMENT && rk_bson_elem_view(&elem, value);
    bson_destroy(command);
    bson_destroy(query);
    bson_destroy(set);
    return status;
}

static void read_text(const struct rk_bson_view *doc, const char *key, char *out, size_t size)
{
    struct rk_bson_elem elem;
    const char *text = "";
    uint32_t len = 0;
    if (rk_bson_find(doc, key, &elem) && !rk_bson_elem_utf8(&elem, &text, &len)) {
        len = 0;
    }
    len = len < size ? len : (uint32_t)size - 1;
    memcpy(out, text, len);
    out[len] = '\0';
}

static void read_pass(struct rk_pass *pass, const struct rk_bson_view *doc)
{
    struct rk_bson_elem elem;
    if (rk_bson_find(doc, "_id", &elem) && elem.type == RK_BSON_OID) {
        memcpy(pass->id.bytes, elem.value, sizeof pass->id.bytes);
    }
    pass->epoch = rk_view_int(doc, "epoch");
    pass->started_at_ms = rk_view_date(doc, "startedAt");
    pass->keys_up_to = rk_view_int(doc, "keysUpTo");
    read_text(doc, "keys", pass->keys, sizeof pass->keys);
}

/* Takes over the newest pass whose lease ran out, or, with silent_until_ms, has stood at that time
 * for longer than a lease lasts: the server whose clock set it may have been far ahead. */
static enum rk_status take_over(struct rk_pass *pass, int64_t silent_until_ms, bool *taken,
                                struct rk_error *err)
{
    struct rk_bson_view doc;
    bson_t reply;
    bson_t *query = same_pass(pass);
    bson_t *set = bson_new();
    if (silent_until_ms != 0) {
        BSON_APPEND_DATE_TIME(query, "leaseUntil", silent_until_ms);
    } else {
        BCON_APPEND(query, "$expr", "{", "$lt", "[", BCON_UTF8("$leaseUntil"), BCON_UTF8("$$NOW"),
                    "]", "}");
    }
    BCON_APPEND(set, "epoch", "{", "$add", "[", BCON_UTF8("$epoch"), BCON_INT64(1), "]", "}");
    put_lease(set, pass);
    enum rk_status status = find_and_set(pass, query, set, false, &reply, &doc, taken, err);
    if (*taken) {
        read_pass(pass, &doc);
    }
    bson_destroy(&reply);
    return status;
}

/* id: of the new pass, the same in every attempt. */
static enum rk_status begin(struct rk_pass *pass, const bson_oid_t *id, struct rk_error *err)
{
    struct rk_bson_view doc;
    bool made = false;
    bson_t reply;
    bson_t *set = bson_new();
    pass->keys_up_to = 0;
    enum rk_status status = rk_pass_keys(&pass->lease, &pass->keys_up_to, pass->keys, err);
    if (status != RK_OK) {
        bson_destroy(set);
        return status;
    }
    put_literal(set, "kind", kind_of(pass->request));
    put_literal(set, "scope", scope_of(pass->request));
    put_literal(set, "by", pass->request->actor);
    BCON_APPEND(set, "digest", BCON_UTF8(pass->digest), "keys", BCON_UTF8(pass->keys), "keysUpTo",
                BCON_INT64(pass->keys_up_to), "startedAt", BCON_UTF8("$$NOW"), "epoch",
                BCON_INT64(1));
    put_lease(set, pass);
    status = find_and_set(pass, BCON_NEW("_id", BCON_OID(id)), set, true, &reply, &doc, &made, err);
    if (made) {
        read_pass(pass, &doc);
    }
    bson_destroy(&reply);
    return status == RK_OK && !made ? rk_error_set(err, RK_EIO, "mongod's reply is malformed")
                                    : status;
}

/* A pass that somebody seems to hold: its id and until when. */
struct seen {
    uint8_t id[12];
    int64_t until_ms; /* 0: there is none */
};

static enum rk_status look(const struct rk_pass *pass, struct seen *seen, struct rk_error *err)
{
    static const char *const first_path[] = {"cursor", "firstBatch", "0"};
    struct rk_bson_elem elem;
    struct rk_bson_view doc;
    bson_t reply;
    bson_t *query = same_pass(pass);
    bson_t *command = BCON_NEW("find", BCON_UTF8("proofs"), "filter", BCON_DOCUMENT(query), "sort",
                               "{", "startedAt", BCON_INT32(-1), "}", "limit", BCON_INT32(1));
    enum rk_status status = run(pass, command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    *seen = (struct seen){.until_ms = 0};
    if (status == RK_OK && rk_view_path(&view, first_path, 3, &elem) &&
        rk_bson_elem_view(&elem, &doc) && rk_bson_find(&doc, "_id", &elem) &&
        elem.type == RK_BSON_OID) {
        memcpy(seen->id, elem.value, sizeof seen->id);
        seen->until_ms = rk_view_date(&doc, "leaseUntil");
    }
    bson_destroy(&reply);
    bson_destroy(command);
    bson_destroy(query);
    return status;
}

/* Until there is one to take over, or it is clear that there is none: a holder that lives renews
 * its lease, and this process makes a pass of its own. */
static enum rk_status find_pass(struct rk_pass *pass, bool *taken, struct rk_error *err)
{
    struct seen first = {.until_ms = 0};
    struct seen now;
    bool told = false;
    uint64_t patience_us = (uint64_t)pass->lease.lease_ms * 1500u;
    uint64_t began_us = rk_clock_mono_us();
    for (;;) {
        bool silent = rk_clock_mono_us() - began_us > patience_us;
        enum rk_status status = take_over(pass, silent ? first.until_ms : 0, taken, err);
        if (status != RK_OK || *taken) {
            return status;
        }
        status = look(pass, &now, err);
        first = first.until_ms == 0 ? now : first;
        bool same = now.until_ms == first.until_ms && memcmp(now.id, first.id, sizeof now.id) == 0;
        if (status != RK_OK || now.until_ms == 0 || !same) {
            return status;
        }
        if (!told && pass->request->notice != NULL) {
            pass->request->notice(pass->request->arg,
                                  "an earlier run was not ended properly, or still goes on: "
                                  "waiting to see which");
        }
        told = true;
        (void)usleep(LOOK_AGAIN_MS * 1000u);
    }
}

/* Is what was counted still worth going on with? */
static enum rk_status check_keys(struct rk_pass *pass, bool *fits, struct rk_error *err)
{
    char now[RK_DIGEST_LEN];
    enum rk_status status = rk_pass_keys(&pass->lease, &pass->keys_up_to, now, err);
    *fits = status == RK_OK && strcmp(now, pass->keys) == 0;
    if (status == RK_OK && !*fits) {
        rk_pass_abandon(pass, "keys were rotated or destroyed since it began");
    }
    return status;
}

enum rk_status rk_pass_retry(struct rk_pass *pass, rk_pass_fn *fn, void *arg, struct rk_error *err)
{
    const struct rk_proof_settings *settings = &pass->request->settings;
    enum rk_status status;
    uint64_t saves = pass->saves;
    uint64_t pause_ms = 0;
    unsigned failures = 0;
    while ((status = fn(pass, arg, err)) == RK_EIO) {
        failures = pass->saves == saves ? failures + 1 : 1;
        pause_ms = failures == 1 ? 0 : pause_ms;
        saves = pass->saves;
        if (failures >= settings->attempts_max) {
            break;
        }
        pause_ms =
            rk_backoff_next(pause_ms, settings->retry_backoff_ms, settings->retry_backoff_max_ms);
        (void)usleep((useconds_t)(rk_backoff_jittered(pause_ms) * 1000));
    }
    return status;
}

static enum rk_status open_once(struct rk_pass *pass, void *arg, struct rk_error *err)
{
    const bson_oid_t *id = arg;
    bool taken = false;
    while (!pass->request->restart) {
        enum rk_status status = find_pass(pass, &taken, err);
        if (status != RK_OK || !taken) {
            if (status != RK_OK) {
                return status;
            }
            break;
        }
        status = check_keys(pass, &pass->resumed, err);
        if (status != RK_OK || pass->resumed) {
            return status;
        }
    }
    return begin(pass, id, err);
}

enum rk_status rk_pass_open(struct rk_pass *pass, mongoc_client_t *client,
                            const struct rk_proof_request *request, struct rk_error *err)
{
    char host[64] = "?";
    bson_oid_t id;
    const struct rk_proof_settings *settings = &request->settings;
    *pass = (struct rk_pass){.request = request};
    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(pass->owner, sizeof pass->owner, "%s:%ld:%llu", host, (long)getpid(),
                   (unsigned long long)rk_clock_mono_us());
    pass->lease = (struct rk_lease){.client = client,
                                    .state_db = request->state_db,
                                    .owner = pass->owner,
                                    .lease_ms = settings->lease_ms,
                                    .wtimeout_ms = settings->write_timeout_ms};
    rk_pass_digest(pass);
    bson_oid_init(&id, NULL);
    return rk_pass_retry(pass, open_once, &id, err);
}

/* Sets fields of the document, which must be held still. Takes set. */
static enum rk_status set_held(const struct rk_pass *pass, bson_t *set, struct rk_error *err)
{
    struct rk_bson_view doc;
    bool held = false;
    bson_t reply;
    enum rk_status status =
        find_and_set(pass, held_by_me(pass), set, false, &reply, &doc, &held, err);
    bson_destroy(&reply);
    return status == RK_OK && !held ? rk_error_set(err, RK_ESTATE,
                                                   "another rekeyctl goes on with this scan: it "
                                                   "was silent for too long here")
                                    : status;
}

enum rk_status rk_pass_renew(const struct rk_pass *pass, struct rk_error *err)
{
    bson_t *set = bson_new();
    put_lease(set, pass);
    return set_held(pass, set, err);
}

void rk_pass_release(const struct rk_pass *pass)
{
    /* Should this fail, the lease runs out. */
    (void)!set_held(pass, BCON_NEW("leaseUntil", BCON_UTF8("$$NOW")), NULL);
}

void rk_pass_abandon(const struct rk_pass *pass, const char *why)
{
    bson_t *set = BCON_NEW("abandonedAt", BCON_UTF8("$$NOW"));
    put_literal(set, "why", why);
    /* Should this fail, the next one finds out by itself. */
    (void)!set_held(pass, set, NULL);
}
