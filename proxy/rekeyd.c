/* rekeyd: its arguments. What it does is in src/daemon. */
#include <getopt.h>
#include <rekey/daemon/daemon.h>
#include <stdio.h>
#include <stdlib.h>

static void usage(FILE *out)
{
    (void)fputs("usage: rekeyd [-c rekey.yaml]\n"
                "  -c, --config FILE  configuration (default: rekey.yaml, or $REKEY_CONFIG)\n"
                "  -V, --version\n"
                "  -h, --help\n"
                "SIGHUP reloads the configuration, SIGTERM drains and ends.\n",
                out);
}

/* Returns -1 to go on, else the exit code. */
static int parse_args(int argc, char **argv, const char **config_path)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *from_env = getenv("REKEY_CONFIG");
    *config_path = from_env != NULL ? from_env : "rekey.yaml";
    int opt;
    while ((opt = getopt_long(argc, argv, "c:Vh", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            *config_path = optarg;
            break;
        case 'V':
            (void)printf("rekeyd %s\n", RK_VERSION);
            return 0;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (optind != argc) {
        usage(stderr);
        return 2;
    }
    return -1;
}

int main(int argc, char **argv)
{
    const char *config_path;
    int code = parse_args(argc, argv, &config_path);
    return code >= 0 ? code : rk_daemon_run(config_path);
}
