/*
 * Outcomes of fallible functions, and the error a caller can show to a person.
 *
 * A function that can fail returns enum rk_status and is marked RK_MUST_CHECK. Control-plane
 * functions also take a struct rk_error *err as their last argument: it is written if and only
 * if they fail, and may be NULL. Messages name what, where and what to do next; they never hold
 * a plaintext value, a key or a token.
 */
#ifndef REKEY_BASE_STATUS_H
#define REKEY_BASE_STATUS_H

#include <stdarg.h>
#include <stdint.h>

#define RK_MUST_CHECK __attribute__((warn_unused_result))
#define RK_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

enum rk_status {
    RK_OK = 0,
    RK_EINVAL,   /* malformed or unacceptable input */
    RK_ENOMEM,   /* allocation failed */
    RK_ELIMIT,   /* a configured limit would be passed */
    RK_EIO,      /* a file, socket or server failed */
    RK_EAUTH,    /* a ciphertext or certificate did not authenticate */
    RK_ENOKEY,   /* the key is not loaded (it may exist) */
    RK_EREFUSED, /* forbidden by policy */
    RK_ENOENT,   /* no such thing */
    RK_ESTATE,   /* not possible in the present state */
    RK_ETIMEOUT, /* a deadline passed */
};

struct rk_error {
    enum rk_status status;
    int code; /* MongoDB error code for a client, 0 when none applies */
    char message[512];
};

/* Fills *err (if not NULL) and returns status, so that `return rk_error_set(...)` reads well. */
enum rk_status rk_error_set(struct rk_error *err, enum rk_status status, const char *format, ...)
    RK_PRINTF(3, 4);

/* The same with the MongoDB error code that a client should see. */
enum rk_status rk_error_set_code(struct rk_error *err, enum rk_status status, int code,
                                 const char *format, ...) RK_PRINTF(4, 5);

const char *rk_status_name(enum rk_status status);

#endif
