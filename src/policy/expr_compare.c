/*
 * Comparisons in expressions: which of them ciphertext can answer. What is written for them is in
 * expr_match.c.
 */
#include "expr_internal.h"

#include <stdio.h>

#define AGAIN_MAX 4u
#define NAME_MAX 16u
#define COMPARE_ADVICE                                                                             \
    "an encrypted field can be compared with constants (and null) only; compare in the "           \
    "application"

/* One argument, rewritten apart, because what is written around it depends on what it is. */
struct operand {
    struct rk_bson_elem source;
    struct rk_bson_elem elem; /* as rewritten; in buf */
    struct rk_carried carried;
    struct rk_buf buf;
};

/* Both arguments of a comparison. */
struct pair {
    struct operand a;
    struct operand b;
};

static enum rk_verdict operand_run(const struct rk_expr *x, struct operand *o,
                                   struct rk_bson_writer *w)
{
    struct rk_bson_writer own;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    rk_buf_clear(&o->buf);
    rk_bson_writer_init(&own, &o->buf);
    rk_bson_begin(&own);
    enum rk_verdict verdict = rk_expr_run(x, &o->source, &o->carried, &own);
    rk_bson_end(&own);
    if (rk_stops(verdict)) {
        return verdict;
    }
    if (w->status == RK_OK) {
        w->status = own.status;
    }
    if (own.status != RK_OK || !rk_bson_view_init(&view, o->buf.data, o->buf.len)) {
        o->elem = o->source; /* the writer's status is asked for once, at the end */
        return verdict;
    }
    rk_bson_iter_init(&iter, &view);
    (void)rk_bson_next(&iter, &o->elem);
    return verdict;
}

/* Reads and runs both. False: not two arguments, which mongod refuses. */
static bool pair_read(struct pair *pair, const struct rk_bson_elem *op)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem more;
    *pair = (struct pair){.a = {.source = {0}}};
    rk_buf_init(&pair->a.buf, RK_FRAME_LEN_MAX);
    rk_buf_init(&pair->b.buf, RK_FRAME_LEN_MAX);
    if (op->type != RK_BSON_ARRAY || !rk_bson_elem_view(op, &view)) {
        return false;
    }
    rk_bson_iter_init(&iter, &view);
    return rk_bson_next(&iter, &pair->a.source) == RK_BSON_STEP_ELEM &&
           rk_bson_next(&iter, &pair->b.source) == RK_BSON_STEP_ELEM &&
           rk_bson_next(&iter, &more) == RK_BSON_STEP_END;
}

static void pair_deinit(struct pair *pair)
{
    rk_buf_deinit(&pair->a.buf);
    rk_buf_deinit(&pair->b.buf);
}

static void put_pair(const char *op, const struct rk_bson_elem *a, const struct rk_bson_elem *b,
                     struct rk_bson_writer *w)
{
    rk_bson_begin_sub(w, RK_BSON_ARRAY, op, strlen(op));
    rk_bson_copy_as(w, "0", 1, a);
    rk_bson_copy_as(w, "1", 1, b);
    rk_bson_end(w);
}

/* ---- which comparison it is */

static enum rk_verdict refuse(const struct rk_expr *x, const struct rk_bson_elem *op,
                              const struct operand *o, const char *advice)
{
    return rk_refuse(x->scope, RK_CODE_PREDICATE, op->key, o->carried.path.at, o->carried.path.len,
                     advice);
}

/* null and the empty are what they were: the first everywhere, the second above the fields. */
static bool is_untouched(const struct operand *field, const struct operand *other)
{
    return other->carried.what == RK_CARRIES_NO_VALUE && field->carried.what == RK_CARRIES_FIELD &&
           (field->carried.node->field == NULL || !other->carried.empty);
}

/* Two references can be compared where equal values have equal ciphertexts. */
static enum rk_verdict check_fields(const struct rk_expr *x, const struct rk_bson_elem *op,
                                    const struct operand *a, const struct operand *b)
{
    const char *why = COMPARE_ADVICE;
    const struct rk_path_node *node = a->carried.node;
    const struct rk_path_node *other = b->carried.node;
    if (a->carried.what != RK_CARRIES_FIELD || b->carried.what != RK_CARRIES_FIELD ||
        a->carried.constants || b->carried.constants || node->field == NULL ||
        other->field == NULL || !rk_field_same(node->field, other->field) ||
        !rk_field_is_exact(x->scope, node->field, &why) ||
        !rk_field_is_exact(x->scope, other->field, &why)) {
        return refuse(x, op, a, why);
    }
    return RK_VERDICT_FORWARD;
}

