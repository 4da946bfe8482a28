/*
 * Which fields of which namespaces are protected, and how. A policy set is immutable after
 * rk_policy_set_new and reference-counted: a configuration reload builds a new one.
 *
 * A namespace is "db.collection" or "db.*" (every collection of db but system.*); an exact one
 * wins over the wildcard. A path is dotted and goes through sub-documents and, element by
 * element, through arrays: "contacts.phone" covers phone in each document of the array contacts.
 * Paths never hold array indexes. A value at a protected path is encrypted whole, whatever its
 * type; null stays null.
 */
#ifndef REKEY_POLICY_POLICY_H
#define REKEY_POLICY_POLICY_H

#include <rekey/crypto/envelope.h>
#include <rekey/crypto/keyset.h>
#include <rekey/crypto/legacy.h>

/* createIndexes with unique on a deterministic field: uniqueness does not hold across keys. */
enum rk_unique_index {
    RK_UNIQUE_INDEX_REFUSE,
    RK_UNIQUE_INDEX_WARN, /* allowed; rk_command_info.warning says so */
    RK_UNIQUE_INDEX_ALLOW,
};

/* What stands for a value whose key was destroyed: an error as a document, or a constant. */
struct rk_unreadable {
    bool placeholder;
    const char *text; /* of the constant; NULL: null */
};

/* What a configuration says. Strings and arrays are copied by rk_policy_set_new. */
struct rk_field_spec {
    const char *path;
    const char *name; /* logical field name; NULL: "<namespace>/<path>" */
    enum rk_algorithm algorithm;
    const struct rk_legacy_format *legacy; /* tried in this order */
    size_t n_legacy;
    uint8_t bson_type;     /* the only one that may be stored (deterministic fields); 0: any */
    bool accept_plaintext; /* there may be values that were never encrypted: equality finds them */
    enum rk_unique_index unique_index;
    const char *key; /* name of its data keys; NULL: the policy's */
};

#define RK_FORMER_KEYS_MAX 7u

struct rk_policy_spec {
    const char *ns;
    const struct rk_field_spec *fields;
    size_t n_fields;
    const char *key;                /* NULL: "default" */
    const char *const *former_keys; /* names under which values may still lie */
    size_t n_former_keys;
    struct rk_unreadable unreadable;
    const char *tenant; /* path of a field by which keys are chosen (tenant.h); NULL: none */
};

/* What to do with a value that claims to be encrypted and cannot be decrypted, on reads. */
enum rk_undecryptable {
    RK_UNDECRYPTABLE_ERROR, /* the reply becomes an error that names namespace and path */
    RK_UNDECRYPTABLE_LEAVE, /* the ciphertext is passed on as it is */
};

/* A node of a policy's path tree: a path component below its parent's. */
struct rk_path_node {
    const char *name;
    uint32_t name_len;
    const struct rk_field *field;  /* set on leaves only: a protected path is never a prefix */
    struct rk_path_node *children; /* by rising length, then bytes, of their names */
    size_t n_children;
    uint64_t child_lens; /* bit (length % 64) of every child's name: most keys miss here */
    bool has_legacy;     /* this field, or one below, has a legacy reader */
    bool hides_paths;    /* its values, or some below, may be encrypted documents or arrays */
};

struct rk_field {
    const char *path;
    const char *key;     /* name of its data keys */
    bool by_tenant;      /* which is only the beginning of the name */
    const char **former; /* other names under which values may lie */
    size_t n_former;
    enum rk_algorithm algorithm;
    uint32_t field_id;
    struct rk_legacy_format *legacy;
    size_t n_legacy;
    uint8_t bson_type;
    bool accept_plaintext;
    enum rk_unique_index unique_index;
};

/* May a value of this type be encrypted for the field? Null is none that could be. */
enum rk_field_fit {
    RK_FIT_YES,
    RK_FIT_NEVER,             /* undefined, min and max: no field's */
    RK_FIT_NOT_DETERMINISTIC, /* equal values of the type may differ in their bytes */
    RK_FIT_OTHER_TYPE,        /* than the only one that the policy allows */
};
enum rk_field_fit rk_field_fits(const struct rk_field *field, uint8_t bson_type);

