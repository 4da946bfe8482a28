/*
 * One batch: pass the gate, read, examine, write, look again at what did not match, file what
 * cannot be done. The gate comes first: what is read is written at once, or not at all any more.
 */
#include "counts_internal.h"
#include "dead_letters_internal.h"
#include "engine_internal.h"
#include "write_internal.h"

#include <rekey/base/clock.h>
#include <rekey/jobs/key_wait.h>
#include <rekey/log/log.h>

#define ROUNDS_MAX 4u     /* compare-and-swaps of a document that keeps changing */
#define SCAN_DISCOUNT 10u /* a document that is only read counts as this part of a written one */

static void refresh_keys(struct rk_sweeper *s)
{
    uint64_t generation = rk_key_service_generation(s->engine->keys);
    if (s->keys == NULL || generation != s->keys_generation) {
        rk_keyset_unref(s->keys);
        s->keys = rk_key_service_keyset(s->engine->keys);
        s->keys_generation = generation;
    }
}

/* Is key_id the current key of its name, or was before another one? 0: there was none. */
static bool has_current(const struct rk_sweeper *s, uint32_t key_id)
{
    const struct rk_keyset_key *key = rk_keyset_known(s->keys, key_id);
    if (key == NULL) {
        return key_id == 0;
    }
    const struct rk_data_key *current = rk_keyset_current(s->keys, key->name);
    return current != NULL && rk_data_key_id(current) >= key_id;
}

static bool has_all(const struct rk_sweeper *s, const struct rk_policy *policy)
{
    bool all = true;
    for (size_t i = 0; i < policy->n_fields && all; i++) {
        all = policy->fields[i].by_tenant ||
              rk_keyset_current(s->keys, policy->fields[i].key) != NULL;
    }
    return all;
}

/* Under older keys than the job's, what is to be rewritten would look as if it were done. */
static enum rk_status need_current_keys(struct rk_sweeper *s, const struct rk_sweep_task *task,
                                        struct rk_error *err)
{
    enum rk_status status = RK_OK;
    refresh_keys(s);
    if (!has_current(s, task->key_id)) {
        status = rk_key_wait(s->engine->keys, task->key_id, &s->cancel, err);
        refresh_keys(s);
    }
    if (status == RK_ENOENT || (status == RK_OK && !has_current(s, task->key_id))) {
        return rk_error_set(err, RK_EIO, "data key %u is not the current one yet", task->key_id);
    }
    if (status == RK_OK && !has_all(s, task->policy)) {
        status = rk_key_wait_policy(s->engine->keys, task->policy, &s->cancel, err);
        refresh_keys(s);
    }
    if (status == RK_OK && !has_all(s, task->policy)) {
        status = rk_error_set(err, RK_EIO, "a current key of %s is not loaded", task->ns->full);
    }
    return status;
}

/* Tries to load the keys that the plan's rejects miss; *loaded: at least one came. */
static enum rk_status load_missing(struct rk_sweeper *s, const struct rk_plan *plan, bool *loaded,
                                   struct rk_error *err)
{
    uint32_t absent = 0;
    *loaded = false;
    if (plan->missing_name[0] != '\0') {
        enum rk_status status =
            rk_key_wait_name(s->engine->keys, plan->missing_name, &s->cancel, err);
        *loaded = status == RK_OK;
        if (status != RK_OK && status != RK_ENOENT) {
            return status;
        }
    }
    for (size_t i = 0; i < rk_plan_rejects(plan); i++) {
        uint32_t id = rk_plan_reject(plan, i)->key_id;
        if (id == 0 || id == absent) {
            continue;
        }
        refresh_keys(s);
        if (rk_keyset_find(s->keys, id) != NULL) {
            *loaded = true;
            continue;
        }
        enum rk_status status = rk_key_wait(s->engine->keys, id, &s->cancel, err);
        if (status == RK_OK) {
            *loaded = true;
        } else if (status == RK_ENOENT) {
            absent = id;
        } else {
            return status;
        }
    }
    return RK_OK;
}

