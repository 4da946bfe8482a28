/*
 * What the request side of src/policy shares: the scope that a rewrite stands in, and the
 * rewriters of filters, expressions, updates and pipelines.
 *
 * Every rewriter gets BSON that rk_bson_validate accepted, appends to a writer, and returns
 * FORWARD (copied as it was), REPLACE (something changed), HOLD or REJECT (stop; err is filled).
 * Everything here runs on the thread that owns the crypt.
 */
#ifndef REKEY_POLICY_COMMAND_INTERNAL_H
#define REKEY_POLICY_COMMAND_INTERNAL_H

#include <rekey/policy/command.h>

#include "policy_internal.h"

/* Error codes that drivers know from client-side field level encryption, and mongod's own. */
enum {
    RK_CODE_FAILED_TO_PARSE = 9,
    RK_CODE_TYPE_MISMATCH = 14,
    RK_CODE_ILLEGAL_OPERATION = 20,
    RK_CODE_INVALID_NAMESPACE = 73,
    RK_CODE_NOT_SUPPORTED = 115,
    RK_CODE_ABOVE = 31007,           /* a predicate on a parent of a protected path */
    RK_CODE_COLLATION = 31054,       /* collation with encrypted equality */
    RK_CODE_PIPELINE = 31146,        /* an aggregation would move a protected value to disk */
    RK_CODE_REGEX_IN = 51015,        /* regular expression in $in */
    RK_CODE_PREDICATE = 51092,       /* operator that ciphertext cannot answer */
    RK_CODE_WHERE = 51094,           /* $text, $where */
    RK_CODE_BELOW = 51102,           /* a path inside an encrypted value */
    RK_CODE_RANGE = 51118,           /* $gt, $gte, $lt, $lte */
    RK_CODE_POSITIONAL = 51149,      /* positional update path */
    RK_CODE_UPDATE_OPERATOR = 51150, /* $inc, $push, ... */
    RK_CODE_RANDOM_EQUALITY = 51158, /* equality where equal values differ */
    RK_CODE_RENAME_SOURCE = 51160,
    RK_CODE_RENAME_TARGET = 51161,
    RK_CODE_LOOKUP = 51204,
    RK_CODE_ELEM_MATCH = 6890100,
};

/* ---- command_scope.c */

#define RK_ALIASES_MAX 64u
#define RK_SCOPE_NS_MAX 320u

/* Paths under which earlier stages of a pipeline have put protected values: name stands for
 * node. With all, anything may stand anywhere. */
struct rk_aliases {
    struct {
        const char *name;
        uint32_t len;
        const struct rk_path_node *node;
    } at[RK_ALIASES_MAX];
    unsigned n;
    bool all;
};

struct rk_var; /* expr_internal.h */

/* Where a rewrite stands: the namespace, its policy, and what to encrypt with. */
struct rk_scope {
    const struct rk_policy_set *set;
    struct rk_crypt *crypt;
    const char *db;
    uint32_t db_len;
    const struct rk_policy *policy;   /* NULL: the namespace is unprotected */
    char ns[RK_SCOPE_NS_MAX];         /* for messages */
    const struct rk_aliases *aliases; /* NULL outside of pipelines */
    const struct rk_var *vars;        /* bound around an expression, innermost first */
    bool collation;                   /* the command compares strings by a collation */
    bool moved; /* a protected path may hold something else by now: nothing can be compared */
    bool whole; /* no collection: all of the database, of admin the cluster */
    struct rk_error *err;
};

#define RK_COLLATION_ADVICE                                                                        \
    "ciphertext cannot be compared by a collation, which the command or the collection has; give " \
    "the command {locale: \"simple\"}"
#define RK_MISSING_ADVICE                                                                          \
    "a data key could not be loaded, and records under it would be missed; see the proxy's log"
#define RK_BELOW_ADVICE                                                                            \
    "it lies inside an encrypted value, or may do so; name the protected path itself"
#define RK_MOVED_ADVICE "an earlier stage changed what this path holds; put the comparison first"

/* A copy of scope that stands at another collection of the same database. */
struct rk_scope rk_scope_at(const struct rk_scope *scope, const char *coll, uint32_t coll_len);
/* The policy of db.coll; that of X for a time series' "system.buckets.X". */
const struct rk_policy *rk_scope_find(const struct rk_policy_set *set, const char *db,
                                      size_t db_len, const char *coll, size_t coll_len);
