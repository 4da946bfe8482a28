/* Filters and expressions: the operators that src/jobs uses, and no others. */
#include "store.h"

#include <rekey/bson/compare.h>
#include <stdio.h>
#include <string.h>

static const struct rk_bson_elem missing = {0};

struct rk_bson_elem model_field(const struct rk_bson_view *doc, const char *key)
{
    struct rk_bson_elem elem;
    return rk_bson_find(doc, key, &elem) ? elem : missing;
}

int model_compare(const struct rk_bson_elem *a, const struct rk_bson_elem *b)
{
    if (a->type == 0 || b->type == 0) {
        /* Missing sorts before everything but MinKey. */
        int x = a->type == 0 ? 1 : a->type == RK_BSON_MINKEY ? 0 : 2;
        int y = b->type == 0 ? 1 : b->type == RK_BSON_MINKEY ? 0 : 2;
        return x - y;
    }
    return rk_bson_compare(a, b);
}

bool model_same(const struct rk_bson_elem *a, const struct rk_bson_elem *b)
{
    return a->type == b->type && a->value_len == b->value_len &&
           (a->value_len == 0 || memcmp(a->value, b->value, a->value_len) == 0);
}

/* ---- expressions */

static uint8_t *cell(struct model_cells *cells)
{
    if (cells->n == sizeof cells->cells / sizeof cells->cells[0]) {
        MODEL_DIE("an expression computes too many values");
    }
    return cells->cells[cells->n++];
}

static struct rk_bson_elem value_i64(struct model_cells *cells, uint8_t type, int64_t v)
{
    uint8_t *at = cell(cells);
    rk_store_u64(at, (uint64_t)v);
    return (struct rk_bson_elem){.type = type, .value = at, .value_len = 8};
}

static struct rk_bson_elem value_i32(struct model_cells *cells, int64_t v)
{
    uint8_t *at = cell(cells);
    rk_store_u32(at, (uint32_t)v);
    return (struct rk_bson_elem){.type = RK_BSON_INT32, .value = at, .value_len = 4};
}

static struct rk_bson_elem value_bool(struct model_cells *cells, bool v)
{
    uint8_t *at = cell(cells);
    *at = v;
    return (struct rk_bson_elem){.type = RK_BSON_BOOL, .value = at, .value_len = 1};
}

static bool nothing(const struct rk_bson_elem *v)
{
    return v->type == 0 || v->type == RK_BSON_NULL;
}

static bool truthy(const struct rk_bson_elem *v)
{
    return v->type != 0 && v->type != RK_BSON_NULL &&
           (v->type != RK_BSON_BOOL || v->value[0] != 0) &&
           ((v->type != RK_BSON_INT32 && v->type != RK_BSON_INT64 && v->type != RK_BSON_DOUBLE) ||
            rk_bson_elem_truthy(v));
}

/* Has nothing in it that would have to be evaluated. */
static bool constant(const struct rk_bson_elem *elem)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    if (elem->type == RK_BSON_STRING) {
        return elem->value[4] != '$';
    }
    if (!rk_bson_elem_view(elem, &view)) {
        return true;
    }
    rk_bson_iter_init(&iter, &view);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        if (e.key[0] == '$' || !constant(&e)) {
            return false;
        }
    }
    return true;
}

#define ARGS_MAX 8u

static uint32_t arguments(struct model_cells *cells, const struct rk_bson_elem *op,
                          const struct rk_bson_view *doc, struct rk_bson_elem args[ARGS_MAX])
{
    struct rk_bson_view list;
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    uint32_t n = 0;
    if (op->type != RK_BSON_ARRAY || !rk_bson_elem_view(op, &list)) {
        MODEL_DIE("%s without a list of arguments", op->key);
    }
    rk_bson_iter_init(&iter, &list);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        if (n == ARGS_MAX) {
            MODEL_DIE("%s with too many arguments", op->key);
        }
        args[n++] = model_eval(cells, &e, doc);
    }
    return n;
}

static struct rk_bson_elem sum(struct model_cells *cells, const struct rk_bson_elem *args,
                               uint32_t n, bool subtract)
{
    int64_t total = 0;
    uint8_t type = RK_BSON_INT32;
    uint32_t dates = 0;
    for (uint32_t i = 0; i < n; i++) {
        int64_t v = 0;
        if (nothing(&args[i])) {
            return (struct rk_bson_elem){.type = RK_BSON_NULL, .value = (const uint8_t *)""};
        }
        if (args[i].type == RK_BSON_DATE) {
            v = rk_load_i64(args[i].value);
            dates++;
        } else if ((args[i].type != RK_BSON_INT32 && args[i].type != RK_BSON_INT64) ||
                   !rk_bson_elem_int(&args[i], &v)) {
            MODEL_DIE("$add of type %d", args[i].type);
        }
        type = args[i].type == RK_BSON_INT64 ? RK_BSON_INT64 : type;
        total += subtract && i > 0 ? -v : v;
    }
    if (dates > 0) {
        if (dates > 1) {
            MODEL_DIE("a sum of dates");
        }
        return value_i64(cells, RK_BSON_DATE, total);
    }
    if (type == RK_BSON_INT32 && total != (int32_t)total) {
        MODEL_DIE("a sum outgrew int32");
    }
    return type == RK_BSON_INT64 ? value_i64(cells, type, total) : value_i32(cells, total);
}