static enum rk_status examine_once(struct rk_sweeper *s, const struct rk_sweep_task *task,
                                   const struct rk_scan_batch *batch, struct rk_plan *plan,
                                   struct rk_id *last, struct rk_error *err)
{
    const struct rk_transform_keys keys = {
        .aead = s->aead, .keys = s->keys, .now_s = (uint32_t)(rk_clock_wall_ms() / 1000)};
    struct rk_bson_iter iter;
    struct rk_bson_view doc;
    struct rk_bson_elem id;
    enum rk_status status;
    rk_plan_clear(plan);
    rk_scan_iter_init(&iter, batch);
    while ((status = rk_scan_next(&iter, &doc, &id)) == RK_OK) {
        status = rk_transform_document(task->transform, &keys, task->policy, &doc, plan);
        if (status != RK_OK) {
            return rk_error_set(err, status, "cannot examine a document of %s: %s", task->ns->full,
                                rk_status_name(status));
        }
    }
    if (status != RK_ENOENT) {
        return rk_error_set(err, status, "mongod returned a malformed document of %s",
                            task->ns->full);
    }
    size_t n = rk_plan_count(plan);
    if (last != NULL && n > 0) {
        const struct rk_doc_plan *final = rk_plan_doc(plan, n - 1);
        if (rk_id_set(last, final->id.type, final->id.data, final->id.len) != RK_OK) {
            return rk_error_set(err, RK_ENOMEM, "out of memory");
        }
    }
    return RK_OK;
}

/* Over the batch again and again, until all keys are there and nothing is promised any more. */
static enum rk_status examine_in_passes(struct rk_sweeper *s, const struct rk_sweep_task *task,
                                        const struct rk_scan_batch *batch, struct rk_plan *plan,
                                        struct rk_id *last, struct rk_remote **remote,
                                        struct rk_error *err)
{
    bool again = true;
    enum rk_status status = RK_OK;
    while (again && status == RK_OK) {
        rk_remote_rewind(*remote);
        status = need_current_keys(s, task, err);
        if (status == RK_OK) {
            status = examine_once(s, task, batch, plan, last, err);
        }
        if (status == RK_OK && rk_remote_wanted(*remote)) {
            status = rk_values_wait(s->engine->keys, remote, &s->cancel, err);
        } else if (status == RK_OK) {
            status = load_missing(s, plan, &again, err);
        }
    }
    return status;
}

static enum rk_status examine(struct rk_sweeper *s, const struct rk_sweep_task *task,
                              const struct rk_scan_batch *batch, struct rk_plan *plan,
                              struct rk_id *last, struct rk_error *err)
{
    struct rk_remote *remote = NULL;
    if (rk_key_service_answers(s->engine->keys)) {
        remote = rk_remote_new(RK_JOBS_REMOTE_BYTES_MAX, (uint32_t)(rk_clock_wall_ms() / 1000));
        if (remote == NULL) {
            return rk_error_set(err, RK_ENOMEM, "out of memory");
        }
    }
    rk_aead_set_remote(s->aead, remote);
    enum rk_status status = examine_in_passes(s, task, batch, plan, last, &remote, err);
    rk_aead_set_remote(s->aead, NULL);
    rk_remote_free(remote);
    return status;
}

static uint32_t count_changes(const struct rk_plan *plan)
{
    uint32_t n = 0;
    for (size_t i = 0; i < rk_plan_count(plan); i++) {
        n += rk_plan_doc(plan, i)->n_changes > 0;
    }
    return n;
}

static uint32_t count_rejects(const struct rk_plan *plan)
{
    uint32_t n = 0;
    for (size_t i = 0; i < rk_plan_count(plan); i++) {
        const struct rk_doc_plan *doc = rk_plan_doc(plan, i);
        n += doc->n_changes == 0 && doc->n_rejects > 0;
    }
    return n;
}

