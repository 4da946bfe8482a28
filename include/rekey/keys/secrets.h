/*
 * Process-wide protection of key material, to be set up first thing in main, before any thread.
 */
#ifndef REKEY_KEYS_SECRETS_H
#define REKEY_KEYS_SECRETS_H

#include <rekey/base/status.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * Sets up OpenSSL's secure heap of bytes (a power of two): guard pages, locked into memory, left
 * out of core dumps, and the place of key schedules (secure_scope.h); and forbids core dumps and
 * debuggers. *locked (may be NULL) is false when the heap could not be locked, usually for want of
 * RLIMIT_MEMLOCK: keys may then reach swap.
 *
 * Builds with a sanitizer, and debug builds when REKEY_ALLOW_CORE is set, stay dumpable: leak
 * checking needs to trace its own process.
 */
RK_MUST_CHECK enum rk_status rk_secrets_init(size_t bytes, bool *locked, struct rk_error *err);

#endif
