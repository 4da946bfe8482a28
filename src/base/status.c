#include <rekey/base/status.h>

#include <stdio.h>

static void fill(struct rk_error *err, enum rk_status status, int code, const char *format,
                 va_list args)
{
    if (err == NULL) {
        return;
    }
    err->status = status;
    err->code = code;
    (void)vsnprintf(err->message, sizeof err->message, format, args);
}

enum rk_status rk_error_set(struct rk_error *err, enum rk_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(err, status, 0, format, args);
    va_end(args);
    return status;
}

enum rk_status rk_error_set_code(struct rk_error *err, enum rk_status status, int code,
                                 const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(err, status, code, format, args);
    va_end(args);
    return status;
}

const char *rk_status_name(enum rk_status status)
{
    switch (status) {
    case RK_OK:
        return "ok";
    case RK_EINVAL:
        return "invalid";
    case RK_ENOMEM:
        return "out of memory";
    case RK_ELIMIT:
        return "limit exceeded";
    case RK_EIO:
        return "i/o error";
    case RK_EAUTH:
        return "authentication failed";
    case RK_ENOKEY:
        return "key not loaded";
    case RK_EREFUSED:
        return "refused";
    case RK_ENOENT:
        return "not found";
    case RK_ESTATE:
        return "wrong state";
    case RK_ETIMEOUT:
        return "timed out";
    }
    return "unknown";
}
