/*
 * Updates given as pipelines. They run inside the server, so nothing protected can be computed
 * there: stages may do what they like with unprotected fields, may remove protected ones, and may
 * set them to constants, which are encrypted here. What would put a value of the server's at a
 * protected path, or a protected one at another path, is refused.
 */
#include "update_internal.h"

#define MOVE_ADVICE "it would move an encrypted value; read it and write it back instead"

/* Where in a stage the rewrite stands. */
struct place {
    const struct rk_scope *scope;
    const struct rk_bson_elem *stage;
    const struct rk_bson_elem *top; /* the stage's own field, for messages */
    bool projects;                  /* numbers and booleans say yes or no */
    bool nested;                    /* below the stage's own fields */
};

static enum rk_verdict put_fields(const struct place *place, const struct rk_path_node *node,
                                  const struct rk_bson_view *fields, struct rk_bson_writer *w);

static enum rk_verdict refuse_at(const struct place *place, const char *advice)
{
    return rk_refuse(place->scope, RK_CODE_PIPELINE, place->stage->key, place->top->key,
                     place->top->key_len, advice);
}

static bool is_reference(const struct rk_bson_elem *elem)
{
    struct rk_text text = rk_elem_text(elem);
    return text.len > 0 && text.at[0] == '$';
}

static bool is_flag(const struct place *place, const struct rk_bson_elem *elem)
{
    return place->projects && (elem->type == RK_BSON_BOOL || elem->type == RK_BSON_INT32 ||
                               elem->type == RK_BSON_INT64 || elem->type == RK_BSON_DOUBLE ||
                               elem->type == RK_BSON_DECIMAL128);
}

/* {$literal: value} */
static bool is_literal(const struct rk_bson_elem *elem, struct rk_bson_elem *value)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem more;
    if (elem->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(elem, &view)) {
        return false;
    }
    rk_bson_iter_init(&iter, &view);
    return rk_bson_next(&iter, value) == RK_BSON_STEP_ELEM && rk_bson_key_is(value, "$literal") &&
           rk_bson_next(&iter, &more) == RK_BSON_STEP_END;
}

/* Does it mean itself: no document (a path in $set, an expression elsewhere) and no reference? */
static bool is_constant(const struct rk_bson_elem *elem)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem item;
    if (!rk_bson_elem_view(elem, &view)) {
        return !is_reference(elem);
    }
    rk_bson_iter_init(&iter, &view);
    while (elem->type == RK_BSON_ARRAY && rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM) {
        if (!is_constant(&item)) {
            return false;
        }
    }
    return elem->type == RK_BSON_ARRAY;
}

/* {$set: {a: "$a"}}: it stays what it is. Below, the paths would have to be spelt out. And where a
 * parent is an array, "$a.b" is an array of ciphertexts, which the sweeper would not find. */
static bool is_itself(const struct place *place, enum rk_path_relation relation,
                      const struct rk_bson_elem *elem)
{
    struct rk_text path;
    return !place->nested && rk_expr_reference(elem, &path) && path.len == elem->key_len &&
           memcmp(path.at, elem->key, path.len) == 0 &&
           (relation != RK_PATH_EXACT || memchr(path.at, '.', path.len) == NULL);
}

/* The value of a protected field. */
static enum rk_verdict put_protected(const struct place *place, const struct rk_field *field,
                                     const struct rk_bson_elem *elem, struct rk_bson_writer *w)
{
    const struct rk_scope *scope = place->scope;
    struct rk_bson_elem value = *elem;
    if (!is_literal(elem, &value) && !is_constant(elem)) {
        return refuse_at(place, "a pipeline can only set it to a constant ($literal); use an "
                                "update with the operator $set");
    }
    return rk_document_encrypt_value(scope->crypt, scope->ns, field, &value, elem->key,
                                     elem->key_len, w, scope->err);
}

