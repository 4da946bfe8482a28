/* rekeyctl verify: what lies under which key, by a full scan. */
#include "prove_internal.h"
#include "verify_internal.h"

#include <rekey/jobs/key_wait.h>
#include <rekey/keys/service.h>
#include <rekey/vault/provider.h>

#include <bson/bson.h>
#include <getopt.h>
#include <mongoc/mongoc.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_MAX 1000000000u
#define RATE_MAX 100000000u

struct request {
    const char *only;
    bool deep;
    bool restart;
    uint32_t sample;
    uint32_t max_rate;
    enum rk_config_scan read;
};

static uint32_t current_key(struct rk_key_service *service)
{
    struct rk_keyset *keys = rk_key_service_keyset(service);
    const struct rk_data_key *current = rk_keyset_current(keys, RK_KEY_NAME_DEFAULT);
    uint32_t id = current != NULL ? rk_data_key_id(current) : 0;
    rk_keyset_unref(keys);
    return id;
}

static enum rk_ctl_exit scan(struct rk_ctl *ctl, mongoc_client_t *client,
                             const struct request *wanted, struct rk_key_service *service)
{
    struct rk_error err;
    struct rk_proof proof = {.id = ""};
    struct rk_ctl_verified verified = {.proof = &proof, .current_key = current_key(service)};
    const struct rk_verify_options options = {
        .service = service, .deep = wanted->deep, .sample = wanted->sample};
    struct rk_proof_request request = rk_ctl_proof_request(ctl);
    request.verify = &options;
    request.only = wanted->only;
    request.restart = wanted->restart;
    request.settings.max_rate = wanted->max_rate;
    request.settings.read_preference = wanted->read;
    enum rk_status status = rk_ctl_prove(ctl, client, &request, &proof, &err);
    if (status == RK_OK) {
        status = rk_proof_sign(client, request.state_db, &proof, ctl->actor, &verified.jobs, &err);
    }
    enum rk_ctl_exit code =
        status == RK_OK ? rk_ctl_print_verified(ctl, &verified) : rk_ctl_job_fail(&err);
    code = code == RK_CTL_OK && !rk_proof_holds(&proof) ? RK_CTL_FAILED : code;
    rk_proof_deinit(&proof);
    return code;
}

static enum rk_status wait_for_keys(struct rk_key_service *service,
                                    const struct rk_policy_set *policies, struct rk_error *err)
{
    const _Atomic bool never = false;
    /* That it does not exist is known when the registry was read, too. */
    enum rk_status status = rk_key_wait_name(service, RK_KEY_NAME_DEFAULT, &never, err);
    status = status == RK_ENOENT ? RK_OK : status;
    for (size_t i = 0; i < rk_policy_set_count(policies) && status == RK_OK; i++) {
        status = rk_key_wait_policy(service, rk_policy_set_at(policies, i), &never, err);
    }
    return status;
}

/* With all keys of the registry loaded, as a running instance has them. */
static enum rk_ctl_exit verify(struct rk_ctl *ctl, const struct request *request)
{
    struct rk_error err;
    struct rk_provider provider;
    struct rk_key_service *service = NULL;
    enum rk_ctl_exit code;
    /* What a service has to say in a daemon's log is no news to somebody at a terminal. */
    if (rk_log_open(NULL, RK_LOG_WARN, &err) != RK_OK ||
        rk_provider_open(&ctl->config->keys, &provider, &err) != RK_OK) {
        return rk_ctl_fail(&err);
    }
    const struct rk_key_service_config config = {
        .client_pool = ctl->client_pool,
        .state_db = ctl->config->upstream.state_db,
        .provider = provider,
        .refresh_interval_ms = ctl->config->keys.refresh_interval_ms,
        .negative_cache_ms = ctl->config->keys.negative_cache_ms,
    };
    mongoc_client_t *client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status = rk_key_service_start(&config, &service, &err);
    if (status == RK_OK) {
        status = wait_for_keys(service, ctl->config->policies, &err);
    }
    if (status == RK_OK) {
        code = scan(ctl, client, request, service);
    } else {
        code = rk_ctl_job_fail(&err);
    }
    rk_key_service_stop(service);
    mongoc_client_pool_push(ctl->client_pool, client);
    provider.ops->free(provider.self);
    return code;
}

static bool parse_number(const char *text, uint32_t max, uint32_t *out)
{
    char *end = NULL;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || n > max) {
        return false;
    }
    *out = (uint32_t)n;
    return true;
}

static bool parse_read(const char *text, enum rk_config_scan *out)
{
    static const char *const words[] = {
        [RK_CONFIG_SCAN_PRIMARY] = "primary",
        [RK_CONFIG_SCAN_SECONDARY] = "secondary",
        [RK_CONFIG_SCAN_SECONDARY_PREFERRED] = "secondaryPreferred",
        [RK_CONFIG_SCAN_NEAREST] = "nearest",
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = (enum rk_config_scan)i;
            return true;
        }
    }
    return false;
}

static enum rk_ctl_exit parse(int argc, char **argv, struct request *request)
{
    static const struct option options[] = {{"deep", no_argument, NULL, 'd'},
                                            {"sample", required_argument, NULL, 's'},
                                            {"restart", no_argument, NULL, 'r'},
                                            {"read-preference", required_argument, NULL, 'f'},
                                            {"max-rate", required_argument, NULL, 'm'},
                                            {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'd':
            request->deep = true;
            break;
        case 's':
            if (!parse_number(optarg, SAMPLE_MAX, &request->sample)) {
                return rk_ctl_usage("--sample takes a number of values, not %s", optarg);
            }
            break;
        case 'r':
            request->restart = true;
            break;
        case 'f':
            if (!parse_read(optarg, &request->read)) {
                return rk_ctl_usage("--read-preference takes primary, secondary, "
                                    "secondaryPreferred or nearest, not %s",
                                    optarg);
            }
            break;
        case 'm':
            if (!parse_number(optarg, RATE_MAX, &request->max_rate)) {
                return rk_ctl_usage("--max-rate takes documents per second, not %s", optarg);
            }
            break;
        default:
            return RK_CTL_USAGE;
        }
    }
    if (argc - optind > 1) {
        return rk_ctl_usage("verify takes one namespace at most");
    }
    request->only = optind < argc ? argv[optind] : NULL;
    return RK_CTL_OK;
}

enum rk_ctl_exit rk_ctl_run_verify(struct rk_ctl *ctl, int argc, char **argv)
{
    const struct rk_config_verify *config = &ctl->config->verify;
    struct request request = {
        .sample = config->sample, .max_rate = config->max_rate, .read = config->read_preference};
    enum rk_ctl_exit code = parse(argc, argv, &request);
    return code == RK_CTL_OK ? verify(ctl, &request) : code;
}
