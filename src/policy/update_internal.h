/* What the update*.c files share. */
#ifndef REKEY_POLICY_UPDATE_INTERNAL_H
#define REKEY_POLICY_UPDATE_INTERNAL_H

#include "command_internal.h"

/* Appends one field of an operator, such as the "a.b": 1 of {$inc: {"a.b": 1}}. */
typedef enum rk_verdict rk_operator_fn(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                       const struct rk_bson_elem *field, struct rk_bson_writer *w);

/* Every operator that may not meet protected paths. */
rk_operator_fn rk_operator_other;

/* Operators on arrays, above protected paths: the elements are documents that hold some. */
rk_operator_fn rk_operator_push;
rk_operator_fn rk_operator_add_to_set;
rk_operator_fn rk_operator_pull;
rk_operator_fn rk_operator_pull_all;
rk_operator_fn rk_operator_pop;

/* Appends a value that stands at node, or a member of an array that does, encrypted below it. */
enum rk_verdict rk_update_put_value(const struct rk_scope *scope, const struct rk_path_node *node,
                                    const struct rk_bson_elem *value, struct rk_bson_writer *w);

#endif
