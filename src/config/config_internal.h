/*
 * How a file becomes a struct rk_config:
 *
 *   source.c  libyaml's node tree is checked against the schema, so that every error can name
 *             line, key and reason; what is left is an index of keys and their lines
 *   load.c    libcyaml fills struct rk_config_file by the same schema; then defaults
 *   check.c   ranges, and values that contradict each other
 *   check_keys.c  the same for the section keys
 *   check_amqp.c  and for amqp
 *   check_admin.c and for admin, and TLS wherever it stands
 *   policies.c  the policy set
 *   sweep.c  the section sweep, setting by setting
 *   terms.c  and policies[].sweep
 *   schema.c  the schema, and the tables of numbers and switches with their defaults
 */
#ifndef REKEY_CONFIG_INTERNAL_H
#define REKEY_CONFIG_INTERNAL_H

#include <cyaml/cyaml.h>
#include <rekey/bson/walk.h>
#include <rekey/config/config.h>

struct rk_config_legacy_entry {
    enum rk_legacy_cipher cipher;
    enum rk_legacy_encoding encoding;
    uint32_t type; /* enum rk_bson_type; 0 when the file does not say */
    char *version_hex;
    char *iv_hex;
    bool iv_implied;
    char *key;
};

struct rk_config_field_entry {
    char *path;
    char *name;
    enum rk_algorithm algorithm; /* 0 when the file does not say */
    uint32_t type;               /* enum rk_bson_type; 0 when the file does not say */
    bool accept_plaintext;
    enum rk_unique_index unique_index;
    struct rk_config_legacy_entry *legacy;
    unsigned legacy_count;
    char *key;
};

enum rk_config_unreadable { RK_CONFIG_UNREADABLE_ERROR, RK_CONFIG_UNREADABLE_PLACEHOLDER };

struct rk_config_policy_entry {
    struct rk_config_terms sweep;
    char *ns;
    struct rk_config_field_entry *fields;
    unsigned fields_count;
    char *key;
    char **former_keys;
    unsigned former_keys_count;
    enum rk_config_unreadable unreadable;
    char *placeholder; /* NULL: null */
    char *tenant;
};

/* The file as it is written; the schema's top level. */
struct rk_config_file {
    struct rk_config config;
    struct rk_config_policy_entry *policies;
    unsigned policies_count;
    enum rk_undecryptable on_undecryptable;
};

/* A number or switch of struct rk_config: absent in the file means the default. */
struct rk_config_number {
    const char *key;
    size_t offset; /* of a uint32_t in struct rk_config */
    uint32_t value_default;
    uint32_t min;
    uint32_t max;
};
struct rk_config_switch {
    const char *key;
    size_t offset; /* of a bool in struct rk_config */
    bool value_default;
};
extern const cyaml_schema_value_t rk_config_schema;
extern const struct rk_config_number rk_config_numbers[];
extern const size_t rk_config_numbers_count;
extern const struct rk_config_switch rk_config_switches[];
extern const size_t rk_config_switches_count;

/* Which keys a file holds ("policies[0].fields[1].path") and in which line. */
struct rk_config_source {
    const char *path; /* of the file; borrowed; "": no file, errors name none */
    struct rk_config_line {
        char *key;
        size_t line;
    } * lines;
    size_t n_lines;
};

RK_MUST_CHECK enum rk_status rk_config_source_init(struct rk_config_source *source,
                                                   const char *path, const char *text, size_t len,
                                                   struct rk_error *err);
void rk_config_source_deinit(struct rk_config_source *source);
bool rk_config_source_has(const struct rk_config_source *source, const char *key);

/* Fills *err with "file:line: key: reason" and returns RK_EINVAL. A key that the file does not
 * hold is reported at the line of the nearest enclosing one. */
enum rk_status rk_config_refuse(const struct rk_config_source *source, struct rk_error *err,
                                const char *key, const char *format, ...) RK_PRINTF(4, 5);

/* Everything but policies; defaults are filled in already. */
RK_MUST_CHECK enum rk_status rk_config_check(const struct rk_config *config,
                                             const struct rk_config_source *source,
                                             struct rk_error *err);

/* The section keys. */
RK_MUST_CHECK enum rk_status rk_config_check_keys(const struct rk_config_keys *keys,
                                                  const struct rk_config_source *source,
                                                  struct rk_error *err);

RK_MUST_CHECK enum rk_status rk_config_check_amqp(const struct rk_config_amqp *amqp, bool used,
                                                  const struct rk_config_source *source,
                                                  struct rk_error *err);

RK_MUST_CHECK enum rk_status rk_config_check_admin(const struct rk_config_admin *admin,
                                                   const struct rk_config_source *source,
                                                   struct rk_error *err);
/* Window and time zone. */
RK_MUST_CHECK enum rk_status rk_config_check_window(const struct rk_config_sweep *sweep,
                                                    const struct rk_config_source *source,
                                                    struct rk_error *err);
/* Numbers within their ranges. */
RK_MUST_CHECK enum rk_status rk_config_check_numbers(const struct rk_config *config,
                                                     const struct rk_config_source *source,
                                                     struct rk_error *err);

/* Which settings of the sweep stand in it, a bit for each (sweep.h). */
uint64_t rk_config_sweep_given(const struct rk_config_source *source);
/* The word for the value of a setting of the sweep that is one of several: "secondaryPreferred". */
const char *rk_config_sweep_word(const char *key, uint32_t value);

/* load.c: from text to the file as it is written; free with rk_config_file_free. */
RK_MUST_CHECK enum rk_status rk_config_file_read(const char *path, const char *text, size_t len,
                                                 struct rk_config_source *source,
                                                 struct rk_config_file **file,
                                                 struct rk_error *err);
void rk_config_file_free(struct rk_config_file *file);
void rk_config_set_defaults(struct rk_config *config, const struct rk_config_source *source);

/* section: "listener_tls". server: of those who listen. */
RK_MUST_CHECK enum rk_status rk_config_check_tls(const struct rk_config_tls *tls,
                                                 const char *section, bool server,
                                                 const struct rk_config_source *source,
                                                 struct rk_error *err);

/* Out of the file's policies. */
RK_MUST_CHECK enum rk_status rk_config_take_terms(const struct rk_config_file *file,
                                                  struct rk_config *config,
                                                  const struct rk_config_source *source,
                                                  struct rk_error *err);
void rk_config_free_terms(struct rk_config *config);

/* Turns the file's policies into config->policies. */
RK_MUST_CHECK enum rk_status rk_config_policies(const struct rk_config_file *file,
                                                struct rk_config *config,
                                                const struct rk_config_source *source,
                                                struct rk_error *err);

#endif
