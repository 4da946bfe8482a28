/*
 * hello / isMaster replies in the mirror topology: hosts, passives, arbiters, primary and me
 * become the proxy's own addresses, so that a driver discovers the set through the proxy and
 * never around it. A member that the configuration does not know is left out: a driver that
 * learnt its address would write plaintext past the proxy. compression is left out as well
 * (compressed messages are not offered). Everything else is kept, unknown fields included.
 */
#ifndef REKEY_SESSION_HELLO_H
#define REKEY_SESSION_HELLO_H

#include <rekey/bson/rewrite.h>
#include <rekey/topology/members.h>
#include <rekey/wire/msg.h>

struct rk_hello_rules {
    const struct rk_members *members;
    size_t member;              /* the one that answered: its `me` */
    uint32_t message_bytes_max; /* cap of maxMessageSizeBytes; 0: as the server says */
    uint32_t batch_docs_max;    /* cap of maxWriteBatchSize; 0: as the server says */
};

/*
 * Rewrites a whole hello reply (OP_MSG or OP_REPLY, len == its messageLength) into out, cleared
 * first. *unknown receives how many members were left out. RK_EINVAL: not well-formed.
 */
RK_MUST_CHECK enum rk_status rk_hello_rewrite(const struct rk_hello_rules *rules,
                                              const uint8_t *data, size_t len, struct rk_buf *out,
                                              unsigned *unknown);

#endif