static struct rk_bson_elem condition(struct model_cells *cells, const struct rk_bson_elem *op,
                                     const struct rk_bson_view *doc)
{
    struct rk_bson_elem args[ARGS_MAX];
    if (arguments(cells, op, doc, args) != 3) {
        MODEL_DIE("$cond needs three arguments");
    }
    return truthy(&args[0]) ? args[1] : args[2];
}

static bool compared(const char *op, int order, bool *result)
{
    static const struct {
        const char *name;
        bool below, same, above;
    } ops[] = {{"$eq", false, true, false}, {"$ne", true, false, true},
               {"$lt", true, false, false}, {"$lte", true, true, false},
               {"$gt", false, false, true}, {"$gte", false, true, true}};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (strcmp(op, ops[i].name) == 0) {
            *result = order < 0 ? ops[i].below : order == 0 ? ops[i].same : ops[i].above;
            return true;
        }
    }
    return false;
}

static struct rk_bson_elem logic(struct model_cells *cells, const struct rk_bson_elem *args,
                                 uint32_t n, bool all)
{
    bool result = all;
    for (uint32_t i = 0; i < n; i++) {
        result = all ? result && truthy(&args[i]) : result || truthy(&args[i]);
    }
    return value_bool(cells, result);
}

static struct rk_bson_elem operate(struct model_cells *cells, const struct rk_bson_elem *op,
                                   const struct rk_bson_view *doc)
{
    struct rk_bson_elem args[ARGS_MAX];
    bool result;
    if (strcmp(op->key, "$literal") == 0) {
        return *op;
    }
    if (strcmp(op->key, "$cond") == 0) {
        return condition(cells, op, doc);
    }
    uint32_t n = arguments(cells, op, doc, args);
    if (strcmp(op->key, "$add") == 0 || strcmp(op->key, "$subtract") == 0) {
        return sum(cells, args, n, op->key[1] == 's');
    }
    if (strcmp(op->key, "$and") == 0 || strcmp(op->key, "$or") == 0) {
        return logic(cells, args, n, op->key[1] == 'a');
    }
    if (strcmp(op->key, "$ifNull") == 0 && n == 2) {
        return nothing(&args[0]) ? args[1] : args[0];
    }
    if (n == 2 && compared(op->key, model_compare(&args[0], &args[1]), &result)) {
        return value_bool(cells, result);
    }
    MODEL_DIE("the model does not know the expression %s of %u arguments", op->key, n);
}

struct rk_bson_elem model_eval(struct model_cells *cells, const struct rk_bson_elem *expr,
                               const struct rk_bson_view *doc)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem op;
    if (expr->type == RK_BSON_STRING && expr->value[4] == '$') {
        const char *path = (const char *)expr->value + 5;
        if (strcmp(path, "$NOW") == 0) {
            return value_i64(cells, RK_BSON_DATE, cells->now_ms);
        }
        if (strcmp(path, "$REMOVE") == 0) {
            return missing;
        }
        if (path[0] == '$' || strchr(path, '.') != NULL) {
            MODEL_DIE("the model does not know the expression $%s", path);
        }
        return model_field(doc, path);
    }
    if (expr->type == RK_BSON_DOCUMENT && rk_bson_elem_view(expr, &view)) {
        rk_bson_iter_init(&iter, &view);
        if (rk_bson_next(&iter, &op) == RK_BSON_STEP_ELEM && op.key[0] == '$') {
            if (rk_bson_next(&iter, &(struct rk_bson_elem){0}) != RK_BSON_STEP_END) {
                MODEL_DIE("%s is not alone in its expression", op.key);
            }
            return operate(cells, &op, doc);
        }
    }
    if (!constant(expr)) {
        MODEL_DIE("the model does not evaluate what is inside %s", expr->key);
    }
    return *expr;
}

/* ---- filters */

/* The canonical type: what $lt and its like compare with each other. */
static int bracket(const struct rk_bson_elem *v)
{
    switch (v->type) {
    case RK_BSON_INT32:
    case RK_BSON_INT64:
    case RK_BSON_DOUBLE:
    case RK_BSON_DECIMAL128:
        return RK_BSON_DOUBLE;
    case RK_BSON_SYMBOL:
        return RK_BSON_STRING;
    default:
        return v->type;
    }
}

