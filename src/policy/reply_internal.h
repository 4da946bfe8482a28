/* What the reply_*.c files share. */
#ifndef REKEY_POLICY_REPLY_INTERNAL_H
#define REKEY_POLICY_REPLY_INTERNAL_H

#include <rekey/policy/command.h>

#include "policy_internal.h"

/* One reply being rewritten. */
struct rk_reply {
    struct rk_decrypt d;
    const struct rk_policy_set *set;
    const struct rk_command_info *info;
    const struct rk_path_node *distinct;  /* the protected path of a distinct, or NULL */
    const struct rk_policy *event_policy; /* of the change event at hand */
    char ns[sizeof(((struct rk_command_info *)0)->db) +
            sizeof(((struct rk_command_info *)0)->coll)]; /* for messages */
};

/* Appends the values of a distinct decrypted, each only once: one value encrypted under two keys
 * is two values to mongod. */
enum rk_verdict rk_reply_distinct(struct rk_reply *r, const struct rk_bson_elem *values,
                                  const struct rk_trail *up);

/* Appends one entry of writeErrors: the server's own, or that of a statement which Rekey refused.
 */
enum rk_verdict rk_reply_write_error(struct rk_reply *r, const struct rk_bson_elem *entry,
                                     const struct rk_trail *up);
/* The same for one result of a bulkWrite's cursor. */
enum rk_verdict rk_reply_bulk_result(struct rk_reply *r, const struct rk_bson_elem *result,
                                     const struct rk_trail *up);

/* A change event has a resume token as _id, which an application cannot project away. */
bool rk_reply_is_event(const struct rk_bson_view *doc);

#endif
