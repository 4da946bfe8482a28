/* What the parts of the registry share. */
#ifndef REKEY_KEYS_REGISTRY_INTERNAL_H
#define REKEY_KEYS_REGISTRY_INTERNAL_H

#include <mongoc/mongoc.h>
#include <rekey/keys/registry.h>

#include "silence_internal.h"

struct rk_registry {
    mongoc_client_pool_t *pool;
    char *state_db;
    struct rk_silence silence; /* of other instances */
};

/* As rk_registry_list; name: only the keys of that name, NULL: all. */
RK_MUST_CHECK enum rk_status rk_registry_read(mongoc_client_t *client, const char *state_db,
                                              const char *name, struct rk_key_record **out,
                                              size_t *n_out, struct rk_error *err);
/* The highest id that a key has, 0 without any. */
RK_MUST_CHECK enum rk_status rk_registry_newest(mongoc_client_t *client, const char *state_db,
                                                uint32_t *id, struct rk_error *err);
/* Appends the condition that a document is a key of that name. */
void rk_registry_put_name(bson_t *filter, const char *name);

#endif
