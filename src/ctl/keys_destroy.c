/* rekeyctl keys destroy: the wrapped key is deleted, after a last count. */
#include "keys_internal.h"

#include <rekey/keys/life.h>
#include <rekey/keys/mongo.h>
#include <rekey/vault/provider.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WHERE_LEN 300
#define LINE_LEN 256

struct request {
    const char *which;
    const char *confirm; /* NULL: ask */
    const char *count;   /* of --shred; NULL: ask */
    bool shred;
    struct rk_ctl_count scan;
    /* out */
    struct rk_proof proof;
    int64_t values; /* that became unreadable */
    bool trimmed;
    char note[400]; /* on the provider's share; empty: it has none */
};

static enum rk_status check_states(const struct rk_ctl_selection *selection,
                                   const struct request *request, struct rk_error *err)
{
    bool shred = request->shred;
    for (size_t i = 0; i < selection->n; i++) {
        const struct rk_key_record *key = selection->keys[i];
        bool last = key->state == RK_KEY_CURRENT && strcmp(selection->name, "default") == 0;
        if (shred && last) {
            return rk_error_set(err, RK_ESTATE,
                                "key %u is current: nothing could be written any more; rotate "
                                "first",
                                key->id);
        }
        if (!shred && key->state != RK_KEY_RETIRED && key->state != RK_KEY_DESTROYED) {
            return rk_error_set(err, RK_ESTATE,
                                "key %u is %s: `rekeyctl keys retire %u` has to prove first that "
                                "nothing needs it",
                                key->id, rk_key_state_name(key->state), key->id);
        }
    }
    return RK_OK;
}

/* given, or a line from the terminal, has to be wanted. */
static enum rk_status confirm(const char *question, const char *given, const char *wanted,
                              struct rk_error *err)
{
    char line[LINE_LEN] = "";
    if (given == NULL) {
        (void)fprintf(stderr, "%s: ", question);
        if (fgets(line, sizeof line, stdin) == NULL) {
            line[0] = '\0';
        }
        line[strcspn(line, "\n")] = '\0';
        given = line;
    }
    return strcmp(given, wanted) == 0
               ? RK_OK
               : rk_error_set(err, RK_ESTATE, "that is not %s: nothing was destroyed", wanted);
}

static enum rk_status confirm_name(const struct request *request,
                                   const struct rk_ctl_selection *selection, struct rk_error *err)
{
    char question[LINE_LEN];
    (void)snprintf(question, sizeof question,
                   "Destroys key %s%s for ever. The key's name, to confirm", request->which,
                   request->shred ? " and what was encrypted under it" : "");
    return confirm(question, request->confirm, selection->name, err);
}

static enum rk_status confirm_count(const struct request *request, int64_t values,
                                    const char *where, struct rk_error *err)
{
    char question[LINE_LEN + WHERE_LEN];
    char wanted[32];
    (void)snprintf(question, sizeof question,
                   "%lld values become unreadable for ever (%s). Their number, to confirm",
                   (long long)values, where);
    (void)snprintf(wanted, sizeof wanted, "%lld", (long long)values);
    return confirm(question, request->count, wanted, err);
}

/* Nothing needs the keys, or so many values are given up knowingly. */
static enum rk_status check_values(struct request *request,
                                   const struct rk_ctl_selection *selection, struct rk_error *err)
{
    char all[WHERE_LEN] = "nowhere";
    for (size_t i = 0; i < selection->n; i++) {
        char where[WHERE_LEN];
        uint32_t id = selection->keys[i]->id;
        int64_t values = rk_proof_values(&request->proof, id, where, sizeof where);
        if (values != 0 && !request->shred && selection->keys[i]->state != RK_KEY_DESTROYED) {
            return rk_error_set(err, RK_ESTATE,
                                "%lld values need key %u (%s): they came after it was retired; "
                                "sweep them with `rekeyctl start`",
                                (long long)values, id, where);
        }
        if (values != 0) {
            (void)snprintf(all, sizeof all, "%s", where);
        }
        request->values += values;
    }
    return request->shred ? confirm_count(request, request->values, all, err) : RK_OK;
}

