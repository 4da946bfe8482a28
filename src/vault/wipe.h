/*
 * Allocators that cleanse what is released. libcurl and jansson hold tokens and plaintext keys in
 * ordinary memory; with these nothing of it outlives its use.
 */
#ifndef REKEY_VAULT_WIPE_H
#define REKEY_VAULT_WIPE_H

#include <stddef.h>

void *rk_wipe_malloc(size_t size);
void *rk_wipe_calloc(size_t n, size_t size);
void *rk_wipe_realloc(void *old, size_t size);
char *rk_wipe_strdup(const char *text);
void rk_wipe_free(void *memory);

/* Makes libcurl (whose global state this sets up) and jansson use them; once per process, before
 * either is used. */
int rk_wipe_libraries(void);

#endif
