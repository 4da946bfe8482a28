#include "world.h"

#include <rekey/bson/rewrite.h>
#include <rekey/crypto/envelope.h>
#include <rekey/jobs/store.h>
#include <rekey/policy/policy.h>

#include <mongoc/mongoc.h>
#include <string.h>

#define CALM_STEPS 20000u
#define FORMER 0u
#define CURRENT 1u

/* ---- tools */

static void must(enum rk_status status, const struct rk_error *err)
{
    if (status != RK_OK) {
        MODEL_DIE("cannot prepare: %s", err->message);
    }
}

/* The value bytes of a BSON binary: length, subtype, envelope. */
static void seal(struct rk_aead *aead, const struct rk_data_key *key, const struct rk_field *field,
                 int32_t n, struct rk_buf *out)
{
    struct rk_buf envelope;
    struct rk_error err;
    uint8_t value[4];
    rk_store_u32(value, (uint32_t)n);
    rk_buf_init(&envelope, 4096);
    rk_buf_init(out, 4096);
    rk_error_set(&err, RK_OK, "sealing");
    must(rk_envelope_seal(aead, key, RK_ALGORITHM_DETERMINISTIC, field->field_id, 0, RK_BSON_INT32,
                          value, sizeof value, &envelope),
         &err);
    must(rk_buf_append_u32(out, (uint32_t)envelope.len), &err);
    must(rk_buf_append_u8(out, RK_ENVELOPE_SUBTYPE), &err);
    must(rk_buf_append(out, envelope.data, envelope.len), &err);
    rk_buf_deinit(&envelope);
}

static void make_values(struct world_tools *tools, struct rk_data_key *const keys[2])
{
    const struct rk_policy *policy = rk_policy_find(tools->policies, "app", 3, "c", 1);
    const struct rk_field *field = rk_path_relate(policy, "s", 1).field;
    struct rk_aead *aead;
    struct rk_error err;
    must(rk_aead_new(&aead, &err), &err);
    for (int32_t n = 0; n < (int32_t)CHECK_PLAINTEXTS; n++) {
        struct check_values *values = &tools->values;
        seal(aead, keys[FORMER], field, n, &values->former[n]);
        seal(aead, keys[CURRENT], field, n, &values->current[n]);
        seal(aead, keys[FORMER], field, n, &values->damaged[n]);
        values->damaged[n].data[values->damaged[n].len - 1] ^= 1;
    }
    rk_aead_free(aead);
}

void world_tools_init(struct world_tools *tools)
{
    const struct rk_field_spec field = {.path = "s", .algorithm = RK_ALGORITHM_DETERMINISTIC};
    const struct rk_policy_spec spec = {.ns = "app.c", .fields = &field, .n_fields = 1};
    struct rk_data_key *keys[2];
    struct rk_error err;
    for (uint32_t i = 0; i < 2; i++) {
        uint8_t root[RK_DATA_KEY_LEN];
        memset(root, (int)i + 1, sizeof root);
        must(rk_data_key_new(i + 1, root, 1700000000u + i, &keys[i], &err), &err);
    }
    const struct rk_keyset_key known[] = {
        {1, RK_KEY_READS, RK_KEY_NAME_DEFAULT, keys[FORMER]},
        {2, RK_KEY_WRITES, RK_KEY_NAME_DEFAULT, keys[CURRENT]},
    };
    must(rk_keyset_new(known, 2, NULL, 0, &tools->keys, &err), &err);
    must(rk_policy_set_new(&spec, 1, RK_UNDECRYPTABLE_ERROR, &tools->policies, &err), &err);
    make_values(tools, keys);
    tools->sim = sim_new();
    tools->sim->keys = tools->keys;
    rk_data_key_unref(keys[FORMER]);
    rk_data_key_unref(keys[CURRENT]);
}

void world_tools_deinit(struct world_tools *tools)
{
    for (uint32_t n = 0; n < CHECK_PLAINTEXTS; n++) {
        rk_buf_deinit(&tools->values.former[n]);
        rk_buf_deinit(&tools->values.current[n]);
        rk_buf_deinit(&tools->values.damaged[n]);
    }
    sim_free(tools->sim);
    rk_policy_set_unref(tools->policies);
    rk_keyset_unref(tools->keys);
}

