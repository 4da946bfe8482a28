/*
 * Commands that define collections and indexes, and commands that could carry protected values
 * around the proxy.
 */
#include "pipeline_internal.h"

#define AROUND_ADVICE                                                                              \
    "it would carry documents of a protected collection around the proxy; read and write them "    \
    "through it instead"

/* ---- indexes */

static bool is_true(const struct rk_bson_view *view, const char *name)
{
    struct rk_bson_elem elem;
    return rk_bson_find(view, name, &elem) && rk_bson_elem_truthy(&elem);
}

/* "$**" or "a.$**": the path above the wildcard. False for any other key. */
static bool wildcard_parent(const struct rk_bson_elem *key, struct rk_text *parent)
{
    if (key->key_len < 3 || memcmp(key->key + key->key_len - 3, "$**", 3) != 0) {
        return false;
    }
    uint32_t len = key->key_len - 3;
    *parent = (struct rk_text){key->key, len > 0 ? len - 1 : 0};
    return true;
}

/* An index while it is looked at. */
struct index_look {
    struct rk_scope *scope;
    struct rk_command_info *info;
    bool unique;
    bool expires;
    bool collation; /* another than the simple one */
};

/* unique: by the field's own setting. */
static enum rk_verdict check_unique(const struct index_look *look, const struct rk_field *field,
                                    struct rk_text path)
{
    switch (field->unique_index) {
    case RK_UNIQUE_INDEX_ALLOW:
        return RK_VERDICT_FORWARD;
    case RK_UNIQUE_INDEX_WARN:
        look->info->warning = "a unique index on an encrypted field holds under one key only";
        return RK_VERDICT_FORWARD;
    case RK_UNIQUE_INDEX_REFUSE:
        break;
    }
    return rk_refuse(look->scope, RK_CODE_PREDICATE, "unique index", path.at, path.len,
                     "uniqueness cannot hold while two keys are live; use a plain index, or set "
                     "unique_index in the policy");
}

static enum rk_verdict check_index_key(const struct index_look *look,
                                       const struct rk_bson_elem *key)
{
    const struct rk_scope *scope = look->scope;
    struct rk_text path = {key->key, key->key_len};
    bool wildcard = wildcard_parent(key, &path);
    struct rk_path_match match = rk_scope_relate(scope, path.at, path.len);
    if (match.relation == RK_PATH_UNRELATED) {
        return RK_VERDICT_FORWARD;
    }
    if (wildcard || match.relation != RK_PATH_EXACT || rk_elem_text(key).len > 0) {
        return rk_refuse(scope, RK_CODE_PREDICATE, "index", path.at, path.len,
                         "only a plain index on a deterministic field itself is of use");
    }
    if (match.field->algorithm != RK_ALGORITHM_DETERMINISTIC) {
        return rk_refuse(scope, RK_CODE_PREDICATE, "index", path.at, path.len,
                         "randomly encrypted values cannot be searched; make the field "
                         "deterministic in the policy");
    }
    if (look->expires) {
        return rk_refuse(scope, RK_CODE_PREDICATE, "TTL index", path.at, path.len,
                         "the server cannot read an encrypted date; keep an unprotected one");
    }
    if (look->collation) {
        return rk_refuse(scope, RK_CODE_COLLATION, "index with collation", path.at, path.len,
                         "ciphertext cannot be compared by it; use the simple collation");
    }
    return look->unique ? check_unique(look, match.field, path) : RK_VERDICT_FORWARD;
}

/* A collation under which strings are not compared byte by byte. */
static bool has_collation(const struct rk_bson_view *options)
{
    struct rk_bson_elem elem;
    struct rk_bson_view view;
    return rk_bson_find(options, "collation", &elem) && rk_bson_elem_view(&elem, &view) &&
           !(rk_bson_find(&view, "locale", &elem) && rk_text_is(rk_elem_text(&elem), "simple"));
}

