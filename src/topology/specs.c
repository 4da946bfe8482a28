#include "topology_internal.h"

#include <stdlib.h>
#include <string.h>

void rk_route_specs_free(struct rk_route_spec *specs, size_t n)
{
    for (size_t i = 0; specs != NULL && i < n; i++) {
        free((char *)specs[i].address);
        free((char *)specs[i].connect);
        free((char *)specs[i].listen);
        free((char *)specs[i].advertise);
    }
    free(specs);
}

struct rk_route_spec *rk_route_specs_copy(const struct rk_route_spec *specs, size_t n)
{
    struct rk_route_spec *copy = calloc(n > 0 ? n : 1, sizeof *copy);
    bool ok = copy != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        copy[i] = (struct rk_route_spec){.role = specs[i].role,
                                         .id = specs[i].id,
                                         .listen = strdup(specs[i].listen),
                                         .advertise = strdup(specs[i].advertise)};
        ok = copy[i].listen != NULL && copy[i].advertise != NULL;
        if (ok && specs[i].address != NULL) {
            copy[i].address = strdup(specs[i].address);
            copy[i].connect = strdup(specs[i].connect);
            ok = copy[i].address != NULL && copy[i].connect != NULL;
        }
    }
    if (!ok) {
        rk_route_specs_free(copy, n);
        return NULL;
    }
    return copy;
}