/* The collection in which a time series lies, in a shape of its own: no path is where it was. */
bool rk_scope_is_buckets(const char *coll, size_t coll_len);
/* Can a protected value be met here at all? */
bool rk_scope_guarded(const struct rk_scope *scope);

struct rk_path_match rk_scope_relate(const struct rk_scope *scope, const char *path, size_t len);
bool rk_scope_touches(const struct rk_scope *scope, const char *path, size_t len);
/* May an encrypted value be a document or array, into which a path could lead? Asked where it is
 * not known which values stand where. */
bool rk_scope_hides_paths(const struct rk_scope *scope);

void rk_aliases_add(struct rk_aliases *aliases, const char *name, uint32_t len,
                    const struct rk_path_node *node);
/* Stands for a place where several kinds of protected values may be. */
extern const struct rk_path_node rk_anything;
extern const struct rk_path_node rk_anything_flat; /* no documents or arrays among them */
bool rk_is_anything(const struct rk_path_node *node);

/* REJECT with "<ns>: <what> on <path>: <advice>"; path NULL: without it. Never a value. */
enum rk_verdict rk_refuse(const struct rk_scope *scope, int code, const char *what,
                          const char *path, size_t path_len, const char *advice);

/* Copies an element to be stored at an unprotected path: REJECT when it claims to be encrypted. */
enum rk_verdict rk_copy_plain(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                              struct rk_bson_writer *w);

static inline bool rk_stops(enum rk_verdict verdict)
{
    return verdict == RK_VERDICT_HOLD || verdict == RK_VERDICT_REJECT;
}

static inline enum rk_verdict rk_worse(enum rk_verdict a, enum rk_verdict b)
{
    return a > b ? a : b;
}

/* Text of a string element, empty for any other type. */
struct rk_text {
    const char *at;
    uint32_t len;
};
struct rk_text rk_elem_text(const struct rk_bson_elem *elem);
bool rk_text_is(struct rk_text text, const char *other);

bool rk_elem_is_null(const struct rk_bson_elem *elem);
/* A document whose first key starts with '$': operators, not a literal. */
bool rk_elem_is_operators(const struct rk_bson_elem *elem, struct rk_bson_view *view);

/* Appends the array elem under its key, each member rewritten by each(arg, member, w), which
 * appends the member's elements. A member that is no document is REJECTed. */
typedef enum rk_verdict rk_member_fn(void *arg, const struct rk_bson_view *member,
                                     struct rk_bson_writer *w);
enum rk_verdict rk_rewrite_members(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                                   rk_member_fn *each, void *arg, struct rk_bson_writer *w);

/* ---- query.c, query_value.c */

enum {
    RK_QUERY_UPSERT = 1u << 0, /* mongod takes equalities for the new document's fields */
    RK_QUERY_IN_OR = 1u << 1,
    RK_QUERY_EXPR = 1u << 2, /* in an expression, where a string may be a path */
};

/* One comparison of a protected path with a value. */
struct rk_comparison {
    const struct rk_scope *scope;
    const struct rk_bson_elem *path; /* its key is the path */
    struct rk_path_match match;
    unsigned flags;
};

/* Appends the elements of a filter. */
enum rk_verdict rk_query_rewrite(const struct rk_scope *scope, const struct rk_bson_view *filter,
                                 unsigned flags, struct rk_bson_writer *w);
/* Appends {$elemMatch: filter} for an array above protected fields. */
enum rk_verdict rk_query_rewrite_element(const struct rk_comparison *cmp,
                                         const struct rk_bson_elem *op, struct rk_bson_writer *w);
/* Does the filter name a protected path anywhere? *path is then the key. */
bool rk_query_mentions(const struct rk_scope *scope, const struct rk_bson_view *filter,
                       struct rk_text *path);

/* An equality of an upsert's filter that mongod can no longer take for the new document, because
 * it became an $in: stops when each does. */
typedef enum rk_verdict rk_seed_fn(void *arg, const struct rk_bson_elem *path,
                                   const struct rk_field *field, const struct rk_bson_elem *value);
enum rk_verdict rk_query_seeds(const struct rk_scope *scope, const struct rk_bson_view *filter,
                               rk_seed_fn *each, void *arg);

