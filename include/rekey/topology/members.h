/*
 * The members of the upstream replica set (or the one standalone server) and the addresses that
 * Rekey serves them under: the mirror topology. Immutable but for the resolved socket addresses,
 * which rk_members_resolve refreshes; safe to use from any thread.
 */
#ifndef REKEY_TOPOLOGY_MEMBERS_H
#define REKEY_TOPOLOGY_MEMBERS_H

#include <rekey/base/hostport.h>
#include <sys/socket.h>

#define RK_MEMBER_ADDRESSES_MAX 8u

struct rk_member_spec {
    const char *address;   /* as the replica set configuration spells it */
    const char *connect;   /* how to reach it: host:port, or a Unix socket; NULL: address */
    const char *listen;    /* where the proxy listens for it */
    const char *advertise; /* what clients are told; NULL: listen */
};

struct rk_sockaddr {
    struct sockaddr_storage addr;
    socklen_t len;
};

struct rk_members;

RK_MUST_CHECK enum rk_status rk_members_new(const struct rk_member_spec *specs, size_t n,
                                            struct rk_members **out, struct rk_error *err);
void rk_members_free(struct rk_members *members);

size_t rk_members_count(const struct rk_members *members);
const char *rk_members_address(const struct rk_members *members, size_t i);
const char *rk_members_host(const struct rk_members *members, size_t i);
const char *rk_members_listen(const struct rk_members *members, size_t i);
const char *rk_members_advertise(const struct rk_members *members, size_t i);

/* The advertised address for a member's own address (compared without case), NULL if unknown. */
const char *rk_members_map(const struct rk_members *members, const char *address, size_t len);

/* Looks every host name up again. Blocks (DNS): never call it on a worker. A name that does not
 * resolve keeps its former addresses; the number of such names is returned. */
size_t rk_members_resolve(struct rk_members *members);

/* Copies member i's addresses in order of preference; returns how many (0: never resolved). */
size_t rk_members_sockaddrs(struct rk_members *members, size_t i,
                            struct rk_sockaddr out[RK_MEMBER_ADDRESSES_MAX]);

#endif
