/* rekeyctl's frame (see ctl.h): options, the choice of the command, what it needs, its exit code.
 */
#include <rekey/ctl/ctl.h>

#include <rekey/keys/mongo.h>
#include <rekey/keys/secrets.h>

#include <mongoc/mongoc.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECURE_HEAP_BYTES (1u << 21)

static const struct rk_ctl_command *const tables[] = {
    rk_ctl_config_commands,
    rk_ctl_key_commands,
    rk_ctl_job_commands,
    rk_ctl_throttle_commands,
};
#define N_TABLES (sizeof tables / sizeof tables[0])

/* What stands on the command line, apart from the command's own arguments. */
struct line {
    const struct rk_ctl_command *command;
    bool help;
    int argc; /* of the command, its name included */
    char **argv;
};

static void print_usage_line(const struct rk_ctl_command *command, FILE *out)
{
    (void)fprintf(out, "%s%s%s%s%s", command->group != NULL ? command->group : "",
                  command->group != NULL ? " " : "", command->name,
                  command->args[0] != '\0' ? " " : "", command->args);
}

static void print_help(void)
{
    (void)printf("usage: rekeyctl [-c FILE] [--json] COMMAND [ARGUMENTS]\n"
                 "\n"
                 "Operates Rekey: its configuration, keys, sweeps and their records.\n"
                 "\n"
                 "commands:\n");
    for (size_t i = 0; i < N_TABLES; i++) {
        for (const struct rk_ctl_command *c = tables[i]; c->name != NULL; c++) {
            (void)printf("  ");
            print_usage_line(c, stdout);
            (void)printf("\n      %s\n", c->help);
        }
    }
    (void)printf("\n"
                 "options:\n"
                 "  -c, --config FILE  the configuration (default: $REKEY_CONFIG, ./rekey.yaml,\n"
                 "                     /etc/rekey/rekey.yaml: the first that there is)\n"
                 "      --json         print one JSON document instead of text\n"
                 "  -h, --help         this text; after a command: about that command\n"
                 "      --version      print the version\n"
                 "\n"
                 "exit codes:\n"
                 "  0  done\n"
                 "  1  failed; for verify and config check: something does not hold\n"
                 "  2  wrong command, option or argument\n"
                 "  3  refused: not possible in the present state\n"
                 "  4  mongod cannot be reached, or does not let us in\n");
}

static void print_command_help(const struct rk_ctl_command *command)
{
    (void)printf("usage: rekeyctl [-c FILE] [--json] ");
    print_usage_line(command, stdout);
    (void)printf("\n\n%s\n", command->help);
}

/* Finds the command that argv starts with; *words is how many of argv its name takes. */
static const struct rk_ctl_command *find_command(int argc, char **argv, int *words)
{
    for (size_t i = 0; i < N_TABLES; i++) {
        for (const struct rk_ctl_command *c = tables[i]; c->name != NULL; c++) {
            const char *first = c->group != NULL ? c->group : c->name;
            if (strcmp(argv[0], first) != 0) {
                continue;
            }
            if (c->group == NULL) {
                *words = 1;
                return c;
            }
            if (argc > 1 && strcmp(argv[1], c->name) == 0) {
                *words = 2;
                return c;
            }
        }
    }
    return NULL;
}

/* Says why argv is no command, naming those of the group where it is one. */
static void explain_unknown(int argc, char **argv)
{
    char names[256] = "";
    size_t len = 0;
    for (size_t i = 0; i < N_TABLES; i++) {
        for (const struct rk_ctl_command *c = tables[i]; c->name != NULL; c++) {
            if (c->group != NULL && strcmp(c->group, argv[0]) == 0 && len < sizeof names) {
                len += (size_t)snprintf(names + len, sizeof names - len, "%s%s",
                                        len > 0 ? ", " : "", c->name);
            }
        }
    }
    if (len == 0) {
        (void)rk_ctl_usage("unknown command %s", argv[0]);
    } else if (argc == 1) {
        (void)rk_ctl_usage("%s what? One of: %s", argv[0], names);
    } else {
        (void)rk_ctl_usage("unknown command %s %s; %s knows: %s", argv[0], argv[1], argv[0], names);
    }
}

/* Takes --json and --help out of a command's arguments; "--" ends options as everywhere. */
static void take_common_options(struct rk_ctl *ctl, struct line *line)
{
    int kept = 1;
    bool options = true;
    for (int i = 1; i < line->argc; i++) {
        char *arg = line->argv[i];
        options = options && strcmp(arg, "--") != 0;
        if (options && strcmp(arg, "--json") == 0) {
            ctl->json = true;
        } else if (options && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)) {
            line->help = true;
        } else {
            line->argv[kept++] = arg;
        }
    }
    line->argv[kept] = NULL;
    line->argc = kept;
}

enum parsed { PARSED_COMMAND, PARSED_HELP, PARSED_VERSION, PARSED_USAGE };