/* The keys under which values of this field may lie: those of its name, and of former ones. */
struct rk_field_keys {
    const struct rk_data_key *current; /* NULL: there is none to write under */
    struct rk_key_versions of[2 + RK_FORMER_KEYS_MAX];
    size_t n;            /* loaded ones */
    uint32_t missing_id; /* not loaded; 0: none is missing */
};
struct rk_field_keys rk_field_keys(const struct rk_scope *scope, const struct rk_field *field);
/* Are equal values of both one ciphertext, if the field is exact (rk_field_is_exact)? */
bool rk_field_same(const struct rk_field *a, const struct rk_field *b);
/* May the path be compared with this (not null) value? HOLD without a current key. */
enum rk_verdict rk_compare_check(const struct rk_comparison *cmp, const struct rk_bson_elem *value);
/* In how many forms a stored value equal to this one may lie there: under each key, in each type
 * of number, in legacy formats, in the clear. */
size_t rk_compare_forms(const struct rk_comparison *cmp, const struct rk_bson_elem *value);
/* Appends all forms as members of an array, from *index on. */
enum rk_verdict rk_compare_put_all(const struct rk_comparison *cmp,
                                   const struct rk_bson_elem *value, unsigned *index,
                                   struct rk_bson_writer *w);
/* Appends form i < rk_compare_forms under name; form 0 is the one that would be written today. */
enum rk_verdict rk_compare_put(const struct rk_comparison *cmp, const struct rk_bson_elem *value,
                               size_t i, const char *name, struct rk_bson_writer *w);
/* Appends the comparison under key; as a list under many where several ciphertexts can match.
 * With key == NULL it is the bare {path: value}. */
enum rk_verdict rk_compare_one(const struct rk_comparison *cmp, const char *key, const char *many,
                               const struct rk_bson_elem *value, struct rk_bson_writer *w);
/* Appends $in or $nin. */
enum rk_verdict rk_compare_list(const struct rk_comparison *cmp, const struct rk_bson_elem *list,
                                struct rk_bson_writer *w);
/* Are values of this field equal if and only if what is stored of them is? Only then can the
 * server group and join by it. Else why says what is in the way. */
bool rk_field_is_exact(const struct rk_scope *scope, const struct rk_field *field,
                       const char **why);

/* ---- expr.c */

/* What an expression gives, as far as protected values are concerned. In rising order: what
 * carries both this and that carries the later one. */
enum rk_carries {
    RK_CARRIES_NO_VALUE, /* null, or nothing at all */
    RK_CARRIES_CONSTANT, /* of the command */
    RK_CARRIES_NOTHING,  /* something unprotected */
    RK_CARRIES_FIELD,    /* what stands at a node */
    RK_CARRIES_ANYTHING, /* protected values among others */
};
struct rk_carried {
    enum rk_carries what;
    const struct rk_path_node *node; /* of FIELD */
    bool constants;                  /* of FIELD: or constants instead */
    bool legacy;                     /* there may be legacy values among them */
    bool empty;                      /* NO_VALUE may be an empty document or array */
    bool hides_paths;                /* encrypted documents or arrays may be among them */
    bool below;                      /* it lies inside an encrypted value, or may do so */
    struct rk_text path;             /* by which they came in */
};
bool rk_carries_protected(const struct rk_carried *carried);

/* Appends the expression elem under its key, constants that are compared with deterministic
 * fields encrypted. */
enum rk_verdict rk_expr_rewrite(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                                struct rk_carried *carried, struct rk_bson_writer *w);
/* The same for an expression that may not give anything protected. */
enum rk_verdict rk_expr_rewrite_plain(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                                      struct rk_bson_writer *w);
/* What is carried stands under another name from now on: REJECT where it could not be decrypted
 * there. aliases: where to note it, or NULL. */
enum rk_verdict rk_expr_hand_on(const struct rk_scope *scope, const char *what,
                                const struct rk_carried *carried, const struct rk_bson_elem *name,
                                struct rk_aliases *aliases);

/* ---- command_expr.c */

/* True when elem is nothing but a reference ("$a.b", "$$ROOT", "$$CURRENT.a"); *path then lacks
 * the prefix and is empty for the whole document. */
bool rk_expr_reference(const struct rk_bson_elem *elem, struct rk_text *path);
/* Does the expression read a protected value? *path is then the first such reference. */
bool rk_expr_touches(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                     struct rk_text *path);
/* Does a string inside name a variable, bound around it, that has to be rewritten? For what is
 * copied. */
