/*
 * Key schedules. OpenSSL expands keys in contexts on the ordinary heap, the first bytes of which
 * are the key itself. Between begin and end whatever OpenSSL allocates on this thread lies in its
 * secure heap instead: locked, left out of core dumps, cleansed when released (also after the end,
 * and on any thread).
 */
#ifndef REKEY_CRYPTO_SECURE_SCOPE_H
#define REKEY_CRYPTO_SECURE_SCOPE_H

#include <stdbool.h>

/* Every program that links this takes over OpenSSL's allocation before its main; false: something
 * else had it already. Then, and without a secure heap, scopes do nothing. */
bool rk_secure_scope_installed(void);

/* May be nested. */
void rk_secure_scope_begin(void);
void rk_secure_scope_end(void);

#endif