static enum parsed parse_line(struct rk_ctl *ctl, int argc, char **argv, struct line *line)
{
    int i = 1;
    int words = 0;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            ctl->json = true;
        } else if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            return PARSED_HELP;
        } else if (strcmp(argv[i], "--version") == 0) {
            return PARSED_VERSION;
        } else if (strncmp(argv[i], "--config=", 9) == 0) {
            ctl->config_path = argv[i] + 9;
        } else if (strcmp(argv[i], "-c") == 0 || strcmp(argv[i], "--config") == 0) {
            if (i + 1 == argc) {
                (void)rk_ctl_usage("%s needs a file", argv[i]);
                return PARSED_USAGE;
            }
            ctl->config_path = argv[++i];
        } else {
            (void)rk_ctl_usage("unknown option %s", argv[i]);
            return PARSED_USAGE;
        }
    }
    if (i == argc) {
        (void)rk_ctl_usage("no command given");
        return PARSED_USAGE;
    }
    line->command = find_command(argc - i, argv + i, &words);
    if (line->command == NULL) {
        explain_unknown(argc - i, argv + i);
        return PARSED_USAGE;
    }
    line->argc = argc - i - words + 1;
    line->argv = argv + i + words - 1;
    take_common_options(ctl, line);
    return PARSED_COMMAND;
}

static const char *find_config(void)
{
    static const char *const places[] = {"rekey.yaml", "/etc/rekey/rekey.yaml"};
    const char *path = getenv("REKEY_CONFIG");
    if (path != NULL && path[0] != '\0') {
        return path;
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (access(places[i], F_OK) == 0) {
            return places[i];
        }
    }
    return NULL;
}

enum rk_ctl_exit rk_ctl_load_config(struct rk_ctl *ctl)
{
    struct rk_error err;
    if (ctl->config != NULL) {
        return RK_CTL_OK;
    }
    if (ctl->config_path == NULL) {
        return rk_ctl_usage("no configuration: there is neither ./rekey.yaml nor "
                            "/etc/rekey/rekey.yaml; name one with -c or $REKEY_CONFIG");
    }
    return rk_config_load(ctl->config_path, &ctl->config, &err) == RK_OK ? RK_CTL_OK
                                                                         : rk_ctl_fail(&err);
}

enum rk_ctl_exit rk_ctl_connect(struct rk_ctl *ctl)
{
    struct rk_error err;
    enum rk_ctl_exit code = rk_ctl_load_config(ctl);
    if (code != RK_CTL_OK || ctl->client_pool != NULL) {
        return code;
    }
    if (rk_mongo_pool_new(ctl->config->upstream.uri, "rekeyctl", 0, &ctl->client_pool, &err) !=
        RK_OK) {
        return rk_ctl_fail(&err);
    }
    if (rk_mongo_ping(ctl->client_pool, &err) != RK_OK) {
        (void)rk_ctl_fail(&err);
        return RK_CTL_UNREACHABLE;
    }
    return RK_CTL_OK;
}

static enum rk_ctl_exit run(struct rk_ctl *ctl, const struct line *line)
{
    enum rk_ctl_exit code = RK_CTL_OK;
    if (line->command->needs == RK_CTL_NEEDS_SERVER) {
        code = rk_ctl_connect(ctl);
    } else if (line->command->needs == RK_CTL_NEEDS_CONFIG) {
        code = rk_ctl_load_config(ctl);
    }
    return code == RK_CTL_OK ? line->command->run(ctl, line->argc, line->argv) : code;
}

/* Prepares what commands share, runs one, cleans up. */
static enum rk_ctl_exit run_prepared(struct rk_ctl *ctl, const struct line *line)
{
    struct rk_error err;
    char uid[32];
    if (rk_secrets_init(SECURE_HEAP_BYTES, NULL, &err) != RK_OK) {
        return rk_ctl_fail(&err);
    }
    const struct passwd *user = getpwuid(getuid());
    (void)snprintf(uid, sizeof uid, "uid %u", (unsigned)getuid());
    char *actor = strdup(user != NULL ? user->pw_name : uid);
    ctl->actor = actor != NULL ? actor : "unknown";
    if (ctl->config_path == NULL) {
        ctl->config_path = find_config();
    }
    rk_mongo_init();

    enum rk_ctl_exit code = run(ctl, line);

    mongoc_client_pool_destroy(ctl->client_pool);
    rk_config_free(ctl->config);
    rk_mongo_cleanup();
    free(actor);
    return code;
}

int rk_ctl_main(int argc, char **argv)
{
    struct rk_ctl ctl = {.config_path = NULL};
    struct line line = {.command = NULL};
    enum rk_ctl_exit code = RK_CTL_OK;
    switch (parse_line(&ctl, argc, argv, &line)) {
    case PARSED_USAGE:
        return RK_CTL_USAGE;
    case PARSED_HELP:
        print_help();
        break;
    case PARSED_VERSION:
        (void)printf("rekeyctl %s\n", RK_VERSION);
        break;
    case PARSED_COMMAND:
        if (line.help) {
            print_command_help(line.command);
        } else {
            code = run_prepared(&ctl, &line);
        }
        break;
    }
    if (fflush(stdout) != 0) {
        (void)fprintf(stderr, "rekeyctl: cannot write to standard output\n");
        return RK_CTL_FAILED;
    }
    return (int)code;
}
