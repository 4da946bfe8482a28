/* The stages that give documents another shape: protected values go by other names after them, or
 * are gone. */
#include "pipeline_internal.h"

/* Is this a list of unprotected fields, and nothing else? */
static bool leaves_protected_out(const struct rk_scope *scope, const struct rk_bson_view *spec)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_text path;
    int64_t number;
    bool includes = false;
    rk_bson_iter_init(&iter, spec);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (rk_scope_touches(scope, elem.key, elem.key_len) ||
            rk_expr_touches(scope, &elem, &path)) {
            return false;
        }
        bool plain = elem.type == RK_BSON_BOOL || rk_bson_elem_int(&elem, &number);
        includes =
            includes || (plain && rk_bson_elem_truthy(&elem) && !rk_bson_key_is(&elem, "_id"));
    }
    return includes;
}

enum rk_verdict rk_stage_project(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                 struct rk_bson_writer *w)
{
    struct rk_bson_view spec;
    /* All references are to the documents before this stage, so new names count only after it. */
    struct rk_aliases before = p->aliases;
    struct rk_scope scope = p->scope;
    scope.aliases = &before;
    if (!rk_bson_elem_view(stage, &spec)) {
        rk_bson_copy(w, stage); /* mongod refuses it */
        return RK_VERDICT_FORWARD;
    }
    if (rk_bson_key_is(stage, "$project") && leaves_protected_out(&scope, &spec)) {
        rk_pipeline_nothing_left(p);
    }
    rk_bson_begin_sub(w, stage->type, stage->key, stage->key_len);
    enum rk_verdict verdict = rk_projection_rewrite(
        &scope, &spec, !rk_bson_key_is(stage, "$project"), &p->aliases, &p->scope.moved, w);
    rk_bson_end(w);
    return verdict;
}

enum rk_verdict rk_stage_unwind(struct rk_pipeline *p, const struct rk_bson_elem *stage)
{
    struct rk_bson_view args;
    struct rk_bson_elem path_elem = *stage;
    struct rk_text path;
    if (rk_bson_elem_view(stage, &args) && !rk_bson_find(&args, "path", &path_elem)) {
        return RK_VERDICT_FORWARD;
    }
    if (rk_expr_reference(&path_elem, &path)) {
        enum rk_path_relation relation = rk_scope_relate(&p->scope, path.at, path.len).relation;
        if (relation == RK_PATH_EXACT || relation == RK_PATH_BELOW) {
            return rk_pipeline_refuse(p, stage, path);
        }
    }
    struct rk_bson_elem index;
    if (stage->type == RK_BSON_DOCUMENT && rk_bson_find(&args, "includeArrayIndex", &index)) {
        path = rk_elem_text(&index);
        p->scope.moved = p->scope.moved || rk_scope_touches(&p->scope, path.at, path.len);
    }
    return RK_VERDICT_FORWARD;
}

/* $replaceWith: an expression; $replaceRoot: {newRoot: it} */
static enum rk_verdict replace_with(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                    const struct rk_bson_elem *root, struct rk_bson_writer *w)
{
    struct rk_carried carried;
    enum rk_verdict verdict = rk_expr_rewrite(&p->scope, root, &carried, w);
    if (!rk_stops(verdict)) {
        verdict = rk_worse(verdict, rk_expr_hand_on(&p->scope, stage->key, &carried, root, NULL));
    }
    p->aliases.all = p->aliases.all || rk_carries_protected(&carried);
    p->scope.moved = true;
    return verdict;
}

enum rk_verdict rk_stage_replace(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                 struct rk_bson_writer *w)
{
    struct rk_bson_view args;
    struct rk_bson_elem root;
    if (rk_bson_key_is(stage, "$replaceWith")) {
        return replace_with(p, stage, stage, w);
    }
    if (!rk_bson_elem_view(stage, &args) || !rk_bson_find(&args, "newRoot", &root)) {
        rk_bson_copy(w, stage); /* mongod refuses it */
        return RK_VERDICT_FORWARD;
    }
    rk_bson_begin_sub(w, stage->type, stage->key, stage->key_len);
    enum rk_verdict verdict = replace_with(p, stage, &root, w);
    rk_bson_end(w);
    return verdict;
}
