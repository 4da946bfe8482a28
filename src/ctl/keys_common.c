/* Opening the registry, choosing keys, the audit log, counting: see keys_internal.h. */
#include "keys_internal.h"

#include "jobs_internal.h"

#include <stdlib.h>
#include <string.h>

enum rk_status rk_ctl_keys_read(struct rk_ctl_keys *keys, struct rk_error *err)
{
    free(keys->records);
    keys->records = NULL;
    keys->n = 0;
    return rk_registry_list(keys->registry, &keys->records, &keys->n, err);
}

enum rk_status rk_ctl_keys_open(struct rk_ctl *ctl, struct rk_ctl_keys *keys, struct rk_error *err)
{
    *keys = (struct rk_ctl_keys){.ctl = ctl, .state_db = ctl->config->upstream.state_db};
    keys->client = mongoc_client_pool_pop(ctl->client_pool);
    enum rk_status status = rk_registry_new(ctl->client_pool, keys->state_db, &keys->registry, err);
    return status == RK_OK ? rk_ctl_keys_read(keys, err) : status;
}

void rk_ctl_keys_close(struct rk_ctl_keys *keys)
{
    free(keys->records);
    rk_registry_free(keys->registry);
    mongoc_client_pool_push(keys->ctl->client_pool, keys->client);
}

/* 0: text is no id. */
static uint32_t parse_id(const char *text)
{
    char *end = NULL;
    unsigned long id = text[0] >= '1' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
    return end != NULL && *end == '\0' && id <= UINT32_MAX ? (uint32_t)id : 0;
}

bool rk_ctl_key_is(const struct rk_key_record *key, const char *text)
{
    uint32_t id = parse_id(text);
    return id != 0 ? key->id == id : strcmp(key->name, text) == 0;
}

static enum rk_status choose(const struct rk_ctl_keys *keys, const char *text, unsigned states,
                             struct rk_ctl_selection *out, struct rk_error *err)
{
    bool by_id = parse_id(text) != 0;
    *out = (struct rk_ctl_selection){
        .keys = calloc(keys->n + 1, sizeof(struct rk_key_record *)),
        .events = calloc(keys->n + 1, sizeof(struct rk_audit_event)),
    };
    if (out->keys == NULL || out->events == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < keys->n; i++) {
        const struct rk_key_record *key = &keys->records[i];
        if (rk_ctl_key_is(key, text) && (by_id || (states >> key->state & 1u) != 0)) {
            out->keys[out->n++] = key;
            out->name = key->name;
        }
    }
    return out->n > 0 ? RK_OK : rk_error_set(err, RK_ENOENT, "there is no key %s to be had", text);
}

static void selection_free(struct rk_ctl_selection *selection)
{
    free(selection->keys);
    free(selection->events);
}

static enum rk_status begin(struct rk_ctl_keys *keys, struct rk_ctl_selection *selection,
                            const char *action, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    for (size_t i = 0; i < selection->n && status == RK_OK; i++) {
        selection->events[i] = (struct rk_audit_event){.actor = keys->ctl->actor,
                                                       .action = action,
                                                       .key_id = selection->keys[i]->id,
                                                       .target = selection->name,
                                                       .result = "started"};
        status = rk_audit_record(keys->client, keys->state_db, &selection->events[i], err);
    }
    return status;
}

enum rk_status rk_ctl_end(struct rk_ctl_keys *keys, struct rk_ctl_selection *selection, size_t i,
                          enum rk_status status, const struct rk_error *why)
{
    return rk_audit_conclude(keys->client, keys->state_db, &selection->events[i], status, why,
                             NULL);
}

enum rk_status rk_ctl_count(struct rk_ctl_keys *keys, const struct rk_ctl_count *what,
                            struct rk_proof *proof, struct rk_error *err)
{
    struct rk_proof_request request = rk_ctl_proof_request(keys->ctl);
    request.everywhere = what->everywhere;
    request.not_before_ms = what->not_before_ms;
    request.restart = what->restart;
    return rk_ctl_prove(keys->ctl, keys->client, &request, proof, err);
}

void rk_ctl_append_ids(bson_t *doc, const char *field, const struct rk_ctl_selection *selection)
{
    bson_t ids;
    bson_append_array_begin(doc, field, -1, &ids);
    for (size_t i = 0; i < selection->n; i++) {
        char text[16];
        const char *key;
        size_t len = bson_uint32_to_string((uint32_t)i, &key, text, sizeof text);
        bson_append_int64(&ids, key, (int)len, (int64_t)selection->keys[i]->id);
    }
    bson_append_array_end(doc, &ids);
}

enum rk_ctl_exit rk_ctl_take_step(struct rk_ctl *ctl, const struct rk_ctl_step *step,
                                  const char *which, void *arg)
{
    struct rk_error err;
    struct rk_ctl_keys keys;
    struct rk_ctl_selection selection = {.n = 0};
    enum rk_status status = rk_ctl_keys_open(ctl, &keys, &err);
    if (status == RK_OK) {
        status = choose(&keys, which, step->states, &selection, &err);
    }
    if (status == RK_OK) {
        status = step->check(&selection, arg, &err);
    }
    if (status == RK_OK) {
        status = begin(&keys, &selection, step->action, &err);
    }
    if (status == RK_OK) {
        status = step->run(&keys, &selection, arg, &err);
    }
    enum rk_ctl_exit code = status == RK_OK ? step->print(ctl, &selection, arg) : rk_ctl_fail(&err);
    selection_free(&selection);
    rk_ctl_keys_close(&keys);
    return code;
}

/* How long transactions may last, where that may be asked; else 0. */
static int64_t transaction_lifetime_ms(mongoc_client_t *client)
{
    bson_t reply;
    bson_iter_t iter;
    int64_t seconds = 0;
    bson_t *command =
        BCON_NEW("getParameter", BCON_INT32(1), "transactionLifetimeLimitSeconds", BCON_INT32(1));
    if (mongoc_client_command_simple(client, "admin", command, NULL, &reply, NULL) &&
        bson_iter_init_find(&iter, &reply, "transactionLifetimeLimitSeconds")) {
        seconds = bson_iter_as_int64(&iter);
    }
    bson_destroy(&reply);
    bson_destroy(command);
    return seconds * 1000;
}

int64_t rk_ctl_settle_ms(const struct rk_ctl_keys *keys)
{
    int64_t settle_ms = keys->ctl->config->keys.write_settle_ms;
    int64_t lifetime_ms = transaction_lifetime_ms(keys->client);
    return lifetime_ms > settle_ms ? lifetime_ms : settle_ms;
}
