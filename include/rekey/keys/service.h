/*
 * Keys for the running daemon: a thread that keeps the current keyset, refreshes it from the
 * registry every refresh_interval_ms, and loads unknown key ids on demand.
 */
#ifndef REKEY_KEYS_SERVICE_H
#define REKEY_KEYS_SERVICE_H

#include <rekey/crypto/keyset.h>
#include <rekey/keys/readers.h>
#include <rekey/keys/registry.h>
#include <stdbool.h>

/* When a name's current key is replaced by itself; 0: never. */
struct rk_rotation_rules {
    uint32_t after_days;
    uint64_t after_encryptions;
    uint64_t lease; /* so many an instance counts ahead */
};

struct rk_key_service_config {
    void *client_pool; /* mongoc_client_pool_t *, borrowed */
    const char *state_db;
    struct rk_provider provider; /* borrowed: outlives the service */
    uint32_t refresh_interval_ms;
    uint32_t negative_cache_ms; /* an id that the registry lacks is not looked up again sooner */
    bool create_tenant_keys;    /* also of a name with a tenant */
    uint32_t tenants_max;       /* names with a tenant for which keys are made */
    bool create_first_key;      /* make a key when the registry has none of that name */
    const char *instance;       /* announced in the registry (instances.h); NULL: it only reads */
    uint32_t instance_lease_ms;
    struct rk_rotation_rules rotation;
    uint32_t cursor_grace_ms; /* a new key waits no longer for those who read without it */
};

struct rk_key_service;

/*
 * Starts the thread. Does not wait for the first load: mongod may still be down; the thread
 * retries with backoff and logs once per change of state.
 */
RK_MUST_CHECK enum rk_status rk_key_service_start(const struct rk_key_service_config *config,
                                                  struct rk_key_service **out,
                                                  struct rk_error *err);
/* Stops and joins; pending loads are called back with RK_ESTATE. */
void rk_key_service_stop(struct rk_key_service *service);

/* Grows with every new keyset; cheap to read from any thread. */
uint64_t rk_key_service_generation(const struct rk_key_service *service);
/* Where whoever compares with what lies under a keyset's keys takes a place. Ends with the service.
 */
struct rk_readers *rk_key_service_readers(struct rk_key_service *service);
/* Why keys cannot be used at all at present, a constant; NULL: they can. Any thread. */
const char *rk_key_service_missing(struct rk_key_service *service);
/* Keys, loads, the registry. Any thread. */
void rk_key_service_metrics(struct rk_key_service *service, struct rk_metrics *m);
/* A reference to the present keyset (never NULL; empty before the first load). */
struct rk_keyset *rk_key_service_keyset(struct rk_key_service *service);

/* fn is called with every new keyset, on the service's thread, and must not call the service; NULL:
 * no more, from when this returns. */
typedef void rk_keyset_changed_fn(void *arg, struct rk_keyset *keys);
void rk_key_service_watch(struct rk_key_service *service, rk_keyset_changed_fn *fn, void *arg);

/*
 * Called exactly once per load, on the service's thread (on the caller's when it is refused at
 * once: RK_ELIMIT, too many loads wait; RK_ESTATE, the service is stopping). status RK_OK: a keyset
 * with the id is in place; RK_ENOENT: the registry has no such key; else the registry or provider
 * failed. message is for people and valid during the call.
 */
typedef void rk_key_loaded_fn(void *arg, enum rk_status status, const char *message);

/* Loads key_id. The callback may run before this returns. */
void rk_key_service_load(struct rk_key_service *service, uint32_t key_id, rk_key_loaded_fn *fn,
                         void *arg);
/* Loads the current key of that name; makes the first one where the configuration allows that. */
void rk_key_service_load_name(struct rk_key_service *service, const char *name,
                              rk_key_loaded_fn *fn, void *arg);

/* Does the provider seal or open values itself? */
bool rk_key_service_answers(const struct rk_key_service *service);
/* Has the provider answer what was promised in remote (see rk_provider_ops.answer). */
void rk_key_service_answer(struct rk_key_service *service, struct rk_remote *remote,
                           rk_provider_answered_fn *fn, void *arg);

#endif