static bool equals(const struct rk_bson_elem *value, const struct rk_bson_elem *wanted)
{
    if (wanted->type == RK_BSON_NULL) {
        return nothing(value);
    }
    return value->type != 0 && model_compare(value, wanted) == 0;
}

static bool in_list(const struct rk_bson_elem *value, const struct rk_bson_elem *op)
{
    struct rk_bson_view list;
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    if (!rk_bson_elem_view(op, &list)) {
        MODEL_DIE("$in without a list");
    }
    rk_bson_iter_init(&iter, &list);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        if (equals(value, &e)) {
            return true;
        }
    }
    return false;
}

static bool value_matches(const struct rk_bson_elem *value, const struct rk_bson_elem *wanted);

static bool condition_holds(const struct rk_bson_elem *value, const struct rk_bson_elem *op)
{
    bool result;
    if (strcmp(op->key, "$in") == 0) {
        return in_list(value, op);
    }
    if (strcmp(op->key, "$eq") == 0 || strcmp(op->key, "$ne") == 0) {
        return equals(value, op) == (op->key[1] == 'e');
    }
    if (strcmp(op->key, "$exists") == 0) {
        return (value->type != 0) == rk_bson_elem_truthy(op);
    }
    if (strcmp(op->key, "$not") == 0) {
        return !value_matches(value, op);
    }
    if (op->type == RK_BSON_NULL) {
        MODEL_DIE("%s null", op->key);
    }
    bool same = value->type != 0 && bracket(value) == bracket(op);
    if (!compared(op->key, same ? model_compare(value, op) : 0, &result)) {
        MODEL_DIE("the model does not know %s in a filter", op->key);
    }
    return same && result;
}

static bool value_matches(const struct rk_bson_elem *value, const struct rk_bson_elem *wanted)
{
    struct rk_bson_view ops;
    struct rk_bson_iter iter;
    struct rk_bson_elem op;
    bool operators = false;
    if (value->type == RK_BSON_ARRAY) {
        MODEL_DIE("a filter on an array");
    }
    if (wanted->type == RK_BSON_DOCUMENT && rk_bson_elem_view(wanted, &ops)) {
        rk_bson_iter_init(&iter, &ops);
        while (rk_bson_next(&iter, &op) == RK_BSON_STEP_ELEM && op.key[0] == '$') {
            operators = true;
            if (!condition_holds(value, &op)) {
                return false;
            }
        }
    }
    return operators || equals(value, wanted);
}

static bool branches_match(const struct rk_bson_elem *op, const struct rk_bson_view *doc,
                           int64_t now_ms, bool all)
{
    struct rk_bson_view list;
    struct rk_bson_view branch;
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    if (!rk_bson_elem_view(op, &list)) {
        MODEL_DIE("%s without a list", op->key);
    }
    rk_bson_iter_init(&iter, &list);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        if (rk_bson_elem_view(&e, &branch) && model_matches(&branch, doc, now_ms) != all) {
            return !all;
        }
    }
    return all;
}

/* path: "key" or "key.key", and no arrays on the way. */
static struct rk_bson_elem field_at(const struct rk_bson_view *doc, const char *path)
{
    const char *dot = strchr(path, '.');
    char key[32];
    struct rk_bson_view inner;
    if (dot == NULL) {
        return model_field(doc, path);
    }
    (void)snprintf(key, sizeof key, "%.*s", (int)(dot - path), path);
    struct rk_bson_elem outer = model_field(doc, key);
    if (outer.type == RK_BSON_ARRAY || strchr(dot + 1, '.') != NULL) {
        MODEL_DIE("the model does not know the path %s", path);
    }
    return outer.type == RK_BSON_DOCUMENT && rk_bson_elem_view(&outer, &inner)
               ? model_field(&inner, dot + 1)
               : missing;
}

bool model_matches(const struct rk_bson_view *filter, const struct rk_bson_view *doc,
                   int64_t now_ms)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    rk_bson_iter_init(&iter, filter);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        bool holds;
        if (strcmp(e.key, "$expr") == 0) {
            struct model_cells cells;
            cells.n = 0;
            cells.now_ms = now_ms;
            struct rk_bson_elem result = model_eval(&cells, &e, doc);
            holds = truthy(&result);
        } else if (strcmp(e.key, "$or") == 0 || strcmp(e.key, "$and") == 0) {
            holds = branches_match(&e, doc, now_ms, e.key[1] == 'a');
        } else if (e.key[0] == '$') {
            MODEL_DIE("the model does not know %s in a filter", e.key);
        } else {
            struct rk_bson_elem value = field_at(doc, e.key);
            holds = value_matches(&value, &e);
        }
        if (!holds) {
            return false;
        }
    }
    return true;
}
