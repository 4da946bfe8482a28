/*
 * Aggregation pipelines. Filters are rewritten as long as protected paths still mean what the
 * policy says; after that, whatever names one is refused. Whole values may be handed on under
 * other names, which are remembered as aliases.
 */
#include "pipeline_internal.h"

typedef enum rk_verdict check_fn(struct rk_pipeline *p, const struct rk_bson_elem *stage);
typedef enum rk_verdict rewrite_fn(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                   struct rk_bson_writer *w);

struct stage {
    const char *name;
    check_fn *check;     /* looks; the stage is then copied */
    rewrite_fn *rewrite; /* appends the stage itself */
};

enum rk_verdict rk_pipeline_refuse(const struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                   struct rk_text path)
{
    return rk_refuse(&p->scope, RK_CODE_PREDICATE, stage->key, path.at, path.len,
                     "equal values have different ciphertexts and the server cannot compute on "
                     "them; do this in the application");
}

static enum rk_verdict check_nothing(struct rk_pipeline *p, const struct rk_bson_elem *stage)
{
    (void)p;
    (void)stage;
    return RK_VERDICT_FORWARD;
}

static enum rk_verdict rewrite_match(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                     struct rk_bson_writer *w)
{
    struct rk_bson_view filter;
    struct rk_text path;
    if (!rk_bson_elem_view(stage, &filter)) {
        rk_bson_copy(w, stage);
        return RK_VERDICT_FORWARD;
    }
    if (p->scope.moved) {
        if (rk_query_mentions(&p->scope, &filter, &path)) {
            return rk_refuse(&p->scope, RK_CODE_PREDICATE, stage->key, path.at, path.len,
                             p->scope.whole
                                 ? "collections have policies of their own; watch this one"
                                 : "an earlier stage changed what this path holds; put $match "
                                   "first");
        }
        rk_bson_copy(w, stage);
        return RK_VERDICT_FORWARD;
    }
    rk_bson_begin_sub(w, stage->type, stage->key, stage->key_len);
    enum rk_verdict verdict = rk_query_rewrite(&p->scope, &filter, 0, w);
    rk_bson_end(w);
    return verdict;
}

bool rk_pipeline_carries(const struct rk_pipeline *p)
{
    return rk_scope_guarded(&p->scope) && !p->bare;
}

void rk_pipeline_nothing_left(struct rk_pipeline *p)
{
    p->bare = !p->aliases.all; /* with all, an alias that comes later would not be noticed */
}

static enum rk_verdict check_count(struct rk_pipeline *p, const struct rk_bson_elem *stage)
{
    struct rk_text name = rk_elem_text(stage);
    p->scope.moved = p->scope.moved || rk_scope_touches(&p->scope, name.at, name.len);
    rk_pipeline_nothing_left(p);
    return RK_VERDICT_FORWARD;
}

static enum rk_verdict check_sort(struct rk_pipeline *p, const struct rk_bson_elem *stage)
{
    struct rk_bson_view keys;
    return rk_bson_elem_view(stage, &keys) ? rk_keys_check(&p->scope, stage->key, &keys)
                                           : RK_VERDICT_FORWARD;
}

/* $fill, $setWindowFields, $densify, ...: no protected path in them at all. */
static enum rk_verdict check_unnamed(struct rk_pipeline *p, const struct rk_bson_elem *stage)
{
    struct rk_text path;
    return rk_expr_names(&p->scope, stage, &path) ? rk_pipeline_refuse(p, stage, path)
                                                  : RK_VERDICT_FORWARD;
}

/* The same, of stages whose documents are others, with fields of their own names. */
static enum rk_verdict check_other_documents(struct rk_pipeline *p,
                                             const struct rk_bson_elem *stage)
{
    p->scope.moved = true;
    return check_unnamed(p, stage);
}

/* May path, taken from any sub-document, lie on the way to a protected field? */
static bool touches_anywhere(const struct rk_path_node *node, struct rk_text path)
{
    if (node->field != NULL) {
        return false;
    }
    if (rk_path_relate_from(node, path.at, path.len).relation != RK_PATH_UNRELATED) {
        return true;
    }
    for (size_t i = 0; i < node->n_children; i++) {
        if (touches_anywhere(&node->children[i], path)) {
            return true;
        }
    }
    return false;
}

/* *descends: $$DESCEND is in it. True when a reference in it, path, could name a protected field of
 * some sub-document. */
static bool reads_below(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                        bool *descends, struct rk_text *path)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem inner;
    struct rk_text one;
    bool reads = false;
    *descends = *descends || rk_text_is(rk_elem_text(elem), "$$DESCEND");
    if (rk_expr_reference(elem, &one) &&
        (scope->policy == NULL || touches_anywhere(&scope->policy->root, one))) {
        *path = one;
        return true;
    }
    if (rk_bson_elem_view(elem, &view)) {
        rk_bson_iter_init(&iter, &view);
        while (rk_bson_next(&iter, &inner) == RK_BSON_STEP_ELEM) {
            reads = reads_below(scope, &inner, descends, path) || reads;
        }
    }
    return reads;
}

