/*
 * Documents: encrypting the protected fields of one, decrypting whatever is encrypted in one.
 */
#ifndef REKEY_POLICY_DOCUMENT_H
#define REKEY_POLICY_DOCUMENT_H

#include <rekey/bson/rewrite.h>
#include <rekey/policy/crypt.h>
#include <rekey/policy/policy.h>

/*
 * Appends view's elements to w with the protected values below node encrypted under the current
 * key. null stays as it is, and so does an envelope that is genuine for its field; any other
 * envelope is refused wherever it stands, as are types that cannot be encrypted and keys that spell
 * a protected path with dots. ns is for messages. Returns FORWARD (nothing was protected; the
 * elements were still copied), REPLACE, HOLD or REJECT; with the last two, what was appended is to
 * be thrown away.
 */
enum rk_verdict rk_document_encrypt(struct rk_crypt *crypt, const char *ns,
                                    const struct rk_path_node *node,
                                    const struct rk_bson_view *view, struct rk_bson_writer *w,
                                    struct rk_error *err);

/*
 * Appends view's elements to w, every envelope in them decrypted; legacy values only at the
 * policy's paths, of which node is the one that view stands at (NULL: nowhere known, envelopes
 * only).
 */
enum rk_verdict rk_document_decrypt(struct rk_crypt *crypt, enum rk_undecryptable undecryptable,
                                    const char *ns, const struct rk_path_node *node,
                                    const struct rk_bson_view *view, struct rk_bson_writer *w,
                                    struct rk_error *err);

#endif
