#include "wipe.h"

#include <curl/curl.h>
#include <jansson.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode outcome;

void *rk_wipe_malloc(size_t size)
{
    return malloc(size);
}

void *rk_wipe_calloc(size_t n, size_t size)
{
    return calloc(n, size);
}

void rk_wipe_free(void *memory)
{
    if (memory != NULL) {
        OPENSSL_cleanse(memory, malloc_usable_size(memory));
        free(memory);
    }
}

void *rk_wipe_realloc(void *old, size_t size)
{
    size_t had = old == NULL ? 0 : malloc_usable_size(old);
    void *grown = malloc(size);
    if (grown != NULL && had > 0) {
        memcpy(grown, old, had < size ? had : size);
        rk_wipe_free(old);
    }
    return grown;
}

char *rk_wipe_strdup(const char *text)
{
    return strdup(text);
}

static void set_up(void)
{
    json_set_alloc_funcs(rk_wipe_malloc, rk_wipe_free);
    outcome = curl_global_init_mem(CURL_GLOBAL_DEFAULT, rk_wipe_malloc, rk_wipe_free,
                                   rk_wipe_realloc, rk_wipe_strdup, rk_wipe_calloc);
}

int rk_wipe_libraries(void)
{
    (void)pthread_once(&once, set_up);
    return outcome == CURLE_OK ? 0 : -1;
}