static enum rk_status destroy_one(struct rk_ctl_keys *keys, const struct rk_key_record *key,
                                  const struct request *request, struct rk_error *why)
{
    const struct rk_proof *proof = &request->proof;
    char where[WHERE_LEN];
    if (key->state == RK_KEY_DESTROYED) {
        (void)rk_error_set(why, RK_OK, "it was destroyed before");
        return RK_OK;
    }
    enum rk_status status =
        rk_registry_destroy(keys->registry, key->id, request->shred, proof->id, why);
    if (status == RK_OK) {
        int64_t values = rk_proof_values(proof, key->id, where, sizeof where);
        (void)rk_error_set(why, RK_OK, "%s%lld values needed it%s%s",
                           request->shred ? "shredded: " : "", (long long)values,
                           values > 0 ? ": " : "", where);
    }
    return status;
}

/* The last count begins after the keys were retired; what is shredded is counted as it is now. */
static enum rk_status since_when(struct rk_ctl_keys *keys, const struct rk_ctl_selection *selection,
                                 struct request *request, struct rk_error *err)
{
    int64_t *since_ms = &request->scan.not_before_ms;
    for (size_t i = 0; i < selection->n; i++) {
        int64_t retired_ms = selection->keys[i]->retired_at_ms;
        *since_ms = retired_ms > *since_ms ? retired_ms : *since_ms;
    }
    return request->shred ? rk_mongo_now(keys->client, since_ms, err) : RK_OK;
}

static enum rk_status destroy_all(struct rk_ctl_keys *keys, struct rk_ctl_selection *selection,
                                  struct request *request, struct rk_error *err)
{
    struct rk_error why = {.message = ""};
    enum rk_status status = since_when(keys, selection, request, &why);
    if (status == RK_OK) {
        status = rk_ctl_count(keys, &request->scan, &request->proof, &why);
    }
    if (status == RK_OK) {
        status = check_values(request, selection, &why);
    }
    for (size_t i = 0; i < selection->n; i++) {
        if (status == RK_OK) {
            why.message[0] = '\0';
            status = destroy_one(keys, selection->keys[i], request, &why);
        }
        status = rk_ctl_end(keys, selection, i, status, &why);
    }
    return status == RK_OK ? RK_OK : rk_error_set(err, status, "%s", why.message);
}

/* Do policies read values that applications had Vault encrypt under this transit key? */
static bool reads_old_values(const struct rk_policy_set *policies,
                             const struct rk_config_vault *vault)
{
    char name[300];
    (void)snprintf(name, sizeof name, "%s/%s", vault->transit_mount, vault->key);
    for (size_t i = 0; i < rk_policy_set_count(policies); i++) {
        const struct rk_policy *policy = rk_policy_set_at(policies, i);
        for (size_t j = 0; j < policy->n_fields; j++) {
            const struct rk_field *field = &policy->fields[j];
            for (size_t k = 0; k < field->n_legacy; k++) {
                if (field->legacy[k].cipher == RK_LEGACY_VAULT_TRANSIT &&
                    strcmp(field->legacy[k].key, name) == 0) {
                    return true;
                }
            }
        }
    }
    return false;
}

/* The newest of the selected keys, by which the others' wraps are refused as well; and what has to
 * stay usable. */
static enum rk_status trim(const struct rk_ctl_keys *keys, const struct rk_ctl_selection *selection,
                           const struct rk_provider *provider, char *note, size_t size,
                           struct rk_error *err)
{
    size_t n = 0;
    struct rk_needed_key *needed = calloc(keys->n + 1, sizeof *needed);
    if (needed == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < keys->n; i++) {
        const struct rk_key_record *key = &keys->records[i];
        if (key->state != RK_KEY_DESTROYED) {
            needed[n++] = (struct rk_needed_key){
                .id = key->id, .kek = key->wrapped.kek, .remote = key->wrapped.remote};
        }
    }
    enum rk_status status = RK_OK;
    for (size_t i = 0; i < selection->n && status == RK_OK; i++) {
        status = provider->ops->trim(provider->self, selection->keys[i]->wrapped.kek, needed, n,
                                     note, size, err);
    }
    free(needed);
    return status;
}

