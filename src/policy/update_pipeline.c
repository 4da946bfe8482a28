/*
 * Updates given as pipelines. They run inside the server, so a protected value could only be
 * moved or replaced there unencrypted or out of the sweeper's reach: stages may do what they like
 * with unprotected fields and may remove protected ones, nothing else.
 */
#include "command_internal.h"

static enum rk_verdict check_set(const struct rk_scope *scope, const struct rk_bson_elem *stage)
{
    struct rk_bson_view fields;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_text path;
    if (!rk_bson_elem_view(stage, &fields)) {
        return RK_VERDICT_FORWARD; /* mongod refuses it */
    }
    rk_bson_iter_init(&iter, &fields);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (rk_scope_touches(scope, elem.key, elem.key_len)) {
            return rk_refuse(scope, RK_CODE_PIPELINE, stage->key, elem.key, elem.key_len,
                             "a pipeline cannot encrypt; use an update with the operator $set");
        }
        if (rk_expr_touches(scope, &elem, &path)) {
            return rk_refuse(scope, RK_CODE_PIPELINE, stage->key, path.at, path.len,
                             "it would move an encrypted value; read it and write it back instead");
        }
    }
    return RK_VERDICT_FORWARD;
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

enum rk_verdict rk_update_pipeline_check(const struct rk_scope *scope,
                                         const struct rk_bson_view *stages)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_iter iter;
    struct rk_bson_iter names;
    struct rk_bson_elem member;
    struct rk_bson_elem stage;
    struct rk_bson_view view;
    rk_bson_iter_init(&iter, stages);
    while (rk_bson_next(&iter, &member) == RK_BSON_STEP_ELEM) {
        if (member.type != RK_BSON_DOCUMENT || !rk_bson_elem_view(&member, &view)) {
            return rk_refuse(scope, RK_CODE_TYPE_MISMATCH, "update pipeline", NULL, 0,
                             "every stage must be a document");
        }
        rk_bson_iter_init(&names, &view);
        while (rk_bson_next(&names, &stage) == RK_BSON_STEP_ELEM) {
            if (rk_bson_key_is(&stage, "$set") || rk_bson_key_is(&stage, "$addFields")) {
                verdict = check_set(scope, &stage);
            } else if (rk_bson_key_is(&stage, "$unset")) {
                verdict = check_unset(scope, &stage);
            } else {
                verdict = rk_refuse(scope, RK_CODE_PIPELINE, stage.key, NULL, 0,
                                    "not possible in a collection with encrypted fields; use $set "
                                    "and $unset");
            }
            if (rk_stops(verdict)) {
                return verdict;
            }
        }
    }
    return RK_VERDICT_FORWARD;
}