static enum rk_verdict rewrite_redact(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                      struct rk_bson_writer *w)
{
    struct rk_text path = {"", 0};
    bool descends = false;
    if (rk_scope_guarded(&p->scope) && reads_below(&p->scope, stage, &descends, &path) &&
        descends) {
        return rk_refuse(&p->scope, RK_CODE_PREDICATE, stage->key, path.at, path.len,
                         "with $$DESCEND it is asked of every sub-document, where it may be an "
                         "encrypted field; redact by unprotected names, or without $$DESCEND");
    }
    return rk_expr_rewrite_plain(&p->scope, stage, w);
}

/* The documents of a facet come out below its name. */
static enum rk_verdict hand_on_documents(const struct rk_pipeline *p,
                                         const struct rk_bson_elem *stage,
                                         const struct rk_bson_elem *facet)
{
    const struct rk_carried carried = {
        .what = RK_CARRIES_ANYTHING,
        .path = {facet->key, facet->key_len},
        .legacy = p->scope.policy != NULL && p->scope.policy->has_legacy,
    };
    return rk_expr_hand_on(&p->scope, stage->key, &carried, facet, NULL);
}

static enum rk_verdict rewrite_facet(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                     struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    bool anything = rk_pipeline_carries(p);
    struct rk_bson_view facets;
    struct rk_bson_iter iter;
    struct rk_bson_elem facet;
    if (!rk_bson_elem_view(stage, &facets)) {
        rk_bson_copy(w, stage);
        return verdict;
    }
    rk_bson_begin_sub(w, stage->type, stage->key, stage->key_len);
    rk_bson_iter_init(&iter, &facets);
    while (rk_bson_next(&iter, &facet) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        struct rk_pipeline sub = *p;
        sub.scope.aliases = &sub.aliases;
        verdict = rk_worse(verdict, rk_pipeline_run(&sub, &facet, w));
        if (!rk_stops(verdict) && rk_pipeline_carries(&sub)) {
            verdict = rk_worse(verdict, hand_on_documents(&sub, stage, &facet));
            anything = true;
        }
    }
    rk_bson_end(w);
    p->aliases.all = p->aliases.all || anything;
    p->scope.moved = true;
    return verdict;
}

static enum rk_verdict check_geo_near(struct rk_pipeline *p, const struct rk_bson_elem *stage)
{
    struct rk_bson_view args;
    struct rk_bson_view filter;
    struct rk_bson_elem elem;
    struct rk_text path;
    if (!rk_bson_elem_view(stage, &args)) {
        return RK_VERDICT_FORWARD;
    }
    if (rk_bson_find(&args, "query", &elem) && rk_bson_elem_view(&elem, &filter) &&
        rk_query_mentions(&p->scope, &filter, &path)) {
        return rk_pipeline_refuse(p, stage, path);
    }
    static const char *const names[] = {"key", "distanceField", "includeLocs"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (rk_bson_find(&args, names[i], &elem)) {
            path = rk_elem_text(&elem);
            if (path.len > 0 && rk_scope_touches(&p->scope, path.at, path.len)) {
                return rk_pipeline_refuse(p, stage, path);
            }
        }
    }
    return RK_VERDICT_FORWARD;
}

static void add_images(struct rk_pipeline *p, const struct rk_policy *policy)
{
    static const char *const images[] = {"fullDocument", "fullDocumentBeforeChange",
                                         "updateDescription.updatedFields"};
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        rk_aliases_add(&p->aliases, images[i], (uint32_t)strlen(images[i]), &policy->root);
    }
}

static bool watches(const struct rk_scope *scope, const struct rk_policy *policy)
{
    static const char cluster[] = "admin";
    const char *db = policy->ns;
    size_t db_len = strcspn(db, ".");
    return scope->whole && ((scope->db_len == db_len && memcmp(scope->db, db, db_len) == 0) ||
                            (scope->db_len == sizeof cluster - 1 &&
                             memcmp(scope->db, cluster, sizeof cluster - 1) == 0));
}

/* From here on documents are change events, in which the collection's lie at these places. In a
 * stream over many collections one filter cannot be right for each of them. */
static enum rk_verdict check_change_stream(struct rk_pipeline *p, const struct rk_bson_elem *stage)
{
    const struct rk_policy_set *set = p->scope.set;
    (void)stage;
    if (p->scope.policy != NULL) {
        add_images(p, p->scope.policy);
        p->scope.policy = NULL;
    }
    for (size_t i = 0; i < rk_policy_set_count(set); i++) {
        if (watches(&p->scope, rk_policy_set_at(set, i))) {
            add_images(p, rk_policy_set_at(set, i));
            p->scope.moved = true;
        }
    }
    return RK_VERDICT_FORWARD;
}

