/*
 * Aggregation stages that name another collection: joins, whose two sides may be under two
 * policies, and stages that write.
 */
#include "expr_internal.h"
#include "pipeline_internal.h"

#define JOIN_ADVICE                                                                                \
    "ciphertext of two fields cannot be matched; join on unprotected fields or in the application"

/* {db: ..., coll: ...} or a name in the same database. False when it is neither. */
static bool target_of(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                      struct rk_scope *target)
{
    struct rk_bson_view view;
    struct rk_bson_elem member;
    struct rk_scope base = *scope;
    struct rk_text coll = rk_elem_text(elem);
    if (rk_bson_elem_view(elem, &view)) {
        if (rk_bson_find(&view, "db", &member)) {
            struct rk_text db = rk_elem_text(&member);
            base.db = db.at;
            base.db_len = db.len;
        }
        coll = rk_bson_find(&view, "coll", &member) ? rk_elem_text(&member) : coll;
    }
    if (coll.len == 0) {
        return false;
    }
    *target = rk_scope_at(&base, coll.at, coll.len);
    target->collation = scope->collation;
    return true;
}

static bool field_touches(const struct rk_scope *scope, const struct rk_bson_view *args,
                          const char *name, struct rk_text *path)
{
    struct rk_bson_elem elem;
    if (!rk_bson_find(args, name, &elem)) {
        return false;
    }
    *path = rk_elem_text(&elem);
    return path->len > 0 && rk_scope_touches(scope, path->at, path->len);
}

static enum rk_verdict refuse_legacy(const struct rk_scope *foreign,
                                     const struct rk_bson_elem *stage)
{
    return rk_refuse(foreign, RK_CODE_LOOKUP, stage->key, NULL, 0,
                     "values in a legacy format can be read in their own collection only; sweep "
                     "it, then drop legacy from the policy");
}

/* Legacy values have no mark: replies are read by the paths of the pipeline's own collection. */
static bool mixes_legacy(const struct rk_scope *own, const struct rk_scope *foreign)
{
    const struct rk_policy *a = own->policy;
    const struct rk_policy *b = foreign->policy;
    return a != b && b != NULL && (b->has_legacy || (a != NULL && a->has_legacy));
}

/* Foreign documents now stand under the path "as". */
static enum rk_verdict join_as(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                               const struct rk_bson_view *args, const struct rk_scope *foreign,
                               bool anything)
{
    struct rk_bson_elem as;
    if (!rk_bson_find(args, "as", &as)) {
        return RK_VERDICT_FORWARD; /* mongod refuses it */
    }
    struct rk_text path = rk_elem_text(&as);
    if (rk_scope_touches(&p->scope, path.at, path.len)) {
        p->scope.moved = true;
    }
    if (foreign->policy != NULL) {
        if (foreign->policy->has_legacy) {
            return refuse_legacy(foreign, stage);
        }
        rk_aliases_add(&p->aliases, path.at, path.len, &foreign->policy->root);
        p->aliases.all = p->aliases.all || memchr(path.at, '.', path.len) != NULL;
    }
    p->aliases.all = p->aliases.all || anything;
    return RK_VERDICT_FORWARD;
}

/* Two fields of one logical name, where equal values have equal ciphertexts, can be matched. */
static bool fields_match(const struct rk_scope *local, struct rk_text path,
                         const struct rk_scope *foreign, struct rk_text other, const char **why)
{
    struct rk_path_match a = rk_scope_relate(local, path.at, path.len);
    struct rk_path_match b = rk_scope_relate(foreign, other.at, other.len);
    if (a.relation == RK_PATH_UNRELATED && b.relation == RK_PATH_UNRELATED) {
        return true;
    }
    return a.relation == RK_PATH_EXACT && b.relation == RK_PATH_EXACT &&
           rk_field_same(a.field, b.field) && rk_field_is_exact(local, a.field, why) &&
           rk_field_is_exact(foreign, b.field, why);
}

/* localField and foreignField */
static enum rk_verdict check_fields(const struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                    const struct rk_bson_view *args, const struct rk_scope *foreign)
{
    struct rk_bson_elem local;
    struct rk_bson_elem other;
    const char *why = JOIN_ADVICE;
    if (!rk_bson_find(args, "localField", &local) || !rk_bson_find(args, "foreignField", &other)) {
        return RK_VERDICT_FORWARD; /* a join by pipeline, or mongod refuses it */
    }
    struct rk_text path = rk_elem_text(&local);
    struct rk_text other_path = rk_elem_text(&other);
    if (fields_match(&p->scope, path, foreign, other_path, &why)) {
        return RK_VERDICT_FORWARD;
    }
    return rk_scope_touches(&p->scope, path.at, path.len)
               ? rk_refuse(&p->scope, RK_CODE_LOOKUP, stage->key, path.at, path.len, why)
               : rk_refuse(foreign, RK_CODE_LOOKUP, stage->key, other_path.at, other_path.len, why);
}