/* ---- commands */

static void write_bytes(FILE *file, const struct rk_buf *bytes)
{
    if (fwrite(bytes->data, 1, bytes->len, file) != bytes->len) {
        MODEL_DIE("cannot write the dump");
    }
}

static void dump_command(const struct world *world, const struct model_call *call,
                         const struct rk_buf *reply)
{
    struct rk_buf entry;
    struct rk_bson_writer w;
    const struct rk_bson_view view = {reply->data, (uint32_t)reply->len};
    uint8_t now[8];
    rk_store_u64(now, (uint64_t)call->now_ms);
    rk_buf_init(&entry, 1u << 24);
    rk_bson_writer_init(&w, &entry);
    rk_bson_begin(&w);
    rk_bson_put_int32(&w, "run", world->options.run);
    rk_bson_put_utf8(&w, "db", call->db, strlen(call->db));
    rk_bson_put_utf8(&w, "by", call->actor.instance, strlen(call->actor.instance));
    rk_bson_put(&w, RK_BSON_DATE, "now", 3, now, sizeof now);
    rk_bson_put_doc(&w, RK_BSON_DOCUMENT, "command", &call->command);
    rk_bson_put_doc(&w, RK_BSON_DOCUMENT, "reply", &view);
    rk_bson_end(&w);
    write_bytes(world->options.dump, &entry);
    rk_buf_deinit(&entry);
}

/* What is left of a run: every collection. */
static void dump_collection(const struct world *world, const struct model_collection *c)
{
    struct rk_buf entry;
    struct rk_bson_writer w;
    const char *db = strcmp(c->name, "c") == 0 ? "app" : "state";
    uint32_t n = 0;
    rk_buf_init(&entry, 1u << 24);
    rk_bson_writer_init(&w, &entry);
    rk_bson_begin(&w);
    rk_bson_put_int32(&w, "run", world->options.run);
    rk_bson_put_utf8(&w, "db", db, strlen(db));
    rk_bson_put_utf8(&w, "collection", c->name, strlen(c->name));
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "documents", 9);
    for (uint32_t i = 0; i < c->n; i++) {
        if (c->slots[i].latest != NULL) {
            char key[16];
            const struct rk_bson_view doc = model_doc_view(c->slots[i].latest);
            (void)snprintf(key, sizeof key, "%u", n++);
            rk_bson_put_doc(&w, RK_BSON_DOCUMENT, key, &doc);
        }
    }
    rk_bson_end(&w);
    rk_bson_end(&w);
    write_bytes(world->options.dump, &entry);
    rk_buf_deinit(&entry);
}

static void print_json(const char *what, const uint8_t *data, size_t len)
{
    bson_t view;
    if (bson_init_static(&view, data, len)) {
        char *json = bson_as_relaxed_extended_json(&view, NULL);
        (void)fprintf(stderr, "    %s %s\n", what, json);
        bson_free(json);
    }
}

void world_apply(struct world *world, struct model_actor actor, const char *db,
                 const struct rk_buf *command, bool uncommitted, struct rk_buf *reply)
{
    const struct model_call call = {
        .db = db,
        .command = {command->data, (uint32_t)command->len},
        .actor = actor,
        .now_ms = (int64_t)(world->sim->now_us / 1000u),
        .uncommitted = uncommitted,
    };
    if (world->options.verbose) {
        (void)fprintf(stderr, "  %lld %s/%llu%s\n", (long long)call.now_ms, actor.instance,
                      (unsigned long long)actor.serial, uncommitted ? " (not committed)" : "");
        print_json(">", command->data, command->len);
    }
    model_store_run(&world->store, &call, reply);
    world->result.commands++;
    if (strcmp(db, "app") == 0 && strcmp(actor.instance, "app") != 0) {
        const struct rk_bson_view view = {reply->data, (uint32_t)reply->len};
        struct rk_bson_elem n = model_field(&view, "nModified");
        int64_t modified = 0;
        (void)rk_bson_elem_int(&n, &modified);
        world->check.sweeps_seen += modified;
    }
    if (world->options.verbose) {
        print_json("<", reply->data, reply->len);
    }
    if (world->options.dump != NULL) {
        model_store_commit(&world->store); /* as a server does that nobody takes from */
        dump_command(world, &call, reply);
    }
}

