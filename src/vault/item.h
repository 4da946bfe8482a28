/* One value as an item of transit's batch_input, and what batch_results says of it. */
#ifndef REKEY_VAULT_ITEM_H
#define REKEY_VAULT_ITEM_H

#include <jansson.h>
#include <rekey/crypto/remote.h>

/* Appends JSON, of which everything is base64, digits or our own text. False: out of memory. */
bool rk_item_put(struct rk_buf *out, const struct rk_remote_value *value);
bool rk_item_put_text(struct rk_buf *out, const char *text);

/* Answers value i of remote: sealed, opened, or refused when its ciphertext is at fault. Any other
 * failure is that of the request; *why (the result's own text, or a constant) says what. */
RK_MUST_CHECK enum rk_status rk_item_take(struct rk_remote *remote, size_t i, const json_t *result,
                                          const char **why);

#endif