/* Variables of a join by pipeline, seen by sub. */
static enum rk_verdict rewrite_let(const struct rk_pipeline *p, const struct rk_bson_elem *let,
                                   struct rk_var vars[RK_VARS_MAX], struct rk_pipeline *sub,
                                   struct rk_bson_writer *w)
{
    const struct rk_expr x = {.scope = &p->scope};
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view list;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    unsigned n = 0;
    if (!rk_bson_elem_view(let, &list)) {
        rk_bson_copy(w, let); /* mongod refuses it */
        return verdict;
    }
    if (!rk_scope_guarded(&p->scope) && !rk_scope_guarded(&sub->scope)) {
        rk_bson_copy(w, let); /* but further in a protected collection may be joined */
        return rk_var_check_names(&p->scope, let, &list);
    }
    rk_bson_begin_sub(w, let->type, let->key, let->key_len);
    rk_bson_iter_init(&iter, &list);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        if (n == RK_VARS_MAX) {
            return rk_refuse(&p->scope, RK_CODE_LOOKUP, let->key, NULL, 0,
                             "binds too many variables for a collection with encrypted fields");
        }
        vars[n] = (struct rk_var){.up = sub->scope.vars, .name = {elem.key, elem.key_len}};
        verdict = rk_worse(verdict, rk_var_check_name(&p->scope, let, vars[n].name));
        if (!rk_stops(verdict)) {
            verdict = rk_worse(verdict, rk_expr_bind(&x, &elem, &vars[n], w));
        }
        if (p->scope.moved && vars[n].carried.what == RK_CARRIES_FIELD) {
            vars[n].carried.what = RK_CARRIES_ANYTHING; /* the foreign scope has not moved */
        }
        if (!rk_stops(verdict)) {
            verdict = rk_worse(verdict,
                               rk_expr_hand_on(&p->scope, let->key, &vars[n].carried, &elem, NULL));
        }
        sub->scope.vars = &vars[n++];
    }
    rk_bson_end(w);
    return verdict;
}

/* Appends a stage's arguments, of which "pipeline" belongs to sub's collection and sees "let". */
static enum rk_verdict rewrite_arguments(const struct rk_pipeline *p,
                                         const struct rk_bson_elem *stage,
                                         const struct rk_bson_view *args, struct rk_pipeline *sub,
                                         struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    const struct rk_var *outer = sub->scope.vars;
    struct rk_var vars[RK_VARS_MAX];
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_begin_sub(w, stage->type, stage->key, stage->key_len);
    if (rk_bson_find(args, "let", &elem)) {
        verdict = rewrite_let(p, &elem, vars, sub, w);
    }
    rk_bson_iter_init(&iter, args);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        if (rk_bson_key_is(&elem, "pipeline")) {
            verdict = rk_worse(verdict, rk_pipeline_run(sub, &elem, w));
        } else if (!rk_bson_key_is(&elem, "let")) {
            rk_bson_copy(w, &elem);
        }
    }
    rk_bson_end(w);
    sub->scope.vars = outer; /* vars end here */
    return verdict;
}

enum rk_verdict rk_stage_lookup(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                struct rk_bson_writer *w)
{
    struct rk_scope foreign = p->scope;
    struct rk_bson_view args;
    struct rk_bson_elem from;
    struct rk_pipeline sub;
    if (!rk_bson_elem_view(stage, &args)) {
        rk_bson_copy(w, stage); /* mongod refuses it */
        return RK_VERDICT_FORWARD;
    }
    /* Without "from" the pipeline starts with $documents. */
    foreign.policy = NULL;
    foreign.aliases = NULL;
    if (rk_bson_find(&args, "from", &from) && !target_of(&p->scope, &from, &foreign)) {
        return rk_refuse(&p->scope, RK_CODE_LOOKUP, stage->key, NULL, 0,
                         "from must name a collection");
    }
    enum rk_verdict verdict = check_fields(p, stage, &args, &foreign);
    if (rk_stops(verdict)) {
        return verdict;
    }
    rk_pipeline_init(&sub, &foreign);
    verdict = rewrite_arguments(p, stage, &args, &sub, w);
    if (rk_stops(verdict)) {
        return verdict;
    }
    bool anything =
        sub.aliases.all || sub.aliases.n > 0 || (sub.scope.moved && foreign.policy != NULL);
    return rk_worse(verdict, join_as(p, stage, &args, &foreign, anything));
}

