/* One aggregation pipeline while it is rewritten: pipeline.c and its kin. */
#ifndef REKEY_POLICY_PIPELINE_INTERNAL_H
#define REKEY_POLICY_PIPELINE_INTERNAL_H

#include "command_internal.h"

struct rk_pipeline {
    struct rk_scope scope; /* aliases points at the member below */
    struct rk_aliases aliases;
    bool bare; /* no protected value is left; what names one is treated as before all the same */
};

/* Can there be protected values in the documents that come out? */
bool rk_pipeline_carries(const struct rk_pipeline *p);

/* The stage makes documents of its own, with none of the values that were there before. */
void rk_pipeline_nothing_left(struct rk_pipeline *p);
enum rk_verdict rk_pipeline_refuse(const struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                   struct rk_text path);

enum rk_verdict rk_stage_group(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                               struct rk_bson_writer *w);
enum rk_verdict rk_stage_sort_by_count(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                       struct rk_bson_writer *w);

/* The stages that give documents another shape. */
enum rk_verdict rk_stage_project(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                 struct rk_bson_writer *w);
enum rk_verdict rk_stage_unwind(struct rk_pipeline *p, const struct rk_bson_elem *stage);
enum rk_verdict rk_stage_replace(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                 struct rk_bson_writer *w);

/* The stages that name another collection. A check looks and the stage is then copied; a rewrite
 * appends it. */
enum rk_verdict rk_stage_lookup(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                struct rk_bson_writer *w);
enum rk_verdict rk_stage_union_with(struct rk_pipeline *p, const struct rk_bson_elem *stage,
                                    struct rk_bson_writer *w);
enum rk_verdict rk_stage_graph_lookup(struct rk_pipeline *p, const struct rk_bson_elem *stage);
enum rk_verdict rk_stage_out(struct rk_pipeline *p, const struct rk_bson_elem *stage);

/* Appends the array of stages under its key, in the state of p. */
enum rk_verdict rk_pipeline_run(struct rk_pipeline *p, const struct rk_bson_elem *stages,
                                struct rk_bson_writer *w);
void rk_pipeline_init(struct rk_pipeline *p, const struct rk_scope *scope);

#endif
