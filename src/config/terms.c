/* How jobs over a policy's collections stand among others, unless they are told at their start. */
#include "config_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 160

static enum rk_status check(const struct rk_config_terms *terms, unsigned index,
                            const struct rk_config_source *source, struct rk_error *err)
{
    char key[KEY_MAX];
    if (terms->priority > RK_CONFIG_PRIORITY_MAX || terms->priority < -RK_CONFIG_PRIORITY_MAX) {
        (void)snprintf(key, sizeof key, "policies[%u].sweep.priority", index);
        return rk_config_refuse(source, err, key, "must be from -%d to %d, not %d",
                                RK_CONFIG_PRIORITY_MAX, RK_CONFIG_PRIORITY_MAX, terms->priority);
    }
    if (terms->concurrency > RK_CONFIG_CONCURRENCY_MAX) {
        (void)snprintf(key, sizeof key, "policies[%u].sweep.concurrency", index);
        return rk_config_refuse(source, err, key, "must be from 0 to %u, not %u",
                                RK_CONFIG_CONCURRENCY_MAX, terms->concurrency);
    }
    return RK_OK;
}

enum rk_status rk_config_take_terms(const struct rk_config_file *file, struct rk_config *config,
                                    const struct rk_config_source *source, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    config->terms = calloc((size_t)file->policies_count + 1, sizeof config->terms[0]);
    if (config->terms == NULL) {
        return rk_error_set(err, RK_ENOMEM, "%s: out of memory", source->path);
    }
    for (unsigned i = 0; i < file->policies_count && status == RK_OK; i++) {
        struct rk_config_terms terms = file->policies[i].sweep;
        status = check(&terms, i, source, err);
        terms.ns = strdup(file->policies[i].ns);
        config->terms[config->terms_count++] = terms;
        if (terms.ns == NULL) {
            status = rk_error_set(err, RK_ENOMEM, "%s: out of memory", source->path);
        }
    }
    return status;
}

void rk_config_free_terms(struct rk_config *config)
{
    for (unsigned i = 0; i < config->terms_count; i++) {
        free(config->terms[i].ns);
    }
    free(config->terms);
}

const struct rk_config_terms *rk_config_terms(const struct rk_config *config, const char *ns)
{
    static const struct rk_config_terms none = {.ns = NULL};
    for (unsigned i = 0; i < config->terms_count; i++) {
        if (strcmp(config->terms[i].ns, ns) == 0) {
            return &config->terms[i];
        }
    }
    return &none;
}
