/*
 * rekeyd as a whole: starts the parts in the order of their dependencies, waits for signals, and
 * stops the parts in the opposite order. SIGHUP reloads, SIGTERM and SIGINT drain.
 */
#ifndef REKEY_DAEMON_DAEMON_H
#define REKEY_DAEMON_DAEMON_H

/* Runs until a signal ends it; the main thread's, once. Failures are logged and told on standard
 * error. Returns the exit code. */
int rk_daemon_run(const char *config_path);

#endif
