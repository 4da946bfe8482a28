/*
 * The reading and writing commands, as tables of what is done with each of their fields. A field
 * that has no rule is copied: it holds no value of the collection.
 */
#include "expr_internal.h"

#define RULE_END                                                                                   \
    {                                                                                              \
        NULL, NULL, NULL                                                                           \
    }

/* ---- filters */

static enum rk_verdict rewrite_filter(struct rk_statement *st, const struct rk_bson_elem *elem,
                                      struct rk_bson_writer *w)
{
    struct rk_bson_view filter;
    if (elem->type == RK_BSON_NULL) {
        rk_bson_copy(w, elem);
        return RK_VERDICT_FORWARD;
    }
    if (elem->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(elem, &filter)) {
        return rk_refuse(&st->scope, RK_CODE_TYPE_MISMATCH, elem->key, NULL, 0,
                         "must be a document");
    }
    /* An upsert takes its equalities for the new document. */
    if (st->upsert && rk_document_check_plain(st->scope.ns, elem->start, elem->start + elem->len,
                                              st->scope.err) != RK_VERDICT_FORWARD) {
        return RK_VERDICT_REJECT;
    }
    rk_bson_begin_sub(w, elem->type, elem->key, elem->key_len);
    enum rk_verdict verdict =
        rk_query_rewrite(&st->scope, &filter, st->upsert ? RK_QUERY_UPSERT : 0, w);
    rk_bson_end(w);
    return verdict;
}

static enum rk_verdict check_order(struct rk_statement *st, const struct rk_bson_elem *elem,
                                   struct rk_bson_writer *w)
{
    struct rk_bson_view keys;
    rk_bson_copy(w, elem);
    return rk_bson_elem_view(elem, &keys) ? rk_keys_check(&st->scope, elem->key, &keys)
                                          : RK_VERDICT_FORWARD;
}

static enum rk_verdict rewrite_projection(struct rk_statement *st, const struct rk_bson_elem *elem,
                                          struct rk_bson_writer *w)
{
    struct rk_bson_view spec;
    if (elem->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(elem, &spec)) {
        rk_bson_copy(w, elem); /* mongod refuses it */
        return RK_VERDICT_FORWARD;
    }
    rk_bson_begin_sub(w, elem->type, elem->key, elem->key_len);
    enum rk_verdict verdict = rk_projection_rewrite(&st->scope, &spec, false, NULL, NULL, w);
    rk_bson_end(w);
    return verdict;
}

static enum rk_verdict check_distinct_key(struct rk_statement *st, const struct rk_bson_elem *elem,
                                          struct rk_bson_writer *w)
{
    struct rk_text key = rk_elem_text(elem);
    struct rk_path_match match = rk_scope_relate(&st->scope, key.at, key.len);
    rk_bson_copy(w, elem);
    if (match.relation == RK_PATH_BELOW) {
        return rk_refuse(&st->scope, RK_CODE_BELOW, "distinct", key.at, key.len, RK_BELOW_ADVICE);
    }
    if (match.relation == RK_PATH_ABOVE) {
        return rk_refuse(&st->scope, RK_CODE_PREDICATE, "distinct", key.at, key.len,
                         "equal documents differ once fields in them are encrypted; name one "
                         "field by its dotted path");
    }
    if (match.relation == RK_PATH_EXACT && st->scope.collation) {
        return rk_refuse(&st->scope, RK_CODE_COLLATION, "distinct", key.at, key.len,
                         RK_COLLATION_ADVICE);
    }
    st->info->distinct_field = match.field;
    return RK_VERDICT_FORWARD;
}

/* Do all documents of such a stage come from those before it? */
static bool keeps_to_its_documents(const struct rk_bson_elem *stage)
{
    static const char *const names[] = {
        "$match",     "$group", "$sort",  "$limit",  "$skip",   "$count",       "$project",
        "$addFields", "$set",   "$unset", "$unwind", "$sample", "$replaceRoot", "$replaceWith"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (rk_bson_key_is(stage, names[i])) {
            return true;
        }
    }
    return false;
}

