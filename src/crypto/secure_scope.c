#include <rekey/crypto/secure_scope.h>

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local unsigned depth;

static void *allocate(size_t size, const char *file, int line)
{
    return depth > 0 && CRYPTO_secure_malloc_initialized() ? CRYPTO_secure_malloc(size, file, line)
                                                           : malloc(size);
}

static void release(void *memory, const char *file, int line)
{
    if (CRYPTO_secure_allocated(memory)) {
        CRYPTO_secure_clear_free(memory, CRYPTO_secure_actual_size(memory), file, line);
    } else {
        free(memory);
    }
}

/* What is secure stays so. Ordinary memory stays ordinary: only its allocator knows its length. */
static void *reallocate(void *memory, size_t size, const char *file, int line)
{
    if (memory == NULL) {
        return allocate(size, file, line);
    }
    if (!CRYPTO_secure_allocated(memory)) {
        return realloc(memory, size);
    }
    size_t had = CRYPTO_secure_actual_size(memory);
    void *moved = size > 0 ? CRYPTO_secure_malloc(size, file, line) : NULL;
    if (moved != NULL) {
        memcpy(moved, memory, had < size ? had : size);
    }
    if (moved != NULL || size == 0) {
        release(memory, file, line);
    }
    return moved;
}

/* OpenSSL takes allocators only before its first allocation, and libmongoc's constructor is earlier
 * than main: this runs before any constructor, a sanitizer's included. */
__attribute__((no_sanitize("address", "undefined", "thread"))) static void install(void)
{
    (void)CRYPTO_set_mem_functions(allocate, reallocate, release);
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = install;

bool rk_secure_scope_installed(void)
{
    CRYPTO_malloc_fn has = NULL;
    CRYPTO_get_mem_functions(&has, NULL, NULL);
    return has == allocate;
}

void rk_secure_scope_begin(void)
{
    depth++;
}

void rk_secure_scope_end(void)
{
    assert(depth > 0);
    depth--;
    if (depth == 0) {
        ERR_clear_error(); /* its texts were allocated within, and nobody asks for them */
    }
}
