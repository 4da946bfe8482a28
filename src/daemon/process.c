/* The process itself: which build, since when, how large. Names as other programs have them. */
#include "daemon_internal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static double open_files(void)
{
    double n = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL) {
        return -1;
    }
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        n += entry->d_name[0] != '.';
    }
    (void)closedir(dir);
    return n - 1; /* the directory's own */
}

static double resident_bytes(void)
{
    char line[128] = "";
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) {
        return -1;
    }
    bool ok = fgets(line, sizeof line, file) != NULL;
    (void)fclose(file);
    const char *resident = strchr(line, ' '); /* the second number, in pages */
    return ok && resident != NULL
               ? (double)strtoul(resident, NULL, 10) * (double)sysconf(_SC_PAGESIZE)
               : -1;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) {
        return -1;
    }
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void rk_daemon_process_metrics(void *arg, struct rk_metrics *m)
{
    const struct rk_daemon *d = arg;
    struct rlimit files = {0};
    (void)getrlimit(RLIMIT_NOFILE, &files);
    rk_metrics_family(m, "rekey_build_info", RK_METRIC_GAUGE, "1; the labels say which build.");
    rk_metric(m, 1, RK_L("version", RK_VERSION));
    rk_metrics_one(m, "process_start_time_seconds", RK_METRIC_GAUGE,
                   "When the process started, in seconds since 1970.", d->started_at_s);
    rk_metrics_one(m, "process_cpu_seconds_total", RK_METRIC_COUNTER,
                   "Time that the process has used, user and system.", cpu_seconds());
    rk_metrics_one(m, "process_resident_memory_bytes", RK_METRIC_GAUGE, "Resident memory.",
                   resident_bytes());
    rk_metrics_one(m, "process_open_fds", RK_METRIC_GAUGE, "Open file descriptors.", open_files());
    rk_metrics_one(m, "process_max_fds", RK_METRIC_GAUGE, "Most that may be open.",
                   (double)files.rlim_cur);
}
