/* What the parts of the registry share. */
#ifndef REKEY_KEYS_REGISTRY_INTERNAL_H
#define REKEY_KEYS_REGISTRY_INTERNAL_H

#include <mongoc/mongoc.h>
#include <rekey/keys/registry.h>

struct rk_registry {
    mongoc_client_pool_t *pool;
    char *state_db;
};

/* As rk_registry_list. */
RK_MUST_CHECK enum rk_status rk_registry_read(mongoc_client_t *client, const char *state_db,
                                              struct rk_key_record **out, size_t *n_out,
                                              struct rk_error *err);

#endif