/* What the first stage finds is all that the others see, if none of them brings in more. */
static void find_tenant_of_pipeline(struct rk_statement *st, const struct rk_bson_view *stages)
{
    struct rk_tenant tenant = {.n_fields = 0};
    struct rk_bson_iter iter;
    struct rk_bson_iter inner;
    struct rk_bson_elem elem;
    struct rk_bson_elem stage;
    struct rk_bson_elem another;
    struct rk_bson_view view;
    bool first = true;
    rk_bson_iter_init(&iter, stages);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (!rk_bson_elem_view(&elem, &view)) {
            return;
        }
        rk_bson_iter_init(&inner, &view);
        if (rk_bson_next(&inner, &stage) != RK_BSON_STEP_ELEM ||
            rk_bson_next(&inner, &another) != RK_BSON_STEP_END || !keeps_to_its_documents(&stage)) {
            return;
        }
        if (first && rk_bson_key_is(&stage, "$match") && rk_bson_elem_view(&stage, &view)) {
            rk_tenant_of_filter(st->scope.policy, &view, st->scope.collation, &tenant);
        }
        first = false;
    }
    st->scope.crypt->tenant = tenant;
}

static enum rk_verdict rewrite_pipeline(struct rk_statement *st, const struct rk_bson_elem *elem,
                                        struct rk_bson_writer *w)
{
    struct rk_bson_view stages;
    if (st->scope.policy != NULL && st->scope.policy->tenant != NULL &&
        rk_bson_elem_view(elem, &stages)) {
        find_tenant_of_pipeline(st, &stages);
    }
    return rk_pipeline_rewrite(&st->scope, elem, w);
}

/* ---- writes */

static enum rk_verdict encrypt_document(void *arg, const struct rk_bson_view *document,
                                        struct rk_bson_writer *w)
{
    struct rk_statement *st = arg;
    return rk_encrypt_whole(&st->scope, document, w);
}

static enum rk_verdict rewrite_document(struct rk_statement *st, const struct rk_bson_elem *elem,
                                        struct rk_bson_writer *w)
{
    struct rk_bson_view document;
    if (elem->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(elem, &document)) {
        return rk_refuse(&st->scope, RK_CODE_TYPE_MISMATCH, elem->key, NULL, 0,
                         "must be a document");
    }
    rk_bson_begin_sub(w, elem->type, elem->key, elem->key_len);
    enum rk_verdict verdict = encrypt_document(st, &document, w);
    rk_bson_end(w);
    return verdict;
}

static enum rk_verdict rewrite_update(struct rk_statement *st, const struct rk_bson_elem *elem,
                                      struct rk_bson_writer *w)
{
    return rk_update_rewrite(&st->scope, elem, st->filter.data != NULL ? &st->filter : NULL, w);
}

static enum rk_verdict check_array_filters(struct rk_statement *st, const struct rk_bson_elem *elem,
                                           struct rk_bson_writer *w)
{
    struct rk_bson_elem update;
    rk_bson_copy(w, elem);
    /* In an op of bulkWrite "update" is something else. */
    return rk_bson_find(&st->view, "updateMods", &update) ||
                   rk_bson_find(&st->view, "u", &update) ||
                   rk_bson_find(&st->view, "update", &update)
               ? rk_array_filters_check(&st->scope, elem, &update)
               : RK_VERDICT_FORWARD;
}

/* With it mongod inserts a document that lies among the constants of a pipeline ("c.new"): what
 * $merge sends between the members of a cluster. */
static enum rk_verdict refuse_supplied(struct rk_statement *st, const struct rk_bson_elem *elem,
                                       struct rk_bson_writer *w)
{
    (void)w;
    return rk_refuse(&st->scope, RK_CODE_NOT_SUPPORTED, elem->key, NULL, 0,
                     "it is for the servers' own use; insert the document");
}