/* A value with protected fields in it. */
static enum rk_verdict put_above(const struct place *place, const struct rk_path_node *node,
                                 const struct rk_bson_elem *elem, struct rk_bson_writer *w)
{
    const struct rk_scope *scope = place->scope;
    struct rk_bson_elem value;
    struct rk_bson_view view;
    enum rk_verdict verdict;
    struct place below = *place;
    below.nested = true;
    if (is_literal(elem, &value)) {
        rk_bson_begin_sub(w, elem->type, elem->key, elem->key_len);
        verdict = rk_update_put_value(scope, node, &value, w);
        rk_bson_end(w);
        return verdict;
    }
    if (is_reference(elem) || rk_elem_is_operators(elem, &view)) {
        return refuse_at(place, "encrypted fields lie below, and the server cannot encrypt what it "
                                "computes; use an update with the operator $set");
    }
    if (!rk_bson_elem_view(elem, &view)) {
        return rk_copy_plain(scope, elem, w);
    }
    rk_bson_begin_sub(w, elem->type, elem->key, elem->key_len);
    if (elem->type == RK_BSON_DOCUMENT) {
        verdict = put_fields(&below, node, &view, w);
    } else {
        struct rk_bson_iter iter;
        struct rk_bson_elem item;
        verdict = RK_VERDICT_FORWARD;
        below.projects = false; /* members of an array are values */
        rk_bson_iter_init(&iter, &view);
        while (rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
            verdict = rk_worse(verdict, put_above(&below, node, &item, w));
        }
    }
    rk_bson_end(w);
    return verdict;
}

static enum rk_verdict put_field(const struct place *place, const struct rk_path_node *node,
                                 const struct rk_bson_elem *elem, struct rk_bson_writer *w)
{
    struct rk_path_match match = rk_path_relate_from(node, elem->key, elem->key_len);
    struct rk_text path;
    if (match.relation == RK_PATH_UNRELATED) {
        if (rk_expr_touches(place->scope, elem, &path)) {
            return rk_refuse(place->scope, RK_CODE_PIPELINE, place->stage->key, path.at, path.len,
                             MOVE_ADVICE);
        }
        return rk_copy_plain(place->scope, elem, w);
    }
    if (match.relation == RK_PATH_BELOW) {
        return refuse_at(place, "it lies inside an encrypted value; name the protected path "
                                "itself");
    }
    if (rk_text_is(rk_elem_text(elem), "$$REMOVE") || is_itself(place, match.relation, elem) ||
        is_flag(place, elem)) {
        rk_bson_copy(w, elem);
        return RK_VERDICT_FORWARD;
    }
    return match.relation == RK_PATH_EXACT ? put_protected(place, match.field, elem, w)
                                           : put_above(place, match.node, elem, w);
}

static enum rk_verdict put_fields(const struct place *place, const struct rk_path_node *node,
                                  const struct rk_bson_view *fields, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct place at = *place;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, fields);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        at.top = place->nested ? place->top : &elem;
        verdict = rk_worse(verdict, put_field(&at, node, &elem, w));
    }
    return verdict;
}

/* $set, $addFields, $project: the fields of a document. */
static enum rk_verdict put_assignments(struct place *place, struct rk_bson_writer *w)
{
    struct rk_bson_view fields;
    const struct rk_bson_elem *stage = place->stage;
    if (stage->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(stage, &fields)) {
        rk_bson_copy(w, stage); /* mongod refuses it */
        return RK_VERDICT_FORWARD;
    }
    rk_bson_begin_sub(w, stage->type, stage->key, stage->key_len);
    enum rk_verdict verdict = put_fields(place, &place->scope->policy->root, &fields, w);
    rk_bson_end(w);
    return verdict;
}

static enum rk_verdict check_unset(const struct rk_scope *scope, const struct rk_bson_elem *stage)
{
    struct rk_bson_view list;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem = *stage;
    bool more = true;
    if (rk_bson_elem_view(stage, &list)) {
        rk_bson_iter_init(&iter, &list);
        more = rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM;
    }
    while (more) {
        struct rk_text path = rk_elem_text(&elem);
        if (rk_scope_relate(scope, path.at, path.len).relation == RK_PATH_BELOW) {
            return rk_refuse(scope, RK_CODE_PIPELINE, stage->key, path.at, path.len,
                             "it lies inside an encrypted value; name the protected path itself");
        }
        more = stage->type == RK_BSON_ARRAY && rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM;
    }
    return RK_VERDICT_FORWARD;
}