/* Makes the comparison of a field with constants, and once more runs what has constants of its
 * own, which then have to be encrypted. */
static enum rk_verdict compare_begin(const struct rk_expr *x, const struct rk_bson_elem *op,
                                     struct operand *field, struct rk_bson_elem *path,
                                     struct rk_comparison *cmp, struct rk_bson_writer *w)
{
    const struct rk_path_node *node = field->carried.node;
    if (field->carried.what != RK_CARRIES_FIELD) {
        return refuse(x, op, field, COMPARE_ADVICE);
    }
    if (x->scope->moved) {
        return refuse(x, op, field, RK_MOVED_ADVICE);
    }
    *path =
        (struct rk_bson_elem){.key = field->carried.path.at, .key_len = field->carried.path.len};
    *cmp = (struct rk_comparison){
        .scope = x->scope,
        .path = path,
        .match = {.relation = node->field != NULL ? RK_PATH_EXACT : RK_PATH_ABOVE,
                  .node = node,
                  .field = node->field},
        .flags = RK_QUERY_EXPR};
    if (!field->carried.constants) {
        return RK_VERDICT_FORWARD;
    }
    const struct rk_expr sealed = {.scope = x->scope, .seal = cmp, .again = x->again + 1};
    return sealed.again > AGAIN_MAX
               ? refuse(x, op, field, "comparisons are nested too deep; write them side by side")
               : operand_run(&sealed, field, w);
}

static enum rk_verdict compare_constant(const struct rk_expr *x, const struct rk_bson_elem *op,
                                        struct operand *field, const struct operand *other,
                                        struct rk_bson_writer *w)
{
    struct rk_bson_elem path;
    struct rk_bson_elem value;
    struct rk_comparison cmp;
    enum rk_verdict verdict = compare_begin(x, op, field, &path, &cmp, w);
    if (rk_stops(verdict)) {
        return verdict;
    }
    if (!rk_expr_constant(x->scope, &other->source, &value)) {
        return refuse(x, op, field, COMPARE_ADVICE);
    }
    verdict = rk_compare_check(&cmp, &value);
    const struct rk_match m = {&cmp, &field->elem, &value};
    return rk_stops(verdict) ? verdict : rk_match_put_equality(&m, rk_bson_key_is(op, "$eq"), w);
}

static enum rk_verdict compare_pair(const struct rk_expr *x, const struct rk_bson_elem *op,
                                    struct pair *pair, struct rk_bson_writer *w)
{
    struct operand *a = &pair->a;
    struct operand *b = &pair->b;
    enum rk_verdict verdict = operand_run(x, a, w);
    if (!rk_stops(verdict)) {
        verdict = rk_worse(verdict, operand_run(x, b, w));
    }
    if (rk_stops(verdict)) {
        return verdict;
    }
    bool a_protected = rk_carries_protected(&a->carried);
    bool b_protected = rk_carries_protected(&b->carried);
    if (a_protected != b_protected && !is_untouched(a_protected ? a : b, a_protected ? b : a)) {
        return a_protected ? compare_constant(x, op, a, b, w) : compare_constant(x, op, b, a, w);
    }
    if (a_protected && b_protected) {
        enum rk_verdict checked = check_fields(x, op, a, b);
        if (rk_stops(checked)) {
            return checked;
        }
    }
    put_pair(op->key, &a->elem, &b->elem, w);
    return verdict;
}

enum rk_verdict rk_expr_compare(const struct rk_expr *x, const struct rk_bson_elem *op,
                                struct rk_carried *carried, struct rk_bson_writer *w)
{
    const struct rk_expr apart = rk_expr_apart(x);
    struct pair pair;
    *carried = (struct rk_carried){.what = RK_CARRIES_NOTHING};
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    if (pair_read(&pair, op)) {
        verdict = compare_pair(&apart, op, &pair, w);
    } else {
        rk_bson_copy(w, op); /* mongod refuses it */
    }
    pair_deinit(&pair);
    return verdict;
}