/* Variables of the command (let) or of a statement (c). What they hold goes to the server as it is
 * and can be stored by a pipeline; comparisons with them are refused where they stand. */
static enum rk_verdict check_variables(struct rk_statement *st, const struct rk_bson_elem *elem,
                                       struct rk_bson_writer *w)
{
    struct rk_bson_view list;
    enum rk_verdict verdict = rk_copy_plain(&st->scope, elem, w);
    return rk_stops(verdict) || !rk_bson_elem_view(elem, &list)
               ? verdict /* what is no document, mongod refuses */
               : rk_var_check_names(&st->scope, elem, &list);
}

/* The filter once more, which mongos tells the members of a cluster for their statistics. */
static enum rk_verdict refuse_original(struct rk_statement *st, const struct rk_bson_elem *elem,
                                       struct rk_bson_writer *w)
{
    (void)w;
    return rk_refuse(&st->scope, RK_CODE_NOT_SUPPORTED, elem->key, NULL, 0,
                     "it is for the servers' own use");
}

static void find_tenant(struct rk_statement *st)
{
    static const char *const names[] = {"q", "query", "filter"};
    struct rk_tenant *tenant = &st->scope.crypt->tenant;
    struct rk_bson_elem elem;
    struct rk_bson_view filter;
    *tenant = (struct rk_tenant){.n_fields = 0};
    for (size_t i = 0; i < 3 && st->scope.policy != NULL; i++) {
        if (rk_bson_find(&st->view, names[i], &elem) && rk_bson_elem_view(&elem, &filter)) {
            rk_tenant_of_filter(st->scope.policy, &filter, st->scope.collation, tenant);
            return;
        }
    }
}

/* What the rules of the other fields need to know first: a collation, a tenant, and an upsert's
 * filter. */
static void look_around(struct rk_statement *st)
{
    struct rk_bson_elem elem;
    struct rk_bson_elem locale;
    struct rk_bson_view view;
    if (rk_bson_find(&st->view, "collation", &elem) && rk_bson_elem_view(&elem, &view)) {
        st->scope.collation = !(rk_bson_find(&view, "locale", &locale) &&
                                rk_text_is(rk_elem_text(&locale), "simple"));
    } else {
        st->scope.collation = st->scope.policy != NULL
                                  ? st->scope.policy->collation
                                  : rk_policy_set_outside_collation(st->scope.set);
    }
    find_tenant(st);
    st->upsert = rk_bson_find(&st->view, "upsert", &elem) && rk_bson_elem_truthy(&elem);
    if (st->upsert &&
        (rk_bson_find(&st->view, "q", &elem) || rk_bson_find(&st->view, "query", &elem))) {
        (void)rk_bson_elem_view(&elem, &st->filter);
    }
}

enum rk_verdict rk_check_query_command(struct rk_statement *st)
{
    look_around(st);
    return RK_VERDICT_FORWARD;
}

enum rk_verdict rk_statement_rewrite_inner(const struct rk_statement *outer,
                                           const struct rk_bson_view *view,
                                           const struct rk_command_field *fields,
                                           struct rk_bson_writer *w)
{
    struct rk_statement st = {.scope = outer->scope, .view = *view, .info = outer->info};
    struct rk_bson_elem filter;
    look_around(&st);
    if (st.upsert && st.filter.data == NULL && rk_bson_find(view, "filter", &filter)) {
        (void)rk_bson_elem_view(&filter, &st.filter); /* so is it called in bulkWrite */
    }
    return rk_statement_rewrite(&st, fields, w);
}

static const struct rk_command_field update_statement[] = {
    {"q", rewrite_filter, NULL},
    {"u", rewrite_update, NULL},
    {"arrayFilters", check_array_filters, NULL},
    {"c", check_variables, NULL},
    {"upsertSupplied", refuse_supplied, NULL},
    {"sort", check_order, NULL},
    RULE_END,
};