bool rk_expr_uses_bound(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                        struct rk_text *path);
/* Does any key or string inside name a protected path? For stages with shapes of their own. */
bool rk_expr_names(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                   struct rk_text *path);
/* Appends the elements of a projection: what find, findAndModify and $project take, and (adds: in
 * which numbers are values) $addFields. With aliases (pipelines) new names are added to it; *moved
 * is set when a protected path gets another meaning. */
enum rk_verdict rk_projection_rewrite(const struct rk_scope *scope, const struct rk_bson_view *spec,
                                      bool adds, struct rk_aliases *aliases, bool *moved,
                                      struct rk_bson_writer *w);
/* Index-like documents: no protected path may be among the keys. */
enum rk_verdict rk_keys_check(const struct rk_scope *scope, const char *what,
                              const struct rk_bson_view *keys);

/* ---- update.c, update_pipeline.c */

/* Appends the elements of a document that is stored whole, under the keys of its own tenant. */
enum rk_verdict rk_encrypt_whole(const struct rk_scope *scope, const struct rk_bson_view *document,
                                 struct rk_bson_writer *w);
/* Appends the update u under its key. filter: of an upsert, else NULL. */
enum rk_verdict rk_update_rewrite(const struct rk_scope *scope, const struct rk_bson_elem *u,
                                  const struct rk_bson_view *filter, struct rk_bson_writer *w);
/* The same for an array of stages. */
enum rk_verdict rk_update_pipeline_rewrite(const struct rk_scope *scope,
                                           const struct rk_bson_elem *u, struct rk_bson_writer *w);

/* ---- array_filters.c */

/* REJECT when a condition reads a protected field of the elements that the update names. */
enum rk_verdict rk_array_filters_check(const struct rk_scope *scope,
                                       const struct rk_bson_elem *filters,
                                       const struct rk_bson_elem *update);

/* ---- pipeline.c, pipeline_join.c */

/* Appends the array of stages under its key. */
enum rk_verdict rk_pipeline_rewrite(const struct rk_scope *scope, const struct rk_bson_elem *stages,
                                    struct rk_bson_writer *w);
/* Does a stage write to a collection, or watch? Asked of pipelines elsewhere: either may reach
 * a database with policies. */
bool rk_pipeline_reaches_out(const struct rk_bson_elem *stages);

/* ---- command_table.c */

enum rk_command_kind {
    RK_KIND_HELLO,
    RK_KIND_SESSION,  /* no data of collections: passes, and so does its reply */
    RK_KIND_PLAIN,    /* names a collection but carries no value of it */
    RK_KIND_REWRITE,  /* rewritten where its collection is protected */
    RK_KIND_DATABASE, /* looked at everywhere in a database with policies */
    RK_KIND_CROSS,    /* looked at always: it can reach other databases */
    RK_KIND_REFUSE,   /* refused where its collection is protected */
};

struct rk_statement;
/* A field of a command: value rewrites it as one element, member rewrites each document of it,
 * in the body's array or in a kind-1 sequence. NULL value and member: copied. */
struct rk_command_field {
    const char *name;
    enum rk_verdict (*value)(struct rk_statement *st, const struct rk_bson_elem *elem,
                             struct rk_bson_writer *w);
    rk_member_fn *member;
};

struct rk_command_spec {
    const char *name;
    enum rk_command_class klass;
    enum rk_command_kind kind;
    const struct rk_command_field *fields; /* ended by a NULL name */
    /* Looks at the whole command before the fields are rewritten; NULL: nothing to look at. */
    enum rk_verdict (*check)(struct rk_statement *st);
};

/* NULL when the command is not known. */
/* Does this command (of spec, NULL: unknown) ask to be authenticated by the client's certificate?
 */
bool rk_asks_x509(const struct rk_command_spec *spec, const struct rk_bson_view *view);
enum rk_verdict rk_refuse_x509(struct rk_error *err);
enum rk_verdict rk_check_x509(struct rk_statement *st);

const struct rk_command_spec *rk_command_spec_find(const char *name, size_t len);

