/*
 * Names and where they lead. A name that stops resolving keeps its former addresses: a resolver
 * that fails is more likely than a server that moved and left no trace.
 */
#include "topology_internal.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static size_t resolve_path(const char *path, struct rk_sockaddr *out)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len >= sizeof addr.sun_path) {
        return 0;
    }
    memcpy(addr.sun_path, path, len);
    *out = (struct rk_sockaddr){.len = sizeof addr};
    memcpy(&out->addr, &addr, sizeof addr);
    return 1;
}

static size_t resolve(const char *address, int flags,
                      struct rk_sockaddr out[RK_ENDPOINT_SOCKADDRS_MAX])
{
    struct rk_hostport name;
    struct addrinfo *list = NULL;
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    if (rk_address_is_path(address)) {
        return resolve_path(address, &out[0]);
    }
    if (!rk_hostport_parse(address, &name) ||
        getaddrinfo(name.host, name.port, &hints, &list) != 0) {
        return 0;
    }
    size_t n = 0;
    for (const struct addrinfo *ai = list; ai != NULL && n < RK_ENDPOINT_SOCKADDRS_MAX;
         ai = ai->ai_next) {
        out[n] = (struct rk_sockaddr){.len = ai->ai_addrlen};
        memcpy(&out[n].addr, ai->ai_addr, ai->ai_addrlen);
        n++;
    }
    freeaddrinfo(list);
    return n;
}

static struct rk_endpoint *lookup(const char *address, const char *connect, int flags)
{
    struct rk_sockaddr found[RK_ENDPOINT_SOCKADDRS_MAX];
    size_t n = resolve(connect, flags, found);
    return rk_endpoint_new(address, found, n);
}

struct rk_endpoint *rk_names_lookup(const char *address, const char *connect)
{
    return lookup(address, connect, 0);
}

struct rk_name *rk_names_find(struct rk_names *names, const char *address)
{
    for (size_t i = 0; i < names->n; i++) {
        if (strcmp(names->name[i].address, address) == 0) {
            return &names->name[i];
        }
    }
    return NULL;
}

static struct rk_name *add(struct rk_names *names)
{
    struct rk_name *grown = realloc(names->name, (names->n + 1) * sizeof *names->name);
    if (grown == NULL) {
        return NULL;
    }
    names->name = grown;
    struct rk_name *name = &grown[names->n++];
    *name = (struct rk_name){.endpoint = NULL};
    return name;
}

bool rk_names_want(struct rk_names *names, const char *address, const char *connect)
{
    struct rk_name *name = rk_names_find(names, address);
    if (name != NULL && strcmp(name->connect, connect) == 0) {
        name->wanted = true;
        return true;
    }
    struct rk_endpoint *endpoint =
        strlen(connect) < RK_ADDRESS_MAX ? lookup(address, connect, AI_NUMERICHOST) : NULL;
    if (endpoint == NULL || (name == NULL && (name = add(names)) == NULL)) {
        rk_endpoint_unref(endpoint);
        return false;
    }
    rk_endpoint_unref(name->endpoint);
    *name = (struct rk_name){.endpoint = endpoint,
                             .wanted = true,
                             .looked_up = endpoint->n > 0,
                             /* Numbers and paths need no second look. */
                             .due_us = endpoint->n > 0 ? UINT64_MAX : 0};
    memcpy(name->address, endpoint->address, sizeof name->address);
    memcpy(name->connect, connect, strlen(connect) + 1);
    return true;
}

void rk_names_unmark(struct rk_names *names)
{
    for (size_t i = 0; i < names->n; i++) {
        names->name[i].wanted = false;
    }
}

void rk_names_forget(struct rk_names *names)
{
    size_t kept = 0;
    for (size_t i = 0; i < names->n; i++) {
        if (names->name[i].wanted) {
            names->name[kept++] = names->name[i];
        } else {
            rk_endpoint_unref(names->name[i].endpoint);
        }
    }
    names->n = kept;
}

struct rk_name *rk_names_next(struct rk_names *names)
{
    struct rk_name *next = NULL;
    for (size_t i = 0; i < names->n; i++) {
        if (next == NULL || names->name[i].due_us < next->due_us) {
            next = &names->name[i];
        }
    }
    return next;
}

void rk_names_deinit(struct rk_names *names)
{
    rk_names_unmark(names);
    rk_names_forget(names);
    free(names->name);
}
