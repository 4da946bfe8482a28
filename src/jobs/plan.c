#include <rekey/jobs/transform.h>

#include <assert.h>
#include <string.h>

/* A batch's new values: at most the ciphertext of one reply's worth of old ones, and then some. */
#define ARENA_MAX (64u << 20)
#define ENTRIES_MAX (64u << 20)
#define PATH_MAX_BYTES 65536u
#define SCRATCH_MAX (17u << 20)

void rk_plan_init(struct rk_plan *plan)
{
    rk_buf_init(&plan->arena, ARENA_MAX);
    rk_buf_init(&plan->docs, ENTRIES_MAX);
    rk_buf_init(&plan->changes, ENTRIES_MAX);
    rk_buf_init(&plan->rejects, ENTRIES_MAX);
    rk_buf_init(&plan->path, PATH_MAX_BYTES);
    rk_buf_init(&plan->scratch, SCRATCH_MAX);
    plan->plaintext = 0;
    plan->missing_name[0] = '\0';
}

void rk_plan_deinit(struct rk_plan *plan)
{
    rk_buf_cleanse(&plan->scratch);
    rk_buf_deinit(&plan->arena);
    rk_buf_deinit(&plan->docs);
    rk_buf_deinit(&plan->changes);
    rk_buf_deinit(&plan->rejects);
    rk_buf_deinit(&plan->path);
    rk_buf_deinit(&plan->scratch);
}

void rk_plan_clear(struct rk_plan *plan)
{
    rk_buf_clear(&plan->arena);
    rk_buf_clear(&plan->docs);
    rk_buf_clear(&plan->changes);
    rk_buf_clear(&plan->rejects);
    rk_buf_clear(&plan->path);
    plan->plaintext = 0;
    plan->missing_name[0] = '\0';
}

size_t rk_plan_count(const struct rk_plan *plan)
{
    return plan->docs.len / sizeof(struct rk_doc_plan);
}

size_t rk_plan_rejects(const struct rk_plan *plan)
{
    return plan->rejects.len / sizeof(struct rk_reject);
}

struct rk_doc_plan *rk_plan_doc(const struct rk_plan *plan, size_t i)
{
    assert(i < rk_plan_count(plan));
    return (struct rk_doc_plan *)(void *)plan->docs.data + i;
}

const struct rk_change *rk_plan_change(const struct rk_plan *plan, size_t i)
{
    assert(i < plan->changes.len / sizeof(struct rk_change));
    return (const struct rk_change *)(const void *)plan->changes.data + i;
}

const struct rk_reject *rk_plan_reject(const struct rk_plan *plan, size_t i)
{
    assert(i < rk_plan_rejects(plan));
    return (const struct rk_reject *)(const void *)plan->rejects.data + i;
}

static struct rk_doc_plan *last_doc(const struct rk_plan *plan)
{
    return rk_plan_doc(plan, rk_plan_count(plan) - 1);
}

static enum rk_status keep_path(struct rk_plan *plan, uint32_t *off, uint32_t *len)
{
    *off = (uint32_t)plan->arena.len;
    *len = (uint32_t)plan->path.len;
    return rk_buf_append(&plan->arena, plan->path.data, plan->path.len);
}

enum rk_status rk_plan_add_change(struct rk_plan *plan, struct rk_change *change)
{
    enum rk_status status = keep_path(plan, &change->path_off, &change->path_len);
    if (status == RK_OK) {
        status = rk_buf_append(&plan->changes, change, sizeof *change);
    }
    if (status == RK_OK) {
        last_doc(plan)->n_changes++;
    }
    return status;
}

enum rk_status rk_plan_add_reject(struct rk_plan *plan, struct rk_reject *reject)
{
    enum rk_status status = keep_path(plan, &reject->path_off, &reject->path_len);
    if (status == RK_OK) {
        status = rk_buf_append(&plan->rejects, reject, sizeof *reject);
    }
    if (status == RK_OK) {
        last_doc(plan)->n_rejects++;
    }
    return status;
}