/* The document that takes the place of the whole: as it is, written out field by field, or merged
 * of such. */
static enum rk_verdict put_root(const struct place *place, const struct rk_bson_elem *elem,
                                struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem item;
    struct rk_bson_elem more;
    struct rk_text path;
    if (rk_expr_reference(elem, &path) && path.len == 0) {
        rk_bson_copy(w, elem);
        return verdict;
    }
    if (rk_bson_key_is(elem, "$mergeObjects") && elem->type == RK_BSON_ARRAY &&
        rk_bson_elem_view(elem, &view)) {
        rk_bson_begin_sub(w, elem->type, elem->key, elem->key_len);
        rk_bson_iter_init(&iter, &view);
        while (rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
            verdict = rk_worse(verdict, put_root(place, &item, w));
        }
        rk_bson_end(w);
        return verdict;
    }
    if (elem->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(elem, &view)) {
        return refuse_at(place, "fields of what the server computes could be protected ones; write "
                                "the new document out field by field");
    }
    rk_bson_begin_sub(w, elem->type, elem->key, elem->key_len);
    if (rk_elem_is_operators(elem, &view)) {
        rk_bson_iter_init(&iter, &view);
        (void)rk_bson_next(&iter, &item);
        verdict =
            rk_bson_key_is(&item, "$mergeObjects") && rk_bson_next(&iter, &more) == RK_BSON_STEP_END
                ? put_root(place, &item, w)
                : refuse_at(place, "only $mergeObjects of $$ROOT and documents written out "
                                   "is possible with encrypted fields");
    } else {
        verdict = put_fields(place, &place->scope->policy->root, &view, w);
    }
    rk_bson_end(w);
    return verdict;
}

static enum rk_verdict put_replacement(const struct place *place, struct rk_bson_writer *w)
{
    struct rk_bson_view args;
    struct rk_bson_iter iter;
    struct rk_bson_elem root;
    const struct rk_bson_elem *stage = place->stage;
    if (rk_bson_key_is(stage, "$replaceWith")) {
        return put_root(place, stage, w);
    }
    if (!rk_bson_elem_view(stage, &args)) {
        rk_bson_copy(w, stage); /* mongod refuses it */
        return RK_VERDICT_FORWARD;
    }
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    rk_bson_begin_sub(w, stage->type, stage->key, stage->key_len);
    rk_bson_iter_init(&iter, &args);
    while (rk_bson_next(&iter, &root) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, put_root(place, &root, w));
    }
    rk_bson_end(w);
    return verdict;
}

static enum rk_verdict put_stage(const struct rk_scope *scope, const struct rk_bson_elem *stage,
                                 struct rk_bson_writer *w)
{
    struct place place = {.scope = scope, .stage = stage, .top = stage};
    if (rk_bson_key_is(stage, "$set") || rk_bson_key_is(stage, "$addFields")) {
        return put_assignments(&place, w);
    }
    if (rk_bson_key_is(stage, "$project")) {
        place.projects = true;
        return put_assignments(&place, w);
    }
    if (rk_bson_key_is(stage, "$replaceWith") || rk_bson_key_is(stage, "$replaceRoot")) {
        return put_replacement(&place, w);
    }
    if (rk_bson_key_is(stage, "$unset")) {
        rk_bson_copy(w, stage);
        return check_unset(scope, stage);
    }
    return rk_refuse(scope, RK_CODE_PIPELINE, stage->key, NULL, 0,
                     "not possible in a collection with encrypted fields; use $set, $unset, "
                     "$project and $replaceWith");
}

static enum rk_verdict put_member(void *arg, const struct rk_bson_view *member,
                                  struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_iter iter;
    struct rk_bson_elem stage;
    rk_bson_iter_init(&iter, member);
    while (rk_bson_next(&iter, &stage) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        verdict = rk_worse(verdict, put_stage(arg, &stage, w));
    }
    return verdict;
}

enum rk_verdict rk_update_pipeline_rewrite(const struct rk_scope *scope,
                                           const struct rk_bson_elem *u, struct rk_bson_writer *w)
{
    struct rk_scope at = *scope;
    return rk_rewrite_members(scope, u, put_member, &at, w);
}