/* ---- a run */

static const char *job_state(struct world *world)
{
    struct model_collection *jobs = model_store_collection(&world->store, "jobs");
    if (jobs->n == 0 || jobs->slots[0].latest == NULL) {
        return "";
    }
    struct rk_bson_view job = model_doc_view(jobs->slots[0].latest);
    return (const char *)model_field(&job, "state").value + 4;
}

static bool over(struct world *world)
{
    const char *state = job_state(world);
    return world->check.violated || strcmp(state, "complete") == 0 ||
           strcmp(state, "cancelled") == 0;
}

/* When the next thing happens by itself. */
static uint64_t next_event(const struct world *world)
{
    const struct sim *sim = world->sim;
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < sim->n_fibers; i++) {
        const struct sim_fiber *fiber = &sim->fibers[i];
        uint64_t at = UINT64_MAX;
        if (fiber->state == SIM_WAITING) {
            at = fiber->deadline_us;
        } else if (fiber->state == SIM_READY || fiber->state == SIM_ANSWERED ||
                   (fiber->state == SIM_JOINING && fiber->joined->state == SIM_DONE)) {
            at = fiber->process->stopped_until_us;
        }
        if (at != UINT64_MAX && fiber->process->stopped_until_us > at) {
            at = fiber->process->stopped_until_us;
        }
        next = at < next ? at : next;
    }
    for (uint32_t i = 0; i < world->n_instances; i++) {
        if (world->instances[i].process == NULL && world->instances[i].restart_us < next) {
            next = world->instances[i].restart_us;
        }
    }
    return next;
}

/* One command arrives, or one thread runs. */
static void step(struct world *world)
{
    struct sim *sim = world->sim;
    uint32_t able[SIM_FIBERS_MAX];
    uint32_t n = 0;
    sim->now_us += sim_random(sim, world->step_us);
    world_disturb(world);
    for (uint32_t i = 0; i < sim->n_fibers; i++) {
        if (sim->fibers[i].state == SIM_SENT || sim_can_run(sim, &sim->fibers[i])) {
            able[n++] = i;
        }
    }
    if (n == 0) {
        uint64_t next = next_event(world);
        if (next == UINT64_MAX) {
            check_fail(&world->check, "everybody waits for good");
        } else if (next > sim->now_us) {
            sim->now_us = next;
        }
        return;
    }
    struct sim_fiber *fiber = &sim->fibers[able[sim_random(sim, n)]];
    if (fiber->state == SIM_SENT) {
        world_deliver(world, fiber);
        if (sim_random(sim, 8) == 0) {
            return; /* the answer takes its time */
        }
    }
    if (sim_can_run(sim, fiber)) {
        sim_run(sim, fiber);
    }
}

