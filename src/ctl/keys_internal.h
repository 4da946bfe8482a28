/*
 * What the files of rekeyctl's key commands share.
 */
#ifndef REKEY_CTL_KEYS_INTERNAL_H
#define REKEY_CTL_KEYS_INTERNAL_H

#include "prove_internal.h"

#include <mongoc/mongoc.h>
#include <rekey/ctl/ctl.h>
#include <rekey/keys/audit.h>
#include <rekey/keys/registry.h>

/* The registry as it was when it was opened. */
struct rk_ctl_keys {
    struct rk_ctl *ctl;
    mongoc_client_t *client;
    const char *state_db;
    struct rk_registry *registry;
    struct rk_key_record *records;
    size_t n;
};

/* Close also after a failure. */
RK_MUST_CHECK enum rk_status rk_ctl_keys_open(struct rk_ctl *ctl, struct rk_ctl_keys *keys,
                                              struct rk_error *err);
/* The records as they are now. */
RK_MUST_CHECK enum rk_status rk_ctl_keys_read(struct rk_ctl_keys *keys, struct rk_error *err);
void rk_ctl_keys_close(struct rk_ctl_keys *keys);

/* Is text its id, or its name? */
bool rk_ctl_key_is(const struct rk_key_record *key, const char *text);
/* How long after the last instance turned to another key a write may still be on its way. */
int64_t rk_ctl_settle_ms(const struct rk_ctl_keys *keys);

#define RK_CTL_ANY_STATE (~0u)

/* What one command works on: some of the records, with an audit event each. Borrows the records. */
struct rk_ctl_selection {
    const struct rk_key_record **keys;
    struct rk_audit_event *events;
    size_t n;
    const char *name; /* of all of them */
};

/* How it ended for key i; why as in rk_audit_conclude. Returns status. */
enum rk_status rk_ctl_end(struct rk_ctl_keys *keys, struct rk_ctl_selection *selection, size_t i,
                          enum rk_status status, const struct rk_error *why);

/* Counts what lies under which key, with progress on a terminal. */
struct rk_ctl_count {
    bool everywhere;
    bool restart;          /* do not go on with a count that was cut short, */
    int64_t not_before_ms; /* and never with one that began before this */
};
RK_MUST_CHECK enum rk_status rk_ctl_count(struct rk_ctl_keys *keys, const struct rk_ctl_count *what,
                                          struct rk_proof *proof, struct rk_error *err);

/* A step in the life of keys: what is checked before, and what is done between the entries of the
 * audit log, which it ends itself; then what is printed. */
struct rk_ctl_step {
    const char *action;
    unsigned states; /* of those that a name stands for: a bit each */
    enum rk_status (*check)(const struct rk_ctl_selection *selection, void *arg,
                            struct rk_error *err);
    enum rk_status (*run)(struct rk_ctl_keys *keys, struct rk_ctl_selection *selection, void *arg,
                          struct rk_error *err);
    enum rk_ctl_exit (*print)(const struct rk_ctl *ctl, const struct rk_ctl_selection *selection,
                              const void *arg);
};
enum rk_ctl_exit rk_ctl_take_step(struct rk_ctl *ctl, const struct rk_ctl_step *step,
                                  const char *which, void *arg);

/* Appends {field: [ids]}. */
void rk_ctl_append_ids(bson_t *doc, const char *field, const struct rk_ctl_selection *selection);

enum rk_ctl_exit rk_ctl_run_keys_status(struct rk_ctl *ctl, int argc, char **argv);
enum rk_ctl_exit rk_ctl_run_keys_retire(struct rk_ctl *ctl, int argc, char **argv);
enum rk_ctl_exit rk_ctl_run_keys_destroy(struct rk_ctl *ctl, int argc, char **argv);

#endif