/* A command, or one statement of an update or delete, while it is rewritten. */
struct rk_statement {
    struct rk_scope scope;
    const struct rk_msg *msg; /* for kind-1 sections; NULL inside explain */
    struct rk_bson_view view;
    struct rk_command_info *info;
    bool upsert;
    struct rk_bson_view filter; /* of an upsert; data NULL otherwise */
    /* Of the command itself: its batch where that is an array of the body, and whether that is to
     * become a document sequence. */
    struct rk_bson_elem batch;
    const struct rk_command_field *batch_rule; /* NULL: there is none */
    bool batch_moves;
    size_t body_len; /* of the body as it was rewritten */
    /* Of a bulkWrite that names a protected collection: all that it names. Else empty. */
    struct rk_buf *namespaces;
    bool whole_errors; /* single statements cannot be refused: errors are those of the command */
};

/* Appends the statement's elements, each by its field's rule. */
enum rk_verdict rk_statement_rewrite(struct rk_statement *st, const struct rk_command_field *fields,
                                     struct rk_bson_writer *w);
/* The same for a statement inside of a command, in the scope of outer. */
enum rk_verdict rk_statement_rewrite_inner(const struct rk_statement *outer,
                                           const struct rk_bson_view *view,
                                           const struct rk_command_field *fields,
                                           struct rk_bson_writer *w);
/* NULL: there is no rule for this field. */
const struct rk_command_field *rk_command_field_find(const struct rk_command_field *fields,
                                                     const char *name);
/* REJECT when the (protected) scope is the collection of a time series' buckets. */
enum rk_verdict rk_check_buckets(const struct rk_scope *scope, const char *command,
                                 struct rk_text coll);

/* ---- command_batch.c */

/* Appends an array of the body, each member by the rule; nothing when the batch moves. */
enum rk_verdict rk_batch_rewrite_array(struct rk_statement *st, const struct rk_command_field *rule,
                                       const struct rk_bson_elem *elem, struct rk_bson_writer *w);
/* Appends the same array as a document sequence. */
enum rk_verdict rk_batch_rewrite_moved(struct rk_statement *st, struct rk_bson_writer *w);
/* Has the body outgrown mongod's limit by encryption, and is its batch the way out? */
bool rk_batch_must_move(const struct rk_statement *st, size_t body_len);
enum rk_verdict rk_batch_rewrite_sequence(struct rk_statement *st,
                                          const struct rk_command_field *rule,
                                          const struct rk_msg_sequence *seq,
                                          struct rk_bson_writer *w);
/* What makes every server refuse a statement: members of a document, a filter or update. */
void rk_batch_put_refused_document(struct rk_bson_writer *w);
void rk_batch_put_refused_operator(const char *key, struct rk_bson_writer *w);

/* ---- command_fields.c: reads and writes */

extern const struct rk_command_field rk_fields_insert[];
extern const struct rk_command_field rk_fields_update[];
extern const struct rk_command_field rk_fields_delete[];
extern const struct rk_command_field rk_fields_find_and_modify[];
extern const struct rk_command_field rk_fields_find[];
extern const struct rk_command_field rk_fields_count[];
extern const struct rk_command_field rk_fields_distinct[];
extern const struct rk_command_field rk_fields_aggregate[];
enum rk_verdict rk_check_query_command(struct rk_statement *st);
/* The ops of bulkWrite, with every field that they may have. */
extern const struct rk_command_field rk_fields_insert_op[];
extern const struct rk_command_field rk_fields_update_op[];
extern const struct rk_command_field rk_fields_delete_op[];
extern const struct rk_command_field rk_fields_bulk_write[];

/* ---- command_bulk.c */

void rk_bulk_namespaces_init(struct rk_buf *namespaces);
enum rk_verdict rk_check_bulk_write(struct rk_statement *st);
rk_member_fn rk_bulk_rewrite_op;
rk_member_fn rk_bulk_copy_namespace;
/* Appends an op of the same kind and collection as op (which rk_bulk_rewrite_op took for one) that
 * every server refuses. */
void rk_bulk_put_refused(const struct rk_bson_view *op, struct rk_bson_writer *w);
bool rk_bulk_inserts(const struct rk_bson_view *op);

/* ---- command_admin.c: definitions, and commands that reach around the proxy */

extern const struct rk_command_field rk_fields_create_indexes[];
enum rk_verdict rk_check_create(struct rk_statement *st);
enum rk_verdict rk_check_rename(struct rk_statement *st);
enum rk_verdict rk_check_clone_capped(struct rk_statement *st);
enum rk_verdict rk_check_map_reduce(struct rk_statement *st);
enum rk_verdict rk_check_around(struct rk_statement *st);

#endif