static void give_up(struct rk_plan *plan)
{
    for (size_t i = 0; i < rk_plan_count(plan); i++) {
        rk_plan_doc(plan, i)->failure = "changed during every attempt";
    }
}

/* Documents of a batch that have no outcome yet. Who deletes or changes a document right after it
 * was rewritten must not make two outcomes of it, so none is counted beyond those left. */
static int64_t settle(int64_t *left, int64_t n)
{
    int64_t counted = n < *left ? n : *left;
    *left -= counted;
    return counted;
}

/* After a write of plan that missed some documents: what has become of them goes to next. */
static enum rk_status look_again(struct rk_sweeper *s, const struct rk_sweep_task *task,
                                 const struct rk_plan *plan, uint32_t asked,
                                 struct rk_scan_batch *batch, struct rk_plan *next,
                                 struct rk_sweep_counts *counts, int64_t *left,
                                 struct rk_error *err)
{
    enum rk_status status =
        rk_scan_read_planned(s->client, task->ns, &task->scan, plan, batch, err);
    if (status == RK_OK && !batch->exhausted) {
        /* The documents have outgrown one reply; the batch as a whole will be read again. */
        status = rk_error_set(err, RK_EIO, "documents changed while they were being swept");
    }
    if (status == RK_OK) {
        status = examine(s, task, batch, next, NULL, err);
    }
    if (status == RK_OK) {
        int64_t again = count_changes(next);
        counts->changed_again += again;
        counts->gone += settle(left, (int64_t)asked - (int64_t)rk_plan_count(next));
        counts->rejected += settle(left, count_rejects(next));
        counts->already_current += *left > again ? settle(left, *left - again) : 0;
    }
    return status;
}

static void go_without_transaction(struct rk_sweeper *s, const struct rk_ns *ns,
                                   const struct rk_error *cause)
{
    rk_log(RK_LOG_DEBUG, "transaction_given_up", RK_S("ns", ns->full), RK_I("code", cause->code),
           RK_S("error", cause->message));
    rk_counter_add_shared(&s->engine->transactions_given_up, 1);
    rk_transaction_note(&s->transaction, false);
}

/* As a whole, at the time of the snapshot; false: it was not, mostly since somebody was faster. */
static bool written_at_once(struct rk_sweeper *s, const struct rk_write *write, uint64_t at,
                            struct rk_plan *plan, struct rk_write_result *result)
{
    struct rk_error err;
    if (at == 0) {
        return false;
    }
    if (rk_write_plan_at(write, &s->transaction, at, plan, result, &err) != RK_OK) {
        go_without_transaction(s, write->ns, &err);
        return false;
    }
    rk_transaction_note(&s->transaction, true);
    return true;
}

static enum rk_status write_rounds(struct rk_sweeper *s, const struct rk_lease *lease,
                                   const struct rk_sweep_task *task, int64_t writes,
                                   struct rk_sweep_counts *counts, struct rk_error *err)
{
    const struct rk_write write = {.client = s->client,
                                   .ns = task->ns,
                                   .shard_key = task->scan.shard_key,
                                   .wtimeout_ms = lease->wtimeout_ms,
                                   .command = &s->command};
    enum rk_status status = RK_OK;
    int64_t left = writes;
    int64_t current = counts->already_current;
    bool at_once = writes > 0;
    bool unsure = false;
    for (unsigned round = 0; status == RK_OK; round++) {
        struct rk_plan *plan = &s->plans[round % 2];
        struct rk_plan *next = &s->plans[(round + 1) % 2];
        struct rk_write_result result = {0};
        int64_t filed = 0;
        if (round == ROUNDS_MAX) {
            counts->rejected += settle(&left, count_changes(plan));
            give_up(plan);
        }
        at_once = at_once && written_at_once(s, &write, s->batches[0].at, plan, &result);
        unsure = unsure || result.unsure;
        if (!at_once) {
            status = rk_write_plan(&write, plan, &result, err);
        }
        counts->swept += settle(&left, result.matched);
        counts->rejected += settle(&left, result.failed);
        if (status == RK_OK &&
            (rk_plan_rejects(plan) > 0 || result.failed > 0 || round == ROUNDS_MAX)) {
            status = rk_dead_letters_file(lease, task->job, task->ns, task->transform, plan, &filed,
                                          err);
            counts->dead_lettered += filed;
        }
        if (status != RK_OK || result.tried == result.matched + result.failed) {
            break;
        }
        status = look_again(s, task, plan, result.tried - result.failed,
                            &s->batches[(round + 1) % 2], next, counts, &left, err);
    }
    counts->already_current += left; /* rewritten in an earlier round, and by somebody else since */
    if (unsure) {                    /* what the write found done, it had done itself */
        counts->swept += counts->already_current - current;
        counts->already_current = current;
    }
    return status;
}