/* ---- $in */

/* {$in: [field, [constants]]} */
static enum rk_verdict in_list(const struct rk_expr *x, const struct rk_bson_elem *op,
                               struct operand *field, const struct rk_bson_elem *list,
                               struct rk_bson_writer *w)
{
    struct rk_bson_elem path;
    struct rk_bson_elem value;
    struct rk_bson_elem item;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_comparison cmp;
    unsigned index = 0;
    char name[NAME_MAX];
    bool literal = rk_expr_constant(x->scope, list, &value);
    enum rk_verdict verdict = compare_begin(x, op, field, &path, &cmp, w);
    if (rk_stops(verdict)) {
        return verdict;
    }
    value = literal ? value : *list;
    if (value.type != RK_BSON_ARRAY || !rk_bson_elem_view(&value, &view)) {
        return refuse(x, op, field, "needs an array of constants");
    }
    rk_bson_begin_sub(w, RK_BSON_ARRAY, op->key, op->key_len);
    rk_bson_copy_as(w, "0", 1, &field->elem);
    rk_bson_begin_sub(w, RK_BSON_ARRAY, "1", 1);
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        if (!literal && !rk_expr_constant(x->scope, &item, &value)) {
            return refuse(x, op, field, COMPARE_ADVICE);
        }
        value = literal ? item : value;
        if (rk_elem_is_null(&value)) {
            int len = snprintf(name, sizeof name, "%u", index++);
            rk_bson_copy_as(w, name, (size_t)len, &value);
            continue;
        }
        verdict = rk_compare_check(&cmp, &value);
        if (!rk_stops(verdict)) {
            verdict = rk_compare_put_all(&cmp, &value, &index, w);
        }
    }
    rk_bson_end(w);
    rk_bson_end(w);
    return rk_worse(verdict, RK_VERDICT_REPLACE);
}

static enum rk_verdict in_pair(const struct rk_expr *x, const struct rk_bson_elem *op,
                               struct pair *pair, struct rk_bson_writer *w)
{
    struct rk_bson_elem path;
    struct rk_bson_elem value;
    struct rk_comparison cmp;
    enum rk_verdict verdict = operand_run(x, &pair->a, w);
    if (!rk_stops(verdict)) {
        verdict = rk_worse(verdict, operand_run(x, &pair->b, w));
    }
    if (rk_stops(verdict)) {
        return verdict;
    }
    bool needle = rk_carries_protected(&pair->a.carried);
    bool list = rk_carries_protected(&pair->b.carried);
    if (needle && !list) {
        return in_list(x, op, &pair->a, &pair->b.source, w);
    }
    if (needle && list) {
        enum rk_verdict checked = check_fields(x, op, &pair->a, &pair->b);
        if (rk_stops(checked)) {
            return checked;
        }
    } else if (list && !is_untouched(&pair->b, &pair->a)) {
        verdict = compare_begin(x, op, &pair->b, &path, &cmp, w);
        if (rk_stops(verdict)) {
            return verdict;
        }
        if (!rk_expr_constant(x->scope, &pair->a.source, &value)) {
            return refuse(x, op, &pair->b, COMPARE_ADVICE);
        }
        verdict = rk_compare_check(&cmp, &value);
        const struct rk_match m = {&cmp, &pair->b.elem, &value};
        return rk_stops(verdict) ? verdict : rk_match_put_membership(&m, w);
    }
    put_pair(op->key, &pair->a.elem, &pair->b.elem, w);
    return verdict;
}

enum rk_verdict rk_expr_in(const struct rk_expr *x, const struct rk_bson_elem *op,
                           struct rk_carried *carried, struct rk_bson_writer *w)
{
    const struct rk_expr apart = rk_expr_apart(x);
    struct pair pair;
    *carried = (struct rk_carried){.what = RK_CARRIES_NOTHING};
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    if (pair_read(&pair, op)) {
        verdict = in_pair(&apart, op, &pair, w);
    } else {
        rk_bson_copy(w, op); /* mongod refuses it */
    }
    pair_deinit(&pair);
    return verdict;
}
