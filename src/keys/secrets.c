#include <rekey/keys/secrets.h>

#include <errno.h>
#include <openssl/crypto.h>
#include <rekey/crypto/secure_scope.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define MIN_ALLOCATION 32

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static bool stays_dumpable(void)
{
#if defined(SANITIZED)
    return true;
#elif defined(NDEBUG)
    return false;
#else
    return getenv("REKEY_ALLOW_CORE") != NULL;
#endif
}

enum rk_status rk_secrets_init(size_t bytes, bool *locked, struct rk_error *err)
{
    const struct rlimit none = {0, 0};
    /* 1: mapped, guarded and locked; 2: usable, but some of that was denied. */
    int mapped = rk_secure_scope_installed() ? CRYPTO_secure_malloc_init(bytes, MIN_ALLOCATION) : 0;
    if (mapped == 0) {
        return rk_error_set(err, RK_ENOMEM, "cannot set up %zu bytes of secure memory", bytes);
    }
    if (locked != NULL) {
        *locked = mapped == 1;
    }
    if (stays_dumpable()) {
        return RK_OK;
    }
    if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0) != 0) {
        return rk_error_set(err, RK_EIO, "cannot forbid core dumps: %s", strerror(errno));
    }
    return RK_OK;
}
