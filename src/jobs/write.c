#include "write_internal.h"

#include <string.h>

/* mongod takes 16 MiB and 16 KiB in one command document; what else is in it needs some room. */
#define COMMAND_MAX ((16u << 20) + (16u << 10))
#define COMMAND_ROOM 4096u
#define COMMAND_SOFT_MAX (8u << 20)
#define OP_OVERHEAD 128u
#define CHANGE_OVERHEAD 4u
#define OPS_MAX_BYTES (1u << 20)

struct builder {
    struct rk_bson_writer w;
    const struct rk_write *write;
    struct rk_plan *plan;
    uint64_t at;       /* of the transaction; 0: compare-and-swaps */
    bool begun;        /* the transaction has had a command */
    size_t next;       /* document of the plan to go on with */
    uint32_t n_ops;    /* in the command being built */
    struct rk_buf ops; /* uint32_t each: the document of the plan that it is for */
};

static size_t op_size(const struct builder *b, const struct rk_doc_plan *doc)
{
    const struct rk_plan *plan = b->plan;
    size_t size = OP_OVERHEAD + (b->at != 0 ? doc->id.len : rk_condition_size(plan, doc));
    if (b->write->shard_key != NULL) {
        size += rk_shard_key_size(b->write->shard_key, &doc->doc);
    }
    for (uint32_t i = 0; i < doc->n_changes; i++) {
        const struct rk_change *change = rk_plan_change(plan, doc->first_change + i);
        size += change->path_len + change->value_len + CHANGE_OVERHEAD;
    }
    return size;
}

static void put_op(struct builder *b, uint32_t index, const struct rk_doc_plan *doc)
{
    struct rk_bson_writer *w = &b->w;
    const struct rk_plan *plan = b->plan;
    const char *arena = (const char *)plan->arena.data;
    const char *key;
    char buf[16];
    size_t key_len = bson_uint32_to_string(index, &key, buf, sizeof buf);
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, key, key_len);
    rk_bson_begin_doc(w, "q");
    bool simple_collation = false;
    if (b->at != 0) {
        rk_condition_put_id(w, doc);
    } else {
        simple_collation = rk_condition_put(w, plan, doc);
    }
    if (b->write->shard_key != NULL) {
        rk_shard_key_put(b->write->shard_key, w, &doc->doc);
    }
    rk_bson_end(w);
    rk_bson_begin_doc(w, "u");
    rk_bson_begin_doc(w, "$set");
    for (uint32_t i = 0; i < doc->n_changes; i++) {
        const struct rk_change *c = rk_plan_change(plan, doc->first_change + i);
        rk_bson_put(w, c->type, arena + c->path_off, c->path_len, arena + c->value_off,
                    c->value_len);
    }
    rk_bson_end(w);
    rk_bson_end(w);
    if (simple_collation) {
        rk_bson_begin_doc(w, "collation");
        rk_bson_put_string(w, "locale", "simple");
        rk_bson_end(w);
    }
    rk_bson_end(w);
}

static bool wanted(const struct rk_doc_plan *doc)
{
    return doc->n_changes > 0 && doc->failure == NULL;
}

/* Builds the next command; b->n_ops says how many statements it has (0: nothing is left). */
static enum rk_status build(struct builder *b, struct rk_buf *out, struct rk_write_result *result)
{
    enum rk_status status = RK_OK;
    rk_buf_clear(out);
    rk_buf_clear(&b->ops);
    rk_bson_writer_init(&b->w, out);
    b->n_ops = 0;
    rk_bson_begin(&b->w);
    rk_bson_put_string(&b->w, "update", b->write->ns->coll);
    rk_bson_put_bool(&b->w, "ordered", false);
    if (b->at == 0) {
        rk_bson_put_majority(&b->w, b->write->wtimeout_ms);
    } else if (!b->begun) {
        rk_transaction_put_time(&b->w, b->at);
    }
    rk_bson_begin_array(&b->w, "updates");
    for (; status == RK_OK && b->next < rk_plan_count(b->plan); b->next++) {
        struct rk_doc_plan *doc = rk_plan_doc(b->plan, b->next);
        if (!wanted(doc)) {
            continue;
        }
        size_t size = op_size(b, doc);
        if (size > COMMAND_MAX - COMMAND_ROOM && b->at != 0) {
            return RK_ELIMIT;
        }
        if (size > COMMAND_MAX - COMMAND_ROOM) {
            doc->failure = "old and new value together are too large for one update";
            result->tried++;
            result->failed++;
            continue;
        }
        if (b->n_ops > 0 && out->len + size > COMMAND_SOFT_MAX) {
            break;
        }
        put_op(b, b->n_ops++, doc);
        status = rk_buf_append_u32(&b->ops, (uint32_t)b->next);
    }
    rk_bson_end(&b->w);
    rk_bson_end(&b->w);
    return status == RK_OK ? rk_bson_writer_status(&b->w) : status;
}

static const char *failure_reason(int64_t code)
{
    switch (code) {
    case 11000:
        return "duplicate key";
    case 121:
        return "document fails validation";
    case 10003:
        return "a document of a capped collection cannot grow";
    case 10334:
    case 17280:
    case 17419:
    case 17420:
        return "document too large";
    default:
        return "mongod refuses the update";
    }
}

