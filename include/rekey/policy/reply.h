/*
 * Replies: decrypting what comes back. Pure, like policy/command.h.
 */
#ifndef REKEY_POLICY_REPLY_H
#define REKEY_POLICY_REPLY_H

#include <rekey/policy/command.h>

/*
 * Rewrites a whole OP_MSG reply to the request that info describes: envelopes wherever they
 * stand; legacy values at the policy's paths in cursor.firstBatch/nextBatch, value, values (of a
 * distinct on a protected path) and change events (fullDocument, fullDocumentBeforeChange,
 * updateDescription.updatedFields with dotted keys; the namespace is the event's own ns).
 * The entries of writeErrors that belong to info->write_errors get code and message from there.
 * REJECT: err says which namespace and path could not be decrypted.
 */
enum rk_verdict rk_reply_rewrite(const struct rk_policy_set *set, struct rk_crypt *crypt,
                                 const struct rk_command_info *info, const uint8_t *data,
                                 size_t len, const struct rk_msg *msg, struct rk_buf *out,
                                 struct rk_error *err);

/*
 * Calls fn with the _id of each document of the reply (as mongod sent it) that has a value under
 * another key than the present one of its name; where the policy knows legacy formats, also of
 * those without any envelope, which may hold such values. Commands that make documents of their
 * own, such as $group, may give _ids that are none of the collection's.
 */
typedef void rk_old_document_fn(void *arg, uint8_t type, const void *id, uint32_t len);
void rk_reply_old_documents(const struct rk_keyset *keys, const struct rk_command_info *info,
                            const struct rk_msg *msg, rk_old_document_fn *fn, void *arg);

/* Appends an OP_REPLY with QueryFailure and {ok: 0, $err, code, codeName}: the answer to OP_QUERY.
 */
RK_MUST_CHECK enum rk_status rk_reply_error_to_query(struct rk_buf *out, int32_t response_to,
                                                     const struct rk_error *err);

/* Appends a complete OP_MSG error reply {ok: 0, errmsg, code, codeName} to out. */
RK_MUST_CHECK enum rk_status rk_reply_error(struct rk_buf *out, int32_t request_id,
                                            int32_t response_to, const struct rk_error *err);

#endif
