/*
 * The audit log: collection <state db>.audit, append-only, one document an event:
 *
 *   { at: Date (the server's), actor: "...", host: "...", pid: int64, action: "key.rotate",
 *     keyId: int64, target: "...", result: "started" | "ok" | "failed", detail: "..." }
 *
 * A change is recorded twice: "started" before it is made (and it is not made when that cannot
 * be written), then how it ended. Blocking. No secret and no plaintext in any field.
 */
#ifndef REKEY_KEYS_AUDIT_H
#define REKEY_KEYS_AUDIT_H

#include <rekey/base/status.h>

struct _mongoc_client_t;

struct rk_audit_event {
    const char *actor;
    const char *action; /* "key.rotate", "job.start", ... */
    uint32_t key_id;    /* 0: left out */
    const char *target; /* what it was done to, e.g. a job or namespace; NULL: left out */
    const char *result; /* "started", "ok", "failed" */
    const char *detail; /* NULL: left out */
};

/* Appends with majority write concern. */
RK_MUST_CHECK enum rk_status rk_audit_record(struct _mongoc_client_t *client, const char *state_db,
                                             const struct rk_audit_event *event,
                                             struct rk_error *err);

/*
 * Records how a change ended of which event said that it started; why->message is the detail ("":
 * none) and, if status is not RK_OK, becomes *err. Returns status: should the record fail, the log
 * shows that the change started, and what was changed shows how it ended.
 */
enum rk_status rk_audit_conclude(struct _mongoc_client_t *client, const char *state_db,
                                 struct rk_audit_event *event, enum rk_status status,
                                 const struct rk_error *why, struct rk_error *err);

/*
 * Makes a change between its two records. fn makes it; why->message is what it has to tell ("":
 * nothing), the detail of "ok", or the reason of "failed", which becomes *err. event->result is set
 * here. Nothing is done when "started" cannot be written.
 */
typedef enum rk_status rk_audited_fn(struct _mongoc_client_t *client, const char *state_db,
                                     void *arg, struct rk_error *why);
RK_MUST_CHECK enum rk_status rk_audited(struct _mongoc_client_t *client, const char *state_db,
                                        const struct rk_audit_event *event, rk_audited_fn *fn,
                                        void *arg, struct rk_error *err);

#endif