/* The keys are destroyed whatever comes of this; request says what has. */
static enum rk_status trim_provider(struct rk_ctl_keys *keys, struct rk_ctl_selection *selection,
                                    struct request *request, struct rk_error *err)
{
    struct rk_provider provider;
    struct rk_error why = {.message = ""};
    const struct rk_config_keys *config = &keys->ctl->config->keys;
    struct rk_ctl_keys left = *keys;
    if (config->provider != RK_CONFIG_VAULT || !config->vault.trim) {
        return RK_OK;
    }
    struct rk_audit_event event = {.actor = keys->ctl->actor,
                                   .action = "key.trim",
                                   .key_id = selection->keys[0]->id,
                                   .target = config->vault.key,
                                   .result = "started"};
    enum rk_status status = rk_audit_record(keys->client, keys->state_db, &event, err);
    if (status != RK_OK) {
        return status;
    }
    left.records = NULL;
    left.n = 0;
    status = rk_registry_list(keys->registry, &left.records, &left.n, &why);
    if (status == RK_OK && reads_old_values(keys->ctl->config->policies, &config->vault)) {
        status = rk_error_set(&why, RK_ESTATE, "policies read old values that it encrypted itself");
    }
    if (status == RK_OK) {
        status = rk_provider_open(config, &provider, &why);
    }
    if (status == RK_OK) {
        status = trim(&left, selection, &provider, request->note, sizeof request->note, &why);
        provider.ops->free(provider.self);
    }
    request->trimmed = status == RK_OK;
    if (status == RK_OK) {
        (void)rk_error_set(&why, RK_OK, "%s", request->note);
    } else {
        (void)snprintf(request->note, sizeof request->note,
                       "min_decryption_version of Vault's %s/%s was not raised: %s",
                       config->vault.transit_mount, config->vault.key, why.message);
    }
    free(left.records);
    (void)rk_audit_conclude(keys->client, keys->state_db, &event, status, &why, NULL);
    return RK_OK;
}

static enum rk_ctl_exit print_destroyed(const struct rk_ctl *ctl,
                                        const struct rk_ctl_selection *selection, const void *arg)
{
    const struct request *request = arg;
    if (!ctl->json) {
        for (size_t i = 0; i < selection->n; i++) {
            (void)printf("key %u is destroyed; running instances forget it within %u ms\n",
                         selection->keys[i]->id, ctl->config->keys.refresh_interval_ms);
        }
        if (request->note[0] != '\0') {
            (void)printf("%s\n", request->note);
        }
        return RK_CTL_OK;
    }
    bson_t doc = BSON_INITIALIZER;
    rk_ctl_append_ids(&doc, "destroyed", selection);
    BSON_APPEND_UTF8(&doc, "proof", request->proof.id);
    BSON_APPEND_INT64(&doc, "values", request->values);
    BSON_APPEND_BOOL(&doc, "trimmed", request->trimmed);
    BSON_APPEND_UTF8(&doc, "note", request->note);
    enum rk_ctl_exit code = rk_ctl_print_json(&doc);
    bson_destroy(&doc);
    return code;
}

static enum rk_status check(const struct rk_ctl_selection *selection, void *arg,
                            struct rk_error *err)
{
    const struct request *request = arg;
    enum rk_status status = check_states(selection, request, err);
    return status == RK_OK ? confirm_name(request, selection, err) : status;
}

static enum rk_status run(struct rk_ctl_keys *keys, struct rk_ctl_selection *selection, void *arg,
                          struct rk_error *err)
{
    enum rk_status status = destroy_all(keys, selection, arg, err);
    return status == RK_OK ? trim_provider(keys, selection, arg, err) : status;
}

static const struct rk_ctl_step destroy_step = {.action = "key.destroy",
                                                .states = RK_CTL_ANY_STATE,
                                                .check = check,
                                                .run = run,
                                                .print = print_destroyed};

enum rk_ctl_exit rk_ctl_run_keys_destroy(struct rk_ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {
        {"confirm", required_argument, NULL, 'c'}, {"shred", no_argument, NULL, 's'},
        {"count", required_argument, NULL, 'n'},   {"everywhere", no_argument, NULL, 'e'},
        {"restart", no_argument, NULL, 'r'},       {NULL, 0, NULL, 0}};
    struct request request = {.which = NULL};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            request.confirm = optarg;
            break;
        case 's':
            request.shred = true;
            break;
        case 'n':
            request.count = optarg;
            break;
        case 'e':
            request.scan.everywhere = true;
            break;
        case 'r':
            request.scan.restart = true;
            break;
        default:
            return RK_CTL_USAGE;
        }
    }
    if (argc - optind != 1 || (request.count != NULL && !request.shred)) {
        return rk_ctl_usage("keys destroy takes the id of a key, or a name; --count goes with "
                            "--shred");
    }
    bool asks = request.confirm == NULL || (request.shred && request.count == NULL);
    if (asks && isatty(STDIN_FILENO) != 1) {
        return rk_ctl_usage("keys destroy asks before it does anything; without a terminal give "
                            "--confirm NAME, and --count N with --shred");
    }
    request.which = argv[optind];
    enum rk_ctl_exit code = rk_ctl_take_step(ctl, &destroy_step, request.which, &request);
    rk_proof_deinit(&request.proof);
    return code;
}
