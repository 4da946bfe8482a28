/*
 * What the files of src/policy share and nobody else sees.
 */
#ifndef REKEY_POLICY_INTERNAL_H
#define REKEY_POLICY_INTERNAL_H

#include <rekey/policy/document.h>

/* MongoDB error codes that drivers know, some of them from client-side field level encryption. */
enum {
    RK_CODE_INTERNAL = 1,
    RK_CODE_AUTHENTICATION_FAILED = 18,
    RK_CODE_BAD_VALUE = 2,
    RK_CODE_INVALID_BSON = 22,
    RK_CODE_DOLLAR_KEY = 52,
    RK_CODE_DOTTED_KEY = 57,
    RK_CODE_OPERATION_FAILED = 96,
    RK_CODE_MEMORY = 146,
    RK_CODE_TOO_LARGE = 10334,
    RK_CODE_TENANT = 51092, /* a tenant's key is needed, and the tenant not known */
    RK_CODE_UNENCRYPTABLE = 31041,
};

/* ---- policy_spec.c */

#define RK_FIELD_STRINGS 3u

/* One policy of a set, and what it owns. */
struct rk_policy_entry {
    const char *db; /* into policy.ns */
    size_t db_len;
    const char *coll;
    size_t coll_len;
    struct rk_policy policy;
    char *ns;
    char **strings; /* of each field: path, logical name, key */
    char *former[RK_FORMER_KEYS_MAX];
    char *placeholder;
    char *tenant;
    char *marked_ns; /* of an entry that a mark has made; all else then belongs to the base set */
};

/* Zeroed by the caller; to be deinitialised also when this fails. */
RK_MUST_CHECK enum rk_status rk_policy_entry_init(struct rk_policy_entry *entry,
                                                  const struct rk_policy_spec *spec,
                                                  struct rk_error *err);
void rk_policy_entry_deinit(struct rk_policy_entry *entry);

/* ---- policy.c */

/* Does some field of some policy have a legacy reader? */
bool rk_policy_set_has_legacy(const struct rk_policy_set *set);

/* ---- paths.c */

/* Adds a checked path as field to the tree under root. RK_EINVAL when another path is a prefix of
 * it or it of another; *other is then that path, or field->path itself when it is there already. */
RK_MUST_CHECK enum rk_status rk_path_insert(struct rk_path_node *root, const struct rk_field *field,
                                            const char **other);
/* Sorts children and fills the nodes' summaries; rk_path_child works from then on. */
void rk_path_finish(struct rk_path_node *root);
void rk_path_free(struct rk_path_node *root);

/* rk_path_relate for a path that starts at node: what a dotted key below node would spell. */
struct rk_path_match rk_path_relate_from(const struct rk_path_node *node, const char *path,
                                         size_t len);

bool rk_path_is_index(const char *component, size_t len);

/* ---- document.c */

/* True when a value of this BSON type can be stored under the field's algorithm (null always
 * can: it stays null); else err says which type, and what to do instead. */
bool rk_document_type_allowed(const char *ns, const struct rk_field *field, uint8_t bson_type,
                              struct rk_error *err);

/* Appends elem under key, its value encrypted for field under the current key. FORWARD: it was
 * copied as it is (null, or an envelope that is genuine for this field). */
enum rk_verdict rk_document_encrypt_value(struct rk_crypt *crypt, const char *ns,
                                          const struct rk_field *field,
                                          const struct rk_bson_elem *elem, const char *key,
                                          size_t key_len, struct rk_bson_writer *w,
                                          struct rk_error *err);

/*
 * REJECT when something in this run of whole elements, which would be stored as it is, claims to be
 * an envelope: at an unprotected path nobody made one, and every later reader would fail on it.
 */
enum rk_verdict rk_document_check_plain(const char *ns, const uint8_t *from, const uint8_t *to,
                                        struct rk_error *err);

/* verdict, unless the writer has failed: then REJECT, with err filled. */
enum rk_verdict rk_document_verdict(const struct rk_bson_writer *w, enum rk_verdict verdict,
                                    const char *ns, struct rk_error *err);

/* Appends the bytes from..to of a view's elements as they are. */
void rk_document_copy_run(struct rk_bson_writer *w, const uint8_t *from, const uint8_t *to);

/* ---- crypt.c */

/* True when id is known not to exist, so that holding a message for it would never end. */
bool rk_crypt_key_absent(const struct rk_crypt *crypt, uint32_t id);

/* HOLD for the current key of that name. */
enum rk_verdict rk_crypt_hold_name(struct rk_crypt *crypt, const char *name);

/* The counters as they were before a pass. */
struct rk_crypt_pass {
    uint64_t encrypted;
    uint64_t decrypted;
    uint64_t old_key;
};

/* Around every pass over a message. The end turns any verdict into HOLD when values were promised
 * only: what the pass made is then worth nothing. */
struct rk_crypt_pass rk_crypt_begin(const struct rk_crypt *crypt);
enum rk_verdict rk_crypt_end(struct rk_crypt *crypt, const struct rk_crypt_pass *pass,
                             enum rk_verdict verdict);

/* REJECT because a policy chooses keys by tenant and crypt does not know whose values these are. */
enum rk_verdict rk_crypt_no_tenant(const struct rk_crypt *crypt, const char *ns,
                                   const struct rk_field *field, struct rk_error *err);

/* ---- reply_error.c */

/* Replaces what is no UTF-8: a message names foreign keys and may be cut within a character, but
 * drivers insist. */
void rk_reply_make_utf8(char *text, size_t len);

/* ---- decrypt.c */

/* The first key of the document that stands for a value which nobody can read any more. */
#define RK_UNREADABLE_KEY "rekeyError"

/* The keys on the way to an element, innermost first; lives on the walkers' stacks. */
struct rk_trail {
    const struct rk_trail *up;
    const char *key;
    uint32_t key_len;
};

/* One decrypting walk over one run of bytes. */
struct rk_decrypt {
    struct rk_crypt *crypt;
    enum rk_undecryptable undecryptable;
    const struct rk_policy *policy; /* how it shows what nobody can read; NULL: as an error */
    const char *ns;
    struct rk_bson_writer *w;
    struct rk_error *err;
    const uint8_t *mark; /* the first possible envelope not before where the walk stands */
    const uint8_t *end;  /* of the bytes walked; mark == end: none is left */
    bool changed;        /* something was decrypted */
};

/* data/len must hold every view and element that the walk is then given, in rising order. */
void rk_decrypt_init(struct rk_decrypt *d, struct rk_crypt *crypt,
                     enum rk_undecryptable undecryptable, const char *ns, const uint8_t *data,
                     size_t len, struct rk_bson_writer *w, struct rk_error *err);

/* Appends elem decrypted; node is the one that its value stands at, or NULL. FORWARD: go on;
 * HOLD or REJECT: stop. The writer's own failure is for the caller to ask for. */
enum rk_verdict rk_decrypt_elem(struct rk_decrypt *d, const struct rk_path_node *node,
                                const struct rk_bson_elem *elem, const struct rk_trail *up);

/* Appends view's elements decrypted; node is the one that view stands at, or NULL. */
enum rk_verdict rk_decrypt_elements(struct rk_decrypt *d, const struct rk_path_node *node,
                                    bool in_array, const struct rk_bson_view *view,
                                    const struct rk_trail *up);

/* REJECT with the message for BSON that does not hold together. */
enum rk_verdict rk_decrypt_malformed(struct rk_decrypt *d, const struct rk_trail *at);

#endif
