/*
 * hello / isMaster: what the two sides may learn of each other. Addresses in replies become the
 * proxy's own, so that a driver discovers the set through the proxy and never around it:
 *
 *   mirror  hosts, passives, arbiters, primary and me become the members' advertised addresses. A
 *           member that the configuration does not know is left out: a driver that learnt its
 *           address would write plaintext past the proxy.
 *   single  the listener's advertised address is the only host, me, and primary if the server that
 *           answers is the primary; there are no passives and arbiters.
 *
 * compression is what the client may use towards the proxy. Everything else is kept, unknown fields
 * included; a mongos has none of the topology's fields and passes as it is.
 *
 * Requests: compression keeps the names that the member may use towards the proxy.
 */
#ifndef REKEY_SESSION_HELLO_H
#define REKEY_SESSION_HELLO_H

#include <rekey/bson/rewrite.h>
#include <rekey/topology/routes.h>
#include <rekey/wire/compress.h>
#include <rekey/wire/msg.h>

/* As deep as mongod lets documents be. */
#define RK_HELLO_DEPTH_MAX 200u

struct rk_hello_rules {
    const struct rk_routes *routes;
    const struct rk_route *route;      /* of the listener that was asked */
    uint32_t message_bytes_max;        /* cap of maxMessageSizeBytes; 0: as the server says */
    uint32_t batch_docs_max;           /* cap of maxWriteBatchSize; 0: as the server says */
    struct rk_compressors compression; /* what the client is told, if anything */
};

/* What a reply said. */
struct rk_hello_seen {
    bool ok;
    unsigned unknown;                  /* members that were left out */
    struct rk_compressors compression; /* what the member took */
};

/*
 * Rewrites a whole hello reply (OP_MSG or OP_REPLY, len == its messageLength) into out, cleared
 * first. A reply that is not ok tells nothing about compression. RK_EINVAL: not well-formed.
 */
RK_MUST_CHECK enum rk_status rk_hello_rewrite(const struct rk_hello_rules *rules,
                                              const uint8_t *data, size_t len, struct rk_buf *out,
                                              struct rk_hello_seen *seen);

/* What a request made of compression. The client's order is kept; names that Rekey does not know
 * are left out, for what it cannot read it cannot protect. */
struct rk_hello_offer {
    bool made;                      /* the request has the list */
    struct rk_compressors client;   /* what of it the client will be told it may use */
    struct rk_compressors upstream; /* what of it the member is offered */
};

/*
 * Reads the offer of a whole hello request (OP_MSG, or OP_QUERY with or without {$query}), given
 * what each side may use. out is empty when the request may go on as it is; else it holds the one
 * to send. A request that is not well-formed offers nothing; the member will say what is wrong.
 */
RK_MUST_CHECK enum rk_status rk_hello_offer(const struct rk_compressors *client,
                                            const struct rk_compressors *upstream,
                                            const uint8_t *data, size_t len, struct rk_buf *out,
                                            struct rk_hello_offer *offer);

/* True for a whole hello request (as above) that asks for load balancer mode (loadBalanced: true),
 * which would need a serviceId in every reply; *err is what the client is told. */
bool rk_hello_refused(const uint8_t *data, size_t len, struct rk_error *err);

#endif