static const struct rk_command_field delete_statement[] = {
    {"q", rewrite_filter, NULL},
    RULE_END,
};

static enum rk_verdict rewrite_update_statement(void *arg, const struct rk_bson_view *view,
                                                struct rk_bson_writer *w)
{
    return rk_statement_rewrite_inner(arg, view, update_statement, w);
}

static enum rk_verdict rewrite_delete_statement(void *arg, const struct rk_bson_view *view,
                                                struct rk_bson_writer *w)
{
    return rk_statement_rewrite_inner(arg, view, delete_statement, w);
}

const struct rk_command_field rk_fields_insert[] = {
    {"documents", NULL, encrypt_document},
    RULE_END,
};

const struct rk_command_field rk_fields_update[] = {
    {"updates", NULL, rewrite_update_statement},
    {"let", check_variables, NULL},
    {"$_originalQuery", refuse_original, NULL},
    RULE_END,
};

const struct rk_command_field rk_fields_delete[] = {
    {"deletes", NULL, rewrite_delete_statement},
    {"let", check_variables, NULL},
    {"$_originalQuery", refuse_original, NULL},
    RULE_END,
};

const struct rk_command_field rk_fields_insert_op[] = {
    {"insert", NULL, NULL},
    {"document", rewrite_document, NULL},
    RULE_END,
};

const struct rk_command_field rk_fields_update_op[] = {
    {"update", NULL, NULL},
    {"filter", rewrite_filter, NULL},
    {"updateMods", rewrite_update, NULL},
    {"arrayFilters", check_array_filters, NULL},
    {"constants", check_variables, NULL},
    {"upsertSupplied", refuse_supplied, NULL},
    {"sort", check_order, NULL},
    {"multi", NULL, NULL},
    {"upsert", NULL, NULL},
    {"hint", NULL, NULL},
    {"collation", NULL, NULL},
    {"sampleId", NULL, NULL},
    {"$_allowShardKeyUpdatesWithoutFullShardKeyInQuery", NULL, NULL},
    RULE_END,
};

const struct rk_command_field rk_fields_delete_op[] = {
    {"delete", NULL, NULL},
    {"filter", rewrite_filter, NULL},
    {"multi", NULL, NULL},
    {"hint", NULL, NULL},
    {"collation", NULL, NULL},
    {"sampleId", NULL, NULL},
    RULE_END,
};

const struct rk_command_field rk_fields_bulk_write[] = {
    {"ops", NULL, rk_bulk_rewrite_op},
    {"nsInfo", NULL, rk_bulk_copy_namespace},
    {"let", check_variables, NULL},
    {"$_originalQuery", refuse_original, NULL},
    RULE_END,
};

const struct rk_command_field rk_fields_find_and_modify[] = {
    {"query", rewrite_filter, NULL},
    {"update", rewrite_update, NULL},
    {"arrayFilters", check_array_filters, NULL},
    {"sort", check_order, NULL},
    {"fields", rewrite_projection, NULL},
    {"let", check_variables, NULL},
    {"$_originalQuery", refuse_original, NULL},
    RULE_END,
};

const struct rk_command_field rk_fields_find[] = {
    {"filter", rewrite_filter, NULL},
    {"sort", check_order, NULL},
    {"projection", rewrite_projection, NULL},
    {"min", check_order, NULL},
    {"max", check_order, NULL},
    {"let", check_variables, NULL},
    RULE_END,
};

const struct rk_command_field rk_fields_count[] = {
    {"query", rewrite_filter, NULL},
    RULE_END,
};

const struct rk_command_field rk_fields_distinct[] = {
    {"key", check_distinct_key, NULL},
    {"query", rewrite_filter, NULL},
    RULE_END,
};

const struct rk_command_field rk_fields_aggregate[] = {
    {"pipeline", rewrite_pipeline, NULL},
    {"let", check_variables, NULL},
    RULE_END,
};