/* The document that the op-th statement of the command came from. */
static struct rk_doc_plan *doc_of(const struct builder *b, int64_t op)
{
    if (op < 0 || op >= (int64_t)b->n_ops) {
        return NULL;
    }
    return rk_plan_doc(b->plan, rk_load_u32(b->ops.data + (size_t)op * sizeof(uint32_t)));
}

static enum rk_status malformed(struct rk_error *err)
{
    return rk_error_set(err, RK_EIO, "mongod's reply to update is malformed");
}

static enum rk_status read_errors(const struct builder *b, const struct rk_bson_view *errors,
                                  struct rk_write_result *result, struct rk_error *err)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view entry;
    enum rk_bson_step step;
    rk_bson_iter_init(&iter, errors);
    while ((step = rk_bson_next(&iter, &elem)) == RK_BSON_STEP_ELEM) {
        if (!rk_bson_elem_view(&elem, &entry)) {
            break;
        }
        int64_t code = rk_view_int(&entry, "code");
        if (rk_code_transient((int)code)) {
            return rk_error_set_code(err, RK_EIO, (int)code, "mongod put an update off (code %d)",
                                     (int)code);
        }
        struct rk_doc_plan *doc = doc_of(b, rk_view_int(&entry, "index"));
        if (doc == NULL || doc->failure != NULL) {
            break;
        }
        doc->failure = failure_reason(code);
        result->failed++;
    }
    return step == RK_BSON_STEP_END ? RK_OK : malformed(err);
}

static enum rk_status run_command(const struct builder *b, struct rk_write_result *result,
                                  struct rk_error *err)
{
    const struct rk_write *write = b->write;
    bson_t reply;
    struct rk_bson_elem elem;
    struct rk_bson_view errors;
    enum rk_status status =
        rk_command_run(write->client, write->ns->db, write->command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    int64_t n = rk_view_int(&view, "n");
    if (n < 0 || n > (int64_t)b->n_ops) {
        n = 0;
        status = status == RK_OK ? malformed(err) : status;
    }
    /* Counted also when the write concern was not met: what was applied will be found current
     * by the next attempt. */
    result->matched += (uint32_t)n;
    if (status == RK_OK) {
        result->tried += b->n_ops;
        if (rk_bson_find(&view, "writeErrors", &elem) && rk_bson_elem_view(&elem, &errors)) {
            status = read_errors(b, &errors, result, err);
        }
    }
    if (status == RK_OK && result->matched + result->failed > result->tried) {
        status = malformed(err);
    }
    bson_destroy(&reply);
    return status;
}

static enum rk_status run_in_transaction(const struct builder *b,
                                         struct rk_transaction *transaction,
                                         struct rk_write_result *result, struct rk_error *err)
{
    const struct rk_write *write = b->write;
    bson_t reply;
    enum rk_status status =
        rk_transaction_run(transaction, write->ns->db, write->command, &reply, err);
    struct rk_bson_view view = rk_reply_view(&reply);
    struct rk_bson_elem elem;
    if (status == RK_OK &&
        (rk_bson_find(&view, "writeErrors", &elem) || rk_view_int(&view, "n") != b->n_ops)) {
        status = rk_error_set(err, RK_EREFUSED, "not every update was made");
    }
    result->tried += b->n_ops;
    result->matched += b->n_ops;
    bson_destroy(&reply);
    return status;
}

/* transaction: NULL: compare-and-swaps. */
static enum rk_status run_all(struct builder *b, struct rk_transaction *transaction,
                              struct rk_write_result *result, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    rk_buf_init(&b->ops, OPS_MAX_BYTES);
    do {
        status = build(b, b->write->command, result);
        if (status != RK_OK) {
            rk_error_set(err, status, "cannot build an update command");
        } else if (b->n_ops > 0) {
            status = transaction != NULL ? run_in_transaction(b, transaction, result, err)
                                         : run_command(b, result, err);
            b->begun = true;
        }
    } while (status == RK_OK && b->n_ops > 0);
    rk_buf_deinit(&b->ops);
    return status;
}

enum rk_status rk_write_plan(const struct rk_write *write, struct rk_plan *plan,
                             struct rk_write_result *result, struct rk_error *err)
{
    struct builder b = {.write = write, .plan = plan};
    *result = (struct rk_write_result){0};
    return run_all(&b, NULL, result, err);
}

enum rk_status rk_write_plan_at(const struct rk_write *write, struct rk_transaction *transaction,
                                uint64_t at, struct rk_plan *plan, struct rk_write_result *result,
                                struct rk_error *err)
{
    struct builder b = {.write = write, .plan = plan, .at = at};
    *result = (struct rk_write_result){0};
    enum rk_status status = rk_transaction_begin(transaction, write->wtimeout_ms, err);
    if (status != RK_OK) {
        return status;
    }
    status = run_all(&b, transaction, result, err);
    bool unsure = false;
    if (status == RK_OK) {
        status = rk_transaction_commit(transaction, &unsure, err);
    }
    if (status != RK_OK) {
        rk_transaction_abort(transaction);
        *result = (struct rk_write_result){.unsure = unsure};
    }
    return status;
}
