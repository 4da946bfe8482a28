/* A change between its two records (see audit.h). */
#include <rekey/keys/audit.h>

#include <mongoc/mongoc.h>

enum rk_status rk_audit_conclude(mongoc_client_t *client, const char *state_db,
                                 struct rk_audit_event *event, enum rk_status status,
                                 const struct rk_error *why, struct rk_error *err)
{
    event->result = status == RK_OK ? "ok" : "failed";
    event->detail = why->message[0] != '\0' ? why->message : NULL;
    enum rk_status recorded = rk_audit_record(client, state_db, event, NULL);
    (void)recorded;
    return status == RK_OK ? RK_OK : rk_error_set(err, status, "%s", why->message);
}

enum rk_status rk_audited(mongoc_client_t *client, const char *state_db,
                          const struct rk_audit_event *event, rk_audited_fn *fn, void *arg,
                          struct rk_error *err)
{
    struct rk_error why = {.message = ""};
    struct rk_audit_event now = *event;
    now.result = "started";
    enum rk_status status = rk_audit_record(client, state_db, &now, err);
    if (status != RK_OK) {
        return status;
    }
    status = fn(client, state_db, arg, &why);
    status = rk_audit_conclude(client, state_db, &now, status, &why, NULL);
    if (status != RK_OK && err != NULL) {
        *err = why;
    }
    return status;
}
