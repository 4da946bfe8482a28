/* Expressions while they are rewritten: expr.c and its kin. */
#ifndef REKEY_POLICY_EXPR_INTERNAL_H
#define REKEY_POLICY_EXPR_INTERNAL_H

#include "command_internal.h"

#define RK_VARS_MAX 16u /* bound by one $let */

/* A variable of $let, $map, $filter or $lookup, in frames on the rewriters' stacks. */
struct rk_var {
    const struct rk_var *up;
    struct rk_text name;
    struct rk_carried carried;
    struct rk_bson_elem constant; /* when it carries one */
};

struct rk_expr {
    const struct rk_scope *scope;
    const struct rk_comparison
        *seal;      /* constants that are handed on are encrypted for this field */
    unsigned again; /* how often an expression around this one was run twice */
};

/* Appends the operator and its arguments under its key. */
typedef enum rk_verdict rk_expr_fn(const struct rk_expr *x, const struct rk_bson_elem *op,
                                   struct rk_carried *carried, struct rk_bson_writer *w);

rk_expr_fn rk_expr_run; /* of a whole expression */
rk_expr_fn rk_expr_members;
rk_expr_fn rk_expr_compare;
rk_expr_fn rk_expr_in;
rk_expr_fn rk_expr_let;
rk_expr_fn rk_expr_over;
rk_expr_fn rk_expr_reduce;

/* x, where what is handed on is not compared with the field of x->seal. */
static inline struct rk_expr rk_expr_apart(const struct rk_expr *x)
{
    return (struct rk_expr){.scope = x->scope, .again = x->again};
}

/* An operator's rule. One without computes, and may be given nothing protected. */
rk_expr_fn *rk_expr_operator(const char *name);

struct rk_carried rk_carried_join(struct rk_carried a, struct rk_carried b);
struct rk_carried rk_carried_inside(struct rk_carried carried);
struct rk_carried rk_expr_string(const struct rk_scope *scope, const struct rk_bson_elem *elem);
/* The constant that elem stands for: itself, {$literal: it}, or a variable bound to one. */
bool rk_expr_constant(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                      struct rk_bson_elem *value);
/* The variable that "$$name.rest" begins with, or NULL. */
const struct rk_var *rk_var_find(const struct rk_scope *scope, struct rk_text text,
                                 struct rk_text *rest);
/* May a variable be called that? */
enum rk_verdict rk_var_check_name(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                  struct rk_text name);
/* The same of all variables of a list {name: value, ...}. */
enum rk_verdict rk_var_check_names(const struct rk_scope *scope, const struct rk_bson_elem *op,
                                   const struct rk_bson_view *list);
/* Appends the value of a variable under its name; a constant is kept for where it is used. */
enum rk_verdict rk_expr_bind(const struct rk_expr *x, const struct rk_bson_elem *elem,
                             struct rk_var *var, struct rk_bson_writer *w);

/* A field, or what hands it on, and a constant that it is compared with. */
struct rk_match {
    const struct rk_comparison *cmp;
    const struct rk_bson_elem *field; /* as rewritten */
    const struct rk_bson_elem *value;
};

/* Appends the comparison, as an operator under its key. */
enum rk_verdict rk_match_put_equality(const struct rk_match *m, bool equal,
                                      struct rk_bson_writer *w);
enum rk_verdict rk_match_put_membership(const struct rk_match *m, struct rk_bson_writer *w);

enum rk_verdict rk_expr_refuse(const struct rk_scope *scope, const char *op, struct rk_text path);

#endif
