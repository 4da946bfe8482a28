#include <rekey/keys/secret_file.h>

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One byte more than the limit proves a longer file, and later holds the NUL. */
#define ALLOCATED (RK_SECRET_FILE_BYTES_MAX + 1)

static enum rk_status check_file(int fd, const char *path, struct rk_error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return rk_error_set(err, RK_EIO, "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return rk_error_set(err, RK_EREFUSED, "%s: not a regular file", path);
    }
    if (info.st_uid != geteuid() && info.st_uid != 0) {
        return rk_error_set(err, RK_EREFUSED, "%s: owned by user %u; must be this user or root",
                            path, (unsigned)info.st_uid);
    }
    if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        return rk_error_set(err, RK_EREFUSED,
                            "%s: mode %04o lets others at its secret: chmod 600 it, and replace "
                            "the secret if others may have read it",
                            path, (unsigned)(info.st_mode & 07777));
    }
    if (info.st_size > RK_SECRET_FILE_BYTES_MAX) {
        return rk_error_set(err, RK_ELIMIT, "%s: larger than %u bytes", path,
                            RK_SECRET_FILE_BYTES_MAX);
    }
    return RK_OK;
}

static enum rk_status read_file(int fd, const char *path, char *text, size_t *len,
                                struct rk_error *err)
{
    *len = 0;
    for (;;) {
        ssize_t n = read(fd, text + *len, RK_SECRET_FILE_BYTES_MAX + 1 - *len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return rk_error_set(err, RK_EIO, "%s: %s", path, strerror(errno));
        }
        *len += (size_t)n;
        if (*len > RK_SECRET_FILE_BYTES_MAX) {
            return rk_error_set(err, RK_ELIMIT, "%s: larger than %u bytes", path,
                                RK_SECRET_FILE_BYTES_MAX);
        }
        if (n == 0) {
            return RK_OK;
        }
    }
}

enum rk_status rk_secret_file_read(const char *path, struct rk_secret_file *out,
                                   struct rk_error *err)
{
    /* O_NONBLOCK: opening a FIFO must not hang; for a regular file it means nothing. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return rk_error_set(err, errno == ENOENT ? RK_ENOENT : RK_EIO, "%s: %s", path,
                            strerror(errno));
    }
    *out = (struct rk_secret_file){.text = NULL};
    enum rk_status status = check_file(fd, path, err);
    if (status == RK_OK) {
        out->text = OPENSSL_secure_malloc(ALLOCATED);
        status = out->text == NULL ? rk_error_set(err, RK_ENOMEM, "out of secure memory")
                                   : read_file(fd, path, out->text, &out->len, err);
    }
    (void)close(fd);
    if (status != RK_OK) {
        rk_secret_file_free(out);
        return status;
    }
    out->text[out->len] = '\0';
    return RK_OK;
}

void rk_secret_file_free(struct rk_secret_file *file)
{
    if (file->text != NULL) {
        OPENSSL_secure_clear_free(file->text, ALLOCATED);
    }
    *file = (struct rk_secret_file){.text = NULL};
}
