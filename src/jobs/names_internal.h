/* A list of namespaces, each once. */
#ifndef REKEY_JOBS_NAMES_INTERNAL_H
#define REKEY_JOBS_NAMES_INTERNAL_H

#include <rekey/base/status.h>
#include <stddef.h>

/* Free with rk_jobs_namespaces_free. */
struct rk_names {
    char **list;
    size_t n;
};

RK_MUST_CHECK enum rk_status rk_names_add(struct rk_names *names, const char *full,
                                          struct rk_error *err);

#endif