static enum rk_verdict check_index(struct rk_statement *st, const struct rk_bson_view *index,
                                   const char *keys_name)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_scope *scope = &st->scope;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_elem key;
    struct rk_bson_view view;
    struct rk_text path;
    const struct index_look look = {
        .scope = scope,
        .info = st->info,
        .unique = is_true(index, "unique") || is_true(index, "prepareUnique"),
        .expires = rk_bson_find(index, "expireAfterSeconds", &elem),
        .collation = has_collation(index),
    };
    if ((look.unique || look.expires) && scope->policy != NULL &&
        !rk_bson_find(index, keys_name, &elem)) {
        return rk_refuse(scope, RK_CODE_PREDICATE, "index", NULL, 0,
                         "name it by its keyPattern, so that its fields can be looked at");
    }
    if (rk_bson_find(index, keys_name, &elem) && rk_bson_elem_view(&elem, &view)) {
        rk_bson_iter_init(&iter, &view);
        while (rk_bson_next(&iter, &key) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
            verdict = check_index_key(&look, &key);
        }
    }
    if (!rk_stops(verdict) && rk_bson_find(index, "partialFilterExpression", &elem) &&
        rk_bson_elem_view(&elem, &view) && rk_query_mentions(scope, &view, &path)) {
        verdict = rk_refuse(scope, RK_CODE_PREDICATE, elem.key, path.at, path.len,
                            "it would keep the ciphertext of today's keys; filter by an "
                            "unprotected field");
    }
    return verdict;
}

static enum rk_verdict check_new_index(void *arg, const struct rk_bson_view *index,
                                       struct rk_bson_writer *w)
{
    struct rk_statement *st = arg;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, index);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        rk_bson_copy(w, &elem);
    }
    return check_index(st, index, "key");
}

const struct rk_command_field rk_fields_create_indexes[] = {
    {"indexes", NULL, check_new_index},
    {NULL, NULL, NULL},
};

/* ---- collections and views */

/*
 * A view keeps its pipeline: a filter rewritten for today's keys would rot in it. And it is a
 * namespace like any other: unless it has a policy too, comparisons with its protected fields
 * would go to the server as they are, and match nothing.
 */
static enum rk_verdict check_view(struct rk_statement *st, const struct rk_bson_elem *on)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_text coll = rk_elem_text(on);
    struct rk_scope source = rk_scope_at(&st->scope, coll.at, coll.len);
    struct rk_pipeline p;
    struct rk_bson_elem stages;
    struct rk_bson_writer w;
    struct rk_buf scratch;
    rk_pipeline_init(&p, &source);
    if (rk_bson_find(&st->view, "pipeline", &stages)) {
        rk_buf_init(&scratch, RK_FRAME_LEN_MAX);
        rk_bson_writer_init(&w, &scratch);
        rk_bson_begin(&w);
        verdict = rk_pipeline_run(&p, &stages, &w);
        rk_buf_deinit(&scratch);
    }
    if (verdict == RK_VERDICT_REPLACE) {
        return rk_refuse(&source, RK_CODE_PREDICATE, "view", NULL, 0,
                         "its pipeline compares an encrypted field and would keep the "
                         "ciphertext of today's keys; filter in the queries on the view");
    }
    if (!rk_stops(verdict) && rk_pipeline_carries(&p) && st->scope.policy == NULL) {
        return rk_refuse(&st->scope, RK_CODE_PREDICATE, "view", NULL, 0,
                         "it shows encrypted fields and has no policy; add one in which they have "
                         "the logical names of the collection's, or leave them out by $project");
    }
    return verdict;
}

static bool has_deterministic(const struct rk_policy *policy)
{
    for (size_t i = 0; policy != NULL && i < policy->n_fields; i++) {
        if (policy->fields[i].algorithm == RK_ALGORITHM_DETERMINISTIC) {
            return true;
        }
    }
    return false;
}

/* create and collMod */
enum rk_verdict rk_check_create(struct rk_statement *st)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_elem elem;
    struct rk_bson_view view;
    struct rk_text path;
    if (rk_bson_find(&st->view, "validator", &elem) && rk_bson_elem_view(&elem, &view) &&
        rk_query_mentions(&st->scope, &view, &path)) {
        return rk_refuse(&st->scope, RK_CODE_PREDICATE, elem.key, path.at, path.len,
                         "the server sees ciphertext and could not validate it");
    }
    if (has_collation(&st->view) && has_deterministic(st->scope.policy)) {
        return rk_refuse(&st->scope, RK_CODE_COLLATION, "collation", NULL, 0,
                         "every query would inherit it, and ciphertext cannot be compared by it; "
                         "name it in the queries that need it");
    }
    if (rk_bson_find(&st->view, "viewOn", &elem)) {
        verdict = check_view(st, &elem);
    }
    if (!rk_stops(verdict) && rk_bson_find(&st->view, "index", &elem) &&
        rk_bson_elem_view(&elem, &view)) {
        verdict = check_index(st, &view, "keyPattern");
    }
    return verdict;
}