static const struct stage stages[] = {
    {"$match", NULL, rewrite_match},
    {"$facet", NULL, rewrite_facet},
    {"$lookup", NULL, rk_stage_lookup},
    {"$unionWith", NULL, rk_stage_union_with},
    {"$graphLookup", rk_stage_graph_lookup, NULL},
    {"$out", rk_stage_out, NULL},
    {"$merge", rk_stage_out, NULL},
    {"$sort", check_sort, NULL},
    {"$project", NULL, rk_stage_project},
    {"$addFields", NULL, rk_stage_project},
    {"$set", NULL, rk_stage_project},
    {"$group", NULL, rk_stage_group},
    {"$unwind", rk_stage_unwind, NULL},
    {"$replaceRoot", NULL, rk_stage_replace},
    {"$replaceWith", NULL, rk_stage_replace},
    {"$redact", NULL, rewrite_redact},
    {"$sortByCount", NULL, rk_stage_sort_by_count},
    {"$bucket", check_other_documents, NULL},
    {"$bucketAuto", check_other_documents, NULL},
    {"$setWindowFields", check_unnamed, NULL},
    {"$densify", check_unnamed, NULL},
    {"$fill", check_unnamed, NULL},
    {"$geoNear", check_geo_near, NULL},
    {"$changeStream", check_change_stream, NULL},
    {"$changeStreamSplitLargeEvent", check_nothing, NULL},
    {"$unset", check_nothing, NULL},
    {"$limit", check_nothing, NULL},
    {"$skip", check_nothing, NULL},
    {"$sample", check_nothing, NULL},
    {"$count", check_count, NULL},
    {"$documents", check_nothing, NULL},
    {"$collStats", check_other_documents, NULL},
    {"$indexStats", check_other_documents, NULL},
    {"$planCacheStats", check_other_documents, NULL},
    {"$listSampledQueries", check_other_documents, NULL},
};

static const struct stage *stage_find(const char *name)
{
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
        if (strcmp(stages[i].name, name) == 0) {
            return &stages[i];
        }
    }
    return NULL;
}

static enum rk_verdict rewrite_stage(void *arg, const struct rk_bson_view *member,
                                     struct rk_bson_writer *w)
{
    struct rk_pipeline *p = arg;
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, member);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM && !rk_stops(verdict)) {
        const struct stage *stage = stage_find(elem.key);
        if (stage == NULL && rk_scope_guarded(&p->scope)) {
            return rk_refuse(&p->scope, RK_CODE_PREDICATE, elem.key, NULL, 0,
                             "this stage is not known to be safe with encrypted fields");
        }
        const unsigned aliases = p->aliases.n;
        const bool all = p->aliases.all;
        if (stage != NULL && stage->rewrite != NULL) {
            verdict = rk_worse(verdict, stage->rewrite(p, &elem, w));
        } else {
            struct rk_text path;
            if (rk_expr_uses_bound(&p->scope, &elem, &path)) {
                return rk_refuse(&p->scope, RK_CODE_PREDICATE, elem.key, path.at, path.len,
                                 "variables of let cannot be used in this stage; write constants "
                                 "where they are used, and read encrypted fields in $match or "
                                 "$project");
            }
            if (stage != NULL) {
                verdict = rk_worse(verdict, stage->check(p, &elem));
            }
            rk_bson_copy(w, &elem);
        }
        p->bare = p->bare && p->aliases.n == aliases && p->aliases.all == all;
    }
    return verdict;
}

void rk_pipeline_init(struct rk_pipeline *p, const struct rk_scope *scope)
{
    p->scope = *scope;
    p->aliases = (struct rk_aliases){0};
    p->scope.aliases = &p->aliases;
    p->scope.moved = false;
    p->bare = false;
}

enum rk_verdict rk_pipeline_run(struct rk_pipeline *p, const struct rk_bson_elem *list,
                                struct rk_bson_writer *w)
{
    return rk_rewrite_members(&p->scope, list, rewrite_stage, p, w);
}

enum rk_verdict rk_pipeline_rewrite(const struct rk_scope *scope, const struct rk_bson_elem *list,
                                    struct rk_bson_writer *w)
{
    struct rk_pipeline p;
    rk_pipeline_init(&p, scope);
    return rk_pipeline_run(&p, list, w);
}

bool rk_pipeline_reaches_out(const struct rk_bson_elem *list)
{
    struct rk_bson_view array;
    struct rk_bson_view stage;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    if (!rk_bson_elem_view(list, &array)) {
        return true; /* no pipeline; let the whole look decide */
    }
    rk_bson_iter_init(&iter, &array);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (!rk_bson_elem_view(&elem, &stage) || rk_bson_find(&stage, "$out", &elem) ||
            rk_bson_find(&stage, "$merge", &elem) || rk_bson_find(&stage, "$changeStream", &elem)) {
            return true;
        }
    }
    return false;
}