static void prepare(struct world *world)
{
    struct sim *sim = world->sim;
    static const uint32_t steps_us[] = {1000, 20000, 100000, 400000};
    static const uint32_t splits_ms[] = {0, 1, 1, 1500};
    world->n_processes = 1;
    world->processes[0] = (struct sim_process){.name = "ctl"};
    world->faults = sim_random(sim, 1u << FAULTS);
    if (sim_random(sim, 16) == 0) {
        world->faults = 0;
    }
    world->local_reads = world->options.mutation == MODEL_LOCAL_SCANS ||
                         world->options.mutation == MODEL_LOCAL_PLAN ||
                         world->options.mutation == MODEL_LOCAL_CLOSE;
    if (world->local_reads) {
        world->faults |= 1u << FAULT_ELECTION | 1u << FAULT_NO_MAJORITY;
    }
    if (world->options.dump != NULL) {
        world->faults &= ~(1u << FAULT_ELECTION | 1u << FAULT_NO_MAJORITY);
    }
    world->step_us = steps_us[sim_random(sim, 4)];
    world->large = sim_random(sim, 8) == 0;
    world->threads = 1 + sim_random(sim, world->large ? 3 : 2);
    world->range_docs = 1 + sim_random(sim, 4);
    world->batch_docs = 1 + sim_random(sim, 4);
    world->ranges_ahead = 1 + sim_random(sim, 4);
    world->split_after_ms = splits_ms[sim_random(sim, 4)];
    if (world->options.mutation == MODEL_ANY_NOTE) { /* takes two splits and a late command */
        world->faults = 1u << FAULT_LATE;
        world->large = true;
        world->range_docs += 8;
        world->split_after_ms = 1;
    }
    if (world->split_after_ms > 0) { /* there shall be something to split, and time */
        world->range_docs += 3;
        world->batch_docs = 1;
        world->step_us = steps_us[2 + sim_random(sim, 2)];
    }
    world->n_instances = world->large ? 2 + sim_random(sim, 3) : 1 + sim_random(sim, 2);
    writers_fill(world);
    world->calm = true;
    world_act(world, -1);
    while (world->ctl.busy) {
        step(world);
    }
    world->calm = false;
}

/* Without faults, the job has to come to its end. */
static void calm_down(struct world *world)
{
    world->calm = true;
    for (uint32_t i = 0; i < world->n_processes; i++) {
        world->processes[i].stopped_until_us = 0;
    }
    for (uint32_t i = 0; i < CALM_STEPS && !over(world); i++) {
        const char *state = job_state(world);
        if (strcmp(state, "paused") == 0 || strcmp(state, "failed") == 0) {
            world_act(world, RK_JOB_RESUME);
        }
        step(world);
    }
    if (!over(world)) {
        check_fail(&world->check, "without faults the job is still %s", job_state(world));
    }
}

static void tear_down(struct world *world)
{
    if (!world->check.violated) {
        world_apply_late(world, true);
    }
    while (world->ctl.busy) {
        step(world);
    }
    for (uint32_t i = 0; i < world->n_instances; i++) {
        world_crash(world, &world->instances[i]);
    }
    for (uint32_t i = 0; i < world->n_late; i++) {
        rk_buf_deinit(&world->late[i].command);
    }
    for (uint32_t i = 0; i < world->sim->n_fibers; i++) {
        if (world->sim->fibers[i].state != SIM_IDLE) {
            MODEL_DIE("a thread of %s is left, in state %d", world->sim->fibers[i].process->name,
                      (int)world->sim->fibers[i].state);
        }
    }
    model_store_deinit(&world->store);
}

struct world_result world_run(struct world_tools *tools, const struct world_options *options)
{
    static struct world world;
    struct sim *sim = tools->sim;
    memset(&world, 0, offsetof(struct world, store));
    memset((char *)&world + offsetof(struct world, options), 0,
           sizeof world - offsetof(struct world, options));
    world.tools = tools;
    world.sim = sim;
    world.options = *options;
    sim->now_us = 1700000000000000u;
    sim->random = options->seed;
    sim->serials = 0;
    sim->n_fibers = 0;
    sim->verbose = options->verbose;
    sim_running = sim;
    model_store_init(&world.store, options->mutation, check_change, &world.check);
    check_init(&world.check, &world.store, &tools->values);
    prepare(&world);
    for (uint32_t i = 0; i < (world.large ? 300u : 120u) && !over(&world); i++) {
        step(&world);
    }
    calm_down(&world);
    model_store_commit(&world.store);
    world.result.complete = strcmp(job_state(&world), "complete") == 0;
    world.result.cancelled = strcmp(job_state(&world), "cancelled") == 0;
    for (uint32_t i = 0; options->dump != NULL && i < world.store.n; i++) {
        dump_collection(&world, &world.store.collections[i]);
    }
    world.options.dump = NULL;
    tear_down(&world);
    sim_running = NULL;
    world.result.splits = world.check.splits;
    world.result.violated = world.check.violated;
    memcpy(world.result.what, world.check.what, sizeof world.result.what);
    return world.result;
}