static enum rk_status read_batch(struct rk_sweeper *s, const struct rk_sweep_task *task,
                                 struct rk_error *err)
{
    struct rk_scan_batch *batch = &s->batches[0];
    enum rk_status status;
    if (task->ids != NULL) {
        return rk_scan_read_ids(s->client, task->ns, &task->scan, task->ids, batch, err);
    }
    status = rk_scan_read(s->client, task->ns, &task->scan, batch, err);
    if (task->scan.snapshot && status == RK_EREFUSED) {
        /* Of a capped collection, or of what one was before its catalog entry changed. */
        go_without_transaction(s, task->ns, err);
    }
    if (task->scan.snapshot &&
        (status == RK_EREFUSED || (status == RK_OK && batch->at < task->scan.from->after))) {
        /* A snapshot from before the claim may lack what the range must not miss. */
        struct rk_scan plain = task->scan;
        plain.snapshot = false;
        status = rk_scan_read(s->client, task->ns, &plain, batch, err);
    }
    return status;
}

enum rk_status rk_sweep_batch(struct rk_sweeper *s, const struct rk_lease *lease,
                              const struct rk_sweep_task *task, struct rk_sweep_counts *counts,
                              struct rk_id *last, bool *exhausted, struct rk_error *err)
{
    struct rk_plan *plan = &s->plans[0];
    uint32_t most = task->ids != NULL ? rk_scan_count_ids(task->ids) : task->scan.limit;
    last->type = 0;
    if (!rk_gate_take(s->engine->gate, most, &s->cancel)) {
        return rk_error_set(err, RK_ESTATE, "cancelled");
    }
    enum rk_status status = read_batch(s, task, err);
    if (status == RK_OK) {
        *exhausted = s->batches[0].exhausted;
        status = examine(s, task, &s->batches[0], plan, last, err);
    }
    if (status != RK_OK) {
        rk_gate_give_back(s->engine->gate, most);
        return status;
    }
    uint32_t docs = (uint32_t)rk_plan_count(plan);
    uint32_t writes = count_changes(plan);
    uint32_t cost = writes + (docs - writes + SCAN_DISCOUNT - 1) / SCAN_DISCOUNT;
    rk_gate_give_back(s->engine->gate, most > cost ? most - cost : 0);
    uint32_t rejects = count_rejects(plan);
    struct rk_sweep_counts done = {
        .scanned = docs,
        .already_current = docs - writes - rejects,
        .rejected = rejects,
        .plaintext = (int64_t)plan->plaintext,
    };
    if (writes > 0 || rk_plan_rejects(plan) > 0) {
        status = write_rounds(s, lease, task, writes, &done, err);
    }
    if (status != RK_OK) {
        counts->swept += done.swept; /* which stays; all of the batch will be met again */
        return status;
    }
    rk_sweep_counts_add(counts, &done);
    rk_gate_report(s->engine->gate, cost);
    return status;
}
