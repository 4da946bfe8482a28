/*
 * rekeyctl's frame: what a command gets, the table it stands in, and the few ways to answer.
 *
 * Commands run one at a time on the main thread. Results go to standard output: a table or lines
 * for people, or exactly one JSON document with --json. Errors and progress go to standard error.
 */
#ifndef REKEY_CTL_CTL_H
#define REKEY_CTL_CTL_H

#include <rekey/config/config.h>

struct _bson_t;
struct _mongoc_client_pool_t;

/* The exit codes of rekeyctl; documented in its --help. */
enum rk_ctl_exit {
    RK_CTL_OK = 0,
    RK_CTL_FAILED = 1,      /* tried and failed; for verify: not everything holds */
    RK_CTL_USAGE = 2,       /* unknown command, option or argument */
    RK_CTL_STATE = 3,       /* refused: not possible in the present state */
    RK_CTL_UNREACHABLE = 4, /* mongod cannot be reached or does not let us in */
};

/* What has to be there before a command runs; the frame sees to it. */
enum rk_ctl_needs {
    RK_CTL_NEEDS_NOTHING,
    RK_CTL_NEEDS_CONFIG, /* ctl->config */
    RK_CTL_NEEDS_SERVER, /* ctl->config and ctl->client_pool, whose server answered a ping */
};

struct rk_ctl {
    const char *config_path;                   /* that was asked for or found; NULL: none found */
    struct rk_config *config;                  /* NULL until needed */
    struct _mongoc_client_pool_t *client_pool; /* NULL until needed */
    bool json;                                 /* --json, before or after the command */
    const char *actor;                         /* who to name in the audit log */
};

struct rk_ctl_command {
    const char *group; /* "keys" of `keys list`; NULL for a command of one word */
    const char *name;
    const char *args; /* for the usage line: "[NS] [--wait]"; "" when there are none */
    const char *help; /* one line, lower case, no full stop */
    enum rk_ctl_needs needs;
    /* argv[0] is the command's name, so getopt_long works as in main. `--json` and `--help` have
     * been taken out. Returns the exit code. */
    enum rk_ctl_exit (*run)(struct rk_ctl *ctl, int argc, char **argv);
};

/* The tables, each ended by an entry whose name is NULL. */
extern const struct rk_ctl_command rk_ctl_config_commands[];   /* src/ctl/config.c */
extern const struct rk_ctl_command rk_ctl_key_commands[];      /* src/ctl/keys.c */
extern const struct rk_ctl_command rk_ctl_job_commands[];      /* src/ctl/jobs.c */
extern const struct rk_ctl_command rk_ctl_throttle_commands[]; /* src/ctl/throttle.c */

/* All of main: options, command, exit code. */
int rk_ctl_main(int argc, char **argv);

/* For commands that need more only sometimes; errors are reported, the exit code returned. */
RK_MUST_CHECK enum rk_ctl_exit rk_ctl_load_config(struct rk_ctl *ctl);
RK_MUST_CHECK enum rk_ctl_exit rk_ctl_connect(struct rk_ctl *ctl);

/* Says err on standard error and returns its exit code: `return rk_ctl_fail(&err);` */
enum rk_ctl_exit rk_ctl_fail(const struct rk_error *err);
/* Says what is wrong with the arguments, points at --help, returns RK_CTL_USAGE. */
enum rk_ctl_exit rk_ctl_usage(const char *format, ...) RK_PRINTF(1, 2);

/* Prints doc as one line of JSON (relaxed extended JSON: plain numbers). Put dates in as strings,
 * with rk_ctl_time. */
enum rk_ctl_exit rk_ctl_print_json(const struct _bson_t *doc);

/* "2026-11-21T09:00:00Z", or "-" for 0; returns out. */
#define RK_CTL_TIME_LEN 32u
const char *rk_ctl_time(int64_t wall_ms, char out[RK_CTL_TIME_LEN]);

/* A table for people: columns as wide as their widest cell. Cells are copied. */
#define RK_CTL_COLUMNS_MAX 16u
struct rk_ctl_table;
RK_MUST_CHECK enum rk_status rk_ctl_table_new(const char *const *headers, size_t n_columns,
                                              struct rk_ctl_table **out);
RK_MUST_CHECK enum rk_status rk_ctl_table_row(struct rk_ctl_table *table,
                                              const char *const *cells); /* n_columns of them */
void rk_ctl_table_print(const struct rk_ctl_table *table);
void rk_ctl_table_free(struct rk_ctl_table *table);

#endif
