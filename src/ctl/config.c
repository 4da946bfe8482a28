/* rekeyctl config ... */
#include <rekey/ctl/ctl.h>

#include <bson/bson.h>
#include <stdio.h>

static enum rk_ctl_exit report(const struct rk_ctl *ctl, const struct rk_config *config)
{
    size_t n_fields = 0;
    size_t n_policies = rk_policy_set_count(config->policies);
    for (size_t i = 0; i < n_policies; i++) {
        n_fields += rk_policy_set_at(config->policies, i)->n_fields;
    }
    if (!ctl->json) {
        (void)printf("%s: ok: %u members, %zu protected namespaces with %zu fields\n",
                     ctl->config_path, config->upstream.members_count, n_policies, n_fields);
        return RK_CTL_OK;
    }
    bson_t doc = BSON_INITIALIZER;
    BSON_APPEND_BOOL(&doc, "ok", true);
    BSON_APPEND_UTF8(&doc, "path", ctl->config_path);
    BSON_APPEND_INT64(&doc, "members", (int64_t)config->upstream.members_count);
    BSON_APPEND_INT64(&doc, "namespaces", (int64_t)n_policies);
    BSON_APPEND_INT64(&doc, "fields", (int64_t)n_fields);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_ctl_exit run_check(struct rk_ctl *ctl, int argc, char **argv)
{
    struct rk_error err;
    if (argc > 2) {
        return rk_ctl_usage("config check takes one file");
    }
    if (argc == 2) {
        ctl->config_path = argv[1];
    }
    enum rk_ctl_exit code = rk_ctl_load_config(ctl);
    if (code == RK_CTL_OK && rk_config_check_daemon(ctl->config, &err) != RK_OK) {
        return rk_ctl_fail(&err);
    }
    return code == RK_CTL_OK ? report(ctl, ctl->config) : code;
}

const struct rk_ctl_command rk_ctl_config_commands[] = {
    {.group = "config",
     .name = "check",
     .args = "[FILE]",
     .help = "check a configuration as rekeyd would at start, without starting anything",
     .needs = RK_CTL_NEEDS_NOTHING,
     .run = run_check},
    {.name = NULL},
};
