/*
 * Files that hold a secret: a keyring, a Vault token, a secret_id. Refused unless it is a regular
 * file (symbolic links are followed: Kubernetes mounts secrets behind them) that is owned by this
 * user or root, with no access for group and others. Blocking.
 */
#ifndef REKEY_KEYS_SECRET_FILE_H
#define REKEY_KEYS_SECRET_FILE_H

#include <rekey/base/status.h>
#include <stddef.h>

#define RK_SECRET_FILE_BYTES_MAX 65536u

struct rk_secret_file {
    char *text; /* secure memory; NUL-terminated after len bytes */
    size_t len;
};

/* Reads all of the file at path, at most RK_SECRET_FILE_BYTES_MAX bytes. */
RK_MUST_CHECK enum rk_status rk_secret_file_read(const char *path, struct rk_secret_file *out,
                                                 struct rk_error *err);
/* Cleanses and releases; a zeroed one is fine. */
void rk_secret_file_free(struct rk_secret_file *file);

#endif
