/* What hello requests and replies share: the list under `compression`. */
#ifndef REKEY_HELLO_INTERNAL_H
#define REKEY_HELLO_INTERNAL_H

#include <rekey/session/hello.h>

/* Returns how many entries the array has; *known receives those that Rekey knows. */
unsigned rk_hello_compressors(const struct rk_bson_elem *list, struct rk_compressors *known);
void rk_hello_put_compressors(struct rk_bson_writer *w, const struct rk_compressors *list);

#endif