/* Every step compares what the one before came to: no encrypted field can be among them. */
static enum rk_verdict check_graph(const struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                   const struct rk_bson_view *args, const struct rk_scope *foreign)
{
    static const char *const names[] = {"connectFromField", "connectToField", "depthField"};
    struct rk_bson_elem elem;
    struct rk_text path;
    if (rk_bson_find(args, "startWith", &elem) && rk_expr_touches(&p->scope, &elem, &path)) {
        return rk_refuse(&p->scope, RK_CODE_LOOKUP, stage->key, path.at, path.len, JOIN_ADVICE);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (field_touches(foreign, args, names[i], &path)) {
            return rk_refuse(foreign, RK_CODE_LOOKUP, stage->key, path.at, path.len, JOIN_ADVICE);
        }
    }
    return RK_VERDICT_FORWARD;
}

enum rk_verdict rk_stage_graph_lookup(struct rk_pipeline *p, const struct rk_bson_elem *stage)
{
    struct rk_scope foreign;
    struct rk_bson_view args;
    struct rk_bson_view filter;
    struct rk_bson_elem elem;
    struct rk_text path;
    if (!rk_bson_elem_view(stage, &args) || !rk_bson_find(&args, "from", &elem)) {
        return RK_VERDICT_FORWARD; /* mongod refuses it */
    }
    if (!target_of(&p->scope, &elem, &foreign)) {
        return rk_refuse(&p->scope, RK_CODE_LOOKUP, stage->key, NULL, 0,
                         "from must name a collection");
    }
    enum rk_verdict verdict = check_graph(p, stage, &args, &foreign);
    if (rk_stops(verdict)) {
        return verdict;
    }
    if (rk_bson_find(&args, "restrictSearchWithMatch", &elem) &&
        rk_bson_elem_view(&elem, &filter) && rk_query_mentions(&foreign, &filter, &path)) {
        return rk_refuse(&foreign, RK_CODE_LOOKUP, stage->key, path.at, path.len,
                         "restrict the search by unprotected fields");
    }
    return join_as(p, stage, &args, &foreign, false);
}

enum rk_verdict rk_stage_union_with(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                    struct rk_bson_writer *w)
{
    struct rk_scope foreign;
    struct rk_bson_view args;
    struct rk_pipeline sub;
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    if (!target_of(&p->scope, stage, &foreign)) {
        /* A pipeline of $documents, or a mistake: it stands in no collection. */
        foreign = p->scope;
        foreign.policy = NULL;
        foreign.aliases = NULL;
    }
    rk_pipeline_init(&sub, &foreign);
    if (rk_bson_elem_view(stage, &args)) {
        verdict = rewrite_arguments(p, stage, &args, &sub, w);
    } else {
        rk_bson_copy(w, stage);
    }
    if (!rk_stops(verdict) && rk_pipeline_carries(&sub) && mixes_legacy(&p->scope, &foreign)) {
        return refuse_legacy(&foreign, stage);
    }
    p->bare = p->bare && !rk_pipeline_carries(&sub);
    if (foreign.policy != p->scope.policy || sub.scope.moved || rk_scope_guarded(&sub.scope)) {
        bool same = foreign.policy == p->scope.policy && !sub.scope.moved && sub.aliases.n == 0;
        p->scope.moved = p->scope.moved || !same;
        p->aliases.all = p->aliases.all || sub.aliases.all || sub.aliases.n > 0 ||
                         (!same && foreign.policy != NULL);
    }
    return verdict;
}

enum rk_verdict rk_stage_out(struct rk_pipeline *p, const struct rk_bson_elem *stage)
{
    struct rk_scope target;
    struct rk_bson_view args;
    struct rk_bson_elem to = *stage;
    if (rk_bson_key_is(stage, "$merge") && rk_bson_elem_view(stage, &args) &&
        !rk_bson_find(&args, "into", &to)) {
        return RK_VERDICT_FORWARD; /* mongod refuses it */
    }
    if (rk_pipeline_carries(p)) {
        return rk_refuse(&p->scope, RK_CODE_PIPELINE, stage->key, NULL, 0,
                         "it would copy encrypted values out of the sweeper's reach; read them and "
                         "write them through the proxy");
    }
    if (target_of(&p->scope, &to, &target) && target.policy != NULL) {
        return rk_refuse(&target, RK_CODE_PIPELINE, stage->key, NULL, 0,
                         "the server would write protected fields unencrypted; write the documents "
                         "through the proxy");
    }
    return RK_VERDICT_FORWARD;
}