struct rk_policy {
    const char *ns; /* as configured */
    struct rk_path_node root;
    struct rk_field *fields;
    size_t n_fields;
    bool has_legacy; /* some field has a legacy reader */
    bool collation;  /* mongod compares its strings by a default collation */
    struct rk_unreadable unreadable;
    const char *tenant; /* NULL: one key for all */
    bool view;          /* a view of protected fields, which stand anywhere in it */
};

struct rk_policy_set;

/* May a policy call its keys so? [A-Za-z0-9_.-]{1,64}. */
bool rk_policy_key_valid(const char *name);

/* What MongoDB's catalog knows of a namespace that the configuration cannot. */
enum rk_policy_mark_kind {
    RK_MARK_COLLATION, /* the collection has a default collation other than the simple one */
    RK_MARK_OUTSIDE,   /* so has one without a policy, whose pipelines may join protected ones */
    RK_MARK_VIEW,      /* a view that reads protected fields and has no policy */
};
struct rk_policy_mark {
    const char *db;
    const char *coll;
    enum rk_policy_mark_kind kind;
};

/*
 * Refused with a message that names namespace and path: bad namespace (empty part, "admin",
 * "local", "config", the state database "rekey", system.*), duplicate namespace or path, a path
 * that is a prefix of another, empty components, components that are numbers or start with '$',
 * "_id", two logical names with one field id, a legacy format without key name, a bad key name.
 */
RK_MUST_CHECK enum rk_status rk_policy_set_new(const struct rk_policy_spec *specs, size_t n_specs,
                                               enum rk_undecryptable undecryptable,
                                               struct rk_policy_set **out, struct rk_error *err);
/* base, with marks: comparisons that a default collation would answer otherwise are refused, and so
 * is every comparison in a marked view, which gets a policy without fields. Strings are copied. */
RK_MUST_CHECK enum rk_status rk_policy_set_marked(struct rk_policy_set *base,
                                                  const struct rk_policy_mark *marks,
                                                  size_t n_marks, struct rk_policy_set **out,
                                                  struct rk_error *err);
struct rk_policy_set *rk_policy_set_ref(struct rk_policy_set *set);
void rk_policy_set_unref(struct rk_policy_set *set);

bool rk_policy_set_empty(const struct rk_policy_set *set);
enum rk_undecryptable rk_policy_set_undecryptable(const struct rk_policy_set *set);
size_t rk_policy_set_count(const struct rk_policy_set *set);
const struct rk_policy *rk_policy_set_at(const struct rk_policy_set *set, size_t i);

/* Is there a mark RK_MARK_OUTSIDE? */
bool rk_policy_set_outside_collation(const struct rk_policy_set *set);

/* The policy of db.coll, or NULL. */
const struct rk_policy *rk_policy_find(const struct rk_policy_set *set, const char *db,
                                       size_t db_len, const char *coll, size_t coll_len);
/* Does any policy cover some collection of db? */
bool rk_policy_covers_db(const struct rk_policy_set *set, const char *db, size_t db_len);

/* The child of node with this name, or NULL. */
const struct rk_path_node *rk_path_child(const struct rk_path_node *node, const char *name,
                                         size_t len);

/*
 * The node that an element's value stands at, seen from the node of the document or array that
 * holds it, or NULL. Arrays are transparent: their elements stand where the array does. So are
 * numeric keys of documents below the top level: $set of "a.0.b" makes such a document where no
 * array is, and what is encrypted by one way must be found by the other.
 */
const struct rk_path_node *rk_path_step(const struct rk_path_node *node, bool in_array,
                                        const char *key, size_t len);

/*
 * How a dotted path of a command stands to a policy. Positional components are skipped, and
 * numeric ones except the first: the top level is no array. Below a protected path nothing is
 * skipped: "ssn.0" is inside the value. The empty path is ABOVE, with the root.
 */
enum rk_path_relation {
    RK_PATH_UNRELATED,
    RK_PATH_ABOVE, /* a parent of protected paths */
    RK_PATH_EXACT, /* a protected path */
    RK_PATH_BELOW, /* inside a protected value */
};
struct rk_path_match {
    enum rk_path_relation relation;
    const struct rk_path_node *node; /* for ABOVE and EXACT */
    const struct rk_field *field;    /* for EXACT and BELOW */
    bool positional;                 /* the path has a $, $[] or $[name] component */
};
struct rk_path_match rk_path_relate(const struct rk_policy *policy, const char *path, size_t len);

#endif