/* ---- around the proxy */

/* Refuses when the collection of the scope's database is protected. */
static enum rk_verdict refuse_protected(const struct rk_scope *scope, const char *what,
                                        struct rk_text coll)
{
    struct rk_scope at = rk_scope_at(scope, coll.at, coll.len);
    return at.policy == NULL
               ? RK_VERDICT_FORWARD
               : rk_refuse(&at, RK_CODE_ILLEGAL_OPERATION, what, NULL, 0, AROUND_ADVICE);
}

/* The same for a whole namespace. */
static enum rk_verdict refuse_namespace(const struct rk_scope *scope, const char *what,
                                        const struct rk_bson_elem *elem)
{
    struct rk_text ns = rk_elem_text(elem);
    struct rk_scope at = *scope;
    const char *dot = memchr(ns.at, '.', ns.len);
    if (dot == NULL) {
        return RK_VERDICT_FORWARD; /* no namespace; mongod refuses it */
    }
    at.db = ns.at;
    at.db_len = (uint32_t)(dot - ns.at);
    return refuse_protected(&at, what, (struct rk_text){dot + 1, ns.len - at.db_len - 1});
}

static enum rk_verdict refuse_named(const struct rk_statement *st, const char *field, bool whole)
{
    struct rk_bson_elem elem;
    if (!rk_bson_find(&st->view, field, &elem)) {
        return RK_VERDICT_FORWARD;
    }
    return whole ? refuse_namespace(&st->scope, st->info->name, &elem)
                 : refuse_protected(&st->scope, st->info->name, rk_elem_text(&elem));
}

enum rk_verdict rk_check_rename(struct rk_statement *st)
{
    static const char *const names[] = {"renameCollection", "from", "to"};
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !rk_stops(verdict); i++) {
        verdict = refuse_named(st, names[i], true);
    }
    return verdict;
}

enum rk_verdict rk_check_clone_capped(struct rk_statement *st)
{
    enum rk_verdict verdict = refuse_named(st, "cloneCollectionAsCapped", false);
    return rk_stops(verdict) ? verdict : refuse_named(st, "toCollection", false);
}

enum rk_verdict rk_check_map_reduce(struct rk_statement *st)
{
    static const char *const modes[] = {"replace", "merge", "reduce"};
    struct rk_bson_elem out;
    struct rk_bson_elem elem;
    struct rk_bson_view view;
    if (st->scope.policy != NULL) {
        return rk_refuse(&st->scope, RK_CODE_ILLEGAL_OPERATION, st->info->name, NULL, 0,
                         "the server cannot compute on ciphertext; use find or aggregate");
    }
    if (!rk_bson_find(&st->view, "out", &out)) {
        return RK_VERDICT_FORWARD;
    }
    if (!rk_bson_elem_view(&out, &view)) {
        return refuse_protected(&st->scope, st->info->name, rk_elem_text(&out));
    }
    struct rk_scope at = st->scope;
    if (rk_bson_find(&view, "db", &elem)) {
        at.db = rk_elem_text(&elem).at;
        at.db_len = rk_elem_text(&elem).len;
    }
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (rk_bson_find(&view, modes[i], &elem)) {
            enum rk_verdict verdict = refuse_protected(&at, st->info->name, rk_elem_text(&elem));
            if (rk_stops(verdict)) {
                return verdict;
            }
        }
    }
    return RK_VERDICT_FORWARD;
}

/* applyOps, eval, copydb and the like: refused wherever there is a policy at all. */
enum rk_verdict rk_check_around(struct rk_statement *st)
{
    return rk_refuse(
        &st->scope, RK_CODE_ILLEGAL_OPERATION, st->info->name, NULL, 0,
        "the server would run or keep what it holds past the policy; use insert, update "
        "and delete");
}
