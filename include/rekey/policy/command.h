/*
 * Requests: what a command may do with protected fields, and the message that goes upstream.
 *
 * Pure functions from bytes to bytes (no I/O, no state between calls), so that a message held
 * for a key can simply be rewritten again. They fail closed: a command of a protected namespace
 * that is not understood is rejected.
 */
#ifndef REKEY_POLICY_COMMAND_H
#define REKEY_POLICY_COMMAND_H

#include <rekey/bson/walk.h>
#include <rekey/policy/crypt.h>
#include <rekey/policy/policy.h>
#include <rekey/policy/write_errors.h>
#include <rekey/wire/msg.h>

/* Requests that are rewritten may be nested this deep, as mongod's may. */
#define RK_COMMAND_DEPTH_MAX 200u

/* What the session must know to treat the reply. Name and namespaces are copies. */
enum rk_reply_mode {
    RK_REPLY_PASS,  /* no protected data can be in it: forward as it comes */
    RK_REPLY_SCAN,  /* decrypt envelopes wherever they stand */
    RK_REPLY_HELLO, /* rewrite the topology (session/hello.h) */
};

enum rk_command_class { RK_CLASS_READ, RK_CLASS_WRITE, RK_CLASS_OTHER };

struct rk_command_info {
    char name[64];               /* command name, cut */
    char db[64];                 /* $db */
    char coll[256];              /* empty when the command names no collection */
    enum rk_command_class klass; /* for latency sensors */
    enum rk_reply_mode reply;
    const struct rk_policy *policy; /* of db.coll, NULL when unprotected; borrowed from the set */
    const char *warning; /* something allowed that an operator should know of; a constant text */
    int64_t cursor_id;   /* of a getMore, else 0 */
    bool keys_bound;     /* it finds what lies under the keys of this set, and nothing else */
    const struct rk_field *distinct_field; /* distinct on a protected path, else NULL */
    struct rk_write_errors *write_errors;  /* for the reply; NULL: none. The caller's to free after
                                              rk_command_rewrite forwarded or replaced */
};

/*
 * Decides from the kind-0 body alone whether a message can be forwarded as it comes: true when
 * nothing in the set concerns it; info is filled. False: the whole message is needed.
 * This is the whole cost of an unprotected namespace.
 */
bool rk_command_peek(const struct rk_policy_set *set, const uint8_t *body, uint32_t body_len,
                     struct rk_command_info *info);

/*
 * Rewrites a whole OP_MSG request. data/len: the message as it came; msg: its parse. With
 * RK_VERDICT_REPLACE, out (cleared first) holds a complete message with the same request id, and
 * info->write_errors what its reply must say about statements of a batch that cannot be stored.
 * With RK_VERDICT_REJECT, err has the MongoDB code and a message that names namespace, path,
 * operator and what to do instead.
 */
enum rk_verdict rk_command_rewrite(const struct rk_policy_set *set, struct rk_crypt *crypt,
                                   const uint8_t *data, size_t len, const struct rk_msg *msg,
                                   struct rk_buf *out, struct rk_command_info *info,
                                   struct rk_error *err);

/*
 * The same question for the opcodes before OP_MSG (OP_QUERY, OP_INSERT, OP_UPDATE, OP_DELETE, ...):
 * RK_VERDICT_FORWARD or RK_VERDICT_REJECT; nothing is rewritten. OP_QUERY of hello/isMaster is
 * always forwarded, with info->reply RK_REPLY_HELLO.
 */
enum rk_verdict rk_command_legacy_opcode(const struct rk_policy_set *set, const uint8_t *data,
                                         size_t len, struct rk_command_info *info,
                                         struct rk_error *err);

#endif
