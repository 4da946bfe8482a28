/* rekeyctl keys retire: nothing needs the key any more, by a scan that began when nothing could
 * come to need it. */
#include "keys_internal.h"

#include <rekey/keys/life.h>
#include <rekey/keys/mongo.h>

#include <getopt.h>
#include <string.h>
#include <unistd.h>

#define WHERE_LEN 300
#define WAIT_STEP_MS 200

struct request {
    bool wait;
    bool gone;
    struct rk_ctl_count count;
    struct rk_proof proof; /* out */
};

static enum rk_status check_states(const struct rk_ctl_selection *selection, void *arg,
                                   struct rk_error *err)
{
    (void)arg;
    for (size_t i = 0; i < selection->n; i++) {
        const struct rk_key_record *key = selection->keys[i];
        if (key->state != RK_KEY_RETIRING && key->state != RK_KEY_RETIRED) {
            return rk_error_set(err, RK_ESTATE, "key %u is %s: only a retiring key can be retired",
                                key->id, rk_key_state_name(key->state));
        }
    }
    return RK_OK;
}

/* When a scan may begin: every write under the keys has ended by then. */
static enum rk_status find_earliest(struct rk_ctl_keys *keys,
                                    const struct rk_ctl_selection *selection, bool gone,
                                    int64_t *at_ms, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    int64_t wait_ms = rk_ctl_settle_ms(keys);
    *at_ms = 0;
    for (size_t i = 0; i < selection->n && status == RK_OK; i++) {
        int64_t quiet_ms = 0;
        status = rk_registry_quiet(keys->registry, selection->keys[i], gone, &quiet_ms, err);
        *at_ms = quiet_ms + wait_ms > *at_ms ? quiet_ms + wait_ms : *at_ms;
    }
    return status;
}

static enum rk_status pass_time(struct rk_ctl_keys *keys, const struct rk_ctl_selection *selection,
                                struct request *request, struct rk_error *err)
{
    int64_t earliest_ms = 0;
    int64_t now_ms = 0;
    enum rk_status status = find_earliest(keys, selection, request->gone, &earliest_ms, err);
    request->count.not_before_ms = earliest_ms;
    while (status == RK_OK) {
        status = rk_mongo_now(keys->client, &now_ms, err);
        if (status != RK_OK || now_ms >= earliest_ms) {
            return status;
        }
        if (!request->wait) {
            return rk_error_set(err, RK_ESTATE,
                                "a write under key %u may still be on its way: try again in %lld s "
                                "(keys.write_settle_ms, transactionLifetimeLimitSeconds), or give "
                                "--wait",
                                selection->keys[0]->id,
                                (long long)((earliest_ms - now_ms + 999) / 1000));
        }
        (void)usleep(WAIT_STEP_MS * 1000);
    }
    return status;
}

static enum rk_status retire_one(struct rk_ctl_keys *keys, const struct rk_key_record *key,
                                 const struct rk_proof *proof, struct rk_error *err)
{
    char where[WHERE_LEN];
    int64_t values = rk_proof_values(proof, key->id, where, sizeof where);
    if (key->state == RK_KEY_RETIRED) {
        return RK_OK;
    }
    if (values != 0) {
        return rk_error_set(err, RK_ESTATE,
                            "%lld values need key %u (%s): sweep them first, with `rekeyctl start`",
                            (long long)values, key->id, where);
    }
    return rk_registry_retire(keys->registry, key->id, proof->id, err);
}

/* All keys are looked at, so that one command tells everything; the first failure is the result. */
static enum rk_status retire_all(struct rk_ctl_keys *keys, struct rk_ctl_selection *selection,
                                 void *arg, struct rk_error *err)
{
    struct request *request = arg;
    struct rk_error first = {.message = ""};
    enum rk_status status = pass_time(keys, selection, request, &first);
    if (status == RK_OK) {
        status = rk_ctl_count(keys, &request->count, &request->proof, &first);
    }
    bool counted = status == RK_OK;
    for (size_t i = 0; i < selection->n; i++) {
        struct rk_error why = first;
        enum rk_status one = status;
        if (counted) {
            why = (struct rk_error){.message = ""};
            one = retire_one(keys, selection->keys[i], &request->proof, &why);
        }
        if (rk_ctl_end(keys, selection, i, one, &why) != RK_OK && status == RK_OK) {
            status = one;
            first = why;
        }
    }
    return status == RK_OK ? RK_OK : rk_error_set(err, status, "%s", first.message);
}

static enum rk_ctl_exit print_retired(const struct rk_ctl *ctl,
                                      const struct rk_ctl_selection *selection, const void *arg)
{
    const struct rk_proof *proof = &((const struct request *)arg)->proof;
    int64_t documents = rk_proof_documents(proof);
    if (!ctl->json) {
        for (size_t i = 0; i < selection->n; i++) {
            (void)printf("key %u is retired: of %lld documents in %zu collections none needs it\n",
                         selection->keys[i]->id, (long long)documents, proof->n_parts);
        }
        return RK_CTL_OK;
    }
    bson_t doc = BSON_INITIALIZER;
    rk_ctl_append_ids(&doc, "retired", selection);
    BSON_APPEND_UTF8(&doc, "proof", proof->id);
    BSON_APPEND_INT64(&doc, "documents", documents);
    BSON_APPEND_INT64(&doc, "namespaces", (int64_t)proof->n_parts);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static const struct rk_ctl_step retire_step = {.action = "key.retire",
                                               .states = 1u << RK_KEY_RETIRING,
                                               .check = check_states,
                                               .run = retire_all,
                                               .print = print_retired};

enum rk_ctl_exit rk_ctl_run_keys_retire(struct rk_ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"wait", no_argument, NULL, 'w'},
                                            {"gone", no_argument, NULL, 'g'},
                                            {"everywhere", no_argument, NULL, 'e'},
                                            {"restart", no_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    struct request request = {.wait = false};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'w':
            request.wait = true;
            break;
        case 'g':
            request.gone = true;
            break;
        case 'e':
            request.count.everywhere = true;
            break;
        case 'r':
            request.count.restart = true;
            break;
        default:
            return RK_CTL_USAGE;
        }
    }
    if (argc - optind != 1) {
        return rk_ctl_usage("keys retire takes the id of a key, or a name");
    }
    enum rk_ctl_exit code = rk_ctl_take_step(ctl, &retire_step, argv[optind], &request);
    rk_proof_deinit(&request.proof);
    return code;
}
